"""Buckets: the papers' tables and formulas, and what has no bucket."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from manifests.buckets import (
    EASYANIMATE_SIZES,
    MOVIE_GEN_LENGTHS,
    MOVIE_GEN_SFT_LENGTHS,
    SHORT_LENGTHS,
    Buckets,
    TokenBuckets,
    counts,
    token_length,
)


def clips(*rows: tuple[float, float], height: int = 1080) -> pa.Table:
    """(aspect, seconds) each."""
    return pa.table(
        {
            "clip_id": [f"clip{k}" for k in range(len(rows))],
            "aspect": pa.array([a for a, _ in rows], pa.float64()),
            "duration_s": pa.array([s for _, s in rows], pa.float64()),
            "height": pa.array([height] * len(rows), pa.int32()),
        }
    )


def test_movie_gens_table_of_durations() -> None:
    found = Buckets().assign(
        clips(*((16 / 9, s) for s in (30, 16, 15.97, 15.9, 12, 11.9, 10.67, 10.5, 8, 7.9, 4, 3.96, 3.9)))
    )
    assert [name.split("/")[1] for name in found.to_pylist()[:-1]] == [
        "16s", "16s", "16s", "12-16s", "12-16s", "10.67s", "10.67s", "8-12s", "8-12s", "4-8s", "4-8s", "4-8s",
    ]  # fmt: skip
    assert found[-1].as_py() is None


def test_movie_gens_frames_rates_and_latents() -> None:
    rates = {
        length.name: sorted(
            length.frames / s for s in ([length.crop] if length.crop else [length.shortest, length.longest])
        )
        for length in MOVIE_GEN_LENGTHS
    }
    assert rates["16s"] == [16] and rates["10.67s"] == pytest.approx([24])
    assert rates["12-16s"] == pytest.approx([16, 21.33], abs=0.01)
    assert rates["8-12s"] == pytest.approx([16, 24]) and rates["4-8s"] == pytest.approx([16, 32])
    assert [length.frames // 8 for length in MOVIE_GEN_LENGTHS] == [32, 32, 32, 24, 16]
    sft = Buckets(lengths=MOVIE_GEN_SFT_LENGTHS)
    assert sft.assign(clips((1, 16), (1, 13), (1, 10.6), (1, 10))).to_pylist() == [
        "1:1/16s",
        *["1:1/10.67s"] * 2,
        None,
    ]


def test_aspects_go_to_the_nearest_and_panoramas_to_none() -> None:
    found = Buckets().assign(clips(*((a, 5) for a in (1.9, 1.5, 1.2, 1.0, 0.8, 0.6, 0.4, 2.39, 4.0, 0.2))))
    assert [n and n.split("/")[0] for n in found.to_pylist()] == [
        "16:9", "4:3", "4:3", "1:1", "3:4", "9:16", "9:16", "16:9", None, None,
    ]  # fmt: skip


def test_shapes_are_the_papers() -> None:
    shape = Buckets().shape
    assert (shape("16:9/16s", 768).height, shape("16:9/16s", 768).width) == (576, 1024)
    assert (shape("9:16/4-8s", 768).height, shape("9:16/4-8s", 768).width) == (1024, 576)
    assert (shape("1:1/8-12s", 256).height, shape("1:1/8-12s", 256).frames) == (256, 192)
    assert shape("4:3/16s", 768).seconds == 16 and shape("4:3/12-16s", 768).seconds is None
    with pytest.raises(ValueError, match=r"bucket '2:1/16s' is none of this recipe's"):
        shape("2:1/16s", 768)


def test_tokens_of_the_published_stages() -> None:
    assert token_length(144, 256, 256) == 9216 and token_length(49, 256, 256) == 3328
    assert token_length(49, 480, 720) == 17_550
    assert token_length(256, 768, 768, temporal=8) == 73_728


def test_frames_are_taken_from_the_middle_or_from_all() -> None:
    middle = Buckets().shape("1:1/16s", 256).times(1_000_000, 21_000_000)
    assert len(middle) == 256 and middle[0] == 3_000_000 and middle[1] - middle[0] == 62_500
    assert middle[-1] < 19_000_000
    whole = Buckets().shape("1:1/4-8s", 256).times(0, 4_000_000)
    assert whole[0] == 0 and whole[-1] == 4_000_000 - 31_250
    short = Buckets().shape("1:1/16s", 256).times(0, 15_960_000)
    assert short[0] == 0 and short[-1] < 15_960_000


def test_easyanimates_sizes() -> None:
    assert len(EASYANIMATE_SIZES) == 40 and all(h % 16 == w % 16 == 0 for h, w in EASYANIMATE_SIZES)
    ratios = [h / w for h, w in EASYANIMATE_SIZES]
    assert ratios == sorted(ratios) and ratios[0] == 0.25 and ratios[-1] == 4
    found = TokenBuckets().assign(clips((16 / 9, 10), (1, 10), (9 / 16, 10), (16 / 9, 4), (16 / 9, 0.5)))
    assert found.to_pylist() == ["384x672@512/49f", "512x512@512/49f", "672x384@512/49f", "384x672@512/25f", None]
    shape = TokenBuckets().shape("384x672@768/21f")
    assert (shape.height, shape.width, shape.frames) == (576, 1008, 21)
    assert (TokenBuckets().shape("416x608@256/1f").height, TokenBuckets().shape("416x608@256/1f").width) == (208, 304)
    with pytest.raises(ValueError, match="no name like"):
        TokenBuckets().shape("16:9/16s")


def test_the_token_budget_trades_frames_for_pixels() -> None:
    budget = TokenBuckets(side=256, tokens=49 * 512 * 512)
    assert budget.bases == (256, 384, 512, 640, 768, 896, 1024)
    assert [budget.frames_at(b) for b in budget.bases] == [49, 49, 49, 29, 21, 17, 13]
    many = clips(*[(16 / 9, 12.0)] * 3000)
    found = budget.assign(many).to_pylist()
    bases = [int(name.split("@")[1].split("/")[0]) for name in found]
    assert np.bincount(bases)[list(budget.bases)] == pytest.approx(3000 / 7, rel=0.2)
    assert all(budget.frames_at(b) == budget.shape(n).frames for b, n in zip(bases, found, strict=True))
    assert budget.assign(many).equals(budget.assign(many.slice(0, 3000)))
    assert budget.assign(many.slice(7, 5)).to_pylist() == found[7:12], "a clip's bucket does not hang on its neighbours"
    small = budget.assign(clips(*[(16 / 9, 12.0)] * 300, height=360)).to_pylist()  # mean side 500: below 625
    assert {name.split("@")[1].split("/")[0] for name in small} == {"256", "384", "512"}


def test_what_was_not_measured_has_no_bucket() -> None:
    unknown = pa.table(
        {
            "clip_id": ["a", "b"],
            "aspect": pa.array([None, 1.0], pa.float64()),
            "duration_s": pa.array([5.0, None], pa.float64()),
            "height": pa.array([None, 100], pa.int32()),
        }
    )
    for kind in (Buckets(), TokenBuckets()):
        assert kind.assign(unknown).to_pylist() == [None, None]
        assert kind.assign(unknown.slice(0, 0)).to_pylist() == []
        assert set(kind.columns) <= set(unknown.column_names)


def test_shorter_clips_by_ours_and_counts() -> None:
    buckets = Buckets(lengths=(*MOVIE_GEN_LENGTHS, *SHORT_LENGTHS))
    found = buckets.assign(clips((1, 2.0), (1, 1.5), (1, 0.5), (1, 0.3), (1, 1.2)))
    assert found.to_pylist() == ["1:1/2-4s", "1:1/1-2s", "1:1/0.5-1s", None, "1:1/1-2s"]
    assert counts(pa.table({"bucket": found})) == {"1:1/2-4s": 1, "1:1/1-2s": 2, "1:1/0.5-1s": 1}


def test_wrong_aspects_are_refused() -> None:
    with pytest.raises(ValueError, match="write each as width:height"):
        Buckets(aspects=("16/9",))

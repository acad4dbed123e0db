"""Quotas, random places, subsets of the best: what decides the make-up of a set."""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest

from curation.decide import decide
from curation.recipe import Recipe, Subset, check_columns
from curation.run import Result
from dedup.quotas import Quota, balance
from dedup.resample import Resample, drawn, probabilities
from filters.draw import Draw
from filters.rules import Rule

WIDE = Quota("landscape", "aspect", 1.0, 0.6, 0.6)
PEOPLE = Quota("people", "person_score", 0.5, low=0.6)

Bools = npt.NDArray[np.bool_]


def share(chance: npt.NDArray[np.float64], member: Bools) -> float:
    return float(chance[member].sum() / chance.sum())


@pytest.mark.parametrize("wide", [0.4, 0.6, 0.75])
@pytest.mark.parametrize("people", [0.35, 0.7])
def test_quotas_hold_together_and_lose_nothing_where_there_is_enough(wide: float, people: float) -> None:
    members = np.random.default_rng(1).random((2, 2000)) < np.array([[wide], [people]])
    chance = np.random.default_rng(3).uniform(0.1, 0.6, 2000)
    fair = balance(chance, members, (WIDE, PEOPLE))
    assert share(fair, members[0]) == pytest.approx(0.6, abs=0.011)
    assert share(fair, members[1]) >= 0.59
    assert fair.sum() == pytest.approx(chance.sum(), rel=0.02) and fair.max() <= 1


def test_a_small_part_lowers_the_total_but_not_for_ever() -> None:
    chance = np.full(1000, 0.8)
    some = np.arange(1000) < 750  # 250 portrait at most: 625 in all
    fair = balance(chance, some[None], (WIDE,))
    assert fair.sum() == pytest.approx(625, rel=0.02) and share(fair, some) == pytest.approx(0.6, abs=0.011)
    nearly_all = np.arange(1000) < 995
    fair = balance(chance, nearly_all[None], (WIDE,))
    assert 390 <= fair.sum() <= 420 and fair[995:].min() > 0.999
    everything = np.ones((1, 1000), bool)
    assert (balance(chance, everything, (WIDE,)) == chance).all(), "nothing to choose from"


def test_within_a_part_rare_concepts_keep_their_advantage() -> None:
    chance = np.tile([0.2, 0.4], 500)
    fair = balance(chance, (np.arange(1000) < 700)[None], (WIDE,))
    assert fair[1] / fair[0] == pytest.approx(2, rel=0.01) and fair[-1] / fair[-2] == pytest.approx(2, rel=0.01)


def test_alike_clips_are_counted_instead_of_repeated() -> None:
    counts, sizes, exempt = np.array([5, 40, 200, 3]), np.array([1, 9, 400, 100]), np.array([False, False, True, False])
    chance = probabilities(sizes, Resample(keep=0.4), exempt, counts)
    each = probabilities(np.repeat(sizes, counts), Resample(keep=0.4), np.repeat(exempt, counts))
    assert np.repeat(chance, counts) == pytest.approx(each)
    members = np.array([[True, False, True, False]])
    fair = balance(chance, members, (WIDE,), counts)
    assert np.repeat(fair, counts) == pytest.approx(balance(each, np.repeat(members, counts, axis=1), (WIDE,)))


def test_the_quotas_hold_in_what_is_drawn_of_a_hundred_thousand() -> None:
    """Within four standard deviations of the sample, concepts being weighed at the same time."""
    rng = np.random.default_rng(5)
    wide, people = rng.random(100_000) < 0.8, rng.random(100_000) < 0.45
    sizes = rng.choice([1, 30, 900, 20_000], 100_000)
    chance = balance(probabilities(sizes, Resample(keep=0.3)), np.stack([wide, people]), (WIDE, PEOPLE))
    taken = drawn([f"clip{k}" for k in range(100_000)], chance, Resample())
    count = taken.sum()
    error = 4 * np.sqrt(0.25 / count)
    assert count == pytest.approx(30_000, rel=0.03)
    assert wide[taken].mean() == pytest.approx(0.6, abs=0.01 + error) and people[taken].mean() >= 0.59 - error


def test_a_wrong_quota_is_refused() -> None:
    with pytest.raises(ValueError, match="quota x: give 0 <= low <= high <= 1"):
        Quota("x", "aspect", 1.0, low=0.8, high=0.6)


def test_exempt_clips_are_not_weighed_down() -> None:
    sizes = np.array([100] * 100 + [1] * 100)
    exempt = np.arange(200) < 50
    chance = probabilities(sizes, Resample(keep=0.5), exempt)
    assert chance.sum() == pytest.approx(100) and chance[0] == chance[150] and chance[60] == chance[0] / 10


# -- random places ----------------------------------------------------------------------------------------------------


def shots_of(videos: int, shots: int, clips: int, seconds: float = 8.0) -> pa.Table:
    rows = [(v, s, c) for v in range(videos) for s in range(shots) for c in range(clips)]
    return pa.table(
        {
            "clip_id": [f"{v}-{s}-{c}" for v, s, c in rows],
            "video_id": [f"v{v}" for v, _, _ in rows],
            "shot": [s for _, s, _ in rows],
            "duration_s": [seconds] * len(rows),
        }
    )


def test_every_clip_has_its_place() -> None:
    table = shots_of(30, 4, 3)
    found = pa.table(Draw()(table)).append_column("video", table["video_id"]).append_column("shot", table["shot"])
    frame = found.to_pandas()
    assert frame.groupby(["video", "shot"]).draw_in_shot.agg(set).eq({0, 1, 2}).all()
    assert frame.groupby("video").draw_of_shot.agg(set).eq({0, 1, 2, 3}).all()
    assert frame.groupby(["video", "shot"]).draw_of_shot.nunique().eq(1).all()
    first = frame[frame.draw_of_shot == 0].groupby("video").shot.first()
    assert first.value_counts().max() < 15, "every shot of a video comes first now and then"


def test_places_depend_on_nothing_but_clip_and_seed() -> None:
    table = shots_of(10, 4, 3)
    shuffled = table.take(np.random.default_rng(0).permutation(table.num_rows))
    by_id = dict(zip(table["clip_id"].to_pylist(), Draw()(table)["draw_in_shot"], strict=True))
    again = dict(zip(shuffled["clip_id"].to_pylist(), Draw()(shuffled)["draw_in_shot"], strict=True))
    assert by_id == again
    assert Draw(seed=1)(table) != Draw()(table)


def test_clips_of_the_wrong_length_have_no_place() -> None:
    table = pa.concat_tables([shots_of(1, 2, 1), shots_of(1, 1, 2, seconds=2.0)])
    assert Draw()(table)["draw_of_shot"][2:] == [None, None]
    assert sorted(Draw()(table)["draw_of_shot"][:2]) == [0, 1]


# -- in a recipe ------------------------------------------------------------------------------------------------------


def test_subsets_of_the_best(curated: Result, recipe: Recipe) -> None:
    best = Subset("best", (Rule("calm", "motion_flow", high=100.0),), by="aesthetic_photo", share=0.2)
    clips = curated.clips.sort_by("clip_id")
    names = {"copy_of", "copy_similarity", "copy_group", "concept", "concept_size", "sample_probability", "sampled"}
    names |= {"failed_rules", "kept", "subsets", "bucket"}
    lenient = dataclasses.replace(recipe, rules=(), subsets=(best,))
    measured = clips.drop_columns([n for n in clips.column_names if n in names])
    frame = measured.append_column("subsets", decide(measured, lenient)["subsets"]).to_pandas()
    chosen = frame.subsets.map(lambda names: "best" in names)
    calm = frame.motion_flow <= 100
    assert chosen.sum() == int(np.ceil(0.2 * len(frame))) and calm[chosen].all()
    assert frame.aesthetic_photo[chosen].min() >= frame.aesthetic_photo[calm & ~chosen].max()


def test_a_recipe_that_reads_what_nothing_measures_is_refused(recipe: Recipe) -> None:
    check_columns(recipe)
    for change in (
        {"rules": (Rule("r", "motion_vmof", low=1),)},
        {"subsets": (Subset("s", by="motion_vmof"),)},
        {"subsets": (Subset("s", (Rule("r", "motion_vmof", low=1),)),)},
        {"resample": Resample(quotas=(Quota("q", "motion_vmof", 1),))},
    ):
        with pytest.raises(ValueError, match=r"motion_vmof, which nothing measures; did you mean motion_vmaf\?"):
            check_columns(dataclasses.replace(recipe, **change))  # type: ignore[arg-type]

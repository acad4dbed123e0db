"""Temporal consistency: high within one shot, low over a cut that nobody marked."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest

from filters.learned.consistency import ClipConsistency, TemporalConsistency
from filters.looks.frames import LOOKS
from manifests.films import shots
from manifests.films.photos import NAMES
from manifests.films.shots import Shot
from manifests.media.again import look_again
from manifests.media.container import open_film
from manifests.types import Clip, Frames, Image
from tests.conftest import read_lines

CLIP = Clip("v_0_1", "v", "v.mp4", 0, 2_000_000)
BOUND = 0.88


def frames(images: list[Image]) -> Frames:
    return Frames(images, [k * 250_000 for k in range(len(images))], list(range(len(images))), (640, 360), 24.0)


def consistency(*given: Frames) -> list[float | None]:
    return TemporalConsistency()([CLIP] * len(given), given)["temporal_consistency"]


def shot(seed: int) -> tuple[str, list[Image]]:
    """Eight frames of a moving shot, two seconds long."""
    rng = np.random.default_rng(seed)
    name, move = str(rng.choice(NAMES)), str(rng.choice(shots.MOVES))
    speed = {"shake": 0.02}.get(move, float(rng.uniform(0.05, 0.3)))
    made = Shot(name, 2.0, move, speed, actors=int(rng.integers(3)), seed=seed)
    return name, list(shots.frames(made, 320, 180, 4))


def test_rendered_shots_are_consistent_and_spliced_ones_are_not() -> None:
    made = [shot(seed) for seed in range(100, 140)]
    whole = consistency(*(frames(images) for _, images in made))
    spliced = consistency(*(frames([*a[:4], *b[4:]]) for (x, a), (y, b) in pairwise(made) if x != y))
    assert sum(value > BOUND for value in whole) >= 0.97 * len(whole)
    assert sum(value < BOUND for value in spliced) >= 0.9 * len(spliced)
    assert min(whole) > np.median(spliced) + 0.15


def test_the_same_picture_is_as_consistent_as_can_be() -> None:
    image = shot(1)[1][0]
    brighter = np.asarray(cv2.convertScaleAbs(image, alpha=1.05, beta=3), np.uint8)
    same, black, near = consistency(
        frames([image] * 3), frames([np.zeros_like(image)] * 2), frames([image, brighter, image])
    )
    assert same == black == pytest.approx(1.0, abs=1e-5)
    assert 0.97 < near < 1
    assert consistency(frames([image]), frames([])) == [None, None]


def test_the_least_similar_neighbours_count() -> None:
    (_, a), (_, b) = shot(2), shot(3)
    once = consistency(frames([*a[:5], *b[:3]]))[0]
    assert once == pytest.approx(consistency(frames([a[4], b[0]]))[0], abs=1e-6)


def test_clip_consistency_is_the_cosine_of_neighbours(tmp_path: Path) -> None:
    pytest.importorskip("open_clip")
    from filters.learned.clip import ClipModel
    from tests import clip_models

    paths = clip_models.make(tmp_path)
    model = ClipModel(paths["json"], paths["safetensors"])
    images = [*shot(2)[1][:2], *shot(3)[1][:2]]
    vectors = np.stack(model.encode(images))
    cosines = [float(a @ b) for a, b in pairwise(vectors)]
    answer = ClipConsistency(model)([CLIP] * 3, [frames(images), frames([]), frames(images[:1])])
    assert answer["temporal_consistency_clip"] == [pytest.approx(min(cosines), abs=1e-3), None, None]
    assert answer["temporal_consistency_clip_mean"] == [pytest.approx(np.mean(cosines), abs=1e-3), None, None]
    assert cosines[1] == min(cosines), "the cut is the least similar pair"


@pytest.mark.footage
@pytest.mark.slow
def test_real_footage(footage: Path) -> None:
    truth = footage / "public_truth"
    whole, spliced = [], []
    for row in read_lines(truth / "real_cuts.jsonl"):
        if row["complete"] and not row["hard_cuts"] and not row["gradual_approx"]:
            whole.append(span(truth / row["file"], 0.0, 6.0))
    for row in read_lines(truth / "cuts.jsonl")[:1]:
        cuts = [event["frame"] for event in row["events"]]
        for before, cut, after in zip([0, *cuts], cuts, [*cuts[1:], row["frames"]], strict=False):
            fps = float(row["fps"])
            spliced.append(span(truth / row["file"], max(before, cut - 50) / fps, min(after, cut + 50) / fps))
    high, low = consistency(*whole), consistency(*spliced)
    assert sum(value > BOUND for value in high) >= 0.9 * len(high)
    assert sum(value < BOUND for value in low) >= 0.9 * len(low)


def span(path: Path, start: float, end: float) -> Frames:
    """Pack frames of a span, seconds from the first frame."""
    with open_film(str(path)) as film:
        first = round(1e6 * (film.stream.start_time or 0) * film.stream.time_base)
    return look_again(str(path), first + round(start * 1e6), first + round(end * 1e6), [LOOKS])[LOOKS]

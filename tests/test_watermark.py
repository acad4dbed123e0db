"""Watermarks: logos and lettering on moving pictures, and none where there are none."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from filters.text.watermark import Overlay
from manifests.films import shots
from manifests.films.dressing import LOGOS, PLACES, branded
from manifests.films.photos import NAMES
from manifests.films.shots import MOVES, Shot
from manifests.types import Clip, Frames, Image

CLIP = Clip("v_0_1", "v", "v.mp4", 0, 2_000_000)


def watermark(images: Sequence[Image]) -> float | None:
    times = [k * 250_000 for k in range(len(images))]
    given = Frames(list(images), times, list(range(len(images))), (640, 360), 24.0)
    value = Overlay()([CLIP], [given])["watermark"][0]
    assert value is None or (isinstance(value, float) and 0 <= value <= 1)
    return value


def filmed(seed: int, move: str | None = None, speed: float = 0.1, actors: int = 1) -> list[Image]:
    """Eight frames of a photograph under a moving camera."""
    how = move or MOVES[1 + seed % 8]
    shot = Shot(NAMES[seed % len(NAMES)], 2.0, how, speed, actors=actors, seed=seed)
    return list(shots.frames(shot, 640, 360, 4))


@pytest.mark.parametrize("what", LOGOS)
@pytest.mark.parametrize("place", PLACES)
def test_white_logos_on_moving_pictures(what: str, place: str) -> None:
    found = [watermark(branded(filmed(seed), what, place, (255, 255, 255), 0.8)) for seed in (0, 1, 4, 11, 12)]
    assert sum((value or 0) >= 0.5 for value in found) >= 4, found


@pytest.mark.parametrize("color", [(230, 30, 30), (30, 60, 220)], ids=["red", "blue"])
def test_coloured_logos(color: tuple[int, int, int]) -> None:
    found = [watermark(branded(filmed(seed), "badge", "top right", color, 1.0)) for seed in (0, 1, 4, 5, 11)]
    assert sum((value or 0) >= 0.5 for value in found) >= 4, found


def test_transparent_logos() -> None:
    found = [watermark(branded(filmed(seed), "ring", "top left", (255, 255, 255), 0.5)) for seed in (0, 1, 4, 11)]
    assert sum((value or 0) >= 0.5 for value in found) >= 3, found


def test_clean_moving_pictures_have_none() -> None:
    found = [watermark(filmed(seed, actors=seed % 3)) for seed in range(2 * len(NAMES))]
    assert all(value is None or value < 0.4 for value in found), found
    assert sum(value is not None for value in found) >= len(NAMES), "most of them move enough to tell"


@pytest.mark.parametrize("actors", [0, 2])
def test_a_tripod_cannot_tell(actors: int) -> None:
    still = filmed(0, "static", actors=actors)
    assert watermark(still) is None
    assert watermark(branded(still, "badge", "top left", (255, 255, 255), 1.0)) is None


def test_bars_and_their_edges_are_no_watermark() -> None:
    barred = [image.copy() for image in filmed(0)]
    for image in barred:
        image[:44] = image[-44:] = 0
        image[:, :50] = 255
    assert watermark(barred) in (0.0, None)


def test_too_little_to_look_at() -> None:
    assert watermark([]) is None and watermark(filmed(0)[:3]) is None
    assert watermark([np.full((360, 640, 3), 90, np.uint8)] * 8) is None


@pytest.mark.footage
def test_watermarks_on_real_footage(footage: Path) -> None:
    from manifests.media.read import read_frames
    from tests.conftest import read_lines

    for row in read_lines(footage / "public_truth" / "dups.jsonl"):
        if row.get("transform") in ("original", "watermark", "hevc"):
            times = [200_000 + 350_000 * k for k in range(8)]
            path = str(footage / "public_truth" / row["file"])
            value = watermark([np.ascontiguousarray(f[..., ::-1]) for f in read_frames(path, 0, 3_400_000, times, 360)])
            if row["transform"] == "watermark":
                assert value is not None and value >= 0.5, row["file"]
            else:
                assert value is None or value < 0.4, row["file"]

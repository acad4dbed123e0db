"""What the negative tags look at: screens, moiré, seams and other traces of editing, flashes, coding blocks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from filters.looks.grid_steps import GridSteps
from filters.looks.picture import inside
from filters.looks.quantizer import Quantizer
from filters.motion.flashes import Flashes
from filters.tags.effects import Effects
from filters.tags.moire import Moire
from filters.tags.screen import Screen
from manifests.films import living
from manifests.films.film import write
from manifests.films.living import Scene
from manifests.films.screens import Filming, filmed, recorded
from manifests.films.screens import Screen as Shown
from manifests.films.tricks import TRICKS
from manifests.media.again import look_again
from manifests.types import Clip, Frames, Image, Sampling, Signal

CLIP = Clip("v_0_1", "v", "v.mp4", 0, 2_000_000)
FPS = 12.0


def scene(name: str = "temple", **settings: float) -> Iterator[Image]:
    return living.frames(Scene(name, 2.0, **settings), 640, 360, FPS)  # type: ignore[arg-type]


def trick(name: str, seed: int = 0) -> list[Image]:
    make, count = TRICKS[name]
    films = [scene(n, seed=k) for k, n in enumerate(("dahlia", "motorcycle", "coffee", "cat")[:count])]
    return list(make(films, np.random.default_rng(seed)))


def given(pictures: list[Image], want: Sampling) -> Frames:
    """As the walk samples them: at 4 a second, or all."""
    step = max(1, round(FPS / want.fps)) if want.fps < FPS else 1
    shown = pictures[::step][: want.cap or None]
    images = [p if want.color else np.asarray(cv2.cvtColor(p, cv2.COLOR_BGR2GRAY), np.uint8) for p in shown]
    if want.crop:
        images = [np.ascontiguousarray(i[:, (640 - want.crop) // 2 :][:, : want.crop]) for i in images]
    times = [round(k * step * 1e6 / FPS) for k in range(len(images))]
    return Frames(images, times, list(range(len(images))), (640, 360), FPS)


def measured(signal: Signal, pictures: list[Image]) -> dict[str, float]:
    return {name: values[0] for name, values in signal([CLIP], [given(pictures, signal.wants)]).items()}


@pytest.fixture(scope="module")
def plain() -> list[Image]:
    return list(scene(pan=0.1))


# -- screens ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["list", "editor", "table"])
def test_a_recorded_screen_is_flat_and_ruled(kind: str, plain: list[Image]) -> None:
    screen = measured(Screen(), list(recorded(Shown(kind, 2.0, seed=4), 640, 360, FPS)))
    nature = measured(Screen(), plain)
    assert screen["flat_area"] > nature["flat_area"] + 0.2 and screen["still_area"] > 0.9 > nature["still_area"]
    assert screen["few_colors"] > nature["few_colors"]
    assert screen["tilted_screen"] == nature["tilted_screen"] == 0


def test_lines_along_the_rows_count_and_oblique_ones_do_not() -> None:
    upright, oblique = np.full((360, 640, 3), 220, np.uint8), np.full((360, 640, 3), 220, np.uint8)
    for k in range(40, 360, 60):
        cv2.line(upright, (0, k), (639, k), (30, 30, 30), 2)
        cv2.line(oblique, (0, k), (639, k + 60), (30, 30, 30), 2, cv2.LINE_AA)
    assert measured(Screen(), [upright] * 8)["ruled_lines"] > 6 * 1.5
    assert measured(Screen(), [oblique] * 8)["ruled_lines"] < 0.5


def test_a_filmed_screen_is_tilted_and_striped(plain: list[Image]) -> None:
    camera = Filming(tilt=0.05, moire=18.0, period=8.0, share=0.85, seed=2)
    pictures = list(filmed(recorded(Shown("list", 2.0, seed=1), 640, 360, FPS), camera, FPS))
    assert measured(Screen(), pictures)["tilted_screen"] > 0.3
    assert measured(Moire(), pictures)["moire"] > 4 > 3.2 > measured(Moire(), plain)["moire"]


def test_moire_is_oblique_and_needs_room() -> None:
    ys, xs = np.mgrid[0:384, 0:384]
    noise = np.random.default_rng(0).normal(0, 4, (384, 384))
    stripes = {"oblique": 0.3 * xs + 0.5 * ys, "rows": 0.6 * ys, "columns": 0.6 * xs}
    found = {}
    for name, phase in stripes.items():
        image = np.clip(128 + 12 * np.sin(phase) + noise, 0, 255).astype(np.uint8)
        found[name] = Moire()([CLIP], [Frames([image] * 2, [0, 1], [0, 1], (384, 384), 25.0)])["moire"][0]
    assert found["oblique"] > 4 and found["rows"] < 3 and found["columns"] < 3
    assert Moire()([CLIP], [Frames([np.zeros((200, 300), np.uint8)], [0], [0], (300, 200), 25.0)]) == {"moire": [None]}


# -- editing ----------------------------------------------------------------------------------------------------------


def test_a_split_screen_has_a_seam_and_a_scene_has_none(plain: list[Image]) -> None:
    for name in ("split", "split3", "quarters"):
        found = measured(Effects(), trick(name))
        assert found["seam"] > 0.8 and found["seam_moving"] > 0.6, name
    found = measured(Effects(), plain)
    assert found["seam"] < 0.5 and found["seam_moving"] < 0.4 and found["inset_frame"] == 0


def test_a_door_frame_is_no_moving_seam() -> None:
    """A straight edge through the whole picture with nothing that moves beside it."""
    room = np.full((360, 640, 3), 90, np.uint8)
    room[:, 300:] = 150
    pictures = []
    for k in range(24):
        picture = room.copy()
        cv2.circle(picture, (60 + 6 * k, 180), 30, (200, 40, 60), -1)
        pictures.append(picture)
    found = measured(Effects(), pictures)
    assert found["seam"] > 0.95 and found["seam_moving"] < 0.1


def test_insets_close_to_a_rectangle() -> None:
    """Not all do: where both pictures happen to be alike at a side, it has no edge."""
    found = [measured(Effects(), trick("inset", seed))["inset_frame"] for seed in range(6)]
    assert sum(value > 0.85 for value in found) >= 2, found


def test_halves_that_are_alike(plain: list[Image]) -> None:
    assert measured(Effects(), trick("mirrored"))["mirrored"] > 0.95
    assert measured(Effects(), trick("same_quarters"))["repeated"] > 0.9
    found = measured(Effects(), plain)
    assert found["mirrored"] < 0.6 and found["repeated"] < 0.5


def test_negatives_of_warm_pictures_are_cold() -> None:
    for name in ("cat", "dahlia", "coffee"):
        pictures = list(scene(name, actors=0))
        warm = measured(Effects(), pictures)["cold_colors"]
        cold = measured(Effects(), [np.asarray(255 - p, np.uint8) for p in pictures])["cold_colors"]
        assert warm < 0 < 0.25 < cold, name
    grey = [np.asarray(cv2.cvtColor(p[..., 0], cv2.COLOR_GRAY2BGR), np.uint8) for p in pictures]
    assert abs(measured(Effects(), grey)["cold_colors"]) < 0.05


def test_bars_are_no_part_of_the_picture(plain: list[Image]) -> None:
    boxed = [p.copy() for p in plain]
    for picture in boxed:
        picture[:50] = picture[310:] = 0
    frames = given(boxed, Screen.wants)
    assert all(225 <= gray.shape[0] <= 262 for gray in inside(frames).grays)
    assert measured(Screen(), boxed)["ruled_lines"] < 1 and measured(Effects(), boxed)["seam"] < 0.6


def test_flashes_are_counted_and_lamps_are_not() -> None:
    calm = [np.full((180, 320), 100, np.uint8)] * 40
    strobe = [np.full((180, 320), 250 if k % 10 == 5 else 100, np.uint8) for k in range(40)]
    lamp = [np.full((180, 320), 100 if k < 20 else 180, np.uint8) for k in range(40)]
    rates = [
        Flashes()([CLIP], [Frames(f, [k * 50_000 for k in range(40)], list(range(40)), (320, 180), 20.0)])
        for f in (calm, strobe, lamp)
    ]
    assert [r["flashes_per_s"][0] for r in rates] == [0.0, 2.0, 0.0]


# -- coding -----------------------------------------------------------------------------------------------------------


def test_starved_coding_leaves_steps_on_its_grid(tmp_path: Path) -> None:
    pictures = list(scene("motorcycle", seed=5))
    found = []
    for crf in (20, 50):
        path = tmp_path / f"{crf}.mp4"
        write(path, pictures, FPS, crf)
        frames = look_again(str(path), 0, 2_000_000, [GridSteps.wants, Quantizer.wants])
        steps = GridSteps()([CLIP], [frames[GridSteps.wants]])["grid_steps"][0]
        found.append((steps, Quantizer()([CLIP], [frames[Quantizer.wants]])["quantizer"][0]))
    (fine, low), (coarse, high) = found
    assert fine < 1.4 and coarse > 1.6
    assert 14 < low < 30 and 44 < high <= 51


def test_grid_steps_of_drawn_blocks_and_of_a_wall() -> None:
    rng = np.random.default_rng(0)
    blocks = np.kron(100 + 5 * rng.integers(0, 3, (40, 40)), np.ones((8, 8))).astype(np.uint8)
    wall = np.full((320, 320), 100, np.uint8)
    ramp = np.tile(np.linspace(80, 160, 320), (320, 1)).astype(np.uint8)
    values = [
        GridSteps()([CLIP], [Frames([image], [0], [0], (320, 320), 25.0)])["grid_steps"][0]
        for image in (blocks, wall, ramp)
    ]
    assert values[0] > 6 and values[1] == 0 and values[2] < 0.5

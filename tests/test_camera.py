"""Camera motion: travels told from turns by their depth, speeds against the truth, confidence against the outcome."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from filters.motion.camera import CameraMotion
from filters.motion.flow import TENTHS
from filters.motion.parallax import depth, looks
from filters.motion.shake import Shake
from manifests.films import depth as stages
from manifests.films import shots
from manifests.films.depth import TRAVELS, TURNS, Stage
from manifests.films.shots import Shot
from manifests.media.again import look_again
from manifests.types import Clip, Frames, Image
from tests.conftest import read_lines

CLIP = Clip("v_0_1", "v", "v.mp4", 0, 2_000_000)


def frames(pictures: Sequence[Image]) -> Frames:
    gray = [np.asarray(cv2.cvtColor(p, cv2.COLOR_BGR2GRAY), np.uint8) for p in pictures]
    return Frames(gray, [k * 100_000 for k in range(len(gray))], list(range(len(gray))), (640, 360), 10.0)


def on_stage(stage: Stage) -> Frames:
    return frames(list(stages.frames(stage, 320, 180, 10.0)))


def answer(given: Frames) -> dict[str, Any]:
    return {name: values[0] for name, values in CameraMotion()([CLIP], [given]).items()}


def pace(move: str) -> float:
    return 0.15 if move.partition("_")[0] in ("zoom", "roll") else 0.25


@pytest.mark.slow
def test_travels_are_told_from_one_another() -> None:
    wrong, sure = [], []
    for move in TRAVELS:
        for seed in (201, 202):
            said = answer(on_stage(Stage(move, pace(move), 1.6, seed=seed)))
            sure.append(said["camera_motion_confidence"])
            if said["camera_motion"] != move:
                wrong.append((move, seed, said["camera_motion"], sure[-1]))
    assert len(wrong) <= 3, wrong
    assert np.median(sure) > 0.8


@pytest.mark.slow
def test_turns_and_zooms_in_a_deep_place_are_no_travel() -> None:
    for seed, move in enumerate(TURNS):
        stage = Stage(move, pace(move), 1.6, walkers=seed % 3, lens=(0.7, 1.0, 1.6)[seed % 3], seed=300 + seed)
        assert answer(on_stage(stage))["camera_motion"] == move, stage


@pytest.mark.parametrize("move", ["pan_left", "tilt_down", "zoom_in", "roll_cw"])
def test_depth_is_not_seen_where_there_is_none(move: str) -> None:
    for seed, backdrop in enumerate(("temple", "grass", "motorcycle")):
        given = frames(list(shots.frames(Shot(backdrop, 2.0, move, 0.15, actors=1, seed=seed), 320, 180, 10.0)))
        said = answer(given)
        assert said["camera_motion"] == move and said["camera_motion_confidence"] > 0.6, backdrop
        signs = given.share(depth)
        assert len(signs) == 6
        assert np.median(signs.sideways.spread) < 0.25 and np.median(signs.upright.spread) < 0.25


def test_nearer_things_pass_faster() -> None:
    signs = on_stage(Stage("truck_right", seconds=1.5, seed=101)).share(depth)
    assert (signs.sideways.spread > 0.5).all() and (signs.sideways.error < 0.3 * signs.sideways.spread).all()
    assert (signs.sideways.high < 0.1).all(), "to the right, so everything in the picture moves to the left"
    assert (signs.below < signs.above).all(), "the floor before the camera faster than the backdrop"


SPEEDS = [
    ("pan_left", 0.3, "camera_pan", -0.3 * 640),
    ("pan_right", 0.1, "camera_pan", 0.1 * 640),
    ("tilt_up", 0.2, "camera_tilt", 0.2 * 360),
    ("tilt_down", 0.3, "camera_tilt", -0.3 * 360),
    ("zoom_in", 0.2, "camera_zoom", 0.2),
    ("zoom_out", 0.1, "camera_zoom", -0.1),
    ("roll_cw", 0.2, "camera_roll", np.degrees(0.2)),
    ("roll_ccw", 0.1, "camera_roll", -np.degrees(0.1)),
]


@pytest.mark.parametrize(("move", "speed", "column", "truth"), SPEEDS, ids=[s[0] for s in SPEEDS])
@pytest.mark.parametrize("backdrop", ["cat", "coffee"])
def test_speeds_are_the_true_ones(backdrop: str, move: str, speed: float, column: str, truth: float) -> None:
    given = frames(list(shots.frames(Shot(backdrop, 2.0, move, speed, actors=1, seed=5), 320, 180, 10.0)))
    said = answer(given)
    assert said[column] == pytest.approx(truth, rel=0.1)
    slack = {"camera_pan": 6.0, "camera_tilt": 6.0, "camera_zoom": 0.03, "camera_roll": 2.0}
    assert all(abs(said[other]) < most for other, most in slack.items() if other != column)


def test_looks_follow_points_to_where_they_went() -> None:
    shot = Shot("grass", 2.0, "zoom_in", 0.3, seed=2)
    look = frames(list(shots.frames(shot, 320, 180, 10.0))).share(looks)
    growth = np.exp(shot.speed * look.seconds)[:, None]
    assert look.sure.mean() > 0.5
    assert np.abs(look.u - (growth - 1) * look.x)[look.sure].mean() < 0.25
    assert np.abs(look.v - (growth - 1) * look.y)[look.sure].mean() < 0.25
    assert look.rest[look.sure].mean() < 0.3


def test_clips_that_say_nothing() -> None:
    empty = answer(frames([]))
    assert set(empty.values()) == {None}
    one = answer(frames([np.full((180, 320, 3), 90, np.uint8)]))
    assert set(one.values()) == {None}
    grey = answer(frames([np.full((180, 320, 3), 90, np.uint8)] * 12))
    assert grey["camera_motion"] == "static" and grey["camera_pan"] == 0


# -- real footage ------------------------------------------------------------------------------------------------------


def real(path: Path, seconds: float = 8.0) -> Frames:
    return look_again(str(path), 0, round(seconds * 1e6), [TENTHS], offset=0.0)[TENTHS]


@pytest.mark.footage
@pytest.mark.slow
def test_real_classes_and_speeds(footage: Path) -> None:
    right, off, sure = 0, [], []
    rows = read_lines(footage / "public_truth" / "motion.jsonl")
    for row in rows:
        said = answer(real(footage / "public_truth" / row["file"]))
        hit = said["camera_motion"] == {"shake": "handheld"}.get(row["camera_class"], row["camera_class"])
        right += hit
        if said["camera_motion_confidence"] >= 0.75:
            sure.append(hit)
        if "content_px_per_frame" not in row or row["camera_class"] == "shake":
            continue
        unit = row["fps"] * 360 / min(row["width"], row["height"])
        truth = {
            "camera_pan": -row["content_px_per_frame"][0] * unit,
            "camera_tilt": row["content_px_per_frame"][1] * unit,
            "camera_zoom": np.log(row["zoom_per_frame"]) * row["fps"],
            "camera_roll": row["camera_roll_deg_per_frame"] * row["fps"],
        }
        off += [
            (row["file"], name, said[name], value)
            for name, value in truth.items()
            if value and abs(said[name] - value) > 0.15 * abs(value)
        ]
    print(f"\nreal camera motion: {right} of {len(rows)}; sure of {len(sure)}; speeds off: {off}")
    assert right >= 0.95 * len(rows) and all(sure) and not off


@pytest.mark.footage
def test_shaken_footage_stands_apart(footage: Path) -> None:
    """Twice between the clean and the shaken."""
    rows = read_lines(footage / "public_truth" / "tags.jsonl")
    values: dict[bool, list[float]] = {True: [], False: []}
    for row in rows:
        if row["tag"] in ("shaky", "good"):
            given = real(footage / "public_truth" / row["file"], 4.0)
            values[row["tag"] == "shaky"].append(Shake()([CLIP], [given])["shake"][0])
    assert 2 * max(values[False]) < 40 < min(values[True]) / 1.2, values

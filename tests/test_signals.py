"""Signals: the contract that every one of them keeps, and what each of them measures."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import math
import pickle
import pkgutil
from collections.abc import Sequence
from fractions import Fraction

import av
import cv2
import numpy as np
import pytest

import captioners
import dedup
import filters
from filters.looks.aesthetics import PhotographicQuality
from filters.looks.blockiness import Blockiness
from filters.looks.colorfulness import Colorfulness
from filters.looks.contrast import Contrast
from filters.looks.exposure import Exposure
from filters.looks.noise import Noise
from filters.looks.palette import Palette
from filters.looks.sharpness import Sharpness
from filters.motion.camera import CameraMotion
from filters.motion.changes import LUMA
from filters.motion.flow import TENTHS
from filters.motion.flow_motion import FlowMotion
from filters.motion.shake import Shake
from filters.motion.stillness import Stillness
from filters.motion.vmaf import VmafMotion
from filters.shots.jitter import Jitter
from manifests.films import shots
from manifests.films.photos import photo
from manifests.films.shots import Shot
from manifests.types import Clip, Frames, Image, Sampling, Signal

CLIP = Clip("v_0_1", "v", "v.mp4", 0, 2_000_000)


def all_signals() -> list[type]:
    """Every class in the three packages that has what a signal has."""
    found = []
    for package in (filters, dedup, captioners):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            for _, kind in inspect.getmembers(importlib.import_module(module.name), inspect.isclass):
                own = kind.__module__ == module.name
                if own and all(hasattr(kind, name) for name in ("wants", "schema", "__call__")):
                    found.append(kind)
    return found


def frames(images: Sequence[Image], fps: float = 10.0) -> Frames:
    times = [round(k * 1e6 / fps) for k in range(len(images))]
    return Frames(list(images), times, list(range(len(images))), (640, 360), fps)


def shaped(want: Sampling, pictures: Sequence[Image]) -> list[Image]:
    """Pictures as the walk would give them to a signal that wants `want`."""
    if want.coded:  # the first frame of a film is coded by itself
        return [np.full(min(k, 1), k, np.float32) for k in range(len(pictures))]
    gray = [p if want.color else np.asarray(cv2.cvtColor(p, cv2.COLOR_BGR2GRAY), np.uint8) for p in pictures]
    return [np.ascontiguousarray(g[: want.crop, : want.crop]) if want.crop else g for g in gray]


def seen(shot: Shot, want: Sampling, fps: float = 10.0) -> Frames:
    short = want.short or 360
    return frames(shaped(want, list(shots.frames(shot, short * 16 // 9 // 2 * 2, short, fps))), fps)


def test_the_walk_over_the_packages_finds_signals() -> None:
    names = {kind.__name__ for kind in all_signals()}
    assert {"VmafMotion", "CameraMotion", "Text", "Fingerprint", "Descriptor", "Palette"} <= names


def learned(kind: type) -> bool:
    """Whether it needs weights that are downloaded; such signals keep the contract in tests of their own, with small
    random weights."""
    return bool({"model", "weights"} & {field.name for field in dataclasses.fields(kind)})


@pytest.mark.parametrize("kind", [k for k in all_signals() if not learned(k)], ids=lambda kind: kind.__name__)
def test_contract(kind: type) -> None:
    check_contract(kind())


def check_contract(signal: Signal) -> None:
    kind = type(signal)
    assert isinstance(signal, Signal)
    assert dataclasses.is_dataclass(kind) and kind.__dataclass_params__.frozen  # type: ignore[attr-defined]
    assert pickle.loads(pickle.dumps(signal)) == signal
    assert hash(signal) is not None
    assert inspect.getdoc(kind), "a signal says what it measures"
    assert all(field.metadata and field.metadata.get(b"doc") for field in signal.schema)
    rng = np.random.default_rng(0)
    side = signal.wants.short or signal.wants.crop or 64
    noise = [rng.integers(0, 256, (side, side * 16 // 9, 3), dtype=np.uint8) for _ in range(4)]
    clips = {
        "empty": [],
        "one frame": noise[:1],
        "noise": noise,
        "grey": [np.full((side, side, 3), 128, np.uint8)] * 3,
        "one pixel": [np.full((1, 1, 3), 7, np.uint8)] * 3,
        "strip": [np.zeros((4, 600, 3), np.uint8)] * 2,
        "many": [noise[k % 4][:64, :64] for k in range(300)],
    }
    for name, pictures in clips.items():
        given = frames(shaped(signal.wants, pictures))
        first = signal([CLIP], [given])
        assert set(first) == set(signal.schema.names), name
        assert all(len(column) == 1 for column in first.values()), name
        again = signal([CLIP], [frames(shaped(signal.wants, pictures))])
        assert first == again, f"{name}: the same frames give the same values"
        for column in first.values():
            assert not (isinstance(column[0], float) and not math.isfinite(column[0])), name
            assert column[0] is None or not isinstance(column[0], (np.generic, np.ndarray)), name
    both = signal([CLIP, CLIP], [frames([]), frames(shaped(signal.wants, noise))])
    assert all(len(column) == 2 for column in both.values())


def value(signal: Signal, given: Frames, clip: Clip = CLIP) -> float:
    (column,) = list(signal([clip], [given]).values())[:1]
    assert column[0] is not None
    return column[0]  # type: ignore[no-any-return]


# -- motion -----------------------------------------------------------------------------------------------------------


def ffmpeg_vmaf_motion(images: Sequence[Image]) -> float:
    """What FFmpeg's vmafmotion filter makes of the same luma pictures: its mean over all frames."""
    graph = av.filter.Graph()
    height, width = images[0].shape
    source = graph.add_buffer(width=width, height=height, format="gray", time_base=Fraction(1, 25))
    motion, sink = graph.add("vmafmotion"), graph.add("buffersink")
    source.link_to(motion)
    motion.link_to(sink)
    graph.configure()
    scores = []
    for k, image in enumerate(images):
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="gray")
        frame.pts, frame.time_base = k, Fraction(1, 25)
        graph.push(frame)
        scores.append(float(graph.pull().metadata["lavfi.vmafmotion.score"]))
    return sum(scores) / len(scores)


@pytest.mark.parametrize("move", ["static", "pan_right", "shake"])
def test_vmaf_motion_agrees_with_ffmpeg(move: str) -> None:
    given = seen(Shot("temple", 2.0, move, 0.05, actors=2), LUMA, 25)
    assert value(VmafMotion(), given) == pytest.approx(ffmpeg_vmaf_motion(given.images), rel=0.01, abs=0.01)


@pytest.mark.parametrize("speed", [0.05, 0.2, 0.5])
@pytest.mark.parametrize("backdrop", ["temple", "grass", "cat"])
def test_flow_motion_is_the_true_speed(backdrop: str, speed: float) -> None:
    given = seen(Shot(backdrop, 2.0, "pan_left", speed), TENTHS)
    assert value(FlowMotion(), given) == pytest.approx(speed * 640, rel=0.1)


CLEAN = [
    (backdrop, move, speed)
    for backdrop in ("temple", "cat", "rocket", "coffee", "astronaut", "grass")
    for move, speed in (
        ("pan_left", 0.1), ("pan_right", 0.3), ("tilt_up", 0.12), ("tilt_down", 0.3), ("zoom_in", 0.1),
        ("zoom_out", 0.25),
        ("roll_cw", 0.1), ("roll_ccw", 0.3),
    )
]  # fmt: skip


def test_camera_motion_is_named_rightly() -> None:
    right, sure = 0, []
    for seed, (backdrop, move, speed) in enumerate(CLEAN):
        answer = CameraMotion()([CLIP], [seen(Shot(backdrop, 2.0, move, speed, actors=seed % 2, seed=seed), TENTHS)])
        right += answer["camera_motion"] == [move]
        sure.append(answer["camera_motion_confidence"][0])
    assert right >= 0.95 * len(CLEAN)
    assert np.median(sure) > 0.7


@pytest.mark.parametrize("backdrop", ["temple", "cat", "dahlia"])
def test_a_tripod_is_static_and_a_shaken_hand_is_not(backdrop: str) -> None:
    still = seen(Shot(backdrop, 3.0, "static", actors=2, seed=3), TENTHS)
    shaken = seen(Shot(backdrop, 3.0, "shake", 0.02, actors=1, seed=3), TENTHS)
    assert CameraMotion()([CLIP], [still])["camera_motion"] == ["static"]
    assert CameraMotion()([CLIP], [shaken])["camera_motion"] == ["handheld"]
    assert value(Shake(), still) < 5 < 40 < value(Shake(), shaken)


def test_a_smooth_pan_is_not_shake() -> None:
    assert value(Shake(), seen(Shot("temple", 3.0, "pan_right", 0.4), TENTHS)) < 8


def test_static_fraction_is_the_share_of_frozen_time() -> None:
    for freeze, share in ((0.0, 1.0), (1.0, 0.75), (2.0, 0.5), (9.0, 0.0)):
        given = seen(Shot("temple", 4.0, "static", actors=2, freeze=freeze, seed=1), LUMA, 25)
        assert value(Stillness(), given) == pytest.approx(share, abs=0.07)


def test_repeated_frames_of_slow_animation_are_not_standing_still() -> None:
    drawn = list(seen(Shot("temple", 3.0, "static", actors=2), LUMA, 8).images)
    assert value(Stillness(), frames([image for image in drawn for _ in range(3)], 24.0)) < 0.1


def test_jitter_counts_flashes_and_cuts_inside_a_clip() -> None:
    want = Jitter.wants
    calm = list(seen(Shot("temple", 2.0, "pan_left", 0.1), want, 25).images)
    other = list(seen(Shot("dahlia", 1.0), want, 25).images)
    assert value(Jitter(), frames(calm, 25)) == 0
    assert value(Jitter(), frames(calm[:25] + other, 25)) == pytest.approx(0.5)


# -- looks ------------------------------------------------------------------------------------------------------------


def look(picture: Image, want: Sampling) -> Frames:
    return frames(shaped(want, [np.ascontiguousarray(picture)]))


def temple() -> Image:
    return np.asarray(cv2.resize(photo("temple"), (640, 360), interpolation=cv2.INTER_AREA), np.uint8)


def test_blur_lowers_sharpness_step_by_step() -> None:
    sharp = [value(Sharpness(), look(temple(), Sharpness.wants))]
    for sigma in (1.5, 3, 6, 9):
        blurred = np.asarray(cv2.GaussianBlur(temple(), (0, 0), sigma), np.uint8)
        sharp.append(value(Sharpness(), look(blurred, Sharpness.wants)))
    assert sharp == sorted(sharp, reverse=True)
    assert sharp[0] > 0.6 and sharp[-1] < 0.4


def test_a_blurred_background_is_no_fault() -> None:
    subject = np.asarray(cv2.GaussianBlur(temple(), (0, 0), 9), np.uint8)
    subject[100:260, 200:440] = temple()[100:260, 200:440]
    assert value(Sharpness(), look(subject, Sharpness.wants)) > 0.5


def test_exposure_is_mean_luma() -> None:
    for level in (0, 64, 255):
        given = look(np.full((90, 160, 3), level, np.uint8), Exposure.wants)
        assert value(Exposure(), given) == pytest.approx(level / 255, abs=1e-6)


def test_contrast_is_the_span_of_most_pixels() -> None:
    ramp = np.repeat(np.linspace(0, 255, 400).astype(np.uint8)[None, :, None], 90, 0).repeat(3, 2)
    assert value(Contrast(), look(ramp, Contrast.wants)) == pytest.approx(0.9, abs=0.01)
    assert value(Contrast(), look(np.full((90, 160, 3), 80, np.uint8), Contrast.wants)) == 0


def test_colorfulness_follows_its_formula() -> None:
    image = temple()
    b, g, r = (image[::2, ::2, k].astype(float) for k in range(3))
    rg, yb = r - g, (r + g) / 2 - b
    expected = math.hypot(rg.std(), yb.std()) + 0.3 * math.hypot(rg.mean(), yb.mean())
    assert value(Colorfulness(), look(image, Colorfulness.wants)) == pytest.approx(expected, rel=1e-3)


def test_noise_is_recovered() -> None:
    rng = np.random.default_rng(0)
    smooth = np.asarray(cv2.GaussianBlur(temple(), (0, 0), 4))
    for sigma in (2.0, 5.0, 10.0):
        noisy = np.clip(smooth + rng.normal(0, sigma, smooth.shape[:2])[..., None], 0, 255).astype(np.uint8)
        assert value(Noise(), look(noisy, Noise.wants)) == pytest.approx(sigma, rel=0.25)


def test_coarse_jpeg_is_blocky() -> None:
    fine, coarse = (
        cv2.imdecode(cv2.imencode(".jpg", temple(), (cv2.IMWRITE_JPEG_QUALITY, q))[1], cv2.IMREAD_COLOR)
        for q in (95, 6)
    )
    clean = value(Blockiness(), look(np.asarray(fine, np.uint8), Blockiness.wants))
    assert clean < 0.2 and value(Blockiness(), look(np.asarray(coarse, np.uint8), Blockiness.wants)) > 0.8


def test_photographic_quality_ranks_as_a_person_would() -> None:
    good = temple()
    poor = [
        np.asarray(cv2.GaussianBlur(good, (0, 0), 8), np.uint8),
        (good * 0.1).astype(np.uint8),
        np.clip(good * 0.2 + 120, 0, 255).astype(np.uint8),
        np.full_like(good, 240),
    ]
    best = value(PhotographicQuality(), look(good, PhotographicQuality.wants))
    assert best > 0.7
    assert all(value(PhotographicQuality(), look(p, PhotographicQuality.wants)) < best - 0.15 for p in poor)


def test_palette_names_colours() -> None:
    image = np.zeros((90, 160, 3), np.uint8)
    image[:, :90], image[:, 90:] = (60, 50, 190), (170, 90, 50)
    assert Palette()([CLIP], [look(image, Palette.wants)])["dominant_colors"] == [["red", "blue"]]

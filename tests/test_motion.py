"""Stillness, VMAF motion and motion vectors: against slow things, small things, FFmpeg itself, and real footage."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from av.codec.context import Flags2

from filters.motion.changes import LUMA
from filters.motion.stillness import Stillness
from filters.motion.vectors import MotionVectors
from filters.motion.vmaf import VmafMotion
from manifests.films import shots
from manifests.films.film import write
from manifests.films.photos import photo
from manifests.films.shots import Shot
from manifests.media.again import look_again
from manifests.types import Clip, Frames, Image, Sampling
from tests.conftest import read_lines
from tests.test_signals import ffmpeg_vmaf_motion

CLIP = Clip("v_0_1", "v", "v.mp4", 0, 2_000_000)


def seen(path: Path, want: Sampling, seconds: float = 4.0) -> Frames:
    return look_again(str(path), 0, round(seconds * 1e6), [want], offset=0.0)[want]


def static(given: Frames) -> float:
    (value,) = Stillness()([CLIP], [given])["static_fraction"]
    assert value is not None
    return value  # type: ignore[no-any-return]


# -- stillness ---------------------------------------------------------------------------------------------------------


def coded(folder: Path, pictures: Iterator[Image], fps: float, crf: int) -> Frames:
    write(folder / "film.mp4", pictures, fps, crf)
    return seen(folder / "film.mp4", LUMA)


@pytest.mark.parametrize("move", ["pan_left", "zoom_in"])
def test_what_moves_slowly_does_not_stand_still(tmp_path: Path, move: str) -> None:
    """An eighth of a pixel a frame: no two neighbouring frames differ by much."""
    slow = coded(tmp_path, shots.frames(Shot("temple", 3.0, move, 0.01, seed=1), 320, 180, 25), 25, 20)
    assert static(slow) < 0.2


@pytest.mark.parametrize("crf", [18, 30, 40])
def test_what_is_coded_badly_does_not_move_by_that(tmp_path: Path, crf: int) -> None:
    still = coded(tmp_path, shots.frames(Shot("temple", 3.0, seed=1), 320, 180, 25), 25, crf)
    assert static(still) > 0.9


def test_a_small_thing_that_moves_is_motion(tmp_path: Path) -> None:
    """A ball of a hundredth of the picture that rolls through a scene on a tripod."""

    def rolling() -> Iterator[Image]:
        for k in range(75):
            picture = cv2.resize(photo("temple"), (320, 180), interpolation=cv2.INTER_AREA)
            cv2.circle(picture, (40 + 2 * k, 120), 13, (40, 60, 200), -1, cv2.LINE_AA)
            yield np.asarray(picture, np.uint8)

    assert static(coded(tmp_path, rolling(), 25, 23)) < 0.05


@pytest.mark.footage
@pytest.mark.slow
def test_real_footage_is_not_static_and_frozen_footage_is(footage: Path) -> None:
    screens = {"laion400m_talk.mp4", "flutter_tabs_ui.mp4", "flutter_scrollview_ui.mp4", "hamilton_vscode_demo.gif"}
    rows = read_lines(footage / "public_truth" / "tags.jsonl")
    frozen = {
        row["file"]: static(seen(footage / "public_truth" / row["file"], LUMA))
        for row in rows
        if row["tag"] == "frozen"
    }
    empty = {"intel_one-by-one-person.mp4": 20.0}  # begins with seconds of an empty room
    live = {
        path.name: static(seen(path, LUMA, empty.get(path.name, 4.0)))
        for path in sorted((footage / "public").iterdir())
        if path.suffix != ".jsonl" and path.name not in screens
    }
    print(f"\nfrozen {frozen}; live, most static: {sorted(live.items(), key=lambda one: -one[1])[:3]}")
    assert min(frozen.values()) > 0.7 and max(live.values()) < 0.4


# -- VMAF motion -------------------------------------------------------------------------------------------------------

H264 = ["flutter_bee.mp4", "mdn_friday.mp4", "intel_asl_book.mkv", "gopro_max_walk.mp4", "bbb_wakeup_5s.mp4"]


@pytest.mark.footage
@pytest.mark.parametrize("name", H264)
def test_vmaf_motion_of_footage_agrees_with_ffmpeg(footage: Path, name: str) -> None:
    """FFmpeg's filter, fed the same frames, at the analysis size and at the film's own."""
    for want in (LUMA, Sampling(LUMA.fps, 4096)):
        given = seen(footage / "public" / name, want, 2.0)
        (mine,) = VmafMotion()([CLIP], [given])["motion_vmaf"]
        assert mine == pytest.approx(ffmpeg_vmaf_motion(given.images), rel=0.01), want


# -- motion vectors ----------------------------------------------------------------------------------------------------


def lengths_as_pyav_gives_them(path: Path, seconds: float) -> list[float]:
    """Per predicted frame, the mean length of its vectors over the area they cover."""
    means = []
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.flags2 |= Flags2.export_mvs
        for frame in container.decode(stream):
            if frame.time >= seconds:
                break
            data = frame.side_data.get("MOTION_VECTORS")
            if data is None:
                continue
            total = area = 0.0
            for vector in data:
                size = vector.w * vector.h
                length = np.hypot(vector.motion_x, vector.motion_y) / vector.motion_scale
                total, area = total + length * size, area + size
            means.append(total / area)
    return means


@pytest.mark.footage
@pytest.mark.parametrize("name", ["gopro_max_walk.mp4", "intel_asl_book.mkv"])
def test_motion_vectors_of_footage_are_those_of_pyav(footage: Path, name: str) -> None:
    want = MotionVectors.wants
    given = seen(footage / "public" / name, want, 1.5)
    (mine,) = MotionVectors()([CLIP], [given])["motion_vectors"]
    theirs = lengths_as_pyav_gives_them(footage / "public" / name, 1.5)
    assert len(theirs) > 20 and mine == pytest.approx(np.mean(theirs), rel=1e-4)


@pytest.mark.footage
def test_codecs_that_give_no_vectors_give_null(footage: Path) -> None:
    given = seen(footage / "public" / "mdn_flower.webm", MotionVectors.wants, 1.0)
    assert MotionVectors()([CLIP], [given])["motion_vectors"] == [None]

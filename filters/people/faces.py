"""Faces: how many, how large, and whether the clip is a talking head.

`face_count` and `face_area` are medians over the sampled frames: faces, and the share of the frame under the largest.
`talking_head`, 0..1, is a product: a face in most frames, which stays where it is, is alive, and little else moves
(CogVideoX's lecture type: "mainly one person talking continuously with minimal effective motion"). It is ours.

Faces are found by two of OpenCV's Haar cascades that must agree: each alone sees a face in one of a hundred pictures
that hold none; together, hardly ever. They miss small faces, profiles, tilted and covered ones. `YuNet` is the place of
a learned detector.

Sources: Viola and Jones 2001; Lienhart, Kuranov, Pisarevsky 2003 (the cascades); Wu, Peng, Yu 2023, "YuNet: a tiny
millisecond-level face detector".
"""

from __future__ import annotations

import functools
import itertools
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol

import cv2
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from filters.looks.frames import LOOKS, grays
from filters.weights import find
from manifests.schema import column
from manifests.types import Clip, Frames, Image

Boxes = npt.NDArray[np.float64]
"""(faces, 4): left, top, width, height, in pixels."""

Moved = npt.NDArray[np.uint8]
"""(N-1, H, W): smoothed absolute differences of neighbouring frames."""


class FaceDetector(Protocol):
    """Finds faces in a BGR picture; must be a frozen dataclass."""

    def find(self, image: Image) -> Boxes: ...


@dataclass(frozen=True, slots=True)
class Haar:
    """least: smallest face as a share of the picture's short side; neighbours: how many windows must agree (more finds
    fewer); step: growth of the window. Pictures are scaled down as far as the smallest face allows: 20 pixels are the
    cascades' own least."""

    least: float = 0.065
    neighbours: int = 6
    step: float = 1.15

    def find(self, image: Image) -> Boxes:
        short = min(image.shape[:2])
        scale = min(1.0, _LEAST_PIXELS / (self.least * short))
        gray = np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), np.uint8)
        if scale < 1:
            gray = np.asarray(cv2.resize(gray, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), np.uint8)
        if min(gray.shape) < 2 * _LEAST_PIXELS:
            return np.zeros((0, 4))
        found = self._windows("haarcascade_frontalface_alt2.xml", gray, _LEAST_PIXELS)
        return np.asarray([box for box in found if self._confirmed(gray, box)], np.float64).reshape(-1, 4) / scale

    def _windows(self, name: str, gray: Image, smallest: int) -> Sequence[Sequence[int]]:
        limits = {"minNeighbors": self.neighbours, "minSize": (smallest, smallest)}
        return cascade(name).detectMultiScale(gray, self.step, **limits)  # type: ignore[call-overload,no-any-return]

    def _confirmed(self, gray: Image, box: Sequence[int]) -> bool:
        """Whether the other cascade sees a face of about that size there too."""
        x, y, w, h = (int(v) for v in box)
        near = gray[max(0, y - h // 2) : y + h + h // 2, max(0, x - w // 2) : x + w + w // 2]
        return len(self._windows("haarcascade_frontalface_default.xml", near, int(0.7 * w))) > 0


_LEAST_PIXELS = 20


@dataclass(frozen=True, slots=True)
class YuNet:
    """path: a model of the OpenCV zoo's layout, `face_detection_yunet_2023mar.onnx`, or its address; least: score of a
    face."""

    path: str
    least: float = 0.7

    def find(self, image: Image) -> Boxes:
        net = _yunet(self.path, threading.get_ident())
        net.setInputSize((image.shape[1], image.shape[0]))
        net.setScoreThreshold(self.least)
        found = net.detect(image)[1]
        return np.zeros((0, 4)) if found is None else np.asarray(found[:, :4], np.float64)


_NONE: Boxes = np.zeros((0, 4))


@dataclass(frozen=True, slots=True)
class Looked:
    """What a detector finds in a few frames, evenly spread; for `Frames.share`, as several signals may ask. Where the
    first of every `stride` frames shows no face, the others are not looked at, and are taken to show none."""

    detector: FaceDetector
    looks: int
    stride: int = 2

    def __call__(self, frames: Frames) -> list[Boxes]:
        pictures = [frames.images[k] for k in spread(len(frames), self.looks)]
        found = [self.detector.find(p) if k % self.stride == 0 else _NONE for k, p in enumerate(pictures)]
        if not any(len(boxes) for boxes in found):
            return found
        return [self.detector.find(p) if k % self.stride else found[k] for k, p in enumerate(pictures)]


def spread(count: int, looks: int) -> list[int]:
    """Numbers of at most `looks` of `count` frames, evenly spread."""
    some = min(count, looks)
    return [int((k + 0.5) * count / some) for k in range(some)]


@dataclass(frozen=True, slots=True)
class Faces:
    """looks: frames of a clip in which faces are looked for. moving: of a clip in which more than a quarter of the
    picture changes from one sampled frame to the next; such a clip is no talking head, and only large faces count."""

    detector: FaceDetector = field(default_factory=Haar)
    moving: FaceDetector = field(default_factory=lambda: Haar(least=0.16))
    looks: int = 4
    version: int = 2
    wants = LOOKS
    schema: ClassVar[pa.Schema] = pa.schema(
        [
            column("face_count", pa.float64(), "median number of faces", unit="face", range=">= 0"),
            column("face_area", pa.float64(), "largest face as a share of the frame, median", range="0..1"),
            column("talking_head", pa.float64(), "a face that talks and nothing else", range="0..1", better="lower"),
        ]
    )

    def __call__(self, clips: Sequence[Clip], frames: Sequence[Frames]) -> dict[str, list[Any]]:
        rows = [self._measure(f) if len(f) else (None, None, None) for f in frames]
        return {name: [row[k] for row in rows] for k, name in enumerate(self.schema.names)}

    def _measure(self, frames: Frames) -> tuple[float, float, float]:
        moved = frames.share(_moved)
        lively = len(moved) > 0 and float(np.median([np.count_nonzero(m > _SEEN) / m.size for m in moved])) > 0.25
        # One frame tells whether there is a face that matters.
        look = Looked(self.moving if lively else self.detector, self.looks, stride=self.looks)
        found = frames.share(look)
        size = frames.images[0].shape[0] * frames.images[0].shape[1]
        areas = [float((boxes[:, 2] * boxes[:, 3]).max() / size) if len(boxes) else 0.0 for boxes in found]
        largest = [boxes[(boxes[:, 2] * boxes[:, 3]).argmax()] for boxes in found if len(boxes)]
        present = len(largest) / max(len(found), 3)
        talking = _talking(moved, np.array(largest), present) if largest and not lively else 0.0
        return float(np.median([len(boxes) for boxes in found])), float(np.median(areas)), talking


def _talking(moved: Moved, faces: Boxes, present: float) -> float:
    """How much a clip with these faces, the largest of every frame that has one, is a talking head; 0..1."""
    if not len(moved):
        return 0.0
    left, top, width, height = np.median(faces, axis=0)
    centers = faces[:, :2] + faces[:, 2:] / 2
    wander = float(np.linalg.norm(centers - np.median(centers, axis=0), axis=1).mean() / width)
    inside = np.zeros(moved.shape[1:], bool)
    rows = slice(max(0, int(top - 0.6 * height)), int(top + 1.5 * height))
    inside[rows, max(0, int(left - 0.6 * width)) : int(left + 1.6 * width)] = True
    elsewhere = float((moved[:, ~inside] > _SEEN).mean()) if not inside.all() else 0.0
    alive = float(np.clip(moved[:, inside].mean() / _ALIVE, 0, 1))
    return float(present * alive * np.exp(-wander / 0.5) * np.exp(-elsewhere / 0.03))


_SEEN = 12  # grey levels between two sampled frames from which a place has moved
_ALIVE = 0.4  # mean change of a face that talks; a photograph of one, coded, stays below that


def _moved(frames: Frames) -> Moved:
    smooth = [cv2.GaussianBlur(gray, (0, 0), 1.5) for gray in frames.share(grays)]
    changes = [cv2.absdiff(before, after) for before, after in itertools.pairwise(smooth)]
    return np.stack(changes) if changes else np.zeros((0, *smooth[0].shape), np.uint8)


def cascade(name: str) -> cv2.CascadeClassifier:
    """One of those that ship with OpenCV; each thread has its own, since a search writes into it. Raises ValueError
    when OpenCV lacks it."""
    return _cascade(name, threading.get_ident())


@functools.lru_cache(maxsize=64)
def _cascade(name: str, _thread: int) -> cv2.CascadeClassifier:
    loaded = cv2.CascadeClassifier(str(Path(cv2.data.haarcascades) / name))  # type: ignore[attr-defined]
    if loaded.empty():
        raise ValueError(f"OpenCV's {name} is missing; install opencv-python-headless of a version below 5.")
    return loaded


@functools.lru_cache(maxsize=16)
def _yunet(path: str, _thread: int) -> Any:
    """Raises ValueError when the file cannot be used."""
    file = find(path)
    try:
        return cv2.FaceDetectorYN.create(str(file), "", (320, 320))
    except cv2.error as error:
        raise ValueError(f"face model {file} does not load ({error.err}); is it an ONNX model of YuNet?") from None

"""What proposes hard cuts, fed with every frame of a film.

- adaptive: PySceneDetect's AdaptiveDetector, which compares a frame's change with its neighbours'
- content, hash, histogram, threshold: PySceneDetect's own detectors of these names, see `filters.shots.borrowed`
- scdet: FFmpeg's filter of this name
- transnetv2: the network, see `filters.shots.transnet`

Sources: PySceneDetect 0.7; FFmpeg `libavfilter/vf_scdet.c`; Soucek and Lokoc 2020 (TransNetV2). Movie Gen finds its
scenes with FFmpeg, EasyAnimate with ContentDetector at 27 and scenes of at least 15 frames, Panda-70M with it at 25.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Protocol

import cv2
import numpy as np

from filters.shots import transnet
from filters.shots.content import content_score, to_hsv
from manifests.types import Boundary, Image

DEFAULTS = {
    "adaptive": (2.85, 1),
    "content": (27.0, 15),
    "hash": (0.35, 15),
    "histogram": (0.2, 15),
    "threshold": (12.0, 15),
    "scdet": (10.0, 1),
    "transnetv2": (0.5, 1),
}
"""Threshold and least frames between two cuts: the tools' own, but for adaptive (3.0 and 15), which we set on labelled
footage to also find jump cuts within a scene."""

_REPEAT = 0.05
"""Mean difference (grey levels) below which a frame repeats the one before, as in animation drawn on twos."""
_MOST_REPEATS = 4
"""So many repeats are kept from the adaptive detector; more are a picture that stands still, which it must see."""


class Detector(Protocol):
    """Sees BGR frames (H, W, 3), counted from 0."""

    delay: int
    """Most frames between a cut and the frame with which it is proposed."""

    def push(self, image: Image) -> list[Boundary]:
        """What became certain with this frame: cuts, and from some detectors gradual transitions."""

    def flush(self) -> list[Boundary]: ...

    @property
    def holding(self) -> int:
        """Nothing will be proposed any more that begins before this frame."""


class Adaptive:
    """A frame's content score is at least `content` and `ratio` times the mean of the two before and the two after.

    Equal to PySceneDetect's AdaptiveDetector but for repeated frames, which it does not see: they would halve the
    mean, and cartoons drawn on twos are full of them.
    """

    _AROUND = 2

    def __init__(self, ratio: float, content: float, least: int):
        self._ratio, self._content, self._least = ratio, content, least
        self.delay = (self._AROUND + 1) * (_MOST_REPEATS + 1)
        self._recent: deque[tuple[int, float]] = deque(maxlen=2 * self._AROUND + 1)  # frame, score
        self._last: Image | None = None
        self._hsv: Image | None = None
        self._repeats = 0
        self._index = -1
        self._last_cut = 0

    @property
    def holding(self) -> int:
        return self._recent[-self._AROUND][0] if len(self._recent) >= self._AROUND else 0

    def push(self, image: Image) -> list[Boundary]:
        self._index += 1
        if self._last is not None and cv2.norm(image, self._last, cv2.NORM_L1) < _REPEAT * image.size:
            self._repeats += 1
            if self._repeats <= _MOST_REPEATS:
                return []
        else:
            self._repeats = 0
        hsv = to_hsv(image)
        self._recent.append((self._index, 0.0 if self._hsv is None else content_score(hsv, self._hsv)))
        self._last, self._hsv = image, hsv
        return self._decide() if len(self._recent) > 2 * self._AROUND else []

    def flush(self) -> list[Boundary]:
        return []

    def _decide(self) -> list[Boundary]:
        frame, score = self._recent[self._AROUND]
        if score < self._content or frame - self._last_cut < self._least:
            return []
        around = (sum(s for _, s in self._recent) - score) / (2 * self._AROUND)
        if around >= 1e-5 and min(score / around, 255.0) < self._ratio:
            return []
        self._last_cut = frame
        return [transnet.cut(frame, score)]


class Scdet:
    """FFmpeg's scene score: the lesser of the mean absolute luma difference (MAFD) to the frame before and of how much
    that differs from the MAFD before it, in percent of the range of 8 bits.

    Luma is made of BGR as FFmpeg makes it, BT.601 of limited range, so that scores agree with `scdet` on the same
    pictures within 0.01.
    """

    _LUMA = np.array([[0.0979, 0.5041, 0.2568, 15.5]], np.float32)

    def __init__(self, threshold: float, least: int):
        self.delay = 0
        self._threshold, self._least = threshold, least
        self._before: Image | None = None
        self._mafd = 0.0
        self._index = -1
        self._last_cut = -least
        self.score = 0.0

    @property
    def holding(self) -> int:
        return self._index + 1

    def push(self, image: Image) -> list[Boundary]:
        self._index += 1
        luma = np.asarray(cv2.transform(image, self._LUMA), np.uint8)
        self.score = 0.0
        if self._before is not None:
            mafd = cv2.norm(luma, self._before, cv2.NORM_L1) * 100 / luma.size / 256
            self.score = min(mafd, abs(mafd - self._mafd), 100.0)
            self._mafd = mafd
        self._before = luma
        if self.score < self._threshold or self._index - self._last_cut < self._least:
            return []
        self._last_cut = self._index
        return [transnet.cut(self._index, self.score)]

    def flush(self) -> list[Boundary]:
        return []


def check(name: str, threshold: float | None, least: int | None) -> None:
    """Raises ValueError with one sentence when there is no such detector, or none with these settings here."""
    if name not in DEFAULTS:
        raise ValueError(f"there is no cut detector {name!r}; choose from {', '.join(DEFAULTS)}.")
    if threshold is not None and not (math.isfinite(threshold) and threshold > 0):
        raise ValueError(f"cut detector {name}: give a threshold above 0, not {threshold}.")
    if least is not None and least < 0:
        raise ValueError(f"cut detector {name}: give a least number of frames of 0 or more, not {least}.")
    if name == "transnetv2":
        transnet.find_package()


def make(
    name: str, fps: float, threshold: float | None, least: int | None, content: float = 15.0, weights: str = ""
) -> Detector:
    """The detector of this name; None stands for its default. Raises ValueError with one sentence."""
    check(name, threshold, least)
    usual = DEFAULTS[name]
    threshold = usual[0] if threshold is None else threshold
    least = usual[1] if least is None else least
    if name == "adaptive":
        return Adaptive(threshold, content, least)
    if name == "scdet":
        return Scdet(threshold, least)
    if name == "transnetv2":
        return transnet.TransNet(threshold, least, weights)
    from filters.shots import borrowed  # loads PySceneDetect, which takes a quarter of a second

    return borrowed.make(name, fps, threshold, least)

"""Effects: traces of an editor's hand in the picture itself.

`seam`: share of the longest exactly straight edge through the whole picture, along a row or column, that stays where it
is (split screens, blurred sides); `seam_moving`: of one beside which the picture moves, as no door frame does.
`inset_frame`: how well four such edges close to a rectangle (a picture in the picture). `mirrored` and `repeated`:
likeness of one half of the picture to the other, reflected or shifted. `cold_colors`: cold hues less warm ones, by
their strength, where there is structure: skin, earth and leaves are warm, and negatives of them cold. Borders are
`letterbox_fraction`.
CogVideoX's editing: "obvious artificial processing, re-editing, special effects". All measures are ours.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import cv2
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from filters.looks.frames import LOOKS
from filters.looks.picture import inside
from manifests.schema import column
from manifests.types import Clip, Frames, Image

Share = npt.NDArray[np.float32]

Line = tuple[int, int, int]
"""Column, first row and row after the last of a straight edge."""

_OFF = 5  # columns between the first column of a step's neighbourhood and the step itself


@dataclass(frozen=True, slots=True)
class Effects:
    """often, half: share of the frames in which the edge of a seam, and of an inset, must be seen at its place; step:
    their least step of luma; short: least length of an inset's edge, as a share of the height; moves: median change
    between sampled frames, in grey levels, from which a place moves."""

    often: float = 0.6
    half: float = 0.5
    step: int = 8
    short: float = 0.16
    moves: float = 2.5
    version: int = 2
    wants = LOOKS
    schema: ClassVar[pa.Schema] = pa.schema(
        [
            column("seam", pa.float64(), "longest straight edge that stays, as a share", range="0..1"),
            column("seam_moving", pa.float64(), "the same, beside what moves", range="0..1", better="lower"),
            column("inset_frame", pa.float64(), "straight edges that close to a rectangle", range="0..1"),
            column("mirrored", pa.float64(), "likeness of one half to the other's reflection", range="0..1"),
            column("repeated", pa.float64(), "likeness of one half to the other", range="0..1"),
            column("cold_colors", pa.float64(), "cold hues less warm ones, by strength", range="-1..1"),
        ]
    )

    def __call__(self, clips: Sequence[Clip], frames: Sequence[Frames]) -> dict[str, list[Any]]:
        rows = [self._measure(f) for f in frames]
        return {name: [row[name] for row in rows] for name in self.schema.names}

    def _measure(self, frames: Frames) -> dict[str, float | None]:
        if not len(frames):
            return dict.fromkeys(self.schema.names)
        pictures = frames.share(inside)
        if min(pictures.grays[0].shape) < 48:
            return dict.fromkeys(self.schema.names)
        turned = [cv2.transpose(gray) for gray in pictures.grays]
        change = _change(pictures.grays)
        steps = [_steps(stack, self.step) for stack in (pictures.grays, turned)]
        seams = [self._seam(often, c) for often, c in zip(steps, (change, change.T), strict=True)]
        alike = np.median([_halves(gray) for gray in pictures.grays[::2]], axis=0)
        upright, level = (self._edges(often) for often in steps)
        values = [
            *np.max(seams, axis=0).tolist(),
            _rectangle(upright, level, pictures.grays[0].shape[1]),
            *alike.tolist(),
            float(np.median([_cold(image) for image in pictures.images[::3]])),
        ]
        return dict(zip(self.schema.names, values, strict=True))

    def _seam(self, often: Share, change: Share) -> tuple[float, float]:
        """Share of the rows in which the best column has an edge; the same, counting rows where its sides move."""
        edge = often >= self.often
        change = np.asarray(cv2.blur(np.ascontiguousarray(change), (1, 5)), np.float32)
        moving = np.maximum(change[:, 2:-8], change[:, 8:-2]) > self.moves
        return _best_column(edge), _best_column(edge & moving)

    def _edges(self, often: Share) -> list[Line]:
        """The longest straight edges that stay, at most 24."""
        edge = (often >= self.half).astype(np.uint8)
        least = max(12, round(self.short * edge.shape[0]))
        edge = cv2.morphologyEx(edge, cv2.MORPH_CLOSE, np.ones((5, 1), np.uint8)).astype(np.uint8)
        edge = cv2.morphologyEx(edge, cv2.MORPH_OPEN, np.ones((least, 1), np.uint8)).astype(np.uint8)
        boxes = cv2.connectedComponentsWithStats(edge, connectivity=8)[2][1:]
        lines = [(int(x + w // 2 + _OFF), int(y), int(y + h)) for x, y, w, h, _ in boxes if w <= 4]
        return sorted(lines, key=lambda line: line[1] - line[2])[:24]


def _steps(grays: Sequence[Any], least: int) -> Share:
    """(H, W - 10): share of the frames in which luma steps from left to right here by at least `least`, and by more
    than one and four columns beside."""
    count = np.zeros((grays[0].shape[0], grays[0].shape[1] - 2 * _OFF), np.uint8)
    for gray in grays:
        step = cv2.absdiff(gray[:, 2:], gray[:, :-2])
        beside = cv2.max(cv2.max(step[:, :-8], step[:, 8:]), cv2.max(step[:, 1:-7], step[:, 7:-1]))
        count += step[:, 4:-4] > np.maximum(beside, least - 1)
    return np.asarray(count / np.float32(len(grays)), np.float32)


def _change(grays: Sequence[Image]) -> Share:
    """(H, W): median change from frame to frame."""
    ranked = [cv2.absdiff(before, after) for before, after in itertools.pairwise(grays)]
    if not ranked:
        return np.zeros(grays[0].shape, np.float32)
    # All pixels' changes are sorted at once, by comparing neighbours: for so few frames quicker than numpy's median.
    for turn in range(len(ranked)):
        for k in range(turn % 2, len(ranked) - 1, 2):
            ranked[k], ranked[k + 1] = cv2.min(ranked[k], ranked[k + 1]), cv2.max(ranked[k], ranked[k + 1])
    middle = ranked[(len(ranked) - 1) // 2].astype(np.float32) + ranked[len(ranked) // 2]
    return np.asarray(middle / 2, np.float32)


def _best_column(edge: npt.NDArray[np.bool_]) -> float:
    """Largest share of rows, an edge being free to lie one column beside; the picture's own rim does not count."""
    wide = cv2.dilate(edge.astype(np.uint8), np.ones((1, 3), np.uint8))
    rim = max(1, edge.shape[1] // 50)
    return float(cv2.reduce(wide, 0, cv2.REDUCE_SUM, dtype=cv2.CV_32S)[0, rim:-rim].max() / len(edge))


def _rectangle(upright: Sequence[Line], level: Sequence[Line], width: int) -> float:
    """How much of the top and bottom of a rectangle is there, for the best pair of upright sides; 0 where less than
    85 % of either is."""
    near = max(5.0, 0.015 * width)
    best = 0.0
    for left, top, low in upright:
        for right, other_top, other_low in upright:
            if right - left < 0.12 * width or abs(top - other_top) > 2 * near or abs(low - other_low) > 2 * near:
                continue
            ends = (min(top, other_top), max(low, other_low))
            closed = [
                max(
                    (min(end, right) - max(start, left) for at, start, end in level if abs(at - row) <= near + 6),
                    default=0,
                )
                / (right - left)
                for row in ends
            ]
            if min(closed) > 0.85:
                best = max(best, min(1.0, sum(closed) / 2))
    return best


def _halves(gray: Image) -> tuple[float, float]:
    """Correlation of the fine structure of halves: reflected, and shifted."""
    small = cv2.resize(gray, (160, 90), interpolation=cv2.INTER_AREA).astype(np.float32)
    fine = small - cv2.GaussianBlur(small, (0, 0), 6)
    left, right, top, low = fine[:, :80], fine[:, 80:], fine[:45], fine[45:]
    reflected = max(_likeness(left, right[:, ::-1]), _likeness(top, low[::-1]))
    return max(0.0, reflected), max(0.0, _likeness(left, right), _likeness(top, low))


def _likeness(one: npt.NDArray[Any], other: npt.NDArray[Any]) -> float:
    """Correlation; none where there is hardly any structure."""
    power = float(np.sqrt((one * one).sum() * (other * other).sum()))
    return float((one * other).sum() / power) if power > 9 * one.size else 0.0


def _cold(image: Image) -> float:
    """Of what has structure: skies and walls have none, and may be blue."""
    small = cv2.resize(image, (160, 90), interpolation=cv2.INTER_AREA)
    hue = cv2.extractChannel(cv2.cvtColor(small.astype(np.float32) / 255, cv2.COLOR_BGR2HSV), 0)
    gray = cv2.cvtColor(small, cv2.COLOR_BGR2GRAY).astype(np.float32)
    mean = cv2.blur(gray, (5, 5))
    contrast = np.sqrt(np.maximum(cv2.blur(gray * gray, (5, 5)) - mean * mean, 0))
    structure = np.clip((contrast - 2) / 6, 0, 1)
    channels = cv2.split(small)
    strength = cv2.subtract(functools.reduce(cv2.max, channels), functools.reduce(cv2.min, channels)).astype(np.float32)
    cold, warm = (hue >= 180) & (hue <= 325), (hue < 170) | (hue > 335)
    signed = np.where(strength > 12, strength * (cold.astype(np.float32) - warm), 0)
    total = (strength * structure).sum() + 6 * structure.sum() + 20  # grey pictures come out near 0
    return float((signed * structure).sum() / total)

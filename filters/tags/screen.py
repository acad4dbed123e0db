"""Screens: what tells a recorded or filmed computer screen from a scene.

`flat_area` and `ruled_lines`: a user interface is drawn in flat colours with lines exactly along the rows and columns;
lenses draw neither. `few_colors`: and in few of them. `still_area`: most of it does not change at all. `tilted_screen`:
a screen that is filmed has straight edges against a dark room that are not quite upright. Moiré is its own signal.
CogVideoX's "noisy screenshots: captured directly from phone or computer screens". All measures are ours.
"""

from __future__ import annotations

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

_SURROUND = 60  # mean luma, at most, of what lies around a filmed screen
_DARK = 20  # luma below which flatness says nothing: black is flat in every film


@dataclass(frozen=True, slots=True)
class Screen:
    """Measured inside a plain border; medians over every second frame."""

    wants = LOOKS
    schema: ClassVar[pa.Schema] = pa.schema(
        [
            column("flat_area", pa.float64(), "share of the picture in flat colours that are not dark", range="0..1"),
            column(
                "ruled_lines",
                pa.float64(),
                "total length of long edges exactly along rows or columns, in heights and widths of the picture",
                range=">= 0",
            ),
            column("few_colors", pa.float64(), "share of the six most common of 4096 colours", range="0..1"),
            column("still_area", pa.float64(), "share of the picture that no frame changes", range="0..1"),
            column(
                "tilted_screen",
                pa.float64(),
                "share of a quadrilateral's outline that is straight, not upright, and dark without",
                range="0..1",
                better="lower",
            ),
        ]
    )

    def __call__(self, clips: Sequence[Clip], frames: Sequence[Frames]) -> dict[str, list[Any]]:
        rows = [self._measure(f) for f in frames]
        return {name: [row[name] for row in rows] for name in self.schema.names}

    def _measure(self, frames: Frames) -> dict[str, float | None]:
        if not len(frames):
            return dict.fromkeys(self.schema.names)
        pictures = frames.share(inside)
        if min(pictures.grays[0].shape) < 24:
            return dict.fromkeys(self.schema.names)
        every = range(0, len(pictures.grays), 2)
        looks = [(_flat(pictures.grays[k]), _ruled(pictures.grays[k]), _few_colors(pictures.images[k])) for k in every]
        seen = [pictures.grays[k] for k in every]
        still = float((np.ptp(np.stack(seen), axis=0) <= 6).mean())
        mean = np.sum(pictures.whole, axis=0, dtype=np.uint16) // np.uint16(len(pictures.whole))
        values = [*np.median(looks, axis=0).tolist(), still, _tilted(np.asarray(mean, np.uint8))]
        return dict(zip(self.schema.names, values, strict=True))


def _flat(gray: Image) -> float:
    """Share of pixels whose eight neighbours are within two grey levels of one another."""
    cell = np.ones((3, 3), np.uint8)
    spread = cv2.subtract(cv2.dilate(gray, cell), cv2.erode(gray, cell))
    return np.count_nonzero((spread <= 2) & (gray > _DARK)) / gray.size


def _ruled(gray: Image) -> float:
    """Edges along rows or columns, of at least a sixth of the height, in heights and widths of the picture."""
    across, down = (np.maximum(d, -d) for d in (cv2.Sobel(gray, cv2.CV_16S, 1, 0), cv2.Sobel(gray, cv2.CV_16S, 0, 1)))
    height, width = gray.shape
    least = max(3, height // 6)
    upright = ((across > 60) & (10 * down < across)).view(np.uint8)
    level = cv2.transpose(((down > 60) & (10 * across < down)).view(np.uint8))  # columns are eroded faster than rows
    tall, wide = (cv2.morphologyEx(edge, cv2.MORPH_OPEN, np.ones((least, 1), np.uint8)) for edge in (upright, level))
    return cv2.countNonZero(tall) / height + cv2.countNonZero(wide) / width


def _few_colors(image: Image) -> float:
    counts = cv2.calcHist([image[::2, ::2]], [0, 1, 2], None, [16, 16, 16], [0, 256] * 3).ravel()
    return float(np.partition(counts, -6)[-6:].sum(dtype=np.float64) / counts.sum(dtype=np.float64))


def _tilted(mean: Image) -> float:
    """Of the mean of all frames, in which moiré cancels out and scenes that move lose their edges: for the darkness
    that most sides have without, the mean length of the longest side per direction, as a share of the picture's."""
    sides = _sides(mean)
    best = 0.0
    for level in {round(dark) for _, _, _, dark in sides}:
        longest: dict[int, tuple[float, float]] = {}
        for side, share, tilt, dark in sides:
            if abs(dark - level) <= 8:
                longest[side] = max(longest.get(side, (0.0, 0.0)), (share, tilt))
        if len(longest) >= 2 and max(tilt for _, tilt in longest.values()) >= 0.7:
            best = max(best, sum(share for share, _ in longest.values()) / 4)
    return best


def _sides(mean: Image) -> list[tuple[int, float, float, float]]:
    """Long straight lines with an even, dark strip without and a lighter one within: side (0 left, 1 right, 2 top,
    3 bottom), length as a share of the picture, tilt in degrees, and luma of the dark strip."""
    height, width = mean.shape
    soft = cv2.GaussianBlur(mean, (0, 0), 1.5)
    dark = (soft <= _SURROUND + 8).astype(np.uint8)
    if dark.mean() < 0.02:
        return []
    # Only edges with something dark within reach of `_strips` can pass: lines are looked for among these alone.
    edges = cv2.Canny(soft, 6, 18) * cv2.dilate(dark, np.ones((19, 19), np.uint8))
    lines = cv2.HoughLinesP(edges, 1, np.pi / 360, 40, None, 0.25 * height, 15)
    found = []
    for x0, y0, x1, y1 in np.zeros((0, 4)) if lines is None else lines[:, 0].astype(np.float64):
        dx, dy = x1 - x0, y1 - y0
        if abs(dx) < 0.25 * abs(dy):
            side, share, tilt = int(x0 + x1 >= width), abs(dy) / height, np.degrees(np.arctan(abs(dx / dy)))
            inward = (1 - 2 * side, 0)
        elif abs(dy) < 0.25 * abs(dx):
            side, share, tilt = 2 + int(y0 + y1 >= height), abs(dx) / width, np.degrees(np.arctan(abs(dy / dx)))
            inward = (0, 5 - 2 * side)
        else:
            continue
        if share < 0.4:
            continue
        without, within = (_strips(soft, (x0, y0, dx, dy), inward, sign) for sign in (-1, 1))
        brighter = (within - without).mean(axis=0) > 4
        if without.std() <= 8 and without.mean() <= _SURROUND and brighter.mean() >= 0.85:
            found.append((side, float(share), float(tilt), float(without.mean())))
    return found


def _strips(
    soft: npt.NDArray[Any], line: tuple[float, float, float, float], inward: tuple[int, int], sign: int
) -> npt.NDArray[np.float64]:
    """(3, 48): luma along a line, 5 to 9 pixels off it."""
    x0, y0, dx, dy = line
    along = np.linspace(0.03, 0.97, 48)
    off = sign * np.array([5, 7, 9])[:, None]
    rows = np.clip(np.round(y0 + dy * along + inward[1] * off), 0, soft.shape[0] - 1).astype(int)
    columns = np.clip(np.round(x0 + dx * along + inward[0] * off), 0, soft.shape[1] - 1).astype(int)
    return soft[rows, columns].astype(np.float64)

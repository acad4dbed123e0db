"""Borders: bars around the picture, where they end, and what they are made of.

Movie Gen (appendix B.1) finds borders with a first-order derivative and a scan line. So here: two thin copies of every
frame, one that keeps all rows and one that keeps all columns, are followed inwards from each side, and a border is
believed only where it ends in a straight step along the picture. Three kinds are told apart:

plain    every line has the colour of the outermost one in all frames, but for lettering printed into the bar
blurred  two equal bars, far less sharp than what is between them, as edits of upright films have them
pattern  two or four bars of equal width and make that do not change while the picture does

A dark scene, a sky or a wall has no such step: its plain part ends where the first thing stands out, not along a line.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import cv2
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from filters.looks.frames import LOOKS, grays
from manifests.schema import column
from manifests.types import Clip, Frames, Image

BLOCK = 10
"""Pixels of a row or a column that are taken together: enough to still noise, few enough to see how long a step is."""

Map = npt.NDArray[np.float32]
"""(lines, blocks)."""


@dataclass(frozen=True, slots=True)
class Box:
    """left, top, right and bottom are the lines, in pixels of the frames looked at, that are no picture."""

    left: int
    top: int
    right: int
    bottom: int
    kind: str


@dataclass(frozen=True, slots=True, eq=False)
class Axis:
    """All rows, or all columns, of the frames, each line as mean luma of its blocks.

    thin: (frames, lines, blocks); lowest, highest: (lines, blocks) over the frames.
    """

    thin: npt.NDArray[np.uint8]
    lowest: npt.NDArray[np.uint8]
    highest: npt.NDArray[np.uint8]

    @classmethod
    def of(cls, images: Sequence[Image], axis: int) -> Axis:
        """Rows (axis 0) or columns (axis 1) of luma pictures (H, W)."""
        turned = images if axis else [cv2.transpose(image) for image in images]
        count, lines = turned[0].shape[0] // BLOCK, turned[0].shape[1]
        sums = [image[: count * BLOCK].reshape(count, BLOCK, lines).sum(axis=1, dtype=np.uint16) for image in turned]
        thin = np.ascontiguousarray((np.stack(sums) // BLOCK).astype(np.uint8).transpose(0, 2, 1))
        return cls(thin, thin.min(axis=0), thin.max(axis=0))

    @property
    def lines(self) -> int:
        return self.thin.shape[1]

    @property
    def blocks(self) -> int:
        return self.thin.shape[2]

    def ends(self) -> tuple[Map, Map]:
        """From either end inwards: by how much the blocks differ from the outermost line's colour, in any frame."""
        return self._off(self.level(0)), self._off(self.level(-1))[::-1]

    def level(self, line: int) -> float:
        return float(np.median(self.thin[:, line]))

    def _off(self, level: float) -> Map:
        return np.asarray(np.maximum(self.highest - np.float32(level), np.float32(level) - self.lowest), np.float32)

    def jumps(self) -> npt.NDArray[np.uint8]:
        """(frames, lines - 2, blocks): change of luma across each line but the first and the last."""
        return np.asarray(cv2.absdiff(self.thin[:, 2:], self.thin[:, :-2]), np.uint8)

    def moved(self) -> npt.NDArray[np.bool_]:
        """(lines, blocks): what did not stand still."""
        return np.asarray(self.highest.astype(np.int16) - self.lowest > 6)


@dataclass(frozen=True, slots=True, eq=False)
class Side:
    """One side of the frame, from the edge inwards.

    unlike: (lines, blocks): what differs from the outermost line. ends: lines at which a border may end, inmost first.
    """

    unlike: npt.NDArray[np.bool_]
    ends: tuple[int, ...]

    def depth(self, extent: tuple[int, int], long: float, span: float) -> int:
        """How many lines of border there are, 0 if they do not end in a step.

        extent: first block of the picture, and the one after the last. long: share of them at the step that differ
        from the border. span: share between the first and the last of these.
        """
        blocks = extent[1] - extent[0]
        for line in self.ends:
            at = np.flatnonzero(self.unlike[line, extent[0] : extent[1]])
            if len(at) >= long * blocks and at[-1] + 1 - at[0] >= span * blocks:
                return line
        return 0


@dataclass(frozen=True, slots=True)
class Letterbox:
    """tolerances: grey levels by which blocks of a plain line may differ from the border's colour in any frame. The
                larger stands the ringing of codecs, the smaller sees the edge of a dark picture. A noisy border has
                five times its noise.
    long:       share of the picture's width or height along which a step must run to end a border.
    narrowest:  share of the frame's width and height that a picture between borders has at least.
    blurred:    sharpness of blurred bars, at most, as a share of the picture's.
    """

    tolerances: tuple[float, ...] = (10.0, 4.0)
    long: float = 0.6
    narrowest: float = 0.25
    blurred: float = 0.45
    version: int = 2
    wants = LOOKS
    schema: ClassVar[pa.Schema] = pa.schema(
        [
            column(
                "letterbox_fraction", pa.float64(), "share of the frame that is border", range="0..1", better="lower"
            ),
            column(
                "crop",
                pa.list_(pa.int32()),
                "x, y, width, height of the picture inside the border, on the film's own scale",
                unit="pixel",
                null="no border",
            ),
            column("border_kind", pa.string(), "plain, blurred or pattern", null="no border"),
        ]
    )

    def __call__(self, clips: Sequence[Clip], frames: Sequence[Frames]) -> dict[str, list[Any]]:
        rows = [self._measure(f) for f in frames]
        return {name: [row[name] for row in rows] for name in self.schema.names}

    def _measure(self, frames: Frames) -> dict[str, Any]:
        if not len(frames):
            return dict.fromkeys(self.schema.names)
        box = self.find(frames.share(grays))
        if box is None:
            return {"letterbox_fraction": 0.0, "crop": None, "border_kind": None}
        height, width = frames.images[0].shape[:2]
        x, w = _native(box.left, width - box.right, frames.size[0] / width)
        y, h = _native(box.top, height - box.bottom, frames.size[1] / height)
        return {
            "letterbox_fraction": 1 - _inside(box, (height, width)) / (width * height),
            "crop": [x, y, w, h],
            "border_kind": box.kind,
        }

    def find(self, images: Sequence[Image]) -> Box | None:
        """The border that all these luma pictures (H, W) of one clip have."""
        size = images[0].shape
        if min(size) < 32:
            return None
        axes = (Axis.of(images, 0), Axis.of(images, 1))
        ends = tuple(axis.ends() for axis in axes)
        found = _smallest([self._plain(axes, ends, tolerance) for tolerance in self.tolerances], size)
        jumps = tuple(axis.jumps() for axis in axes)
        pattern = self._pattern(axes, jumps)
        if pattern and (not found or _inside(pattern, size) < 0.9 * _inside(found, size)):
            found = pattern
        return found or self._blurred(axes, jumps)

    # -- plain ---------------------------------------------------------------------------------------------------------

    def _plain(self, axes: Sequence[Axis], ends: Sequence[Sequence[Map]], tolerance: float) -> Box | None:
        """First a guess at all four sides, then each of them measured against the extent of the others."""
        sides = [[self._side(off > max(tolerance, 5 * float(np.median(off[0])))) for off in pair] for pair in ends]
        guess = [[side.depth((0, side.unlike.shape[1]), 0.25, 0.25) for side in pair] for pair in sides]
        found = []
        for k, axis in enumerate(axes):
            across = axes[1 - k].lines
            before, after = guess[1 - k]
            extent = (math.ceil(axis.blocks * before / across), math.floor(axis.blocks * (across - after) / across))
            if extent[1] - extent[0] < self.narrowest * axis.blocks:
                return None
            found.append(self._ends(axis, sides[k], extent))
        (top, bottom), (left, right) = found
        return self._boxed(Box(left, top, right, bottom, "plain"), axes)

    def _ends(self, axis: Axis, sides: Sequence[Side], extent: tuple[int, int]) -> tuple[int, int]:
        """Depth of the border at either end of one axis."""
        sure = [side.depth(extent, self.long, 0.0) for side in sides]
        if not all(sure):
            # A dark picture shows only part of its edge; two bars that end alike speak for each other.
            part = [side.depth(extent, self.long / 2, 0.8) for side in sides]
            if all(part) and abs(part[0] - part[1]) <= 0.02 * axis.lines:
                sure = part
        levels = [axis.level(line) for line in (0, -1)]
        if all(sure) and abs(levels[0] - levels[1]) <= 10:
            return sure[0], sure[1]
        # A sky or a floor may end in a straight line too; on one side alone only a black edge is believed.
        edge = 0.1 * axis.lines
        before, after = (
            depth if depth <= edge and level < 20 else 0 for depth, level in zip(sure, levels, strict=True)
        )
        return before, after

    def _side(self, unlike: npt.NDArray[np.bool_]) -> Side:
        """Where a border that begins at line 0 may end, given what differs from that line."""
        if unlike[0].mean() > 0.03:
            return Side(unlike, ())
        share = unlike.mean(axis=1)
        plain = share <= 0.03
        tips = max(1, round(0.08 * unlike.shape[1]))
        lettered = (share <= 0.3) | ~(unlike[:, :tips].any(axis=1) | unlike[:, -tips:].any(axis=1))
        border = np.logical_and.accumulate(lettered) & (2 * plain.cumsum() >= np.arange(1, len(plain) + 1))
        inner = np.flatnonzero(border[:-1] & plain[:-1] & ~plain[1:])[::-1] + 1
        inner = inner[inner <= (1 - self.narrowest) * len(plain)]
        reach = [n + int((share[n : n + 4] >= 0.9 * share[n : n + 4].max()).argmax()) for n in inner.tolist()]
        return Side(unlike, tuple(reach))

    # -- pattern and blurred -------------------------------------------------------------------------------------------

    def _pattern(self, axes: Sequence[Axis], jumps: Sequence[npt.NDArray[np.uint8]]) -> Box | None:
        """Two or four bars that end in equal steps, look alike, and stand still while the picture does not."""
        if len(axes[0].thin) < 3:
            return None
        depths = []
        for axis, jump in zip(axes, jumps, strict=True):
            middle = slice(axis.blocks // 3, -(axis.blocks // 3))
            steps = self._steps(jump[..., middle], 6)
            deep = np.flatnonzero((steps.mean(axis=0) >= 0.7) & (steps.min(axis=0) >= 0.5))[::-1]
            depths.append(next((int(d) for d in deep if _stands_still(axis, int(d))), 0))
        for k in (0, 1):
            if depths[k] and not depths[1 - k] and self._steps(jumps[k], 6)[:, depths[k]].mean() < 0.7:
                return None
        top, left = (_strongest(jump, depth) for jump, depth in zip(jumps, depths, strict=True))
        return self._boxed(Box(left, top, left, top, "pattern"), axes)

    def _blurred(self, axes: Sequence[Axis], jumps: Sequence[npt.NDArray[np.uint8]]) -> Box | None:
        """Two bars of equal width that are far less sharp than the picture, as edits of upright films have them."""
        found: list[Box | None] = []
        for k in (1, 0):
            steps, fine = self._steps(jumps[k], 3), _sharpness(axes[k])
            sums = np.concatenate([[0.0], fine.cumsum()])
            best = (math.inf, 0)
            for depth in np.flatnonzero((steps.mean(axis=0) >= 0.5) & (steps.min(axis=0) >= 0.3)).tolist():
                inside = max((sums[-depth - 5] - sums[depth + 4]) / (len(fine) - 2 * depth - 8), 0.01)
                bars = sums[depth - 4] - sums[1], sums[-2] - sums[-depth + 3]
                outside = max(bars) / (depth - 5)
                peak = min(fine[depth - 1 : depth + 2].max(), fine[-depth - 2 : len(fine) - depth + 1].max())
                if outside <= self.blurred * inside and peak >= 1.5 * inside:
                    best = min(best, (outside / inside - 0.3 * steps[:, depth].mean(), depth + 1))
            across, down = (best[1], 0) if k == 1 else (0, best[1])
            found.append(self._boxed(Box(across, down, across, down, "blurred"), axes))
        return _smallest(found, (axes[0].lines, axes[1].lines))

    def _steps(self, jumps: npt.NDArray[np.uint8], least: int) -> npt.NDArray[np.float64]:
        """(2, depth): from either end, the share of blocks and frames with a change of more than `least` grey levels
        at this depth, give or take a line. 0 where bars of that depth would be slivers."""
        share = (jumps > least).mean(axis=(0, 2))
        share = np.concatenate([[0.0], share, [0.0]])
        share[1:-1] = np.maximum(share[1:-1], np.maximum(share[2:], share[:-2]))
        most = int((1 - self.narrowest) / 2 * len(share))
        both = np.stack([share[:most], share[::-1][:most]])
        both[:, : max(6, round(0.03 * len(share)))] = 0
        return both

    def _boxed(self, box: Box, axes: Sequence[Axis]) -> Box | None:
        """`box`, if there is a border and enough picture inside it."""
        height, width = axes[0].lines, axes[1].lines
        wide, high = width - box.left - box.right, height - box.top - box.bottom
        if (wide, high) == (width, height) or wide < self.narrowest * width or high < self.narrowest * height:
            return None
        return box


def _inside(box: Box, size: Sequence[int]) -> int:
    """Pixels of the picture inside a border of a frame with this (height, width)."""
    return (size[1] - box.left - box.right) * (size[0] - box.top - box.bottom)


def _sharpness(axis: Axis) -> npt.NDArray[np.float64]:
    """(lines,): mean second difference across the lines, 0 for the first and the last."""
    thin = axis.thin.astype(np.int16)
    second = np.abs(thin[:, 2:] + thin[:, :-2] - 2 * thin[:, 1:-1]).mean(axis=(0, 2))
    return np.concatenate([[0.0], second, [0.0]])


def _stands_still(axis: Axis, depth: int) -> bool:
    """Whether two bars look alike and stand still while the picture between them does not."""
    one, other = axis.thin[:, : depth - 3], axis.thin[:, ::-1][:, : depth - 3]
    moved = axis.moved()
    bars = moved[: depth - 3], moved[::-1][: depth - 3]
    if max(float(bar.mean(axis=1).max()) for bar in bars) > 0.25:
        return False
    lively = moved[depth + 3 : len(moved) - depth - 3].mean() >= 0.1
    spreads = sorted((float(one.std()), float(other.std())))
    alike = abs(float(one.mean() - other.mean())) <= 8 and spreads[1] <= 1.5 * spreads[0] + 2
    return bool(lively and alike)


def _strongest(jumps: npt.NDArray[np.uint8], depth: int) -> int:
    """The line near `depth` where the picture begins: the deepest line that steps may be one too deep."""
    if not depth:
        return 0
    size = np.concatenate([[0.0], jumps.mean(axis=(0, 2)), [0.0]])
    near = slice(depth - 3, depth + 2)
    return depth - 3 + int((size[near] + size[::-1][near]).argmax()) + 1


def _smallest(boxes: Sequence[Box | None], size: Sequence[int]) -> Box | None:
    """The one that leaves least picture; the first of equals."""
    return min((box for box in boxes if box), key=lambda box: _inside(box, size), default=None)


def _native(first: int, end: int, scale: float) -> tuple[int, int]:
    """Start and length on the film's scale, rounded inwards so that no border is left."""
    start = math.ceil(first * scale - 1e-6)
    return start, max(1, math.floor(end * scale + 1e-6) - start)

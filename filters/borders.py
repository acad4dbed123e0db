"""Letterbox: the share of the picture that is a plain border, the same in all frames.

Scan lines are followed inwards from each side for as long as they are of one colour (the side's own) in every sampled
frame. Range 0 to 1; lower is better.

Source: Movie Gen finds borders with a first-order derivative and a scan line (appendix B.1); the plainness is ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from filters.looks import LOOKS, grays
from manifests.schema import column
from manifests.types import Clip, Frames


@dataclass(frozen=True, slots=True)
class Letterbox:
    """spread: standard deviation of luma, in grey levels, below which a line is plain; a border line may also differ
    by three times as much from the outermost one."""

    spread: float = 4.0
    wants = LOOKS
    schema: ClassVar[pa.Schema] = pa.schema(
        [column("letterbox_fraction", pa.float64(), "share of plain border", range="0..1", better="lower")]
    )

    def __call__(self, clips: Sequence[Clip], frames: Sequence[Frames]) -> dict[str, list[Any]]:
        return {"letterbox_fraction": [self._share(f) if len(f) else None for f in frames]}

    def _share(self, frames: Frames) -> float:
        stack = np.stack(frames.share(grays))[:, ::2, ::2].astype(np.float32)
        if stack.std() < self.spread:
            return 0.0  # a plain picture has no border; contrast tells of it
        height, width = stack.shape[1:]
        top, bottom = self._plain_ends(stack, (0, 2))
        inside = stack[:, top : height - bottom]
        left, right = self._plain_ends(inside, (0, 1))
        return float(1 - (height - top - bottom) * (width - left - right) / (height * width))

    def _plain_ends(self, stack: npt.NDArray[np.float32], across: tuple[int, int]) -> tuple[int, int]:
        """How many lines are plain from either end; none when all are."""
        if not stack.size:
            return 0, 0
        level, spread = stack.mean(axis=across), stack.std(axis=across)
        plain = spread <= self.spread
        runs = []
        for step in (1, -1):
            border = (plain & (np.abs(level - level[::step][0]) <= 3 * self.spread))[::step]
            runs.append(0 if border.all() else int(border.argmin()))
        return runs[0], runs[1]

"""Static fraction: the share of a clip's time in which nothing moves.

A moment is still when no block of the picture changes within a sixth of a second around it: animation drawn on twos and
low frame rates in a fast container repeat frames without standing still. Nor is it when a block changes slowly, by
little from frame to frame but visibly within half a second: a person who stands and breathes, a slow camera. Range 0
(always moving) to 1 (frozen); lower is better. Movie Gen drops static videos with an unpublished model; this measure is
ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from filters.motion.changes import LUMA, changes
from manifests.schema import column
from manifests.types import Clip, Frames


@dataclass(frozen=True, slots=True)
class Stillness:
    """least: change of the strongest block, in grey levels per frame, that counts as motion; coding noise of a frozen
    picture stays below it
    slow:  the same within half a second
    """

    least: float = 0.7
    slow: float = 2.0
    version: int = 2
    wants = LUMA
    schema: ClassVar[pa.Schema] = pa.schema(
        [column("static_fraction", pa.float64(), "share of time without motion", range="0..1", better="lower")]
    )

    def __call__(self, clips: Sequence[Clip], frames: Sequence[Frames]) -> dict[str, list[Any]]:
        return {"static_fraction": [self._share(f) if len(f) > 1 else None for f in frames]}

    def _share(self, frames: Frames) -> float:
        times = np.asarray(frames.times, np.float64) / 1e6
        change = frames.share(changes)
        lengths = np.diff(times)
        fast = change.peak >= self.least
        still = np.ones(len(lengths), bool)
        if fast.any():
            # Distance from every interval's end to the nearest change; an interval counts with its own length.
            moves = times[1:][fast]
            after = np.searchsorted(moves, times[1:])
            ahead = moves[np.minimum(after, len(moves) - 1)] - times[1:]
            behind = times[1:] - moves[np.maximum(after - 1, 0)]
            still = np.minimum(np.abs(ahead), np.abs(behind)) > np.maximum(1 / 6, 1.5 * lengths)
        # Where something drifts and no fast change explains it, the whole span is one of motion.
        jumps = np.concatenate([[0], np.cumsum(fast)])
        slow = (change.drift >= self.slow) & (jumps[change.last] == jumps[change.first])
        for first, last in zip(change.first[slow], change.last[slow], strict=True):
            still[first:last] = False
        return float(lengths[still].sum() / lengths.sum())

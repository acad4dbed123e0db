"""Flashes: how often a second the picture jumps to another brightness and back within three frames.

Strobe effects and inserted frames do; a lamp that is switched on stays on. Unit: 1/second; lower is better. The measure
is ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import cv2
import numpy as np
import pyarrow as pa

from filters.motion.changes import LUMA
from manifests.schema import column
from manifests.types import Clip, Frames


@dataclass(frozen=True, slots=True)
class Flashes:
    """jump: least change of mean luma, in grey levels; frames: longest flash."""

    jump: float = 20.0
    frames: int = 3
    wants = LUMA
    schema: ClassVar[pa.Schema] = pa.schema(
        [column("flashes_per_s", pa.float64(), "jumps of brightness and back", unit="1/second", better="lower")]
    )

    def __call__(self, clips: Sequence[Clip], frames: Sequence[Frames]) -> dict[str, list[Any]]:
        return {"flashes_per_s": [self._rate(c, f) if len(f) else None for c, f in zip(clips, frames, strict=True)]}

    def _rate(self, clip: Clip, frames: Frames) -> float:
        luma = np.array([cv2.mean(image)[0] for image in frames.images])
        found, k = 0, 1
        while k < len(luma):
            away = luma[k : k + self.frames] - luma[k - 1]
            back = next((n for n, v in enumerate(away[1:], 1) if abs(v) < 0.4 * abs(away[0])), 0)
            if abs(away[0]) >= self.jump and back:
                found, k = found + 1, k + back
            k += 1
        return found / max(clip.seconds, 1e-3)

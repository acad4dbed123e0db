"""Exposure: mean luma of the clip, 0 (black) to 1 (white).

Neither direction is better; below about 0.08 a clip is too dark to see and above 0.92 burnt out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from filters.looks.frames import LOOKS, levels
from manifests.schema import column
from manifests.types import Clip, Frames


@dataclass(frozen=True, slots=True)
class Exposure:
    """Mean luma of the sampled frames."""

    wants = LOOKS
    schema: ClassVar[pa.Schema] = pa.schema([column("exposure", pa.float64(), "mean luma", range="0..1")])

    def __call__(self, clips: Sequence[Clip], frames: Sequence[Frames]) -> dict[str, list[Any]]:
        return {"exposure": [f.share(exposure) for f in frames]}


def exposure(frames: Frames) -> float | None:
    """Mean luma, 0..1."""
    return float((frames.share(levels) @ np.arange(256)).mean() / 255) if len(frames) else None

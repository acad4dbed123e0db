"""Contrast: the range of luma that 90 % of the pixels span (5th to 95th percentile), mean over frames.

Range 0 (flat) to 1; higher is better. Fog, a blank page or a black screen lie below 0.1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import pyarrow as pa

from filters.looks.frames import LOOKS, levels, percentiles
from manifests.schema import column
from manifests.types import Clip, Frames


@dataclass(frozen=True, slots=True)
class Contrast:
    """Mean contrast of the sampled frames."""

    wants = LOOKS
    schema: ClassVar[pa.Schema] = pa.schema(
        [column("contrast", pa.float64(), "5th to 95th percentile of luma", range="0..1", better="higher")]
    )

    def __call__(self, clips: Sequence[Clip], frames: Sequence[Frames]) -> dict[str, list[Any]]:
        return {"contrast": [f.share(contrast) for f in frames]}


def contrast(frames: Frames) -> float | None:
    """Mean range of luma, 0..1."""
    if not len(frames):
        return None
    low, high = percentiles(frames.share(levels), 0.05, 0.95)
    return float((high - low).mean() / 255)

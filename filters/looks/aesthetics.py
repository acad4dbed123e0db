"""Photographic quality: an embedded stand-in for a learned aesthetic score.

A weighted mean of what a photographer would check, from the frames alone: sharpness, contrast, exposure, colour, and
freedom from a plain border-to-border picture. Range 0 to 1; higher is better. It says nothing about content or
composition; a learned head (`aesthetic_laion`) does. The weights are ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from filters.looks.colorfulness import colorfulness
from filters.looks.contrast import contrast
from filters.looks.exposure import exposure
from filters.looks.frames import LOOKS, levels
from filters.looks.sharpness import sharpness
from manifests.schema import column
from manifests.types import Clip, Frames


@dataclass(frozen=True, slots=True)
class PhotographicQuality:
    """Mean over the sampled frames."""

    wants = LOOKS
    schema: ClassVar[pa.Schema] = pa.schema(
        [column("aesthetic_photo", pa.float64(), "embedded photographic quality", range="0..1", better="higher")]
    )

    def __call__(self, clips: Sequence[Clip], frames: Sequence[Frames]) -> dict[str, list[Any]]:
        return {"aesthetic_photo": [_score(f) for f in frames]}


def _score(frames: Frames) -> float | None:
    sharp, range_, luma, colors = (frames.share(part) for part in (sharpness, contrast, exposure, colorfulness))
    if sharp is None or range_ is None or luma is None or colors is None:
        return None
    return float(
        0.35 * np.clip((sharp - 0.2) / 0.5, 0, 1)
        + 0.2 * np.clip(range_ / 0.7, 0, 1)
        + 0.15 * np.exp(-(((luma - 0.45) / 0.25) ** 2))
        + 0.15 * np.clip(colors / 60, 0, 1)
        + 0.15 * np.clip(_richness(frames) / 0.9, 0, 1)
    )


def _richness(frames: Frames) -> float:
    """Entropy of the luma histogram over that of an even one, 0..1: blank pages and black screens have little."""
    share = frames.share(levels)
    return float(-(share * np.log2(np.maximum(share, 1e-12))).sum(axis=1).mean() / 8)

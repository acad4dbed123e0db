"""Colourfulness: spread and strength of the opponent colours, mean over frames.

0 is grey; 15 slightly, 45 quite, 80 highly colourful. Higher is more colourful.

Source: Hasler and Süsstrunk 2003, "Measuring colourfulness in natural images", equation M3.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import cv2
import numpy as np
import pyarrow as pa

from filters.looks.frames import LOOKS
from manifests.schema import column
from manifests.types import Clip, Frames, Image

# blue, green, red -> red - green, and half of red + green minus blue
_OPPONENT = np.array([[0, -1, 1], [-1, 0.5, 0.5]], np.float32)


@dataclass(frozen=True, slots=True)
class Colorfulness:
    """Mean colourfulness of the sampled frames."""

    wants = LOOKS
    schema: ClassVar[pa.Schema] = pa.schema(
        [column("colorfulness", pa.float64(), "Hasler-Süsstrunk M3", range=">= 0", better="higher")]
    )

    def __call__(self, clips: Sequence[Clip], frames: Sequence[Frames]) -> dict[str, list[Any]]:
        return {"colorfulness": [f.share(colorfulness) for f in frames]}


def colorfulness(frames: Frames) -> float | None:
    """Mean of M3 over the frames."""
    return float(np.mean([_m3(image) for image in frames.images])) if len(frames) else None


def _m3(image: Image) -> float:
    # A quarter of the pixels give the same moments to three digits.
    mean, deviation = cv2.meanStdDev(cv2.transform(image[::2, ::2].astype(np.float32), _OPPONENT))
    return float(np.hypot(*deviation.ravel()) + 0.3 * np.hypot(*mean.ravel()))

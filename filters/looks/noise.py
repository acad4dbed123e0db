"""Noise: standard deviation of the fine grain in smooth areas, at the film's own pixels.

Immerkær's operator (two Laplacians that cancel on edges), taken over the flattest quarter of 16-pixel blocks so that
texture does not count. Unit: 8-bit grey levels; lower is better. Clean footage lies below 2, high ISO above 5.

Source: Immerkær 1996, "Fast noise variance estimation".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import cv2
import numpy as np
import pyarrow as pa

from filters.looks.frames import NATIVE
from manifests.schema import column
from manifests.types import Clip, Frames, Image

_OPERATOR = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32)
_BLOCK = 16


@dataclass(frozen=True, slots=True)
class Noise:
    """Median noise of the sampled frames."""

    wants = NATIVE
    schema: ClassVar[pa.Schema] = pa.schema(
        [column("noise", pa.float64(), "grain in smooth areas", unit="grey level", range=">= 0", better="lower")]
    )

    def __call__(self, clips: Sequence[Clip], frames: Sequence[Frames]) -> dict[str, list[Any]]:
        return {"noise": [self._median(f) for f in frames]}

    def _median(self, frames: Frames) -> float | None:
        values = [_sigma(image) for image in frames.images if min(image.shape) >= 2 * _BLOCK]
        return float(np.median(values)) if values else None


def _sigma(luma: Image) -> float:
    response = np.abs(cv2.filter2D(luma, cv2.CV_32F, _OPERATOR))
    height, width = (side // _BLOCK for side in luma.shape)
    blocks = cv2.resize(response[: height * _BLOCK, : width * _BLOCK], (width, height), interpolation=cv2.INTER_AREA)
    flattest = np.partition(blocks.ravel(), blocks.size // 4)[: max(1, blocks.size // 4)]
    return float(np.sqrt(np.pi / 2) / 6 * flattest.mean())

"""Blockiness: how much stronger steps are on the 8-pixel coding grid than beside it.

Ratio of mean absolute luma steps across block borders to those one pixel off, minus one, at the film's own pixels;
median over frames, the worse of both directions, over all eight phases of the grid (a film that was scaled or cropped
after coding shows its blocks elsewhere or nowhere). 0 is free of blocks; lower is better; above 0.5 they are seen.

Source: the boundary-difference idea of Wang, Sheikh and Bovik 2002, "No-reference perceptual quality assessment of
JPEG compressed images".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from filters.looks.frames import NATIVE
from manifests.schema import column
from manifests.types import Clip, Frames, Image


@dataclass(frozen=True, slots=True)
class Blockiness:
    """Median blockiness of the sampled frames."""

    wants = NATIVE
    schema: ClassVar[pa.Schema] = pa.schema(
        [column("blockiness", pa.float64(), "excess of steps on the coding grid", range=">= 0", better="lower")]
    )

    def __call__(self, clips: Sequence[Clip], frames: Sequence[Frames]) -> dict[str, list[Any]]:
        return {"blockiness": [self._median(f) for f in frames]}

    def _median(self, frames: Frames) -> float | None:
        values = [_excess(image) for image in frames.images if min(image.shape) >= 64]
        return float(np.median(values)) if values else None


def _excess(luma: Image) -> float:
    steps = luma.astype(np.int16)
    return max(_on_grid(np.abs(np.diff(steps, axis=1))), _on_grid(np.abs(np.diff(steps.T, axis=1))))


def _on_grid(steps: npt.NDArray[np.int16]) -> float:
    """Clipped steps: one strong edge of the scene must not look like a grid of weak ones."""
    by_column = np.minimum(steps, 16).mean(axis=0)
    usable = len(by_column) // 8 * 8
    phases = by_column[:usable].reshape(-1, 8).mean(axis=0)
    strongest = int(phases.argmax())
    beside = (phases[(strongest - 2) % 8] + phases[(strongest + 2) % 8] + phases[(strongest + 4) % 8]) / 3
    return float(max(0.0, phases[strongest] / max(beside, 0.05) - 1)) if phases[strongest] > 0.05 else 0.0

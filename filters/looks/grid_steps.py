"""Grid steps: how much more small lone steps of luma there are on the 8-pixel coding grid than off it.

A lone step is one of 3 to 16 grey levels with nothing beside it: what is left where coding has made plain blocks of the
picture. Texture, noise and lettering have few, and hardly any on a grid. The excess of the grid's strongest phase over
the median phase, over the mean; the lesser of both directions; median over frames. 0 to 8; scenes lie below 1.5,
starved coding above 2; lower is better. The measure is ours; `blockiness` compares all steps and is large on plain
walls too.
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
class GridSteps:
    """least, largest: grey levels of a step that counts; few: share of pixels with steps below which their places say
    nothing."""

    least: int = 3
    largest: int = 16
    few: float = 0.0005
    wants = NATIVE
    schema: ClassVar[pa.Schema] = pa.schema(
        [column("grid_steps", pa.float64(), "excess of lone steps on the coding grid", range="0..8", better="lower")]
    )

    def __call__(self, clips: Sequence[Clip], frames: Sequence[Frames]) -> dict[str, list[Any]]:
        return {"grid_steps": [self._median(f) for f in frames]}

    def _median(self, frames: Frames) -> float | None:
        values = [self._excess(image) for image in frames.images if min(image.shape) >= 64]
        return float(np.median(values)) if values else None

    def _excess(self, luma: Image) -> float:
        across = luma.astype(np.int16)
        return min(self._along(across), self._along(np.ascontiguousarray(across.T)))

    def _along(self, luma: npt.NDArray[np.int16]) -> float:
        steps = np.abs(np.diff(luma, axis=1))
        here = steps[:, 2:-2]
        beside = np.maximum(steps[:, 1:-3] + steps[:, :-4], steps[:, 3:-1] + steps[:, 4:])
        lone = ((here >= self.least) & (here <= self.largest) & (here > 2 * beside)).mean(axis=0)
        phases = lone[: len(lone) // 8 * 8].reshape(-1, 8).mean(axis=0)
        strongest = int(phases.argmax())
        rest = float(np.median(np.delete(phases, strongest)))
        return float((phases[strongest] - rest) / (phases.mean() + self.few))

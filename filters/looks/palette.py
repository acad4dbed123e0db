"""Palette: the names of the colours that fill most of the picture, for captions composed without a model.

Each pixel of a small picture takes the name of the nearest of a dozen basic colours in Lab space; a colour is named
when it covers at least a fifth of the clip's frames, most common first, three at most.

Source of the names: Berlin and Kay 1969, "Basic Color Terms".
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import cv2
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from filters.looks.frames import LOOKS
from manifests.schema import STRINGS, column
from manifests.types import Clip, Frames

_RGB = {
    "black": (15, 15, 15),
    "white": (240, 240, 240),
    "grey": (128, 128, 128),
    "red": (190, 35, 35),
    "orange": (225, 130, 40),
    "brown": (105, 70, 40),
    "yellow": (230, 210, 70),
    "green": (70, 130, 55),
    "blue": (50, 90, 170),
    "light blue": (140, 190, 230),
    "purple": (115, 55, 135),
    "pink": (230, 150, 175),
}
_NAMES = tuple(_RGB)


@dataclass(frozen=True, slots=True)
class Palette:
    """least: share of the picture from which a colour is named."""

    least: float = 0.2
    version: int = 2
    wants = LOOKS
    schema: ClassVar[pa.Schema] = pa.schema(
        [column("dominant_colors", STRINGS, "colours that fill most of the picture")]
    )

    def __call__(self, clips: Sequence[Clip], frames: Sequence[Frames]) -> dict[str, list[Any]]:
        return {"dominant_colors": [self._names(f) if len(f) else None for f in frames]}

    def _names(self, frames: Frames) -> list[str]:
        small = np.stack([cv2.resize(i[::4, ::4], (16, 16), interpolation=cv2.INTER_AREA) for i in frames.images])
        lab = cv2.cvtColor(small.reshape(-1, 16, 3).astype(np.float32) / 255, cv2.COLOR_BGR2Lab).reshape(-1, 3)
        named = _lab()
        nearest = ((named * named).sum(axis=1) - 2 * lab @ named.T).argmin(axis=1)  # of the squared distance
        share = np.bincount(nearest, minlength=len(_NAMES)) / len(nearest)
        order = np.argsort(-share, kind="stable")[:3]
        return [_NAMES[k] for k in order if share[k] >= self.least] or [_NAMES[order[0]]]


@functools.cache
def _lab() -> npt.NDArray[np.float32]:
    """(colours, 3). Not at import: the first conversion builds tables, a tenth of a second in every process."""
    bgr = np.array([[rgb[::-1] for rgb in _RGB.values()]], np.float32) / 255
    return np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2Lab), np.float32)[0]

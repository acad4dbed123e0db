"""Moiré: stripes that arise where a camera's pixels meet a screen's.

The power spectrum of the central 256 pixels, at the film's own size, is averaged over the frames, freed of its fall
with frequency and compared with its surroundings; `moire` is how far the strongest peak off the axes stands out, in
nats. Lines along rows and columns, as text and interfaces have, do not count. Scenes lie below 3, filmed screens mostly
above 4; fences, cloth and ripples in sand can be as regular. The measure is ours.
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

from filters.looks.frames import NATIVE
from manifests.schema import column
from manifests.types import Clip, Frames, Image

_SIDE = 256

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Moire:
    """Pictures smaller than 256 pixels either way are not measured."""

    wants = NATIVE
    schema: ClassVar[pa.Schema] = pa.schema(
        [
            column(
                "moire",
                pa.float64(),
                "how far the strongest oblique stripes stand out",
                unit="nat",
                range=">= 0",
                better="lower",
                null="the picture is smaller than 256 pixels",
            )
        ]
    )

    def __call__(self, clips: Sequence[Clip], frames: Sequence[Frames]) -> dict[str, list[Any]]:
        return {"moire": [_prominence([i for i in f.images if min(i.shape) >= _SIDE]) for f in frames]}


def _prominence(images: Sequence[Image]) -> float | None:
    if not images:
        return None
    power = np.mean([_spectrum(image) for image in images], axis=0)
    smooth = cv2.blur(power.astype(np.float32), (3, 3), borderType=cv2.BORDER_REPLICATE)
    log = np.log(smooth + 1e-4)  # the floor is far below sensor noise: what is drawn has none
    ring, counts = _rings()
    fall = np.bincount(ring.ravel(), log.ravel(), len(counts)) / np.maximum(counts, 1)
    whitened = (log - fall[ring]).astype(np.float32)
    around, near = cv2.blur(whitened, (25, 25)), cv2.blur(whitened, (5, 5))
    excess = whitened - (around * 625 - near * 25) / 600
    return float(max(0.0, excess[_oblique()].max()))


def _spectrum(image: Image) -> Floats:
    """Power (256, 129) of log luma, the lowest vertical frequency in the middle row."""
    top, left = (image.shape[0] - _SIDE) // 2, (image.shape[1] - _SIDE) // 2
    tile = np.log1p(image[top : top + _SIDE, left : left + _SIDE].astype(np.float32))
    power = np.abs(np.fft.rfft2((tile - tile.mean()) * _window())) ** 2
    return np.asarray(np.fft.fftshift(power, axes=0), np.float32)


@functools.cache
def _window() -> Floats:
    return np.outer(np.hanning(_SIDE), np.hanning(_SIDE)).astype(np.float32)


@functools.cache
def _frequencies() -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    down, across = np.mgrid[-_SIDE // 2 : _SIDE // 2, 0 : _SIDE // 2 + 1]
    return down, across


@functools.cache
def _rings() -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Distance of each frequency from zero, in whole bins, and how many there are of each."""
    ring = np.hypot(*_frequencies()).astype(np.intp)
    return ring, np.bincount(ring.ravel())


@functools.cache
def _oblique() -> npt.NDArray[np.bool_]:
    """Frequencies that count: off the axes, neither slower than a 50-pixel period nor next to the finest."""
    down, across = _frequencies()
    distance = np.hypot(down, across)
    return (distance > 5) & (distance < 0.49 * _SIDE) & (np.abs(down) > 2) & (across > 2)

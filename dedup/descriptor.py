"""Embedded descriptor of what a clip looks like: where which colours and edges are.

Per frame: mean Lab colour on a 4x4 grid (48 numbers), gradient orientations on a 4x4 grid (8 directions, 128 numbers),
and a hue-saturation histogram (32 numbers); each group has unit length. The mean over frames has unit length too, so
inner products are cosines. It groups shots by look, not by meaning; CLIP embeddings take its place where they are to
be had.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import cv2
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from manifests.schema import column
from manifests.types import Clip, Frames, Image, Sampling

_SIDE, _CELLS, _DIRECTIONS = 64, 4, 8
SIZE = 3 * _CELLS**2 + _DIRECTIONS * _CELLS**2 + 32

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Descriptor:
    """Mean descriptor of the sampled frames."""

    version: int = 2
    wants = Sampling(fps=4.0, short=360, cap=8, color=True)
    schema: ClassVar[pa.Schema] = pa.schema(
        [column("descriptor", pa.list_(pa.float32()), "embedded look descriptor, unit length", internal=True)]
    )

    def __call__(self, clips: Sequence[Clip], frames: Sequence[Frames]) -> dict[str, list[Any]]:
        return {"descriptor": [_mean(f) if len(f) else None for f in frames]}


def _mean(frames: Frames) -> list[float]:
    return [float(v) for v in _unit(np.mean([_describe(image) for image in frames.images], axis=0))]


def _describe(image: Image) -> Floats:
    some = image[::2, ::2] if min(image.shape[:2]) >= 4 * _SIDE else image
    small = cv2.resize(some, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
    lab = cv2.cvtColor(small.astype(np.float32) / 255, cv2.COLOR_BGR2Lab)
    colors = cv2.resize(lab, (_CELLS, _CELLS), interpolation=cv2.INTER_AREA).reshape(-1) / 100
    luma = np.ascontiguousarray(lab[..., 0])
    dx, dy = cv2.Sobel(luma, cv2.CV_32F, 1, 0), cv2.Sobel(luma, cv2.CV_32F, 0, 1)
    strength, angle = cv2.cartToPolar(dx, dy)
    direction = (np.asarray(angle) % np.pi * (_DIRECTIONS / np.pi)).astype(int) % _DIRECTIONS
    cell = np.arange(_SIDE) // (_SIDE // _CELLS)
    place = (cell[:, None] * _CELLS + cell[None, :]) * _DIRECTIONS + direction
    edges = np.bincount(place.ravel(), weights=np.asarray(strength).ravel(), minlength=_DIRECTIONS * _CELLS**2)
    hsv = cv2.cvtColor(small, cv2.COLOR_BGR2HSV)
    hues = cv2.calcHist([hsv], [0, 1], None, [8, 4], [0, 180, 0, 256]).ravel()
    return np.concatenate([_unit(colors), _unit(np.sqrt(edges)), _unit(np.sqrt(hues))])


def _unit(vector: npt.NDArray[Any]) -> Floats:
    return np.asarray(vector / max(float(np.linalg.norm(vector)), 1e-6), np.float32)

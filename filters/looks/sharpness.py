"""Sharpness: how much fine detail a further blur would take away.

One minus the perceptual blur of Crete et al., on luma at 360-pixel short side, in the sharpest parts of the picture
(the 90th percentile of 40-pixel blocks that have any detail: a blurred background behind a sharp subject is no fault),
median over the clip's frames. Range 0 (blurred) to 1; higher is better. It does not depend on brightness and little on
content, unlike the variance of the Laplacian.

It also stands for the "clarity score" that STIV (arXiv 2412.07730) lists among its features and defines nowhere.

Source: Crete, Dolmiere, Ladret, Nicolas 2007, "The blur effect: perception and estimation with a new no-reference
perceptual blur metric".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import cv2
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from filters.looks.frames import LOOKS, grays
from manifests.schema import column
from manifests.types import Clip, Frames, Image

_WINDOW = 11  # pixels of the re-blur; the paper uses 9 at its picture size
_BLOCK = 40
_DETAIL = 0.8  # mean step between neighbouring pixels, in grey levels, below which a block shows nothing but noise


@dataclass(frozen=True, slots=True)
class Sharpness:
    """Median sharpness of the sampled frames."""

    version: int = 2
    wants = LOOKS
    schema: ClassVar[pa.Schema] = pa.schema(
        [column("sharpness", pa.float64(), "one minus perceptual blur", range="0..1", better="higher")]
    )

    def __call__(self, clips: Sequence[Clip], frames: Sequence[Frames]) -> dict[str, list[Any]]:
        return {"sharpness": [f.share(sharpness) for f in frames]}


def sharpness(frames: Frames) -> float | None:
    """Median over the frames, 0..1."""
    # Every third frame: sharpness changes slowly, and this is the dearest of the photographic measures.
    luma = frames.share(grays)
    values = [_sharpness(gray) for gray in luma[min(1, len(luma) - 1) :: 3] if min(gray.shape) > _WINDOW]
    return float(np.median(values)) if values else None


def _sharpness(gray: Image) -> float:
    luma = gray.astype(np.float32)
    shares, details = [], []
    for axis in (0, 1):
        blurred = cv2.blur(luma, (1, _WINDOW) if axis == 0 else (_WINDOW, 1))
        before, after = _steps(luma, axis), _steps(np.asarray(blurred, np.float32), axis)
        lost, total = _blocks(np.maximum(before - after, 0)), _blocks(before)
        shares.append(lost / np.maximum(total, 1e-6))
        details.append(total > _DETAIL)
    detailed = details[0] & details[1]
    worse = np.minimum(*shares)[detailed]  # of the two directions
    return float(np.percentile(worse, 90)) if len(worse) else 0.0


def _steps(luma: npt.NDArray[np.float32], axis: int) -> npt.NDArray[np.float32]:
    """Absolute differences of neighbours along an axis, without the last row and column for both axes."""
    moved = luma[1:, :-1] if axis == 0 else luma[:-1, 1:]
    return np.asarray(cv2.absdiff(moved, luma[:-1, :-1]), np.float32)


def _blocks(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Means over blocks of 40 pixels; what is left over at the borders does not count."""
    height, width = (max(1, side // _BLOCK) for side in values.shape)
    whole = values[: height * _BLOCK, : width * _BLOCK]
    if min(values.shape) < _BLOCK:
        return whole.mean(keepdims=True)
    return np.asarray(cv2.resize(whole, (width, height), interpolation=cv2.INTER_AREA), np.float32)

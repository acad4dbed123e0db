"""PDQ, Meta's perceptual hash of a picture, for many pictures at once.

256 bits: which of the 16x16 lowest cosine frequencies (without the constant) of a 64x64 luma exceed their median.
Related pictures differ in up to about 31 bits, unrelated ones in about 128.

Source: Facebook ThreatExchange, "The TMK+PDQF video-hashing algorithm and the PDQ image-hashing algorithm" (2019);
bit for bit equal to its reference on luma input, within the rounding of its float sums.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from manifests.types import Image

BITS = 256
_SIDE, _KEPT = 64, 16


def pdq(images: Sequence[Image]) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Luma pictures (H, W) -> hashes (N, 32) uint8, packed, and qualities (N,) 0..100; below 50 it is too plain."""
    if not images:
        return np.zeros((0, BITS // 8), np.uint8), np.zeros(0, np.int64)
    small = np.stack([_shrink(image) for image in images])
    basis = _basis()
    frequencies = (basis @ small @ basis.T).reshape(len(images), BITS)
    median = np.partition(frequencies, (BITS - 1) // 2, axis=1)[:, (BITS - 1) // 2]
    bits = frequencies > median[:, None]
    return np.packbits(bits[:, ::-1], axis=1), _quality(small)  # highest frequency first, as the reference prints it


def mirrored(hashes: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Hashes (N, 32) of the same pictures seen in a mirror: odd horizontal frequencies change sign.

    Exact but for the shift of the median, which lies near zero: a few bits differ from hashing the mirrored picture.
    """
    return hashes ^ _odd_columns()


@functools.cache
def _odd_columns() -> npt.NDArray[np.uint8]:
    frequency = np.arange(BITS) % _KEPT + 1
    return np.packbits((frequency % 2 == 1)[::-1])


@functools.cache
def _basis() -> npt.NDArray[np.float32]:
    frequency, position = np.arange(1, _KEPT + 1)[:, None], 2 * np.arange(_SIDE)[None, :] + 1
    return (np.sqrt(2 / _SIDE) * np.cos(np.pi / (2 * _SIDE) * frequency * position)).astype(np.float32)


def _shrink(image: Image) -> npt.NDArray[np.float32]:
    """64x64 by two passes of a box filter whose window shrinks at the borders, and point sampling."""
    height, width = image.shape
    smooth = image.astype(np.float32)
    window, anchor, weight = _box(height, width)
    for _ in range(2):
        total = cv2.boxFilter(smooth, -1, window, anchor=anchor, normalize=False, borderType=cv2.BORDER_CONSTANT)
        smooth = np.asarray(total * weight, np.float32)
    rows = ((np.arange(_SIDE) + 0.5) * height / _SIDE).astype(int)
    columns = ((np.arange(_SIDE) + 0.5) * width / _SIDE).astype(int)
    return smooth[np.ix_(rows, columns)]


@functools.lru_cache(maxsize=64)
def _box(height: int, width: int) -> tuple[tuple[int, int], tuple[int, int], npt.NDArray[np.float32]]:
    """cv2 window (w, h), its anchor, and one over the number of pixels under it at each place."""
    across, down = (max(1, (side + 2 * _SIDE - 1) // (2 * _SIDE)) for side in (width, height))
    anchor = (across - (across + 2) // 2, down - (down + 2) // 2)
    anchor = (max(0, anchor[0]), max(0, anchor[1]))
    under = cv2.boxFilter(
        np.ones((height, width), np.float32),
        -1,
        (across, down),
        anchor=anchor,
        normalize=False,
        borderType=cv2.BORDER_CONSTANT,
    )
    return (across, down), anchor, np.asarray(1 / under, np.float32)


def _quality(small: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
    """Sum of quantised steps between neighbours, scaled so that 100 is plenty."""
    steps = [np.trunc(np.diff(small, axis=axis) * 100 / 255) for axis in (1, 2)]
    total = sum(np.abs(step).sum(axis=(1, 2)) for step in steps)
    return np.minimum(100, (total / 90).astype(np.int64))


def distances(a: npt.NDArray[np.uint8], b: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    """Hamming distances (N, M) between packed hashes (N, 32) and (M, 32)."""
    return np.bitwise_count(a[:, None, :] ^ b[None, :, :]).sum(axis=2, dtype=np.int64)

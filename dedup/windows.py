"""Windows of small pictures as cosine spectra: what copies are found and compared by, whatever was cropped away.

A window is (left, right, top, bottom) in shares of the picture's width and height. A spectrum is linear in the picture,
so that of any window comes from a stored 32x32 luma without resampling it, exact to a fraction of a pixel: the integral
of each cosine over each pixel, cut off at the window's sides.

A hash has a bit for each of the 128 lowest frequencies: whether it exceeds their median, weighed by what pictures have
of it on average. That is how PDQ makes its bits; it takes 256 of higher frequencies, which a crop that is a few
per cent off turns over.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import numpy.typing as npt

SIDE = 32
"""Pixels of the stored picture, across and down."""

KEPT = 12
"""Frequencies of a spectrum, across and down, the constant included."""

BITS = 128

Floats = npt.NDArray[np.float32]
Windows = npt.NDArray[np.float64]
Hashes = npt.NDArray[np.uint8]

_TRUST = 6.0
"""Contrast in grey levels (root mean square of the spectrum) below which a window is too plain to tell."""


def spectra(pictures: npt.NDArray[Any], windows: Windows) -> Floats:
    """Pictures (N, 32, 32) in each of the windows (K, 4) -> (N, K, 12, 12), vertical frequency first."""
    down, across = waves(windows[:, 2:]), waves(windows[:, :2])
    pixels = np.asarray(pictures, np.float32)
    rows = (pixels.reshape(-1, SIDE) @ across.reshape(-1, SIDE).T).reshape(len(pixels), SIDE, len(across), KEPT)
    return np.matmul(down, rows.transpose(0, 2, 1, 3))


def waves(sides: Windows) -> Floats:
    """(..., 2) start and end of a window along one axis -> (..., 12, 32): spectrum = waves @ pixels.

    The first row takes the mean over the window, the others its mean product with a cosine, times the square root of 2.
    """
    start, length = sides[..., :1], sides[..., 1:] - sides[..., :1]
    edges = np.clip((np.arange(SIDE + 1) / SIDE - start) / length, 0.0, 1.0)[..., None, :].astype(np.float32)
    k = np.arange(1, KEPT, dtype=np.float32)[:, None] * np.float32(np.pi)
    below = np.concatenate([edges, np.sin(k * edges) * (np.float32(np.sqrt(2)) / k)], axis=-2)
    return np.asarray(np.diff(below, axis=-1), np.float32)


@functools.cache
def whitening(power: float) -> Floats:
    """(12, 12): frequency to that power, 0 for the constant. What pictures have of a frequency falls about as fast."""
    k = np.arange(KEPT)
    weights = np.hypot(k[:, None], k[None, :]) ** power
    weights[0, 0] = 0.0
    return weights.astype(np.float32)


@functools.cache
def grid() -> Windows:
    """(67, 4): the whole picture first; then windows of 92 to 70 % of both sides wherever they may lie, at most 8 %
    apart; then what is left of a film that is cut to another shape."""
    windows = [(0.0, 1.0, 0.0, 1.0)]
    for keep in (0.92, 0.84, 0.77, 0.7):
        places = np.linspace(0, 1 - keep, int(np.ceil((1 - keep) / 0.08)) + 1)
        windows += [(x, x + keep, y, y + keep) for x in places for y in places]
    for keep, count in ((0.85, 2), (0.75, 3), (0.5625, 1), (0.32, 1)):
        places = np.linspace(0, 1 - keep, count) if count > 1 else np.array([(1 - keep) / 2])
        windows += [w for at in places for w in ((at, at + keep, 0.0, 1.0), (0.0, 1.0, at, at + keep))]
    return np.array(windows)


def signatures(pictures: npt.NDArray[Any], windows: Windows) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """Pictures (N, 32, 32), windows (K, 4) -> the 128 lowest frequencies of each (N, K, 128), of unit length, and
    whether there is enough to see (N, K)."""
    spectrum = spectra(pictures, windows)
    contrast = np.sqrt(np.maximum(np.square(spectrum).sum((-1, -2)) - np.square(spectrum[..., 0, 0]), 0.0))
    lowest = (spectrum * whitening(0.75)).reshape(*spectrum.shape[:2], -1)[..., _lowest()]
    return unit(lowest), contrast >= _TRUST


def hashes(signature: Floats) -> Hashes:
    """(..., 128) -> (..., 16), packed."""
    return np.packbits(signature > np.median(signature, axis=-1, keepdims=True), axis=-1)


def mirror(pictures: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Pictures (..., H, W) seen in a mirror."""
    return np.ascontiguousarray(pictures[..., ::-1])


def mirrored(packed: Hashes) -> Hashes:
    """Hashes (N, 16) of the same pictures seen in a mirror: odd horizontal frequencies change sign.

    Exact but for the median, which is near zero: a few bits differ from those of the mirrored picture.
    """
    return packed ^ np.packbits(_lowest() % KEPT % 2 == 1)


def unit(rows: Floats) -> Floats:
    """The same of unit length along the last axis, zeros as they are."""
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), 1e-6), np.float32)


@functools.cache
def _lowest() -> npt.NDArray[np.int64]:
    distance = np.hypot(*np.mgrid[:KEPT, :KEPT]).ravel()
    return np.argsort(distance, kind="stable")[1 : BITS + 1]

"""What copy detection is held against: PDQ hashes of whole pictures, four a second, that match at a steady offset.

Pictures match when their hashes are close; how close depends on how fast the picture changes, for the two clips were
looked at in different moments. Clips are copies when 60 % of the shorter one's pictures match.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from benchmarks.quality._pdq import distances, mirrored, pdq
from manifests.types import Image

_DISTANCE, _MOTION, _FURTHEST = 28.0, 0.25, 56
_QUALITY, _SHARE, _SLACK = 50, 0.6, 0.6

Hashes = npt.NDArray[np.uint8]
Times = npt.NDArray[np.float64]


class Hashed:
    """Trusted hashes (N, 32) of one clip's luma pictures, and their times (N,) in seconds."""

    def __init__(self, images: Sequence[Image], times: Times):
        hashes, quality = pdq(images)
        self.hashes, self.times = hashes[quality >= _QUALITY], np.asarray(times)[quality >= _QUALITY]

    def steps(self) -> Times:
        """Bits between each picture and the one of its neighbours that differs more (N,)."""
        between = np.bitwise_count(self.hashes[1:] ^ self.hashes[:-1]).sum(axis=1).astype(np.float64)
        return np.maximum(np.append(between, 0), np.insert(between, 0, 0))


def alike(a: Hashed, b: Hashed, mirror: bool = False) -> bool:
    if len(a.hashes) > len(b.hashes):
        a, b = b, a
    if not len(a.hashes):
        return False
    allowed = np.minimum(_DISTANCE + _MOTION * np.maximum(a.steps()[:, None], b.steps()[None, :]), _FURTHEST)
    hashes = [a.hashes, mirrored(a.hashes)] if mirror else [a.hashes]
    return any(_aligned(distances(some, b.hashes) <= allowed, a.times, b.times) >= _SHARE for some in hashes)


def _aligned(match: npt.NDArray[np.bool_], times: Times, others: Times) -> float:
    rows, columns = np.nonzero(match)
    if not len(rows):
        return 0.0
    offsets = others[columns] - times[rows]
    bins = np.floor((offsets - offsets.min()) / (_SLACK / 2)).astype(int)
    hit = np.zeros((len(times), bins.max() + 2), bool)
    hit[rows, bins] = True
    return float((hit[:, :-1] | hit[:, 1:]).sum(axis=0).max() / len(times))

"""Video fingerprint: ten small pictures a second without the plain borders around them, and hashes to find copies by.

The pictures decide whether two clips are copies (`dedup.agreement`); the hashes only name pairs worth comparing. A copy
that was cropped is a window of the original's picture: some pictures of every clip are hashed in each window of a grid,
and asked for among the hashes of whole pictures.

Kept out of the manifest proper; copy detection reads it. Ten pictures take 10 kB, the hashes of a clip up to 7 kB.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import cv2
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dedup.windows import SIDE, Hashes, grid, hashes, signatures
from manifests.schema import column
from manifests.types import Clip, Frames, Image, Sampling

PROBES = 6
"""Pictures of a clip, evenly spread, that are looked at in every window of the grid."""

EVERY = 5
"""Of the pictures, each so many-th has a hash to be found by."""

_PLAIN, _STEADY = 24, 12
"""Grey levels: range within a line of a border, and how far its darkest and brightest may be from the outermost's."""

_MOST = 0.75
"""Share of a side that borders may take; where more is plain, it is the picture that is."""

Pictures = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """Luma at 32x32, whatever the picture's shape."""

    version: int = 2
    wants = Sampling(fps=10.0, short=180)
    schema: ClassVar[pa.Schema] = pa.schema(
        [
            column("fingerprint", pa.binary(), "32x32 luma of each picture", internal=True),
            column("fingerprint_us", pa.list_(pa.int64()), "time of each", unit="microsecond", internal=True),
            column("fingerprint_hashes", pa.binary(), "hashes of whole pictures, 16 bytes each", internal=True),
            column("fingerprint_probes", pa.binary(), "hashes of windows, 16 bytes each", internal=True),
        ]
    )

    def __call__(self, clips: Sequence[Clip], frames: Sequence[Frames]) -> dict[str, list[Any]]:
        seen = [f.images for f in frames]
        pictures = [shrink(images) if len(images) else None for images in seen]
        return {
            "fingerprint": [None if p is None else p.tobytes() for p in pictures],
            "fingerprint_us": [list(f.times) if len(f) else None for f in frames],
            "fingerprint_hashes": [None if p is None else wholes(p).tobytes() for p in pictures],
            "fingerprint_probes": [None if p is None else probes(p).tobytes() for p in pictures],
        }


def shrink(images: Sequence[Image]) -> Pictures:
    """Luma pictures (H, W) of one clip -> (N, 32, 32) of what lies inside their borders."""
    left, top, right, bottom = inside(images)
    wide, high = right - left, bottom - top
    half = min(wide, high) >= 4 * SIDE  # exact halves are much the quickest to begin with
    if half:
        right, bottom = right - wide % 2, bottom - high % 2
    return np.asarray([_small(image[top:bottom, left:right], half) for image in images], np.uint8)


def _small(image: Image, half: bool) -> npt.NDArray[Any]:
    if half:
        size = (image.shape[1] // 2, image.shape[0] // 2)
        image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
    return np.asarray(cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_AREA))


def inside(images: Sequence[Image]) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of what is no plain border in any of the pictures; right and bottom exclusive."""
    brightest = darkest = images[0]
    for image in images[1:]:
        brightest, darkest = np.asarray(cv2.max(brightest, image)), np.asarray(cv2.min(darkest, image))
    (top, bottom), (left, right) = (
        _ends(brightest.max(axis=axis).astype(np.int64), darkest.min(axis=axis).astype(np.int64)) for axis in (1, 0)
    )
    return left, top, right, bottom


def _ends(high: npt.NDArray[np.int64], low: npt.NDArray[np.int64]) -> tuple[int, int]:
    """high, low: brightest and darkest of each line."""
    depths = []
    for one, other in ((high, low), (high[::-1], low[::-1])):
        plain = (one - other <= _PLAIN) & (np.abs(one - one[0]) <= _STEADY) & (np.abs(other - other[0]) <= _STEADY)
        depths.append(len(plain) if plain.all() else int(plain.argmin()))
    if sum(depths) > _MOST * len(high):
        return 0, len(high)
    return depths[0], len(high) - depths[1]


def probed(count: int) -> npt.NDArray[np.int64]:
    """Numbers of the probes among so many pictures."""
    return np.unique(np.linspace(0, max(count - 1, 0), min(count, PROBES)).astype(np.int64))


def wholes(pictures: Pictures) -> Hashes:
    """Hashes (N, 16) of whole pictures, each once; plain ones have none."""
    return _hashed(pictures[::EVERY], whole=True)


def probes(pictures: Pictures) -> Hashes:
    """Hashes (N, 16) of the probes in all windows, each once; plain ones have none."""
    return _hashed(pictures[probed(len(pictures))], whole=False)


def _hashed(pictures: Pictures, whole: bool) -> Hashes:
    signature, seen = signatures(pictures, grid()[:1] if whole else grid())
    return np.unique(hashes(signature[seen]), axis=0)

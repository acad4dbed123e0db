"""Thumbs: blurred pictures a few places small, without the black bars around them."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from manifests.types import Image

Array = npt.NDArray[np.float32]
Lit = npt.NDArray[np.bool_]

_SHORT = 9  # places on the short side
_BLACK = 20  # level that no pixel of a bar exceeds
_EVERY = 6  # frames between two looks at the bars


class Thumbs:
    """Makes thumbs of one film's frames. What was dark all the time, on the four sides, is left out; `since` is the
    number of the frame since which the same part is shown."""

    def __init__(self) -> None:
        self.since = 0
        self._count = 0
        self._seen: tuple[Lit, Lit] | None = None  # rows and columns that are no bars, of the picture at half size
        self._last: tuple[Lit, Lit] | None = None  # those lit at the last look
        self._whole = False  # nothing is left out, nor will be
        self._box = (0, 0, 0, 0)  # top, bottom, left, right

    def push(self, image: Image) -> Array:
        """BGR (9, 16, 3) of a 16:9 frame; other shapes are as high, or as wide, a portrait one."""
        height, width = image.shape[:2]
        scale = min(height, width) / _SHORT
        even = image[: max(1, height & ~1), : max(1, width & ~1)]  # exact halves are much the quickest
        half = cv2.resize(even, (max(1, width // 2), max(1, height // 2)), interpolation=cv2.INTER_AREA)
        if self._count % _EVERY == 0 and not self._whole:
            self._look(np.asarray(half, np.uint8))
        self._count += 1
        top, bottom, left, right = self._box
        size = max(1, round(width / scale)), max(1, round(height / scale))
        small = cv2.resize(half[top:bottom, left:right], size, interpolation=cv2.INTER_AREA)
        return np.asarray(cv2.GaussianBlur(small, (3, 3), 0), np.float32)

    def _look(self, half: Image) -> None:
        """Bars end where it is lit in the first frame, or at two looks: a flash lights bars too, but briefly."""
        lit = half.max(axis=(1, 2)) > _BLACK, half.max(axis=(0, 2)) > _BLACK
        if self._seen is None or self._last is None:
            self._seen = self._last = lit
        rows, columns = (s | (a & b) for s, a, b in zip(self._seen, self._last, lit, strict=True))
        self._seen, self._last = (rows, columns), lit
        box = (*_ends(rows), *_ends(columns))
        if box != self._box:
            self._box, self.since = box, self._count
        self._whole = bool(min(rows[0], rows[-1], columns[0], columns[-1]))


def _ends(lit: Lit) -> tuple[int, int]:
    """The lit part of a side, or all of it where there is none, or less than a third."""
    at = np.flatnonzero(lit)
    if len(at) and 3 * (at[-1] + 1 - at[0]) >= len(lit):
        return int(at[0]), int(at[-1]) + 1
    return 0, len(lit)

"""The picture inside a plain border, found once for every signal that asks: bars are no part of what was filmed."""

from __future__ import annotations

from dataclasses import dataclass

from filters.looks.borders import Letterbox
from filters.looks.frames import grays
from manifests.types import Frames, Image

_RINGING = 3  # pixels beside a bar that the codec has smeared


@dataclass(frozen=True, slots=True, eq=False)
class Inside:
    """images and grays: BGR and luma of every frame inside the border; whole: luma with the border."""

    images: list[Image]
    grays: list[Image]
    whole: list[Image]


def inside(frames: Frames) -> Inside:
    whole = frames.share(grays)
    box = Letterbox().find(whole[::2]) if whole else None  # borders are there in every frame
    if box is None or box.kind != "plain":
        return Inside(list(frames.images), whole, whole)
    height, width = whole[0].shape
    top, bottom, left, right = (n + _RINGING if n else 0 for n in (box.top, box.bottom, box.left, box.right))
    rows, columns = slice(top, height - bottom), slice(left, width - right)
    if height - top - bottom < 24 or width - left - right < 24:
        return Inside(list(frames.images), whole, whole)
    return Inside([i[rows, columns] for i in frames.images], [g[rows, columns] for g in whole], whole)

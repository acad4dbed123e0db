"""Pictures and films that a video is to start from, end in or pass through, in the shape that a model makes: scaled to
cover it and cut in the middle, as the clips of its training were."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from generator.data import fitted
from manifests.buckets import Shape
from manifests.media.container import Film, decode, open_film
from manifests.media.pixels import Picture
from manifests.types import Sampling

Pixels = npt.NDArray[np.uint8]
MOST = 10_000  # frames of a film that are read at once


def read_image(file: str | os.PathLike[str], shape: Shape) -> Pixels:
    """(H, W, 3) RGB, turned as its camera says. Raises ValueError where there is no image."""
    if not Path(file).is_file():
        raise ValueError(f"{file}: there is no such image.")
    image = cv2.imread(os.fspath(file), cv2.IMREAD_COLOR)
    if image is None:
        raise ValueError(f"{file} cannot be read as an image; give a PNG or JPEG file.")
    found: Pixels = fitted(np.asarray(image, np.uint8)[None, ..., ::-1], shape)[0]
    return found


def read_film(
    file: str | os.PathLike[str], shape: Shape, count: int = 0, fps: float | None = None
) -> tuple[Pixels, float]:
    """The first `count` frames, or all, (F, H, W, 3) RGB, and their rate. fps: frames that are on screen at this rate;
    else every frame.

    Raises ValueError where it has fewer, or more than `MOST`; MediaError where it cannot be read.
    """
    with open_film(os.fspath(file)) as film:
        found = list(islice(_pictures(film, shape, fps), count or MOST + 1))
        rate = fps or film.fps
    if len(found) > MOST:
        raise ValueError(f"{file} has more than {MOST} frames; cut a shorter film out of it.")
    if not found or len(found) < count:
        pace = f" at {fps:g} a second" if fps else ""
        raise ValueError(f"{file} has only {len(found)} frames{pace}, {count or 1} are needed; give a longer film.")
    return fitted(np.stack(found)[..., ::-1], shape), rate


def read_whole(file: str | os.PathLike[str], count: int = 0) -> tuple[Pixels, float]:
    """As `read_film`, at the film's own size."""
    with open_film(os.fspath(file)) as film:
        next(decode(film))
        shape = Shape(film.height, film.width, 1)
    return read_film(file, shape, count)


def read_ends(file: str | os.PathLike[str], shape: Shape) -> Pixels:
    """The first and the last frame of a film, (2, H, W, 3) RGB. Raises ValueError where it has one frame."""
    ends: list[Pixels] = []
    with open_film(os.fspath(file)) as film:
        for picture in _pictures(film, shape, None):
            ends = [*ends[:1], picture]
    if len(ends) < 2:
        raise ValueError(f"{file} has {len(ends)} frames, and so no first and last; give a longer film.")
    return fitted(np.stack(ends)[..., ::-1], shape)


def _pictures(film: Film, shape: Shape, fps: float | None) -> Iterator[Pixels]:
    """BGR, as small as the shape allows."""
    want = Sampling(float("inf"), max(shape.height, shape.width), color=True)
    begin, number = None, 0
    for shown in decode(film):
        begin = shown.time if begin is None else begin
        picture = Picture(shown.frame, film.rotation, film.sar)
        if fps is None:
            yield picture.sample(want)
            continue
        while begin + round(number * 1e6 / fps) < shown.end:
            yield picture.sample(want)
            number += 1

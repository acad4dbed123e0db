"""Encodes one span of a video into a file of its own, frame for frame: only here is footage encoded again."""

from __future__ import annotations

import os
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np

from manifests.media.container import open_film
from manifests.media.pixels import Picture, fit
from manifests.media.read import frames_from
from manifests.types import EVERY_FRAME, Image, MediaError, Sampling

_CLOCK = Fraction(1, 90_000)


def cut(
    uri: str,
    start: int,
    end: int,
    target: str | os.PathLike[str],
    short: int = 0,
    crf: int = 18,
    crop: Sequence[int] | None = None,
) -> int:
    """Writes frames of [start, end), microseconds, as H.264 and returns how many; their times are kept (VFR stays VFR).

    short: short side to scale down to, 0 for the film's own. crop: x, y, width, height of the part that is kept, in
    pixels of the film as shown, before scaling. Rotation and pixel shape are applied; sound is left out.
    Raises MediaError when the span holds no frame.
    """
    want = Sampling(EVERY_FRAME, 1 << 16 if crop else short or 1 << 16, color=True)
    count = 0
    with open_film(uri) as film, av.open(os.fspath(target), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=Fraction(film.fps).limit_denominator(1001))
        stream.pix_fmt = "yuv420p"
        stream.options = {"crf": str(crf), "preset": "medium"}
        stream.codec_context.time_base = _CLOCK
        for decoded in frames_from(film, start):
            if decoded.time >= end:
                break
            if decoded.time < start:
                continue
            image = _cropped(Picture(decoded.frame, film.rotation, film.sar).sample(want), crop, short)
            height, width = (side // 2 * 2 for side in image.shape[:2])  # 4:2:0 needs even sides
            if not height or not width:
                raise MediaError(f"{film.name}: its picture is too small to encode.")
            if not count:
                stream.width, stream.height = width, height
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image[:height, :width]), format="bgr24")
            frame.pts, frame.time_base = round((decoded.time - start) * 90_000 / 1_000_000), _CLOCK
            container.mux(stream.encode(frame))
            count += 1
        if count:
            container.mux(stream.encode(None))
    if not count:
        Path(target).unlink(missing_ok=True)
        raise MediaError(
            f"{film.name}: no frame between {start / 1e6:.3f} s and {end / 1e6:.3f} s; was the file changed?"
        )
    return count


def _cropped(image: Image, crop: Sequence[int] | None, short: int) -> Image:
    if not crop:
        return image
    x, y, width, height = crop
    image = image[y : y + height, x : x + width]
    if not short or short >= min(image.shape[:2]):
        return image
    return np.asarray(cv2.resize(image, fit(width, height, short), interpolation=cv2.INTER_AREA), np.uint8)

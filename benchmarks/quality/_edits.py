"""What people do to films that they copy, done to luma pictures (N, H, W) at a steady rate."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import numpy.typing as npt

from manifests.types import Image

Pictures = list[Image]
Edit = Callable[[Pictures], Pictures]


def each(change: Callable[[Image], npt.NDArray]) -> Edit:
    return lambda film: [np.ascontiguousarray(np.clip(change(image), 0, 255), np.uint8) for image in film]


def crop(left: float, right: float, top: float, bottom: float) -> Edit:
    def cut(image: Image) -> Image:
        h, w = image.shape
        return image[round(top * h) : round(bottom * h), round(left * w) : round(right * w)]

    return each(cut)


def pad(down: float, across: float, level: int) -> Edit:
    def padded(image: Image) -> Image:
        sides = [(round(share * side),) * 2 for share, side in zip((down, across), image.shape, strict=True)]
        return np.pad(image, sides, constant_values=level)

    return each(padded)


def scale(share: float) -> Edit:
    def scaled(image: Image) -> Image:
        small = cv2.resize(image, None, fx=share, fy=share, interpolation=cv2.INTER_AREA)
        return np.asarray(cv2.resize(small, image.shape[::-1]), np.uint8)

    return each(scaled)


def jpeg(quality: int) -> Edit:
    def coded(image: Image) -> Image:
        packed = cv2.imencode(".jpg", image, (cv2.IMWRITE_JPEG_QUALITY, quality))[1]
        return np.asarray(cv2.imdecode(packed, cv2.IMREAD_GRAYSCALE), np.uint8)

    return each(coded)


def lettered(*lines: tuple[str, float, float]) -> Edit:
    """Text, how far down, and size."""

    def written(image: Image) -> Image:
        image = image.copy()
        for text, down, size in lines:
            at = (round(0.1 * image.shape[1]), round(down * image.shape[0]))
            for level, width in ((0, 5), (255, 2)):
                cv2.putText(image, text, at, cv2.FONT_HERSHEY_SIMPLEX, size * image.shape[0] / 180, (level,), width)
        return image

    return each(written)


def box(left: float, right: float, top: float, bottom: float, level: int) -> Edit:
    def drawn(image: Image) -> Image:
        image, (h, w) = image.copy(), image.shape
        image[round(top * h) : round(bottom * h), round(left * w) : round(right * w)] = level
        return image

    return each(drawn)


def turned(degrees: float) -> Edit:
    def rotated(image: Image) -> Image:
        h, w = image.shape
        return np.asarray(cv2.warpAffine(image, cv2.getRotationMatrix2D((w / 2, h / 2), degrees, 1), (w, h)), np.uint8)

    return each(rotated)


def noise(spread: float) -> Edit:
    rng = np.random.default_rng(0)
    return each(lambda image: image + rng.normal(0, spread, image.shape))


def speed(factor: float) -> Edit:
    return lambda film: [film[int(k)] for k in np.arange(0, len(film), factor)]


def trim(start: float, end: float) -> Edit:
    return lambda film: film[int(start * len(film)) : max(int(end * len(film)), int(start * len(film)) + 2)]


def insert(frames: int) -> Edit:
    return lambda film: [*film[: len(film) // 2], *[255 - film[0]] * frames, *film[len(film) // 2 :]]


def after(*edits: Edit) -> Edit:
    def all_of_them(film: Pictures) -> Pictures:
        for edit in edits:
            film = edit(film)
        return film

    return all_of_them


EDITS: dict[str, Edit] = {
    "coded badly": jpeg(10),
    "scaled down to a quarter and up": scale(0.25),
    "cropped: 10 %, middle": crop(0.05, 0.95, 0.05, 0.95),
    "cropped: 15 %, corner": crop(0.0, 0.85, 0.15, 1.0),
    "cropped: 20 %": crop(0.13, 0.93, 0.07, 0.87),
    "cropped: 30 %, middle": crop(0.15, 0.85, 0.15, 0.85),
    "cropped to 4:3": crop(0.125, 0.875, 0, 1),
    "cropped to 9:16": crop(0.342, 0.658, 0, 1),
    "cropped to scope": crop(0, 1, 0.125, 0.875),
    "letterbox": pad(0.16, 0, 0),
    "letterbox, grey": pad(0.2, 0, 128),
    "pillarbox": pad(0, 0.2, 0),
    "frame all around": pad(0.15, 0.15, 16),
    "brighter": each(lambda image: image.astype(np.float32) + 38),
    "darker, flatter": each(lambda image: image * 0.7),
    "more contrast": each(lambda image: (image - 128.0) * 1.5 + 128),
    "gamma 0.6": each(lambda image: 255 * (image / 255) ** 0.6),
    "gamma 1.8": each(lambda image: 255 * (image / 255) ** 1.8),
    "blurred": each(lambda image: cv2.GaussianBlur(image, (0, 0), 1.5)),
    "grain": noise(20),
    "logo": box(0.8, 0.94, 0.06, 0.18, 230),
    "subtitle": lettered(("and this is what she said", 0.92, 0.55)),
    "titles": lettered(("SUBSCRIBE NOW", 0.25, 1.1), ("best of the web", 0.85, 0.8)),
    "turned by 2 degrees": turned(2),
    "half speed": speed(0.5),
    "speed 0.75": speed(0.75),
    "speed 1.05": speed(1.05),
    "speed 1.5": speed(1.5),
    "double speed": speed(2.0),
    "trimmed to a half": trim(0.31, 0.81),
    "frames put in": insert(10),
    "cropped, faster, brighter, logo": after(
        crop(0.07, 0.95, 0.05, 0.93), speed(1.1), each(lambda i: i * 1.1 + 15), box(0.8, 0.94, 0.06, 0.18, 230)
    ),
    "mirrored": each(lambda image: image[:, ::-1]),
    "mirrored, cropped, letterbox": after(
        crop(0.1, 0.95, 0.05, 0.9), each(lambda image: image[:, ::-1]), pad(0.15, 0, 0)
    ),
}
"""All but one re-encoding lie on top of light coding; the last two are copies only if mirrored ones count."""

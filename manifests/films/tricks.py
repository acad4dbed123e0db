"""What an editor does to pictures: split screens, insets, borders, inverted and posterised colours, mirrors, flashes.

Each trick takes films (iterators of BGR pictures of one size) and gives one. `TRICKS` names them all; a trick is chosen
with a generator of random numbers, which sets its parameters.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence

import cv2
import numpy as np
import numpy.typing as npt

from manifests.types import Image

Pictures = Iterator[Image]
Trick = Callable[[Sequence[Pictures], np.random.Generator], Pictures]


def split(films: Sequence[Pictures], rng: np.random.Generator) -> Pictures:
    """Two or three films side by side or one above the other."""
    across, line = bool(rng.random() < 0.6), int(rng.choice([0, 0, 2, 4]))
    color = rng.choice([0, 255])
    for pictures in zip(*films, strict=False):
        height, width = pictures[0].shape[:2]
        axis, total = (1, width) if across else (0, height)
        edges = np.linspace(0, total, len(pictures) + 1).astype(int)
        parts = []
        for picture, start, end in zip(pictures, edges, edges[1:], strict=False):
            shift = (total - (end - start)) // 2
            parts.append(picture[:, shift : shift + end - start] if across else picture[shift : shift + end - start])
        joined: npt.NDArray[np.uint8] = np.concatenate(parts, axis)
        for edge in edges[1:-1] if line else ():
            joined[(slice(None), slice(edge, edge + line)) if across else slice(edge, edge + line)] = color
        yield joined


def quarters(films: Sequence[Pictures], rng: np.random.Generator) -> Pictures:
    """Four films, or the same one four times."""
    for pictures in zip(*(films if len(films) == 4 else itertools.tee(films[0], 4)), strict=False):
        height, width = pictures[0].shape[:2]
        small = [cv2.resize(p, (width // 2, height // 2), interpolation=cv2.INTER_AREA) for p in pictures]
        yield np.vstack([np.hstack(small[:2]), np.hstack(small[2:])]).astype(np.uint8)


def inset(films: Sequence[Pictures], rng: np.random.Generator) -> Pictures:
    """A small film in a corner of another."""
    share, right, low = rng.uniform(0.25, 0.42), rng.random() < 0.5, rng.random() < 0.5
    frame = int(rng.choice([0, 2, 4]))
    for large, other in zip(*films[:2], strict=False):
        height, width = large.shape[:2]
        w, h = round(width * share), round(height * share)
        x = width - w - width // 30 if right else width // 30
        y = height - h - height // 30 if low else height // 30
        picture = large.copy()
        picture[max(0, y - frame) : y + h + frame, max(0, x - frame) : x + w + frame] = 255
        picture[y : y + h, x : x + w] = cv2.resize(other, (w, h), interpolation=cv2.INTER_AREA)
        yield picture


def border(films: Sequence[Pictures], rng: np.random.Generator) -> Pictures:
    """The film smaller, on a plain, striped or graded ground."""
    share, kind, color = rng.uniform(0.5, 0.78), rng.choice(["plain", "stripes", "graded"]), rng.uniform(40, 255, 3)
    ground: Image | None = None
    for picture in films[0]:
        height, width = picture.shape[:2]
        if ground is None:
            ground = _ground(str(kind), width, height, color, rng)
        w, h = round(width * share), round(height * share)
        y, x = (height - h) // 2, (width - w) // 2
        framed = ground.copy()
        framed[y : y + h, x : x + w] = cv2.resize(picture, (w, h), interpolation=cv2.INTER_AREA)
        yield framed


def blurred_sides(films: Sequence[Pictures], rng: np.random.Generator) -> Pictures:
    """A film of another shape, its own blurred enlargement beside it (or above and below)."""
    share, sideways = rng.uniform(0.35, 0.75), rng.random() < 0.75
    for picture in films[0]:
        height, width = picture.shape[:2]
        ground = cv2.GaussianBlur(cv2.resize(picture, None, fx=0.25, fy=0.25), (0, 0), width / 160)
        shown: npt.NDArray[np.uint8] = np.asarray(cv2.resize(ground, (width, height)), np.uint8)
        if sideways:
            w = round(width * share)
            x, shift = (width - w) // 2, (width - w) // 2
            shown[:, x : x + w] = picture[:, shift : shift + w]
        else:
            h = round(height * share)
            y = (height - h) // 2
            shown[y : y + h] = picture[y : y + h]
        yield shown


def negative(films: Sequence[Pictures], rng: np.random.Generator) -> Pictures:
    """Inverted colours."""
    for picture in films[0]:
        yield np.asarray(255 - picture, np.uint8)


def posterised(films: Sequence[Pictures], rng: np.random.Generator) -> Pictures:
    """Three to five levels of each colour."""
    steps = int(rng.integers(2, 5))
    levels = (np.round(np.arange(256) / 255 * steps) / steps * 255).astype(np.uint8)
    for picture in films[0]:
        yield np.asarray(cv2.LUT(picture, levels), np.uint8)


def tinted(films: Sequence[Pictures], rng: np.random.Generator) -> Pictures:
    """Two inks, as heat maps and duotones have."""
    maps = [cv2.COLORMAP_JET, cv2.COLORMAP_HOT, cv2.COLORMAP_OCEAN, cv2.COLORMAP_PINK, cv2.COLORMAP_SPRING]
    kind = int(rng.choice(maps))
    for picture in films[0]:
        yield np.asarray(cv2.applyColorMap(cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY), kind), np.uint8)


def mirrored(films: Sequence[Pictures], rng: np.random.Generator) -> Pictures:
    """One half and its reflection, or four quarters of a kaleidoscope."""
    kind = int(rng.integers(0, 3))
    for picture in films[0]:
        height, width = (n // 2 * 2 for n in picture.shape[:2])
        if kind != 1:
            half = picture[:height, : width // 2]
            picture = np.hstack([half, half[:, ::-1]])
        if kind != 0:
            half = picture[: height // 2, :width]
            picture = np.vstack([half, half[::-1]])
        yield np.asarray(picture, np.uint8)


def flashing(films: Sequence[Pictures], rng: np.random.Generator) -> Pictures:
    """White, black or inverted for a frame or two, several times a second."""
    every, kind = int(rng.integers(5, 11)), int(rng.integers(0, 3))
    for k, picture in enumerate(films[0]):
        if k % every == every - 1:
            yield [np.full_like(picture, 250), np.zeros_like(picture), np.asarray(255 - picture, np.uint8)][kind]
        else:
            yield picture


def stickers(films: Sequence[Pictures], rng: np.random.Generator) -> Pictures:
    """Painted signs that stay where they are while the film goes on."""
    shapes = [(rng.uniform(0.1, 0.9, 2), rng.uniform(0.05, 0.12), rng.uniform(0, 255, 3)) for _ in range(7)]
    for picture in films[0]:
        height, width = picture.shape[:2]
        shown = picture.copy()
        for k, (at, size, color) in enumerate(shapes):
            center, radius = (int(at[0] * width), int(at[1] * height)), int(size * height)
            if k % 2:
                cv2.circle(shown, center, radius, color.tolist(), -1, cv2.LINE_AA)
                cv2.circle(shown, center, radius, (255, 255, 255), 3, cv2.LINE_AA)
            else:
                low = (center[0] + 2 * radius, center[1] + radius)
                cv2.rectangle(shown, (center[0] - 2 * radius, center[1] - radius), low, color.tolist(), -1)
        yield shown


TRICKS: dict[str, tuple[Trick, int]] = {
    "split": (split, 2),
    "split3": (split, 3),
    "quarters": (quarters, 4),
    "same_quarters": (quarters, 1),
    "inset": (inset, 2),
    "border": (border, 1),
    "blurred_sides": (blurred_sides, 1),
    "negative": (negative, 1),
    "posterised": (posterised, 1),
    "tinted": (tinted, 1),
    "mirrored": (mirrored, 1),
    "flashing": (flashing, 1),
    "stickers": (stickers, 1),
}
"""Every trick and how many films it takes."""


def _ground(
    kind: str, width: int, height: int, color: npt.NDArray[np.float64], rng: np.random.Generator
) -> npt.NDArray[np.uint8]:
    ground = np.full((height, width, 3), color)
    if kind == "stripes":
        pitch = int(rng.integers(6, 24))
        ground[np.arange(height) % pitch < pitch // 3] *= 0.6
    elif kind == "graded":
        ground = ground * np.linspace(0.3, 1, width)[None, :, None]
    return ground.astype(np.uint8)

"""People who talk to the camera: a face that nods and moves its lips, before a wall or in a corner of a slide.

The faces are those of the portrait and the small pictures of faces that ship with scikit-image.
"""

from __future__ import annotations

import functools
import importlib.util
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from manifests.films.living import smooth_field
from manifests.films.photos import photo
from manifests.types import Image

FACES = 100
"""How many small faces there are; number 0 of a `Speaker` stands for the portrait."""


@dataclass(frozen=True, slots=True)
class Speaker:
    """face: number; size: height of the head as a share of the picture; nod: how far the head moves, as a share of
    itself; wander: how far the whole person walks, as a share of the width; x, y: where the head is; gestures: hands
    that move before the body."""

    face: int = 0
    seconds: float = 2.5
    size: float = 0.35
    nod: float = 0.03
    wander: float = 0.0
    x: float = 0.5
    y: float = 0.38
    gestures: float = 0.0
    grain: float = 1.0
    seed: int = 0


def frames(speaker: Speaker, width: int, height: int, fps: float) -> Iterator[Image]:
    """BGR (H, W, 3): a person in front of a wall."""
    rng = np.random.default_rng(speaker.seed)
    wall = _wall(rng, width, height)
    shirt, skin = rng.uniform(30, 190) + rng.normal(0, 25, 3), rng.uniform(0.9, 1.1, 3)
    head = _head(speaker.face, round(speaker.size * height), skin)
    rates, starts = rng.uniform(0.3, 1.1, 4), rng.uniform(0, 6.28, 4)
    for k in range(round(speaker.seconds * fps)):
        t = k / fps
        sway = np.sin(2 * math.pi * rates[:2] * t + starts[:2]) * speaker.nod * speaker.size * height
        walk = speaker.wander * width * math.sin(2 * math.pi * 0.3 * t + starts[2])
        center = np.array([speaker.x * width + walk, speaker.y * height]) + sway
        picture: npt.NDArray[np.uint8] = wall.copy()
        radius = head.shape[0] / 2
        body = (int(center[0] - 0.4 * sway[0]), int(center[1] + 2.6 * radius))
        cv2.ellipse(picture, body, (int(1.7 * radius), int(1.75 * radius)), 0, 0, 360, shirt.tolist(), -1, cv2.LINE_AA)
        cv2.rectangle(
            picture, (body[0] - int(1.7 * radius), body[1]), (body[0] + int(1.7 * radius), height), shirt.tolist(), -1
        )
        _paste(picture, _talking(head, 0.5 + 0.5 * math.sin(2 * math.pi * 3.1 * t + starts[3])), center)
        if speaker.gestures:
            for side in (-1, 1):
                reach = speaker.gestures * radius * np.array([math.sin(5 * t + side), math.sin(6.3 * t + 2 * side)])
                at = center + np.array([side * 1.3 * radius, 2.2 * radius]) + 2 * reach
                cv2.circle(picture, (int(at[0]), int(at[1])), int(0.35 * radius), (140, 160, 205), -1, cv2.LINE_AA)
        noise = rng.normal(0, speaker.grain, (height, width, 1))
        yield np.clip(picture + noise, 0, 255).astype(np.uint8)


def beside_slide(
    slide: Iterator[Image], speaker: Iterator[Image], share: float, right: bool, low: bool
) -> Iterator[Image]:
    """A speaker in a corner of a slide; share: of the width."""
    for page, person in zip(slide, speaker, strict=False):
        height, width = page.shape[:2]
        w = round(width * share)
        h = round(w * 0.75)
        crop = person[:, (width - round(height * 4 / 3)) // 2 :][:, : round(height * 4 / 3)]
        x = width - w - width // 40 if right else width // 40
        y = height - h - height // 40 if low else height // 40
        shown = page.copy()
        shown[y : y + h, x : x + w] = cv2.resize(crop, (w, h), interpolation=cv2.INTER_AREA)
        yield shown


@functools.cache
def _small_faces() -> npt.NDArray[np.float64]:
    """(faces, 25, 25) luma, 0..1."""
    spec = importlib.util.find_spec("skimage")
    if spec is None or spec.origin is None:
        raise ValueError("films of speakers need the faces of scikit-image: pip install 'vidcurate[demo]'.")
    return np.asarray(np.load(Path(spec.origin).parent / "data" / "lfw_subset.npy")[:FACES], np.float64)


def _head(face: int, height: int, skin: npt.NDArray[np.float64]) -> Image:
    """BGR (height, height, 3)."""
    if not face:
        return np.asarray(cv2.resize(photo("astronaut")[20:220, 124:324], (height, height)), np.uint8)
    small = (_small_faces()[(face - 1) % FACES] * 255).astype(np.float32)
    large = np.asarray(cv2.resize(small, (height, height), interpolation=cv2.INTER_CUBIC), np.float32)
    tone = np.array([0.72, 0.85, 1.05]) * skin
    return np.clip(large[..., None] * tone, 0, 255).astype(np.uint8)


def _talking(head: Image, openness: float) -> Image:
    """The lower part of the face stretched: a jaw that moves."""
    side = len(head)
    ys, xs = np.mgrid[0:side, 0:side].astype(np.float32)
    pull = 0.04 * side * openness * np.exp(-(((ys / side - 0.78) / 0.12) ** 2 + ((xs / side - 0.5) / 0.2) ** 2))
    return np.asarray(cv2.remap(head, xs, (ys - pull).astype(np.float32), cv2.INTER_LINEAR), np.uint8)


def _paste(picture: npt.NDArray[np.uint8], head: Image, center: npt.NDArray[np.float64]) -> None:
    side = len(head)
    size = (picture.shape[1], picture.shape[0])
    shift = np.array([[1, 0, center[0] - side / 2], [0, 1, center[1] - side / 2]])
    oval = np.zeros((side, side), np.uint8)
    cv2.ellipse(oval, (side // 2, side // 2), (int(0.42 * side), int(0.49 * side)), 0, 0, 360, (255,), -1)
    alpha = cv2.warpAffine(cv2.GaussianBlur(oval, (0, 0), side / 30), shift, size)[..., None].astype(np.float32) / 255
    patch = cv2.warpAffine(head, shift, size, borderMode=cv2.BORDER_REPLICATE)
    picture[:] = (picture * (1 - alpha) + patch * alpha + 0.5).astype(np.uint8)


def _wall(rng: np.random.Generator, width: int, height: int) -> Image:
    """Unevenly lit, with a board or two."""
    light = 0.75 + 0.35 * smooth_field(rng, width, height, 3)
    paint = rng.uniform(100, 220) + rng.normal(0, 14, 3)
    wall = np.clip(paint * light[..., None], 0, 255).astype(np.uint8)
    for _ in range(int(rng.integers(0, 3))):
        x, y = rng.uniform(-0.1, 0.9) * width, rng.uniform(-0.1, 0.5) * height
        corners = np.array(
            [
                [x, y],
                [x + rng.uniform(0.1, 0.4) * width, y + 6],
                [x + 0.3 * width, y + 0.5 * height],
                [x - 4, y + 0.5 * height],
            ]
        )
        cv2.fillConvexPoly(
            wall, corners.astype(np.int32), (rng.uniform(40, 200) + rng.normal(0, 20, 3)).tolist(), cv2.LINE_AA
        )
    return wall

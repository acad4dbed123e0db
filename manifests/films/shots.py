"""One shot of a synthetic film: a camera that moves over a photograph, and what goes on in front of it."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image as Pictures
from PIL import ImageDraw, ImageFont

from manifests.films.photos import photo
from manifests.types import Image

MOVES = (
    "static",
    "pan_left",
    "pan_right",
    "tilt_up",
    "tilt_down",
    "zoom_in",
    "zoom_out",
    "roll_cw",
    "roll_ccw",
    "shake",
)


@dataclass(frozen=True, slots=True)
class Shot:
    """What the camera sees.

    backdrop:  name of a photograph, or "page" for a page of text
    move:      what the camera does (the picture does the opposite)
    speed:     pans and tilts: share of the width, or height, per second; zooms: relative growth per second; rolls:
               radians per second; shake: standard deviation of the position as a share of the width
    actors:    things that cross the picture on their own
    caption:   lines of text laid over it
    freeze:    seconds after which the picture stands still
    blur:      standard deviation in pixels
    gain:      factor on the brightness
    letterbox: share of the height that black bars take
    grain:     standard deviation of the sensor's noise, in grey levels
    """

    backdrop: str
    seconds: float
    move: str = "static"
    speed: float = 0.12
    actors: int = 0
    caption: tuple[str, ...] = ()
    freeze: float = math.inf
    blur: float = 0.0
    gain: float = 1.0
    letterbox: float = 0.0
    grain: float = 0.0
    seed: int = 0


def frames(shot: Shot, width: int, height: int, fps: float) -> Iterator[Image]:
    """BGR (H, W, 3) frames of a shot."""
    rng = np.random.default_rng(shot.seed)
    backdrop = _page(width, height) if shot.backdrop == "page" else photo(shot.backdrop)
    actors = [_Actor(rng, width, height) for _ in range(shot.actors)]
    start = np.array([rng.uniform(0.3, 0.7) * backdrop.shape[1], rng.uniform(0.3, 0.7) * backdrop.shape[0]])
    if shot.backdrop == "page":
        start = np.array([backdrop.shape[1] / 2, backdrop.shape[0] / 2])
    text = _lettering(shot.caption, width, height) if shot.caption else None
    last: Image | None = None
    for k in range(round(shot.seconds * fps)):
        seconds = k / fps
        if seconds >= shot.freeze and last is not None:
            yield last
            continue
        view = _view(shot, seconds, width, height, backdrop, start, rng)
        how = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        picture: Image = np.asarray(
            cv2.warpAffine(backdrop, view, (width, height), flags=how, borderMode=cv2.BORDER_REFLECT_101), np.uint8
        )
        for actor in actors:
            actor.draw(picture, seconds)
        if shot.grain:
            picture = _grainy(picture, shot.grain, rng)
        last = _finish(picture, shot, text)
        yield last


def _view(
    shot: Shot,
    seconds: float,
    width: int,
    height: int,
    backdrop: Image,
    start: npt.NDArray[np.float64],
    rng: np.random.Generator,
) -> npt.NDArray[np.float64]:
    """Affine map from picture to backdrop coordinates at a moment."""
    scale = min(backdrop.shape[1] / width, backdrop.shape[0] / height)  # the photograph just covers the picture
    turn, center = 0.0, start.copy()
    travel = shot.speed * seconds
    kind, _, way = shot.move.partition("_")
    if kind == "pan":
        center[0] += (travel if way == "right" else -travel) * width * scale
    elif kind == "tilt":
        center[1] += (travel if way == "down" else -travel) * height * scale
    elif kind == "zoom":
        scale *= math.exp(-travel if way == "in" else travel)
    elif kind == "roll":
        turn = travel if way == "cw" else -travel  # the picture turns the other way
    elif kind == "shake":
        center += rng.normal(0, shot.speed * width * scale, 2)
    c, s = scale * math.cos(turn), scale * math.sin(turn)
    cx, cy = (width - 1) / 2, (height - 1) / 2
    return np.array([[c, -s, center[0] - c * cx + s * cy], [s, c, center[1] - s * cx - c * cy]])


class _Actor:
    """A disc cut from a photograph that swings across the picture."""

    def __init__(self, rng: np.random.Generator, width: int, height: int):
        self._radius = int(rng.uniform(0.08, 0.14) * height)
        source = photo(str(rng.choice(["dahlia", "cat", "coffee", "astronaut"])))
        top, left = (int(rng.integers(0, side - 2 * self._radius)) for side in source.shape[:2])
        self._patch = source[top : top + 2 * self._radius, left : left + 2 * self._radius]
        self._mask = np.zeros(self._patch.shape[:2], np.uint8)
        cv2.circle(self._mask, (self._radius, self._radius), self._radius, (255,), -1, cv2.LINE_AA)
        self._center = np.array([rng.uniform(0.3, 0.7) * width, rng.uniform(0.3, 0.7) * height])
        self._swing = rng.uniform(0.1, 0.22, 2) * (width, height)
        self._pace, self._phase = rng.uniform(0.8, 2.0, 2), rng.uniform(0, 2 * math.pi, 2)

    def draw(self, picture: npt.NDArray[np.uint8], seconds: float) -> None:
        center = self._center + self._swing * np.sin(self._pace * seconds + self._phase)
        corner = center - self._radius
        shift = np.array([[1, 0, corner[0]], [0, 1, corner[1]]])
        size = (picture.shape[1], picture.shape[0])
        patch = cv2.warpAffine(self._patch, shift, size)
        alpha = cv2.warpAffine(self._mask, shift, size)[..., None].astype(np.float32) / 255
        picture[:] = (picture * (1 - alpha) + patch * alpha + 0.5).astype(np.uint8)


def _grainy(picture: Image, deviation: float, rng: np.random.Generator) -> Image:
    """Noise on all channels alike, hence on luma: rolled from one field, as fresh normal numbers cost much more."""
    field = _noise_field(picture.shape[0], picture.shape[1], deviation)
    noise = np.roll(field, (int(rng.integers(picture.shape[0])), int(rng.integers(picture.shape[1]))), (0, 1))
    return np.asarray(cv2.add(picture, cv2.merge([noise] * 3), dtype=cv2.CV_8U), np.uint8)


@functools.cache
def _noise_field(height: int, width: int, deviation: float) -> npt.NDArray[np.int16]:
    return np.random.default_rng(0).normal(0, deviation, (height, width)).round().astype(np.int16)


def _finish(picture: Image, shot: Shot, text: Image | None) -> Image:
    if shot.blur:
        picture = np.asarray(cv2.GaussianBlur(picture, (0, 0), shot.blur), np.uint8)
    if shot.gain != 1:
        picture = np.clip(picture * shot.gain, 0, 255).astype(np.uint8)
    if text is not None:
        picture = np.where(text[..., 3:] > 127, text[..., :3], picture)
    if shot.letterbox:
        bar = round(picture.shape[0] * shot.letterbox / 2)
        picture = picture.copy()
        picture[:bar] = picture[len(picture) - bar :] = 0
    return picture


def _lettering(lines: tuple[str, ...], width: int, height: int) -> Image:
    """BGRA (H, W, 4) picture of lines in the lower third, white on black."""
    canvas = Pictures.new("RGBA", (width, height))
    draw = ImageDraw.Draw(canvas)
    font = ImageFont.load_default(height * 0.07)
    for k, line in enumerate(lines):
        box = draw.textbbox((0, 0), line, font=font)
        at = ((width - box[2]) / 2, height * (0.92 - 0.1 * (len(lines) - k)))
        draw.text(at, line, font=font, fill="white", stroke_width=2, stroke_fill="black")
    return np.asarray(canvas)[..., [2, 1, 0, 3]]


def _page(width: int, height: int) -> Image:
    """A page of text, dark on light."""
    canvas = Pictures.new("RGB", (width, height), (238, 236, 228))
    draw = ImageDraw.Draw(canvas)
    words = [
        "the",
        "first",
        "reel",
        "shows",
        "the",
        "harbour",
        "at",
        "dawn",
        "and",
        "the",
        "second",
        "the",
        "market",
        "in",
        "the",
        "rain",
    ]
    rows = 9
    for row in range(rows):
        line = " ".join(words[(row * 5 + k) % len(words)] for k in range(7))
        font = ImageFont.load_default(height / rows * 0.55)
        draw.text((width * 0.06, height * (row + 0.25) / rows), line, font=font, fill=(30, 30, 36))
    return np.ascontiguousarray(np.asarray(canvas)[..., ::-1])

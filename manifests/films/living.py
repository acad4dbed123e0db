"""Scenes that move as filmed ones do, made of photographs: depth, sway, things that cross, a hand that holds.

A camera that pans over one flat photograph makes a picture that every similarity transform explains: a slide show. Here
near parts move faster than far ones, leaves and water sway, light drifts and the sensor has grain, so that these films
can stand for honest footage.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from manifests.films.photos import photo
from manifests.types import Image

Floats = npt.NDArray[np.float32]

_ACTORS = ("dahlia", "cat", "coffee", "astronaut", "motorcycle", "rocket")


@dataclass(frozen=True, slots=True)
class Scene:
    """What is seen and how it moves.

    backdrop:  name of a photograph, or "cartoon" for flat shapes
    pan, tilt: speed of the camera, widths or heights a second
    zoom:      relative growth a second
    depth:     how much faster the nearest parts move than the farthest, as a multiple
    sway:      how far leaves or water swing, as a share of the width
    hand:      unrest of the hand that holds the camera, as a share of the width; 0 for a tripod
    actors:    things that cross the picture, changing shape as they go
    size:      radius of an actor as a share of the height
    defocus:   blur of the backdrop behind sharp actors, in pixels at 360 lines
    grain:     standard deviation of the sensor's noise, in grey levels
    gain, gamma, saturation: of the finished picture
    drift:     change of brightness over a few seconds, as a share
    """

    backdrop: str
    seconds: float = 2.5
    pan: float = 0.0
    tilt: float = 0.0
    zoom: float = 0.0
    depth: float = 1.0
    sway: float = 0.004
    hand: float = 0.002
    actors: int = 1
    size: float = 0.15
    defocus: float = 0.0
    grain: float = 1.5
    gain: float = 1.0
    gamma: float = 1.0
    saturation: float = 1.0
    drift: float = 0.03
    mirror: bool = False
    seed: int = 0


def frames(scene: Scene, width: int, height: int, fps: float) -> Iterator[Image]:
    """BGR (H, W, 3)."""
    rng = np.random.default_rng(scene.seed)
    backdrop = cartoon(rng, width, height) if scene.backdrop == "cartoon" else _covering(scene, width, height)
    if scene.defocus:
        backdrop = np.asarray(cv2.GaussianBlur(backdrop, (0, 0), scene.defocus * height / 360), np.uint8)
    actors = [_Walker(rng, width, height, scene.size, scene.backdrop == "cartoon") for _ in range(scene.actors)]
    near = _nearness(rng, width, height)
    where, phase = smooth_field(rng, width, height, 4), smooth_field(rng, width, height, 3) * 12
    where = np.clip((where - 0.45) * 4, 0, 1)
    waves = [(rng.uniform(0.4, 1.6), rng.uniform(0, 6.28), rng.normal(0, 0.5, 2)) for _ in range(4)]
    xs, ys = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    spare = np.array([backdrop.shape[1] - width, backdrop.shape[0] - height]) / 2
    noise = rng.normal(0, scene.grain, (height, width)).astype(np.float32)
    curve = _curve(scene)
    for k in range(round(scene.seconds * fps)):
        t = k / fps
        hold = sum(direction * math.sin(2 * math.pi * rate * t + start) for rate, start, direction in waves)
        travel = np.array([scene.pan * t * width, scene.tilt * t * height]) + hold * scene.hand * width
        grow = math.exp(-scene.zoom * t)
        swing = scene.sway * width * where * np.sin(2 * math.pi * 0.9 * t + phase)
        closer = 1 + scene.depth * (near - 0.5)
        map_x = ((xs - width / 2) * grow + width / 2 + spare[0] + travel[0] * closer + swing).astype(np.float32)
        map_y = ((ys - height / 2) * grow + height / 2 + spare[1] + travel[1] * closer + 0.4 * swing).astype(np.float32)
        picture: npt.NDArray[np.uint8] = np.asarray(
            cv2.remap(backdrop, map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101), np.uint8
        )
        for actor in actors:
            actor.draw(picture, t)
        light = 1 + scene.drift * math.sin(1.7 * t + waves[0][1])
        yield _developed(picture, scene, light, curve, noise, rng)


def _developed(
    picture: Image, scene: Scene, light: float, curve: Image, noise: Floats, rng: np.random.Generator
) -> Image:
    if scene.saturation != 1:
        grey = cv2.cvtColor(cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
        picture = np.asarray(cv2.addWeighted(picture, scene.saturation, grey, 1 - scene.saturation, 0), np.uint8)
    picture = np.asarray(cv2.LUT(cv2.convertScaleAbs(picture, alpha=light), curve), np.uint8)
    if scene.grain:
        rolled = np.roll(noise, (int(rng.integers(len(noise))), int(rng.integers(noise.shape[1]))), (0, 1))
        picture = np.asarray(cv2.add(picture, cv2.merge([rolled] * 3), dtype=cv2.CV_8U), np.uint8)
    return picture


def _curve(scene: Scene) -> Image:
    levels = (np.arange(256) / 255) ** scene.gamma * scene.gain * 255
    return np.clip(levels, 0, 255).astype(np.uint8)


def _covering(scene: Scene, width: int, height: int) -> Image:
    """The photograph, scaled so that it covers the picture with a margin to move in."""
    image = photo(scene.backdrop)[:, ::-1] if scene.mirror else photo(scene.backdrop)
    scale = 1.25 * max(width / image.shape[1], height / image.shape[0])
    size = (round(image.shape[1] * scale), round(image.shape[0] * scale))
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(image, size, interpolation=how), np.uint8)


def smooth_field(rng: np.random.Generator, width: int, height: int, cells: int) -> Floats:
    """(H, W), 0..1, changing over about a `cells`-th of the picture."""
    small = rng.random((cells, cells)).astype(np.float32)
    return np.clip(np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC), np.float32), 0, 1)


def _nearness(rng: np.random.Generator, width: int, height: int) -> Floats:
    """The ground comes nearer towards the lower edge; things stand out of it."""
    ground = np.linspace(0, 1, height, dtype=np.float32)[:, None] * np.ones(width, np.float32)
    return np.asarray(0.5 * ground + 0.5 * smooth_field(rng, width, height, 5), np.float32)


def cartoon(rng: np.random.Generator, width: int, height: int) -> Image:
    """Hills, sky and trees in flat colours with outlines, wider than the picture."""
    wide, tall = round(width * 1.25), round(height * 1.25)
    light = rng.uniform(0.7, 1.0)
    sky = (rng.uniform([160, 150, 140], [245, 225, 235]) + np.linspace(0, 30, tall)[:, None, None]) * light
    canvas = np.clip(np.broadcast_to(sky, (tall, wide, 3)), 0, 255).astype(np.uint8)
    xs = np.arange(wide)
    for layer in range(4):
        level = tall * (0.45 + 0.14 * layer)
        hills = np.full(wide, level)
        for _ in range(3):
            hills += rng.uniform(4, 22) * np.sin(xs / wide * 6.28 * rng.uniform(0.5, 4) + rng.uniform(0, 6))
        points = np.concatenate([np.stack([xs, hills], 1), [[wide, tall], [0, tall]]]).astype(np.int32)
        ground = rng.uniform([10, 60, 50], [90, 190, 190]) * light  # meadows, woods, earth
        cv2.fillPoly(canvas, [points], ground.tolist(), cv2.LINE_AA)
        cv2.polylines(canvas, [points], True, (30, 30, 30), 2, cv2.LINE_AA)
        for x in rng.uniform(0, wide, 4):
            foot = (int(x), int(hills[int(x)]))
            cv2.ellipse(
                canvas, foot, (int(rng.uniform(10, 26)), int(rng.uniform(20, 50))), rng.uniform(-20, 20), 0, 360,
                rng.uniform(30, 200, 3).tolist(), -1, cv2.LINE_AA,
            )  # fmt: skip
    return canvas


class _Walker:
    """A blob cut from a photograph, or painted, that crosses the picture and changes its shape on the way."""

    def __init__(self, rng: np.random.Generator, width: int, height: int, size: float, painted: bool):
        self._radius = max(8, int(rng.uniform(0.7, 1.3) * size * height))
        side = 2 * self._radius
        source = photo(str(rng.choice(_ACTORS)))
        scale = max(1.0, side / (min(source.shape[:2]) - 1))
        source = np.asarray(cv2.resize(source, None, fx=scale, fy=scale), np.uint8)
        top, left = (int(rng.integers(0, max(1, n - side))) for n in source.shape[:2])
        patch = source[top : top + side, left : left + side]
        self._patch = np.full_like(patch, rng.uniform(40, 230, 3)) if painted else patch
        angle = np.linspace(0, 2 * math.pi, 40)
        self._angle, self._lobes = angle, rng.uniform(0.05, 0.2, 4)
        self._rates = rng.uniform(1.5, 7, 4)
        self._home = np.array([rng.uniform(0.25, 0.75) * width, rng.uniform(0.35, 0.75) * height])
        self._swing = rng.uniform(0.06, 0.25, 2) * (width, 0.5 * height)
        self._pace, self._phase = rng.uniform(0.6, 3.0, 2), rng.uniform(0, 6.28, 2)

    def draw(self, picture: npt.NDArray[np.uint8], t: float) -> None:
        size = (picture.shape[1], picture.shape[0])
        center = self._home + self._swing * np.sin(self._pace * t + self._phase)
        outline = 0.8 + sum(
            share * np.sin((k + 2) * self._angle + rate * t)
            for k, (share, rate) in enumerate(zip(self._lobes, self._rates, strict=True))
        )
        rim = center + self._radius * (outline * np.array([np.cos(self._angle), np.sin(self._angle)])).T
        mask = np.zeros(picture.shape[:2], np.uint8)
        cv2.fillPoly(mask, [rim.astype(np.int32)], (255,), cv2.LINE_AA)
        alpha = cv2.GaussianBlur(mask, (0, 0), 1.2)[..., None].astype(np.float32) / 255
        turn = cv2.getRotationMatrix2D((self._radius, self._radius), 20 * math.sin(self._rates[0] * t), 1.0)
        turn = turn + np.array([[0, 0, center[0] - self._radius], [0, 0, center[1] - self._radius]])
        patch = cv2.warpAffine(self._patch, turn, size, borderMode=cv2.BORDER_REFLECT_101)
        picture[:] = (picture * (1 - alpha) + patch * alpha + 0.5).astype(np.uint8)

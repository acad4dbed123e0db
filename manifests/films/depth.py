"""A place with depth, seen by a pinhole camera that travels or turns in it: shots with true parallax.

Photographs stand in it like flats on a stage: a backdrop, a ground, cards at several distances. Lengths are in units
of the camera's height above the ground; x points right, y down, z ahead.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from manifests.films.photos import photo
from manifests.types import Image

TRAVELS = (
    "truck_left",
    "truck_right",
    "pedestal_up",
    "pedestal_down",
    "push_in",
    "pull_out",
    "arc",
    "tracking",
)
"""What moves the camera itself; these show parallax."""

TURNS = (
    "pan_left",
    "pan_right",
    "tilt_up",
    "tilt_down",
    "zoom_in",
    "zoom_out",
    "roll_cw",
    "roll_ccw",
    "static",
    "handheld",
)
"""What turns it or its lens, or leaves it alone; these show none, whatever the depth of the place."""

_PHOTOS = ("temple", "dahlia", "cat", "coffee", "rocket", "astronaut", "motorcycle", "grass", "gravel", "bricks")

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Stage:
    """What the camera does in which place.

    move:   one of TRAVELS or TURNS
    speed:  travels: share of the subject's distance per second; pans and tilts: share of the picture's width or height
            per second; zooms: relative growth per second; rolls: radians per second
    cards:  how many things stand about
    ground: whether there is a floor
    walkers: how many of the cards walk to and fro on their own
    hand:   share of the width by which a hand lets the view wander (standard deviation)
    lens:   focal length over the picture's width
    grain:  standard deviation of the sensor's noise, grey levels
    """

    move: str
    speed: float = 0.25
    seconds: float = 4.0
    cards: int = 8
    ground: bool = True
    walkers: int = 0
    hand: float = 0.0
    lens: float = 1.0
    grain: float = 1.5
    seed: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class _Flat:
    """A photograph on a plane: the point of texture coordinates (s, t) is origin + s along + t across."""

    texture: Image
    origin: Floats
    along: Floats
    across: Floats
    shape: npt.NDArray[np.uint8] | None = None  # which part of it is there; None: all, continued without end
    swing: Floats | None = None  # how far it walks, pace, phase
    reach: float = math.inf  # how far away from the camera it is seen


@dataclass(frozen=True, slots=True, eq=False)
class _Camera:
    at: Floats
    turned: Floats  # rows: the camera's right, down and ahead, in the place's coordinates
    focal: float  # pixels


def frames(stage: Stage, width: int, height: int, fps: float) -> Iterator[Image]:
    """BGR (H, W, 3) frames."""
    rng = np.random.default_rng(stage.seed)
    distance = float(rng.uniform(3.5, 5.0))
    flats = _place(stage, distance, rng)
    sway = _sway(stage, rng, fps)
    for k in range(round(stage.seconds * fps)):
        camera = _camera(stage, k / fps, distance, width, height, sway[k])
        big = np.zeros((2 * height, 2 * width, 3), np.uint8)  # twice the size, so that edges come out smooth
        for flat in flats:
            _draw(flat, camera, k / fps, stage, distance, big)
        picture = np.asarray(cv2.resize(big, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
        if stage.grain:
            noise = rng.normal(0, stage.grain, (height, width, 1))
            picture = np.clip(picture + noise + 0.5, 0, 255).astype(np.uint8)
        yield picture


def _place(stage: Stage, distance: float, rng: np.random.Generator) -> list[_Flat]:
    """Flats from far to near; the last one is the subject."""
    far = distance * rng.uniform(3.0, 5.0)
    flats = [_endless(rng, np.array([0.0, -0.3 * far, far]), np.array([1.0, 0, 0]), np.array([0, 1.0, 0]), 1.6 * far)]
    if stage.ground:
        floor = _endless(rng, np.array([0.0, 1.0, 0.0]), np.array([1.0, 0, 0]), np.array([0, 0, 1.0]), 6.0)
        flats.append(dataclasses.replace(floor, reach=far))
    depths = np.sort(rng.uniform(0.45, 2.5, stage.cards))[::-1] * distance
    for k, z in enumerate(depths):
        side = rng.uniform(-0.75, 0.75) * z / stage.lens
        walks = k < stage.walkers
        swing = np.array([rng.uniform(0.15, 0.35) * z / stage.lens, rng.uniform(0.7, 1.6), rng.uniform(0, 6.3)])
        flats.append(_card(rng, side, float(z), rng.uniform(0.5, 1.6), swing if walks else None))
    if stage.move in ("arc", "tracking"):
        flats.append(_card(rng, 0.0, distance, 1.5, None))
    return flats


def _endless(rng: np.random.Generator, origin: Floats, along: Floats, across: Floats, span: float) -> _Flat:
    texture = photo(str(rng.choice(_PHOTOS)))
    unit = span / texture.shape[1]
    shift = rng.uniform(0, span, 2)
    return _Flat(texture, origin - shift[0] * along - shift[1] * across, along * unit, across * unit)


def _card(rng: np.random.Generator, x: float, z: float, size: float, swing: Floats | None) -> _Flat:
    """An upright card that stands on the ground."""
    source = photo(str(rng.choice(_PHOTOS)))
    side = int(min(source.shape[:2]) * rng.uniform(0.5, 0.9))
    top, left = (int(rng.integers(0, edge - side + 1)) for edge in source.shape[:2])
    texture = source[top : top + side, left : left + side]
    tall = rng.uniform(1.0, 2.2)
    shape = np.zeros(texture.shape[:2], np.uint8)
    middle = (side // 2, side // 2)
    if rng.random() < 0.5:
        cv2.ellipse(shape, middle, (side // 2 - 1, side // 2 - 1), 0, 0, 360, (255,), -1)
    else:
        cv2.rectangle(shape, (1, 1), (side - 2, side - 2), (255,), -1)
    unit = size / tall / side
    origin = np.array([x - unit * side / 2, 1.0 - size, z])
    return _Flat(texture, origin, np.array([unit, 0, 0]), np.array([0, unit * tall, 0]), shape, swing)


def _sway(stage: Stage, rng: np.random.Generator, fps: float) -> Floats:
    """Wandering of the view per frame, as a share of the width: white noise through half-second low pass."""
    amount = max(stage.hand, 0.02 if stage.move == "handheld" else 0.0)
    count = round(stage.seconds * fps)
    noise = rng.normal(0, 1, (count, 2))
    kept = math.exp(-6.0 / fps)
    for k in range(1, count):
        noise[k] = kept * noise[k - 1] + math.sqrt(1 - kept * kept) * noise[k]
    return noise * amount


def _camera(stage: Stage, seconds: float, distance: float, width: int, height: int, sway: Floats) -> _Camera:
    kind, _, way = stage.move.partition("_")
    sign = -1.0 if way in ("left", "up", "out", "ccw") else 1.0
    travel = sign * stage.speed * seconds
    at, yaw, pitch, roll, lens = np.zeros(3), 0.0, 0.0, 0.0, stage.lens
    if kind in ("truck", "tracking"):
        at[0] = travel * distance
    elif kind == "pedestal":
        at[1] = 0.5 * travel * distance
    elif kind in ("push", "pull"):
        at[2] = 0.6 * travel * distance
    elif kind == "arc":
        yaw = -travel * (1 if stage.seed % 2 else -1)
        at = np.array([-math.sin(yaw) * distance, 0.0, distance - math.cos(yaw) * distance])
    elif kind == "pan":
        yaw = travel / stage.lens
    elif kind == "tilt":
        pitch = travel * height / width / stage.lens
    elif kind == "zoom":
        lens *= math.exp(travel)
    elif kind == "roll":
        roll = travel
    yaw, pitch = yaw + sway[0] / stage.lens, pitch + sway[1] / stage.lens
    return _Camera(at, _turned(yaw, pitch, roll), lens * width * 2)


def _turned(yaw: float, pitch: float, roll: float) -> Floats:
    """Yaw to the right, then pitch downwards, then roll clockwise."""
    cy, sy, cp, sp, cr, sr = (f(a) for a in (yaw, pitch, roll) for f in (math.cos, math.sin))
    about_y = np.array([[cy, 0, -sy], [0, 1, 0], [sy, 0, cy]])
    about_x = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
    about_z = np.array([[cr, sr, 0], [-sr, cr, 0], [0, 0, 1]])
    return np.asarray(about_z @ about_x @ about_y)


def _draw(flat: _Flat, camera: _Camera, seconds: float, stage: Stage, distance: float, big: Image) -> None:
    height, width = big.shape[:2]
    origin = flat.origin.copy()
    if flat.swing is not None:
        origin[0] += flat.swing[0] * math.sin(flat.swing[1] * seconds + flat.swing[2])
    if stage.move == "tracking" and flat.shape is not None and flat.origin[2] == distance:
        origin[0] += camera.at[0]  # the subject keeps pace with the camera
    lens = np.array([[camera.focal, 0, (width - 1) / 2], [0, camera.focal, (height - 1) / 2], [0, 0, 1]])
    onto = lens @ camera.turned @ np.stack([flat.along, flat.across, origin - camera.at], axis=1)
    if abs(np.linalg.det(onto)) < 1e-12:
        return
    back = np.linalg.inv(onto)
    how = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    if flat.shape is None:
        seen = cv2.warpPerspective(flat.texture, back, (width, height), flags=how, borderMode=cv2.BORDER_REFLECT_101)
        nearness = back[2, 0] * np.arange(width)[None] + back[2, 1] * np.arange(height)[:, None] + back[2, 2]
        there = nearness > 1 / flat.reach  # of the plane's points: one over their distance ahead
        cv2.copyTo(seen, there.astype(np.uint8), big)
        return
    if (camera.turned @ (origin - camera.at))[2] < 0.3:
        return  # the camera has passed it
    seen = cv2.warpPerspective(flat.texture, back, (width, height), flags=how, borderMode=cv2.BORDER_REPLICATE)
    cv2.copyTo(seen, cv2.warpPerspective(flat.shape, back, (width, height), flags=cv2.WARP_INVERSE_MAP), big)

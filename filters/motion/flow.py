"""Dense optical flow and the camera motion that explains most of it, measured once for every signal that asks.

Flow is OpenCV's DIS (ultrafast preset) between frames about a tenth of a second apart. A similarity transform
(translation, zoom, rotation) is fitted to it by iteratively reweighted least squares with a Cauchy weight, for all
pairs of a clip at once.

Sources: Kroeger et al. 2016, "Fast Optical Flow using Dense Inverse Search"; OpenCV `DISOpticalFlow`.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from manifests.types import Frames, Sampling

TENTHS = Sampling(10.0, 180)
"""Luma ten times a second."""

REFERENCE = 360.0
"""Speeds are given in pixels of a picture with this short side."""

_STEP = 10  # pixels between the points at which the flow is read
_ROUNDS = 6

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class CameraPath:
    """One value per pair of neighbouring frames.

    seconds: between the two frames
    speed:   mean magnitude of the flow, pixels per second at the reference size
    x, y:    motion of the picture (not of the camera) to the right and downwards, same unit
    zoom:    relative growth of the picture per second
    roll:    turn of the picture, clockwise on the screen, radians per second
    support: share of the picture that follows the fitted motion, 0..1
    radius:  mean distance of a point from the centre, pixels at the reference size; zoom * radius is a speed
    """

    seconds: Floats
    speed: Floats
    x: Floats
    y: Floats
    zoom: Floats
    roll: Floats
    support: Floats
    radius: float

    def __len__(self) -> int:
        return len(self.seconds)

    @property
    def pace(self) -> float:
        """Typical speed at which the fitted motion moves the picture, pixels per second at the reference size."""
        x, y, zoom, roll = (float(np.median(part)) for part in (self.x, self.y, self.zoom, self.roll))
        return float(np.hypot(x, y)) + (abs(zoom) + abs(roll)) * self.radius


def camera_path(frames: Frames) -> CameraPath:
    """Flow between neighbouring frames and the global motion fitted to it. N frames give N-1 pairs."""
    if len(frames) < 2 or min(frames.images[0].shape) < 16:  # DIS needs a few patches of 8 pixels
        none = np.zeros(0)
        return CameraPath(none, none, none, none, none, none, none, 1.0)
    height, width = frames.images[0].shape
    rows, columns = grid(height, width)
    pairs = np.empty((len(frames) - 1, len(rows), 2), np.float32)
    solver = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)
    for k in range(len(pairs)):
        pairs[k] = solver.calc(frames.images[k], frames.images[k + 1], None)[rows, columns]  # type: ignore[call-overload]
    seconds = np.maximum(np.diff(np.asarray(frames.times, np.float64)) / 1e6, 1e-3)
    scale = REFERENCE / min(height, width)
    x, y = columns - (width - 1) / 2, rows - (height - 1) / 2
    motion, support = _fit(pairs.astype(np.float64), x, y)
    return CameraPath(
        seconds=seconds,
        speed=np.hypot(pairs[..., 0], pairs[..., 1]).mean(axis=1) * scale / seconds,
        x=motion[:, 2] * scale / seconds,
        y=motion[:, 3] * scale / seconds,
        zoom=motion[:, 0] / seconds,
        roll=motion[:, 1] / seconds,
        support=support,
        radius=float(np.hypot(x, y).mean() * scale),
    )


@functools.lru_cache(maxsize=32)
def grid(height: int, width: int) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Rows and columns of the points at which flow is read."""
    rows, columns = np.mgrid[_STEP // 2 : height : _STEP, _STEP // 2 : width : _STEP]
    return rows.ravel(), columns.ravel()


def _fit(flow: Floats, x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """flow (P, n, 2) at points (n,) from the centre -> per pair (growth, turn, right, down) and support (P,).

    Model: flow_x = growth x - turn y + right, flow_y = turn x + growth y + down.
    """
    u, v = flow[..., 0], flow[..., 1]
    motion = np.zeros((len(flow), 4))
    motion[:, 2], motion[:, 3] = np.median(u, axis=1), np.median(v, axis=1)
    squared = x * x + y * y
    for _ in range(_ROUNDS):
        error = _error(motion, u, v, x, y)
        spread = np.maximum(0.15, 1.4826 * np.median(error, axis=1, keepdims=True))
        w = 1 / (1 + (error / (2 * spread)) ** 2)
        # Normal equations of the model, with the weighted centroid taken out so that they come apart.
        total = w.sum(axis=1)
        mx, my = (w @ x) / total, (w @ y) / total
        mu, mv = (w * u).sum(axis=1) / total, (w * v).sum(axis=1) / total
        power = np.maximum(w @ squared - total * (mx**2 + my**2), 1e-6)
        growth = ((w * (u * x + v * y)).sum(axis=1) - total * (mu * mx + mv * my)) / power
        turn = ((w * (v * x - u * y)).sum(axis=1) - total * (mv * mx - mu * my)) / power
        motion = np.stack([growth, turn, mu - growth * mx + turn * my, mv - turn * mx - growth * my], axis=1)
    error = _error(motion, u, v, x, y)
    near = np.maximum(0.5, 0.1 * np.hypot(motion[:, 2], motion[:, 3]))
    return motion, (error < near[:, None]).mean(axis=1)


def _error(motion: Floats, u: Floats, v: Floats, x: Floats, y: Floats) -> Floats:
    growth, turn, right, down = (motion[:, k : k + 1] for k in range(4))
    return np.hypot(u - (growth * x - turn * y + right), v - (turn * x + growth * y + down))

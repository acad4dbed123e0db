"""Depth from motion: flow over longer gaps, and what of it a camera that only turns or zooms cannot explain.

A turning or zooming camera moves the picture the same way whatever is in it: a similarity with a little keystone. A
travelling camera moves near things further than far ones. Sideways travel moves points along one axis only, so the
keystone model is fitted to the other axis, and what is left over along the axis is depth; travel ahead moves points
away from the middle, so a turn and a shift are fitted to the part across that, and the growth that is left over, from
point to point, is depth.

A few pairs of frames are looked at, far enough apart (at most a second) for the picture to move by about a tenth of
its short side. The later frame is first laid over the earlier by the motion that is known already (`camera_path`), so
that only the rest has to be found. Points on flat ground, where flow is a guess, do not count, nor do points that
leave the picture.

Source: Longuet-Higgins and Prazdny 1980, "The interpretation of a moving retinal image"; the statistics are ours.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from filters.motion.flow import REFERENCE, CameraPath, camera_path, grid
from manifests.types import Frames, Image

_PAIRS = 6
_REACH = 0.09  # of the short side: how far the picture should move between the two frames
_LONGEST = 1.0  # seconds
_TEXTURE = 0.006
_MARGIN = 6  # pixels from the edge
_LEAST = 40  # points

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Looks:
    """A pairs of frames, n points; pixels are those of the analysis size.

    x, y:    (n,) points from the middle of the earlier frame
    u, v:    (A, n) how far they went, to the right and downwards
    sure:    (A, n) where that can be trusted
    motion:  (A, 4) similarity: growth, turn, right, down
    rest:    (A, n) distance between where a point went and where the similarity puts it
    seconds: (A,) between the two frames
    start:   (A,) number of the earlier frame
    size:    (height, width)
    """

    x: Floats
    y: Floats
    u: Floats
    v: Floats
    sure: Mask
    motion: Floats
    rest: Floats
    seconds: Floats
    start: npt.NDArray[np.intp]
    size: tuple[int, int]

    def __len__(self) -> int:
        return len(self.seconds)


def looks(frames: Frames) -> Looks:
    """Up to six pairs spread over the clip; those with too few trustworthy points are left out."""
    path = frames.share(camera_path)
    height, width = frames.images[0].shape if len(path) else (0, 0)
    rows, columns = grid(height, width)
    x, y = columns - (width - 1) / 2, rows - (height - 1) / 2
    found = [(_look(frames, path, start, end, x, y), start, end) for start, end in pairs(path)]
    found = [one for one in found if one[0][2].sum() >= _LEAST]
    starts = np.array([start for _, start, _ in found], np.intp)
    seconds = np.array([path.seconds[start:end].sum() for _, start, end in found])
    u, v, sure = (np.array([look[k] for look, _, _ in found]).reshape(-1, len(x)) for k in range(3))
    one, none = np.ones_like(x), np.zeros_like(x)
    across, down = np.stack([x, -y, one, none], 1), np.stack([y, x, none, one], 1)
    motion = _fit(np.concatenate([across, down]), np.hstack([u, v]), np.hstack([sure, sure]))
    rest = np.hypot(u - motion @ across.T, v - motion @ down.T)
    return Looks(x, y, u, v, sure.astype(bool), motion, rest, seconds, starts, (height, width))


def pairs(path: CameraPath) -> list[tuple[int, int]]:
    """Numbers of the frames to compare: up to six pairs spread over the clip."""
    if not len(path):
        return []
    step = float(np.median(path.seconds))
    gap = min(_LONGEST, _REACH * REFERENCE / max(path.pace, 1e-6)) / step
    frames = int(np.clip(round(gap), 1, len(path)))
    starts = np.unique(np.linspace(0, len(path) - frames, _PAIRS).round().astype(int))
    return [(int(start), int(start) + frames) for start in starts]


def _look(frames: Frames, path: CameraPath, start: int, end: int, x: Floats, y: Floats) -> tuple[Floats, Floats, Mask]:
    """Where the points went, and which of them can be trusted."""
    early, late = frames.images[start], frames.images[end]
    height, width = early.shape
    known = _chain(path, start, end, min(height, width))
    middle = np.array([[1, 0, (width - 1) / 2], [0, 1, (height - 1) / 2], [0, 0, 1]])
    laid = cv2.warpAffine(
        late,
        (middle @ known @ np.linalg.inv(middle))[:2],
        (width, height),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
    rows, columns = grid(height, width)
    solver = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)
    rest = solver.calc(early, laid, None)[rows, columns].astype(np.float64)  # type: ignore[call-overload]
    there = known[:2, :2] @ np.stack([x + rest[:, 0], y + rest[:, 1]]) + known[:2, 2:]
    inside = (np.abs(there[0]) < (width - 1) / 2 - _MARGIN) & (np.abs(there[1]) < (height - 1) / 2 - _MARGIN)
    return there[0] - x, there[1] - y, inside & _textured(early)


def _chain(path: CameraPath, start: int, end: int, short: int) -> Floats:
    """Where points of frame `start` are in frame `end`, as the path has it: (3, 3), from the middle, pixels."""
    scale = REFERENCE / short
    whole = np.eye(3)
    for k in range(start, end):
        grow, turn, right, down = (v[k] * path.seconds[k] for v in (path.zoom, path.roll, path.x, path.y))
        whole = np.array([[1 + grow, -turn, right / scale], [turn, 1 + grow, down / scale], [0, 0, 1]]) @ whole
    return whole


def _textured(image: Image) -> Mask:
    """(n,) whether the picture has detail in both directions around the points of the grid."""
    height, width = image.shape
    half = cv2.resize(image, (max(1, width // 2), max(1, height // 2)), interpolation=cv2.INTER_AREA)
    strength = np.maximum(cv2.cornerMinEigenVal(half, 7), 0)
    rows, columns = grid(height, width)
    at = np.minimum(rows // 2, half.shape[0] - 1), np.minimum(columns // 2, half.shape[1] - 1)
    return np.asarray(np.sqrt(strength[at]) > _TEXTURE)


def _fit(design: Floats, values: Floats, sure: Mask, rounds: int = 4) -> Floats:
    """Robust least squares of every row of `values` (A, m) on `design` (m, k): (A, k)."""
    if not len(values):
        return np.zeros((0, design.shape[1]))
    size = design.shape[1]
    products = (design[:, :, None] * design[:, None, :]).reshape(len(design), size * size)
    ridge = 1e-9 * np.trace(products.sum(0).reshape(size, size)) * np.eye(size)
    weights = sure.astype(np.float64)
    for _ in range(rounds):
        normal = (weights @ products).reshape(-1, size, size) + ridge
        solved = np.linalg.solve(normal, ((weights * values) @ design)[..., None])[..., 0]
        error = np.abs(values - solved @ design.T)
        spread = np.maximum(0.15, 1.4826 * quantiles(error, sure, 0.5)[0])[:, None]
        weights = sure / (1 + (error / (2 * spread)) ** 2)
    return solved


def quantiles(values: Floats, where: Mask, *shares: float) -> list[Floats]:
    """Per row of `values` (A, n), the quantiles of those that `where` picks (at least one a row): (A,) each."""
    ordered = np.sort(np.where(where, values, np.inf), axis=1)
    last = where.sum(axis=1) - 1
    every = np.arange(len(values))
    return [ordered[every, np.rint(share * last).astype(int)] for share in shares]


@dataclass(frozen=True, slots=True, eq=False)
class Along:
    """What the turning and zooming camera that fits best leaves over along one direction: per look (A,), as shares of
    the picture's speed. low, middle, high: 10th, 50th and 90th percentile of the points; spread: from the 10th to the
    90th, but no more than the points' own speeds spread; error: the same of what the fit leaves over across that
    direction."""

    low: Floats
    middle: Floats
    high: Floats
    spread: Floats
    error: Floats


@dataclass(frozen=True, slots=True, eq=False)
class Depth:
    """Signs of depth in every look.

    sideways, upright: along x and y; a pan or tilt leaves a speed of its own there, so that only the range tells
    ahead:             away from the middle, as growth; a zoom leaves the same growth everywhere
    middle:            share of the trustworthy points there that are slow beside the picture
    above, below:      median speed to the right in the upper third, and at the sides of the lower third, as shares of
                       the picture's; 0 where there is too little to tell
    sides:             share of the trustworthy points there that stand still
    speed:             of the picture, upper quartile, pixels per second at the reference size
    """

    sideways: Along
    upright: Along
    ahead: Along
    middle: Floats
    above: Floats
    below: Floats
    sides: Floats
    speed: Floats

    def __len__(self) -> int:
        return len(self.speed)


def depth(frames: Frames) -> Depth:
    """Signs of depth in the looks of a clip."""
    look = frames.share(looks)
    x, y, u, v, sure = look.x, look.y, look.u, look.v, look.sure
    height, width = look.size
    length = np.hypot(u, v)
    (main,) = quantiles(length, sure, 0.75) if len(look) else (np.zeros(0),)
    main = np.maximum(main, 1e-6)
    half = max(width, 2) / 2
    xx, xy, yy, one = x * x / half, x * y / half, y * y / half, np.ones_like(x)
    # Columns: growth, turn, shift and the two of the keystone that a pan and a tilt bring along.
    for_u = np.stack([x, -y, one, xx, xy], 1)
    for_v = np.stack([y, x, one, xy, yy], 1)
    shift = np.array([1.0, 1.0, 0.0, 1.0, 1.0])  # the shift along the direction itself stays in
    from_v, from_u = _fit(for_v, v, sure), _fit(for_u, u, sure)
    sideways = _along(u, u - (from_v * shift) @ for_u.T, v - from_v @ for_v.T, sure, main)
    upright = _along(v, v - (from_u * shift) @ for_v.T, u - from_u @ for_u.T, sure, main)
    radius = np.maximum(np.hypot(x, y), 1e-6)
    around = np.stack([radius, -y / radius, x / radius], 1)  # turn, right, down as seen across the radius
    across = (x * v - y * u) / radius
    turned = _fit(around, across, sure)
    outward = (x * (u - turned[:, 1:2]) + y * (v - turned[:, 2:3])) / radius
    outer = sure & (radius > 0.25 * half)
    outer[~outer.any(axis=1)] = True
    growth = outward / radius * radius.mean()
    ahead = _along(growth, growth, across - turned @ around.T, outer, main)
    slow, still = length < 0.25 * main[:, None], length < np.maximum(0.5, 0.06 * main)[:, None]
    middle = sure & (np.abs(x) < 0.2 * width) & (np.abs(y) < 0.35 * height)
    sides = sure & (np.abs(x) > 0.3 * width)
    scale = REFERENCE / max(1, min(height, width))
    return Depth(
        sideways=sideways,
        upright=upright,
        ahead=ahead,
        middle=_share(slow, middle),
        above=_middle(u, sure & (y < -height / 6)) / main,
        below=_middle(u, sure & (y > height / 5) & (np.abs(x) > 0.2 * width)) / main,
        sides=_share(still, sides),
        speed=main * scale / np.maximum(look.seconds, 1e-3),
    )


def _middle(values: Floats, where: Mask) -> Floats:
    """Median of each row where `where`; 0 where there are too few."""
    enough = where.sum(axis=1) > 5
    return np.where(enough, quantiles(values, where | ~enough[:, None], 0.5)[0], 0.0) if len(values) else np.zeros(0)


def _along(raw: Floats, left: Floats, error: Floats, sure: Mask, main: Floats) -> Along:
    if not len(left):
        none = np.zeros(0)
        return Along(none, none, none, none, none)
    low, middle, high = quantiles(left, sure, 0.1, 0.5, 0.9)
    spread = np.minimum(high - low, np.subtract(*quantiles(raw, sure, 0.9, 0.1)))
    return Along(
        low / main, middle / main, high / main, spread / main, np.subtract(*quantiles(error, sure, 0.9, 0.1)) / main
    )


def _share(what: Mask, where: Mask) -> Floats:
    """Per row, the share of `where` that is also `what`; 1 where there is too little to tell, as if nothing moved."""
    count = where.sum(axis=1)
    return np.where(count > 5, (what & where).sum(axis=1) / np.maximum(count, 1), 1.0)

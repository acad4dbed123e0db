"""Two shots joined by every kind of transition, and what looks like one without being it."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from manifests.types import Image

WIPES = ("right", "left", "down", "up", "down right", "down left", "up right", "up left", "iris", "barn doors")


def joined(before: Sequence[Image], after: Sequence[Image], kind: str, frames: int) -> tuple[list[Image], int, int]:
    """Pictures, and the first and last frame of the transition, which overlaps the shots' ends."""
    steps = (np.arange(frames) + 1) / (frames + 1)
    mixed = [_mix(a, b, kind, p) for a, b, p in zip(before[-frames:], after[:frames], steps, strict=True)]
    start = len(before) - frames
    return [*before[:start], *mixed, *after[frames:]], start, start + frames - 1


def _mix(before: Image, after: Image, kind: str, share: float) -> Image:
    height, width = before.shape[:2]
    if kind == "dissolve":
        return np.asarray(before * (1 - share) + after * share + 0.5, np.uint8)
    if kind == "push left":
        at = round(share * width)
        return np.concatenate([before[:, at:], after[:, :at]], 1)
    if kind == "push up":
        at = round(share * height)
        return np.concatenate([before[at:], after[:at]], 0)
    return np.where((_order(kind, width, height) < share)[..., None], after, before)


def _order(kind: str, width: int, height: int) -> npt.NDArray[np.float64]:
    """When each pixel changes, 0..1."""
    x, y = (np.arange(width) + 0.5) / width, ((np.arange(height) + 0.5) / height)[:, None]
    ways = {"right": x, "left": 1 - x, "down": y, "up": 1 - y}
    if kind == "iris":
        return np.hypot(x - 0.5, y - 0.5) / np.hypot(0.5, 0.5)
    if kind == "barn doors":
        return np.broadcast_to(np.abs(x - 0.5) * 2, (height, width))
    parts = kind.split()
    return np.broadcast_to(sum(ways[p] for p in parts) / len(parts), (height, width))


def passer_by(pictures: Sequence[Image], body: Image, start: int, frames: int, share: float) -> list[Image]:
    """Something `share` of the width wide crosses the picture from left to right."""
    height, width = pictures[0].shape[:2]
    wide = round(share * width)
    seen = [p.copy() for p in pictures]
    for k in range(frames):
        left = round(-wide + (width + wide) * k / frames)
        a, b = max(0, left), min(width, left + wide)
        seen[start + k][:, a:b] = body[:height, a - left : b - left]
    return seen


def whipped(still: Image, width: int, height: int, positions: Sequence[float]) -> list[Image]:
    """Views of a wide picture at these left edges, blurred by how far the camera went."""
    speeds = np.abs(np.gradient(np.asarray(positions, float)))
    views = []
    for position, speed in zip(positions, speeds, strict=True):
        view = still[:height, round(position) : round(position) + width]
        views.append(np.asarray(cv2.blur(view, (max(1, round(speed / 2)), 1)), np.uint8))
    return views

"""Frames of one sampling, as a walk over a film gathers them."""

from __future__ import annotations

import dataclasses
import math
from collections import deque

from manifests.media.container import Film
from manifests.types import Frames, Image, Sampling


def uncapped(want: Sampling) -> Sampling:
    return dataclasses.replace(want, cap=0)


class Buffer:
    """Frames of one sampling since the open clip began."""

    def __init__(self, fps: float):
        self._fps = fps
        self._next = 0.0
        self._kept: deque[tuple[int, int, Image]] = deque()

    def due(self, elapsed: float) -> bool:
        """Whether a frame this many seconds into the film is the first at or after the next tick of the grid."""
        if math.isinf(self._fps):
            return True
        tick = elapsed * self._fps + 1e-6
        if tick < self._next:
            return False
        self._next = math.floor(tick) + 1
        return True

    def add(self, index: int, time: int, image: Image) -> None:
        self._kept.append((index, time, image))

    def between(self, start: int, end: int, cap: int, film: Film) -> Frames:
        chosen = [k for k in self._kept if start <= k[0] < end]
        if cap and len(chosen) > cap:
            chosen = [chosen[int((i + 0.5) * len(chosen) / cap)] for i in range(cap)]
        return Frames(
            [k[2] for k in chosen], [k[1] for k in chosen], [k[0] for k in chosen], (film.width, film.height), film.fps
        )

    def forget(self, until: int) -> None:
        while self._kept and self._kept[0][0] < until:
            self._kept.popleft()

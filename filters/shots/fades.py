"""Fades to and from black or white, located as intervals.

A film goes dark where its level falls below a threshold and comes back where it rises above it again, as
PySceneDetect's ThresholdDetector has it. The level is mean + 2 standard deviations of the pixels instead of their mean,
so that a night sky with stars is not taken for black. The ramps on either side are followed for as long as the level
keeps changing at a steady pace.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from manifests.types import Image

BLACK = 12.0
"""Level below which a frame is black: PySceneDetect's default."""


def levels(image: Image) -> tuple[float, float]:
    """0 for a plain black picture; 0 for a plain white one."""
    mean, deviation = (float(v[0, 0]) for v in cv2.meanStdDev(image.reshape(len(image), -1)))
    return mean + 2 * deviation, 255 - mean + 2 * deviation


@dataclass(frozen=True, slots=True)
class Fade:
    """Frames `start`..`end` are not clean; `core_start`..`core_end` of them are plain black or white. Where a plain
    stretch is long enough to be a shot, the core is empty and the fade is the ramp on one side of it."""

    start: int
    core_start: int
    core_end: int
    end: int

    @property
    def hard_edges(self) -> tuple[bool, bool]:
        """Whether it begins, and whether it ends, with a cut to or from the plain core."""
        core = self.core_start <= self.core_end
        return core and self.start == self.core_start, core and self.end == self.core_end


class FadeFinder:
    """Follows one level (0: plain black, or plain white) through a film, a frame at a time."""

    def __init__(self, fps: float, longest_core: float = 2.0, longest_ramp: float = 4.0):
        self._longest_core = max(2, round(longest_core * fps))
        self._longest_ramp = max(2, round(longest_ramp * fps))
        self._levels: list[float] = []
        self._offset = 0
        self._out: int | None = None  # first plain frame of the stretch we are in
        self._start = 0  # first frame of the ramp that led there
        self._plain_shot = False  # the stretch is too long for a transition: it is a shot of its own
        self._in: int | None = None  # first frame after the stretch, while the ramp out of it goes on

    @property
    def holding(self) -> int | None:
        """First frame of a transition that is not decided yet."""
        return None if self._out is None and self._in is None else self._start

    def push(self, index: int, level: float) -> list[Fade]:
        self._levels.append(level)
        if len(self._levels) > 4 * (self._longest_ramp + self._longest_core):
            drop = len(self._levels) // 2
            del self._levels[:drop]
            self._offset += drop
        if level >= BLACK and self._out is None:
            return []
        found: list[Fade] = []
        if self._in is not None and not self._still_rising(index):
            found += self._finish(index - 2)  # the frame before this one was the first clean one
        if self._out is not None and self._in is None and level >= BLACK:
            self._in = index
        elif self._out is None and self._in is None and level < BLACK:
            self._out, self._start, self._plain_shot = index, self._ramp_start(index), False
        if (
            self._out is not None
            and self._in is None
            and not self._plain_shot
            and index - self._out >= self._longest_core
        ):
            if self._start < self._out:
                found.append(Fade(self._start, self._out, self._out - 1, self._out - 1))
            self._plain_shot, self._start = True, index
        elif self._plain_shot and self._in is None:
            self._start = index
        return found

    def flush(self, frames: int) -> list[Fade]:
        if self._in is not None:
            return self._finish(frames - 1)
        if self._out is not None and not self._plain_shot:
            return [Fade(self._start, self._out, frames - 1, frames - 1)]
        return []

    def _finish(self, end: int) -> list[Fade]:
        assert self._in is not None and self._out is not None
        start, core = (self._in, self._in) if self._plain_shot else (self._start, self._out)
        fade = Fade(start, core, self._in - 1, end)
        self._out = self._in = None
        return [fade] if fade.start <= fade.end else []

    def _at(self, index: int) -> float:
        return self._levels[index - self._offset]

    def _ramp_start(self, core: int) -> int:
        """Goes back from the first plain frame while each frame is clearly brighter than the one after it."""
        start, falls = core, [self._at(core - 1) - self._at(core)] if core > self._offset else []
        while start - 1 > self._offset and core - start < self._longest_ramp:
            fall = self._at(start - 2) - self._at(start - 1)
            if fall < _least(falls):
                break
            falls.append(fall)
            start -= 1
        return start

    def _still_rising(self, index: int) -> bool:
        assert self._in is not None
        rises = [self._at(k) - self._at(k - 1) for k in range(max(self._in, index - 5), index) if k > self._offset]
        rise = self._at(index) - self._at(index - 1)
        return rise >= _least(rises) and index - self._in < self._longest_ramp


def _least(steps: list[float]) -> float:
    """The smallest step that still belongs to the ramp."""
    return max(0.75, 0.3 * float(np.median(steps[-5:]))) if steps else 0.75

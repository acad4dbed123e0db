"""Gradual transitions, dissolves and wipes, located as intervals.

A transition from picture a to picture b takes every place of the frame from its colour in a to its colour in b, all at
once (dissolve) or each at its moment (wipe, iris, push), and never back. So for two frames a window apart, and a few
frames between them, each place has a progress alpha, the projection of its colour on the way from a to b. Two numbers
tell a transition from motion, in which places go anywhere and come back:

- what is left beside the way, as a share of its length (residual)
- how far alpha turns back (detour)

Both are small in a transition, also while both shots move a little. Besides, a transition changes the picture much
more than the same time before it and after it does, which a steady pan does not. The ends of the interval are those of
the ramp that fits the mean progress best.

Source: ours. The linear mixing of two shots is the classical model of dissolves (Hampapur, Jain and Weymouth 1994).
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from manifests.types import Image

Array = npt.NDArray[np.float32]

_SIZE = (24, 14)
_WINDOWS = (0.2, 0.3, 0.45, 0.65, 0.95, 1.4, 2.0)  # seconds
_PROBES = 8  # frames looked at inside a window
_CONTEXT = 3  # frames that must be known on either side of it

# All differences are root mean squares in grey levels. The numbers are set on labelled transitions and real footage.
_CHANGE = 35.0  # between the two ends
_FACTOR = 2.25  # by which that exceeds what changes in half the time before and after
_WIPE_FACTOR = 2.4
_STEP = 0.5  # progress between two probes; a cut makes it in one step
_ALIKE = 0.7  # correlation of the two ends: the same scene in another light
_BESIDE = 0.28  # residual + detour
_WIPE_BESIDE = 0.24
_WIPE = 0.25  # spread of alpha over the frame: 0 for an ideal dissolve, 1 for an ideal wipe
_DISSOLVE = 0.15


@dataclass(frozen=True, slots=True)
class Gradual:
    """Frames `start`..`end` are not clean; score: 1 less what is beside the way."""

    kind: str
    start: int
    end: int
    score: float


@dataclass(frozen=True, slots=True)
class _Window:
    """Clean frames `first` and `last` around a transition; weight: which of overlapping ones is told."""

    first: int
    last: int
    change: float
    beside: float
    spread: float

    @property
    def weight(self) -> float:
        return self.change * (1 - self.beside)


class GradualFinder:
    """Follows one film, a frame at a time."""

    def __init__(self, fps: float):
        self._windows = sorted({max(4, round(seconds * fps)) for seconds in _WINDOWS})
        self._longest = self._windows[-1]
        self._keep = 2 * self._longest + self._longest // 2
        self._frames: list[Array] = []
        self._offset = 0
        self._found: list[_Window] = []

    @property
    def reach(self) -> int:
        """Frames between a transition's start and the moment it is told, at most (but for overlapping ones)."""
        return 3 * self._longest

    @property
    def holding(self) -> int:
        """First frame that may still turn out to be in a transition."""
        newest = self._offset + len(self._frames) - 1
        undecided = newest - self._longest - self._longest // 2
        return max(0, min([undecided, *(w.first for w in self._found)]))

    def push(self, image: Image) -> list[Gradual]:
        """The next frame, BGR. Returns transitions that became certain."""
        self._frames.append(np.asarray(cv2.resize(image, _SIZE, interpolation=cv2.INTER_AREA), np.float32))
        newest = self._offset + len(self._frames) - 1
        for length in self._windows:
            stride, context = max(2, length // 12), max(_CONTEXT, length // 2)
            last = newest - context
            if last % stride == 0:
                self._examine(last - length, last, context)
        told = self._tell(newest - self._longest // 2 - self._longest)
        if len(self._frames) > 2 * self._keep:
            drop = max(0, min(len(self._frames) - self._keep, self.holding - self._longest - self._offset))
            del self._frames[:drop]
            self._offset += drop
        return told

    def flush(self) -> list[Gradual]:
        newest = self._offset + len(self._frames) - 1
        for length in self._windows:
            stride, context = max(2, length // 12), max(_CONTEXT, length // 2)
            for last in range(newest - context + 1, newest - _CONTEXT + 1):
                if last % stride == 0:
                    self._examine(last - length, last, context)
        return self._tell(newest + self._longest)

    # -- one window ------------------------------------------------------------------------------------------------

    def _at(self, index: int) -> Array:
        return self._frames[index - self._offset]

    def _examine(self, first: int, last: int, context: int) -> None:
        if first - _CONTEXT < self._offset:
            return
        a, b = self._at(first), self._at(last)
        change = _distance(a, b)
        if change < _CHANGE:
            return
        around = (self._own_change(first, -context) + self._own_change(last, context)) / 2
        if change < _FACTOR * max(1.0, around) or _correlation(a, b) > _ALIKE:
            return
        beside, step, spread = self._progress(first, last)
        wipe = spread >= _WIPE
        if step > _STEP or beside > (_WIPE_BESIDE if wipe else _BESIDE):
            return
        if wipe and change < _WIPE_FACTOR * max(1.0, around):
            return
        self._found.append(_Window(first, last, change, beside, spread))

    def _own_change(self, index: int, reach: int) -> float:
        """What changes in `reach` frames on one side of a frame, or in fewer, scaled up, where the film ends."""
        newest = self._offset + len(self._frames) - 1
        other = min(max(index + reach, self._offset), newest)
        return float(_distance(self._at(index), self._at(other)) * (abs(reach) / abs(other - index)) ** 0.7)

    def _progress(self, first: int, last: int) -> tuple[float, float, float]:
        """Residual + detour, the largest step of the mean progress, and the spread of progress over the frame."""
        probes = np.linspace(first, last, _PROBES + 2).round().astype(int)[1:-1]
        a, way, weight = self._way(first, last)
        gone = np.stack([self._at(k) for k in probes]) - a
        alpha = np.clip((gone * way).sum(-1) / np.maximum(weight, 1e-3), 0, 1)
        residual = np.sqrt(((gone - alpha[..., None] * way) ** 2).sum(-1).mean() / weight.mean())
        total = weight.sum()
        path = np.concatenate([np.zeros((1, *alpha.shape[1:])), alpha, np.ones((1, *alpha.shape[1:]))])
        detour = ((np.abs(np.diff(path, axis=0)).sum(0) - 1) * weight).sum() / total
        mean = (alpha * weight).sum((1, 2)) / total
        step = np.diff(mean, prepend=0.0, append=1.0).max()
        variance = ((alpha - mean[:, None, None]) ** 2 * weight).sum((1, 2)) / total
        spread = (variance / np.maximum(mean * (1 - mean), 0.02)).mean()
        return float(residual + detour), float(step), float(spread)

    def _way(self, first: int, last: int) -> tuple[Array, Array, Array]:
        a = self._at(first)
        way = self._at(last) - a
        return a, way, np.asarray((way * way).sum(-1), np.float32)

    # -- which windows are told ------------------------------------------------------------------------------------

    def _tell(self, settled: int) -> list[Gradual]:
        """Groups of overlapping windows that no later one can join; of each the heaviest, then what it leaves free."""
        told: list[Gradual] = []
        self._found.sort(key=lambda w: w.first)
        while self._found:
            end, size = self._found[0].last, 0
            while size < len(self._found) and self._found[size].first < end:
                end = max(end, self._found[size].last)
                size += 1
            if end >= settled:
                break
            group, self._found = self._found[:size], self._found[size:]
            taken: list[_Window] = []
            for window in sorted(group, key=lambda w: -w.weight):
                if not any(window.first < t.last and window.last > t.first for t in taken):
                    taken.append(window)
            told += [self._locate(w) for w in sorted(taken, key=lambda w: w.first)]
        return told

    def _locate(self, window: _Window) -> Gradual:
        newest = self._offset + len(self._frames) - 1
        margin = max(2, (window.last - window.first) // 4)
        start, end = max(self._offset, window.first - margin), min(newest, window.last + margin)
        a, way, weight = self._way(window.first, window.last)
        gone = np.stack([self._at(k) for k in range(start, end + 1)]) - a
        alpha = np.clip((gone * way).sum(-1) / np.maximum(weight, 1e-3), 0, 1)
        counts = (weight > 0.1 * weight.mean()).astype(np.float32) if window.spread >= _DISSOLVE else weight
        first, last = _ramp((alpha * counts).sum((1, 2)) / counts.sum())
        kind = "dissolve" if window.spread < _DISSOLVE else "wipe" if window.spread >= 0.3 else "gradual"
        first, last = start + first + 1, start + last - 1
        return Gradual(kind, first, max(first, last), round(1 - window.beside, 3))


def _ramp(values: npt.NDArray[np.floating]) -> tuple[int, int]:
    """The last index before, and the first index after, the straight rise between two levels that fits best."""
    n = len(values)
    pairs = np.array([(p, q) for p in range(n - 2) for q in range(p + 2, n)])
    p, q = pairs[:, :1], pairs[:, 1:]
    ramps = np.clip((np.arange(n) - p) / (q - p), 0, 1)
    centred, target = ramps - ramps.mean(1, keepdims=True), values - values.mean()
    explained = (centred @ target) ** 2 / np.maximum((centred**2).sum(1), 1e-9)
    first, last = pairs[int(explained.argmax())]
    return int(first), int(last)


def _distance(a: Array, b: Array) -> float:
    return float(cv2.norm(a, b, cv2.NORM_L2) / np.sqrt(a.size))


def _correlation(a: Array, b: Array) -> float:
    """Of the two pictures' brightness; 0 where one is plain."""
    x, y = (v.mean(-1).ravel() for v in (a, b))
    x, y = x - x.mean(), y - y.mean()
    lengths = float(np.linalg.norm(x) * np.linalg.norm(y))
    return float(x @ y) / lengths if min(x.std(), y.std()) > 1 else 0.0

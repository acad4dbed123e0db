"""Gradual transitions, dissolves and wipes, located as intervals.

A transition from picture a to picture b takes every place of the frame from its colour in a to its colour in b, all at
once (dissolve) or each at its moment (wipe, iris, push), and never back. So for two frames a window apart, and a few
frames between them, each place has a progress alpha, the projection of its colour on the way from a to b. A window
holds a transition when

- its ends differ much more than frames of the same shot, just before it and just after it, do (not a pan)
- nearly the whole frame differs (not an object, a title)
- what is left beside the way (residual) and how far alpha turns back (detour) are small (not motion)
- no picture like the one before comes back soon after (not a passer-by)
- frames do not match their neighbours when they are shifted a little (not a camera that swings and rests)
- the frame does not go most of the way in one step (not a cut)

A push moves both pictures and so leaves the way; `filters.shots.pushes` tells one from motion.

Pictures are a few places small and blurred, so that shots may move while they change. The ends of the interval are
those of the ramp that fits the mean progress best.

Source: ours. The linear mixing of two shots is the classical model of dissolves (Hampapur, Jain and Weymouth 1994).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from filters.shots.pushes import Push, find_push

Array = npt.NDArray[np.float32]
Numbers = npt.NDArray[np.intp]

_RATE = 30.0  # pictures a second that are looked at, at most
_WINDOWS = (0.2, 0.3, 0.45, 0.65, 0.95, 1.4, 2.0)  # seconds
_CHUNK = 8  # pictures between two examinations
_PROBES = 8  # pictures looked at inside a window
_CONTEXT = 3  # pictures that must be known on either side of it
_BACK = 1.5  # seconds in which what comes back makes it no transition

# All differences are root mean squares in grey levels. The numbers are set on labelled transitions and real footage.
_CHANGE = 30.0  # between the two ends
_PLACE = 12.0  # of a place that counts as changed
_COVERED = 0.7  # least share of such places
_ALIKE = 0.7  # most correlation of the two ends: the same scene in another light
_OTHER = 0.7  # least difference of what is seen soon after from what was before, as a share of the change
_EVIDENCE = 2.15  # least product of these: change over own change, covered, sqrt(1 - alike), sqrt(other)
_JUMP = 0.8  # most difference of two neighbouring pictures, as a share of the change; a cut makes all of it
_STEP = 0.5  # most progress between two probes
_BESIDE = 0.35  # most residual + detour
_DISSOLVE, _WIPE = 0.12, 0.25  # spread of alpha over the frame: 0 for an ideal dissolve, 1 for an ideal wipe
_GLANCES, _SHIFT = 20, 0.375  # pictures of a window that are shifted to match, and by which share at most
_SLIDE = 0.55  # least difference that is left then
_CLEAR = 0.15  # most residual + detour of a wipe that is sure
_EDGE = 0.02  # share of the places that are left out at the ends of a wipe


@dataclass(frozen=True, slots=True)
class Gradual:
    """Frames `start`..`end` are not clean; score: 1 less what is beside the way."""

    kind: str
    start: int
    end: int
    score: float


@dataclass(frozen=True, slots=True)
class _Window:
    """Clean pictures `first` and `last` around a transition; weight: which of overlapping ones is told."""

    first: int
    last: int
    change: float
    evidence: float
    beside: float
    spread: float
    turns: int = -1  # of a push: its direction

    @property
    def weight(self) -> float:
        return self.change * self.evidence


class GradualFinder:
    """Follows one film, a frame at a time. Inside, pictures are counted: one for every frame, or every other of films
    of high frame rate."""

    def __init__(self, fps: float):
        self._every = max(1, round(fps / _RATE))
        rate = fps / self._every
        lengths = sorted({max(4, round(seconds * rate)) for seconds in _WINDOWS})
        self._longest = lengths[-1]
        self._back = max(_CONTEXT, round(_BACK * rate))
        grid = [
            (length, max(_CONTEXT, length // 2), back)
            for length in lengths
            for back in range(0, _CHUNK, _stride(length))
        ]
        self._lengths, self._contexts, self._offsets = np.array(grid).T
        self._frame = -1
        self._count = 0  # pictures seen
        self._examined = 0  # pictures seen when windows were last examined
        self._first = 0  # number of the picture that the arrays begin with
        self._since = 0  # first picture that can be compared
        self._shape: tuple[int, ...] = ()
        self._seen: Array = np.empty((0, 0), np.float32)
        self._steps: Array = np.empty(0, np.float32)  # difference to the picture before
        self._found: list[_Window] = []
        self._told = 0  # pictures before this one are in transitions told, or before them

    @property
    def reach(self) -> int:
        """Frames between a transition's start and the moment it is told, at most (but for overlapping ones)."""
        return (3 * self._longest + _CHUNK) * self._every

    @property
    def holding(self) -> int:
        """First frame that may still turn out to be in a transition."""
        return max(0, min([self._undecided, *(w.first for w in self._found)])) * self._every

    @property
    def _undecided(self) -> int:
        """First picture that a window may begin with that is not examined yet."""
        return self._examined - 1 - self._longest - self._longest // 2

    def push(self, picture: Array, since: int = 0) -> list[Gradual]:
        """The next frame's thumb, and the frame since which thumbs can be compared. Returns transitions that became
        certain."""
        self._frame += 1
        self._since = -(-since // self._every)
        if self._frame % self._every:
            return []
        self._shape = picture.shape
        self._keep(picture.ravel())
        if self._count % _CHUNK:
            return []
        self._step()
        self._examine(self._count - 1 - self._contexts - self._offsets)
        self._examined = self._count
        return self._tell(self._undecided) if self._found else []

    def flush(self) -> list[Gradual]:
        newest = self._count - 1
        self._step()
        for done in range(self._examined + _CHUNK, newest + self._longest + _CHUNK, _CHUNK):
            last = done - 1 - self._contexts - self._offsets
            self._examine(np.where(last <= newest - _CONTEXT, last, -1))
        self._examined = self._count
        return self._tell(newest + self._longest)

    # -- pictures --------------------------------------------------------------------------------------------------

    def _keep(self, picture: Array) -> None:
        at = self._count - self._first
        if at >= len(self._seen):
            # Windows that are being looked at, and what comes back before them, stay.
            start = min([self._undecided, *(w.first for w in self._found)]) - self._back - self._longest
            drop = max(0, min(start - self._first, at))
            room = max(len(self._seen), 2 * (at - drop), 8 * self._longest)
            seen, steps = np.empty((room, picture.size), np.float32), np.zeros(room, np.float32)
            if at:
                seen[: at - drop], steps[: at - drop] = self._seen[drop:at], self._steps[drop:at]
            self._seen, self._steps, self._first = seen, steps, self._first + drop
            at -= drop
        self._seen[at] = picture
        self._count += 1

    def _step(self) -> None:
        """Differences of the pictures that came since this was last called."""
        new = np.arange(max(1, self._examined), self._count)
        if not len(new):
            return
        difference = self._at(new) - self._at(new - 1)
        self._steps[new - self._first] = np.sqrt((difference * difference).mean(1))

    def _at(self, pictures: Numbers) -> Array:
        return self._seen[pictures - self._first]

    # -- windows ---------------------------------------------------------------------------------------------------

    def _examine(self, last: Numbers) -> None:
        """Looks at one window of each kind, that ends with these pictures."""
        known = np.flatnonzero(last - self._lengths - _CONTEXT >= max(self._first, self._since))
        if not len(known):
            return
        last, first = last[known], (last - self._lengths)[known]
        change, evidence = self._evidence(first, last, self._contexts[known])
        found = np.flatnonzero((evidence >= _EVIDENCE) & (first >= self._told))
        if not len(found):
            return
        beside, step, spread = self._progress(first[found], last[found])
        for k, n in enumerate(found):
            window = _Window(int(first[n]), int(last[n]), change[n], evidence[n], beside[k], spread[k])
            if step[k] > _STEP:
                continue
            if beside[k] <= _BESIDE:
                self._found.append(window)
            elif (push := self._push(window, window.first, window.last, _PROBES)).holds:
                self._found.append(replace(window, beside=push.beside, turns=push.turns))

    def _evidence(self, first: Numbers, last: Numbers, context: Numbers) -> tuple[Array, Array]:
        """Change of each window, and the evidence, so far, that its ends show different shots; 0 for a cut."""
        way = self._at(last) - self._at(first)
        squares = way * way
        change = np.sqrt(squares.mean(1))
        inside = np.stack([first, last], 1).ravel() + 1 - self._first
        jump = np.maximum.reduceat(self._steps, inside)[::2]
        evidence = np.zeros_like(change)
        k = np.flatnonzero((change >= _CHANGE) & (jump <= _JUMP * change))
        if len(k):
            around = (self._own_change(first[k], -context[k]) + self._own_change(last[k], context[k])) / 2
            covered = (np.sqrt(squares[k].reshape(len(k), -1, 3).mean(2)) > _PLACE).mean(1)
            alike = correlation(self._at(first[k]), self._at(last[k]))
            strength = change[k] / np.maximum(1, around) * covered * np.sqrt(1 - np.maximum(0, alike))
            evidence[k] = np.where((covered >= _COVERED) & (alike <= _ALIKE), strength, 0)
        return change, evidence

    def _push(self, window: _Window, first: int, last: int, probes: int) -> Push:
        between = np.linspace(first, last, probes + 2).round().astype(int)[1:-1]
        a, b = self._at(np.array([window.first, window.last])).reshape(2, *self._shape)
        turns = (window.turns,) if window.turns >= 0 else (0, 1, 2, 3)
        return find_push(a, b, self._at(between).reshape(-1, *self._shape), turns)

    def _own_change(self, pictures: Numbers, reach: Numbers) -> Array:
        """What changes in `reach` pictures on one side of these, or in fewer, scaled up, where the film ends."""
        other = np.clip(pictures + reach, max(self._first, self._since), self._count - 1)
        apart = np.abs(reach) / np.maximum(1, np.abs(other - pictures))
        difference = self._at(pictures) - self._at(other)
        return np.asarray(np.sqrt((difference * difference).mean(1)) * apart**0.7, np.float32)

    def _progress(self, first: Numbers, last: Numbers) -> tuple[Array, Array, Array]:
        """Residual + detour, the largest step of the mean progress, and the spread of progress over the frame."""
        probes = np.linspace(first, last, _PROBES + 2, axis=1).round().astype(int)[:, 1:-1]
        a, way, weight = self._way(first, last)
        gone = self._at(probes).reshape(*probes.shape, -1, 3) - a[:, None]
        along = np.einsum("wkpc,wpc->wkp", gone, way)
        alpha = np.clip(along / np.maximum(weight, 1e-3)[:, None], 0, 1)
        # |gone - alpha way|^2, multiplied out
        beside = np.einsum("wkpc,wkpc->wkp", gone, gone) + alpha * (alpha * weight[:, None] - 2 * along)
        total = np.maximum(weight.sum(1), 1e-3)
        residual = np.sqrt(np.maximum(0, beside).mean(1).sum(1) / total)
        path = np.concatenate([np.zeros_like(alpha[:, :1]), alpha, np.ones_like(alpha[:, :1])], 1)
        detour = ((np.abs(np.diff(path, axis=1)).sum(1) - 1) * weight).sum(1) / total
        mean = np.einsum("wkp,wp->wk", alpha, weight) / total[:, None]
        step = np.diff(mean, prepend=0.0, append=1.0, axis=1).max(1)
        variance = np.einsum("wkp,wp->wk", alpha * alpha, weight) / total[:, None] - mean * mean
        spread = (variance / np.maximum(mean * (1 - mean), 0.02)).mean(1)
        return residual + detour, step, spread

    def _way(self, first: Numbers, last: Numbers) -> tuple[Array, Array, Array]:
        a = self._at(first).reshape(len(first), -1, 3)
        way = self._at(last).reshape(len(last), -1, 3) - a
        return a, way, np.asarray(np.einsum("wpc,wpc->wp", way, way), np.float32)

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
            if end >= settled and end < self._found[0].first + 4 * self._longest:
                break
            group, self._found = self._found[:size], self._found[size:]
            self._told = end
            taken: list[_Window] = []
            for window in sorted(group, key=lambda w: -w.weight):
                if not any(window.first < t.last and window.last > t.first for t in taken) and self._lasts(window):
                    taken.append(window)
            told += [self._locate(w) for w in map(self._unless_swung, sorted(taken, key=lambda w: w.first)) if w]
        return told

    def _lasts(self, window: _Window) -> bool:
        """Whether the evidence holds although a picture like the one before may be seen soon after, or one like the
        one after shortly before."""
        begin, at, until = window.first - self._back, window.first, window.last
        before = self._seen[max(0, begin - self._first) : at + 1 - self._first]
        after = self._seen[until - self._first : min(self._count, until + self._back) - self._first]
        nearest = min(((after - before[-1]) ** 2).mean(1).min(), ((before - after[0]) ** 2).mean(1).min())
        other = float(np.sqrt(nearest)) / window.change
        return other >= _OTHER and window.evidence * other**0.5 >= _EVIDENCE

    def _unless_swung(self, window: _Window) -> _Window | None:
        """None where pictures that slide explain the change: a camera that swings from one view to another and rests.
        A push slides too, but shows an edge."""
        count = min(_GLANCES, window.last - window.first + 1)
        glances = np.linspace(window.first, window.last, count).round().astype(int)
        clear = window.spread >= _WIPE and window.beside <= _CLEAR  # an edge that moves over plain pictures slides too
        if clear or window.turns >= 0 or _slide(self._at(glances).reshape(count, *self._shape)) >= _SLIDE:
            return window
        push = self._push(window, window.first, window.last, _PROBES)
        return replace(window, beside=push.beside, turns=push.turns) if push.holds else None

    def _locate(self, window: _Window) -> Gradual:
        kind, first, last = self._ramp_of(window)
        first, last = first * self._every + 1, last * self._every - 1
        return Gradual(kind, first, max(first, last), round(1 - float(window.beside), 3))

    def _ramp_of(self, window: _Window) -> tuple[str, int, int]:
        """Kind, and the last clean picture before and the first after."""
        margin = max(2, (window.last - window.first) // 4)
        start, end = max(self._first, window.first - margin), min(self._count - 1, window.last + margin)
        if window.turns >= 0:
            first, last = _ramp(self._push(window, start - 1, end + 1, end + 1 - start).moved)
            return "wipe", start + first, start + last
        a, way, weight = (v[0] for v in self._way(np.array([window.first]), np.array([window.last])))
        gone = self._at(np.arange(start, end + 1)).reshape(end + 1 - start, -1, 3) - a
        alpha = np.clip((gone * way).sum(-1) / np.maximum(weight, 1e-3), 0, 1)
        if window.spread < _WIPE:
            first, last = _ramp((alpha * weight).sum(1) / weight.sum())
            return "dissolve" if window.spread < _DISSOLVE else "gradual", start + first, start + last
        # Each place changes at its moment. Where few change first and last, as in corners, the ends are further out
        # than those few tell: seen evenly, the middle half of the places takes half of the time.
        moments = (alpha[:, weight > 0.25 * weight.mean()] < 0.5).sum(0)
        least, quarter, three, most = np.quantile(moments, (_EDGE, 0.25, 0.75, 1 - _EDGE))
        uneven = (most - least) / max(three - quarter, 1.0) - 2
        grow = float(np.clip(0.05 + 0.12 * uneven, 0.0, 0.15)) * (most - least)
        first, last = max(0, round(least - grow)), min(end - start, round(most + grow))
        return "wipe", start + first - 1, start + last


def _slide(pictures: Array) -> float:
    """What differs between neighbours (n, H, W, 3) once they are shifted to match best, as a share of what differs."""
    a, b = pictures[:-1], pictures[1:]
    height, width = a.shape[1:3]
    still = ((a - b) ** 2).mean((1, 2, 3))
    least = still
    down, right = int(_SHIFT * height), int(_SHIFT * width)
    for dy in range(-down, down + 1):
        for dx in range(-right, right + 1):
            here = a[:, max(0, dy) : height + min(0, dy), max(0, dx) : width + min(0, dx)]
            there = b[:, max(0, -dy) : height + min(0, -dy), max(0, -dx) : width + min(0, -dx)]
            least = np.minimum(least, ((here - there) ** 2).mean((1, 2, 3)))
    return float(np.sqrt(least.sum() / max(still.sum(), 1e-3)))


def _stride(length: int) -> int:
    """Pictures between two windows of this length; divides `_CHUNK`."""
    return 2 if length < 36 else 4 if length < 72 else 8


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


def correlation(a: Array, b: Array) -> Array:
    """Of pairs of pictures' brightness, BGR (n, ...) each; 0 where one is plain."""
    x, y = (v.reshape(len(v), -1, 3).mean(2) for v in (a, b))
    x, y = x - x.mean(1, keepdims=True), y - y.mean(1, keepdims=True)
    lengths = np.sqrt((x * x).sum(1) * (y * y).sum(1))
    plain = np.minimum(x.std(1), y.std(1)) <= 1
    return np.where(plain, 0, (x * y).sum(1) / np.maximum(lengths, 1e-3))

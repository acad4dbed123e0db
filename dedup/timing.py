"""When one clip shows what another shows: a line from the times of one to those of the other, then a path around it.

Pictures are vectors; where a time falls between two pictures they are mixed in proportion, for the two clips were
sampled at different moments.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dedup.windows import Floats

Times = npt.NDArray[np.float64]

SPEEDS = np.array([1, 0.96, 1.04, 0.9, 1.1, 0.83, 1.2, 0.75, 1.33, 0.67, 1.5, 0.58, 1.75, 0.5, 2.0])
"""How much faster one clip may run; in the gaps between them a path of ten seconds stays within half a second."""

_FINE, _STEP = 1 / 64, 4
"""Seconds to which times are rounded while lines are tried, and how many of these lie between two that are tried."""

_GRAIN = _STEP * _FINE
"""Seconds between offsets that are tried."""

_REACH, _JUMP, _STRAY = 1.0, 0.25, 0.02
"""Of the path: seconds off the line at most, what leaving its offset costs, and what a second off the line does."""


@dataclass(frozen=True, slots=True, eq=False)
class Line:
    """Times of b = speed * times of a + offset."""

    score: float
    speed: float
    offset: float


@dataclass(frozen=True, slots=True, eq=False)
class Moments:
    """For each of N times where it lies among the pictures of b: between `low` and the next, `share` of the way;
    `inside` is False beyond the first and the last."""

    low: npt.NDArray[np.int64]
    share: Times
    inside: npt.NDArray[np.bool_]

    @classmethod
    def at(cls, wanted: Times, times: Times) -> Moments:
        """wanted: any shape. times (M,): rising."""
        place = np.interp(wanted, times, np.arange(len(times)))
        low = np.minimum(place.astype(np.int64), max(len(times) - 2, 0))
        margin = 0.5 * (times[-1] - times[0]) / max(len(times) - 1, 1) + 1e-6
        return cls(low, place - low, (wanted >= times[0] - margin) & (wanted <= times[-1] + margin))

    def mix(self, rows: Floats) -> Floats:
        """Rows of pictures (M, D) -> (N, D)."""
        share = self.share[:, None]
        return np.asarray((1 - share) * rows[self.low] + share * rows[self.next(len(rows))], np.float32)

    def next(self, count: int) -> npt.NDArray[np.int64]:
        return np.minimum(self.low + 1, count - 1)


def best_line(x: Floats, y: Floats, a: Times, b: Times, least: float, speeds: Times = SPEEDS) -> Line:
    """The line along which pictures x (N, D) at times a (N,) correlate most with y (M, D) at times b (M,).

    The score is the correlation of all pictures together, those of a that have no partner included. least: share of
    a's times that must lie within b's.
    """
    table, own, first = _fine(x @ y.T, y, b)
    energy, width = float(np.square(x).sum()), len(own)
    rows = width * np.arange(len(a))[:, None]
    best = Line(-2.0, 1.0, 0.0)
    for speed in speeds if len(a) > 2 else speeds[:1]:
        at = speed * (a - a[0])
        beyond = (1 - least) * at[-1]
        tried = max(int((b[-1] - b[0] - at[-1] + 2 * beyond) / _GRAIN) + 1, 1)
        starts = first - int(beyond / _FINE) + np.rint(at / _FINE).astype(np.int64)
        places = starts[:, None] + _STEP * np.arange(tried)
        np.minimum(np.maximum(places, 0, out=places), width - 1, out=places)  # both ends hold zeros
        total, size = table.take(places + rows).sum(0), own.take(places).sum(0)
        score = total / np.sqrt(energy * size + 1e-9)
        k = int(score.argmax())
        if score[k] > best.score + (1e-3 if best.score > -2 else 0):
            best = Line(
                float(score[k]),
                float(speed),
                float(b[0] - speed * a[0] + _STEP * _FINE * k - int(beyond / _FINE) * _FINE),
            )
    return best


def _fine(products: Floats, y: Floats, b: Times) -> tuple[Floats, Floats, int]:
    """Products (N, M) with pictures y (M, D) at times b, and squares of these, at steps of `_FINE`: (N, K), (K,), zero
    beyond the clip's ends; and which of the steps is b's first time."""
    margin = int(0.5 * (b[-1] - b[0]) / max(len(b) - 1, 1) / _FINE)
    steps = np.arange(-margin - 1, int((b[-1] - b[0]) / _FINE) + margin + 2)
    found = Moments.at(b[0] + steps * _FINE, b)
    found.inside[[0, -1]] = False
    own, then = np.square(y).sum(1), found.next(len(b))
    following = np.append((y[:-1] * y[1:]).sum(1), own[-1])
    share, rest = (np.where(found.inside, part, 0).astype(np.float32) for part in (found.share, 1 - found.share))
    squares = rest**2 * own[found.low] + share**2 * own[then] + 2 * share * rest * following[found.low]
    return rest * products[:, found.low] + share * products[:, then], squares, margin + 1


def path(x: Floats, y: Floats, a: Times, b: Times, line: Line) -> Moments:
    """Where among b's pictures those of a lie, within a second of the line: the offset changes where frames were put in
    or left out. Viterbi's algorithm over offsets."""
    strays = np.arange(-_REACH, _REACH + 1e-9, _GRAIN)
    wanted = (line.speed * a + line.offset)[:, None] + strays
    found = Moments.at(wanted, b)
    products, rows = x @ y.T, np.arange(len(a))[:, None]
    alike = (1 - found.share) * products[rows, found.low] + found.share * products[rows, found.next(len(b))]
    value = np.where(found.inside, np.maximum(alike, 0), 0) - _STRAY * np.abs(strays)
    score, scores = value[0], []
    for following in value[1:]:
        scores.append(score)
        score = np.maximum(score, score.max() - _JUMP) + following
    taken = [int(score.argmax())]
    for score in scores[::-1]:
        top = int(score.argmax())
        taken.append(taken[-1] if score[taken[-1]] >= score[top] - _JUMP else top)
    return Moments.at(wanted[np.arange(len(a)), taken[::-1]], b)

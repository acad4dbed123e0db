"""Whether two clips show the same footage: which part of the one's picture is the other's, which of its moments are the
other's, and whether what changes in the two changes alike.

Two shots of one scene by a camera that stands still have nearly the same pictures; what tells them apart is what moves.
So the pictures are compared first, and then, without what all of them have in common, their changes.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dedup.fingerprint import probed
from dedup.placing import common, inverse, refine
from dedup.timing import Line, Times, best_line, path
from dedup.windows import BITS, KEPT, Floats, Windows, grid, mirror, signatures, spectra, unit, whitening

_LIKELY, _STARTS, _TRIED = 0.6, 3, 12
"""Correlation of two signatures from which a window is tried, how many are, and how many of a clip's are looked at."""

_HOPE = 0.4
"""Correlation of all pictures in the best of these windows, under which they are not looked at closely."""

_ALIGNED = 0.6
"""Share of the shorter clip that must lie within the other in time."""

_PLAIN = 0.99
"""Mean correlation of whole pictures from which no other window is looked for."""

_SAME = 0.5
"""Correlation from which two pictures are taken for the same when their changes are compared."""


_PLACES = 50
"""Places and moments that are looked at, at least; 1 in 20 where there are many."""


class Look:
    """Pictures (N, 32, 32) uint8 of one clip at times (N,) in seconds, and what is computed from them."""

    def __init__(self, pictures: npt.NDArray[np.uint8], times: Times):
        assert len(pictures) == len(times) > 0
        self.pictures = np.asarray(pictures, np.float32)
        self.times = times - times[0]

    def __len__(self) -> int:
        return len(self.times)

    @functools.cached_property
    def whole(self) -> Floats:
        """Signatures (N, 128); zeros where there is too little to see."""
        found, seen = signatures(self.pictures, grid()[:1])
        return np.asarray((found * seen[..., None])[:, 0], np.float32)

    @functools.cached_property
    def probed(self) -> npt.NDArray[np.int64]:
        return probed(len(self))

    @functools.cached_property
    def probes(self) -> Floats:
        """Signatures (P, 67, 128) of the probes in each window of the grid; zeros likewise."""
        found, seen = signatures(self.pictures[self.probed], grid())
        return np.asarray(found * seen[..., None], np.float32)

    @functools.cached_property
    def mirrored(self) -> Look:
        return Look(mirror(self.pictures), self.times)

    def within(self, window: Windows) -> Floats:
        """The pictures' window (4,) as vectors (N, 144) of unit length."""
        return self._plain if (window == grid()[0]).all() else self._within(window)

    @functools.cached_property
    def _plain(self) -> Floats:
        return self._within(grid()[0])

    def _within(self, window: Windows) -> Floats:
        return unit((spectra(self.pictures, window[None])[:, 0] * whitening(1.0)).reshape(len(self), -1))


@dataclass(frozen=True, slots=True)
class Agreement:
    """share:    of the shorter clip's pictures, how many are like the other's at their time
    likeness: mean correlation of all of them
    moving:   how much of the pictures changes in the clip where it is more, root mean square, 0..1
    changes:  correlation of what changes; 1 where nothing does
    places:   how well the two agree where most changes: 1 less the squared difference, as a share of the larger square,
              that three quarters of these places keep below; 1 where nothing changes
    line:     when the longer clip shows what the shorter one does
    window:   of the shorter clip's picture that is the whole of the longer one's
    """

    share: float
    likeness: float
    moving: float
    changes: float
    places: float
    line: Line
    window: tuple[float, ...]


def compare(a: Look, b: Look, alike: float = 0.65) -> Agreement | None:
    """None where no part of the one's picture is like the whole of the other's. alike: correlation from which two
    pictures count as like one another."""
    if len(a) > len(b):
        a, b = b, a
    plain = _plain(a, b)
    if plain:
        line, window = plain
    else:
        best = _windowed(a, b)
        if best is None:
            return None
        line, window = best
        matched = Match.of(*_both(a, b, window), a.times, b.times, line)
        near = matched.nearest[matched.good]
        window, _ = refine(a.pictures[matched.good], b.pictures[near], window, (0.02, 0.01, 0.005))
    x, y = _both(a, b, window)
    matched = Match.of(x, y, a.times, b.times, line)
    for _ in range(2):  # of all lines the one along which changes agree best; pictures of a still scene agree along any
        if matched.same.sum() < 2 or matched.changed[1] >= _PLAIN:
            break
        found = best_line(x - matched.mean_x, y - matched.mean_y, a.times, b.times, _ALIGNED)
        moved = (found.speed, found.offset) != (line.speed, line.offset)
        line = found
        if not moved:
            break
        matched = Match.of(x, y, a.times, b.times, line)
    return Agreement(
        float((matched.similarity >= alike).mean()),
        float(matched.similarity.mean()),
        *matched.changed,
        matched.places,
        line,
        tuple(window.tolist()),
    )


def _plain(a: Look, b: Look) -> tuple[Line, Windows] | None:
    """When b shows what a does, if the whole of it is the whole of a: most copies are such."""
    if float((a.whole @ b.whole.T).max(initial=0.0)) < _PLAIN:
        return None
    window = grid()[0]
    line = best_line(*_both(a, b, window), a.times, b.times, _ALIGNED)
    return (line, window) if line.score >= _PLAIN else None


def _windowed(a: Look, b: Look) -> tuple[Line, Windows] | None:
    """When b shows what a does, and the window of a that the whole of b is."""
    best: tuple[Line, Windows] | None = None
    for start, i, j in _starts(a, b):
        window, score = refine(a.pictures[i], b.pictures[j], start, (0.04,), _LIKELY)
        if score < _LIKELY:
            continue
        line = best_line(*_both(a, b, window), a.times, b.times, _ALIGNED)
        if best is None or line.score > best[0].score:
            best = line, window
        if line.score > 0.9:
            break
    return best if best and best[0].score >= _HOPE else None


@dataclass(frozen=True, slots=True, eq=False)
class Match:
    """Pictures x (N, D) of one clip, and what the other shows at their times, y (N, D); unit length.

    nearest: number of the other's picture at that time. similarity: 0 beyond its ends. same: where it is enough.
    """

    x: Floats
    y: Floats
    nearest: npt.NDArray[np.int64]
    similarity: Floats
    same: npt.NDArray[np.bool_]

    @classmethod
    def of(cls, x: Floats, y: Floats, a: Times, b: Times, line: Line) -> Match:
        """x (N, D) at times a (N,), y (M, D) at times b (M,)."""
        moments = path(x, y, a, b, line)
        there = unit(moments.mix(y))
        similarity = np.where(moments.inside, (x * there).sum(1), np.float32(0))
        nearest = np.rint(moments.low + moments.share).astype(np.int64)
        return cls(x, there, nearest, similarity, similarity >= _SAME)

    @property
    def good(self) -> npt.NDArray[np.int64]:
        """Numbers of some pictures that match well."""
        best = np.argsort(-self.similarity, kind="stable")[: max(4, len(self.x) // 2)]
        return best[probed(len(best))]

    @property
    def mean_x(self) -> Floats:
        return np.asarray(self.x[self.same].mean(0), np.float32)

    @property
    def mean_y(self) -> Floats:
        return np.asarray(self.y[self.same].mean(0), np.float32)

    @property
    def changed(self) -> tuple[float, float]:
        """How much changes, and the correlation of it."""
        if self.same.sum() < 2:
            return 0.0, 1.0
        u, v = self.x[self.same] - self.mean_x, self.y[self.same] - self.mean_y
        of_u, of_v = float(np.square(u).sum()), float(np.square(v).sum())
        correlation = float((u * v).sum()) / np.sqrt(of_u * of_v + 1e-12)
        return float(np.sqrt(max(of_u, of_v) / self.same.sum())), float(correlation)

    @property
    def places(self) -> float:
        """How well what changes agrees in the places where most does."""
        if self.same.sum() < 2:
            return 1.0
        return _agreement_of_places(self.x[self.same] - self.mean_x, self.y[self.same] - self.mean_y)


def _agreement_of_places(u: Floats, v: Floats) -> float:
    """Of changes as spectra (N, 144). Overlays, which are in one of the clips alone, are few of the places; another
    body that moves the same way is most of them."""
    a, b = (_seen(spectrum) for spectrum in (u, v))
    most = np.maximum(np.square(a), np.square(b))
    count = max(_PLACES, most.size // 20)
    at = np.argpartition(-most, count)[:count] if count < most.size else slice(None)
    return float(1 - np.quantile(np.square(a - b)[at] / np.maximum(most[at], 1e-9), 0.75))


def _seen(spectrum: Floats) -> Floats:
    """Weighted spectra (N, 144) as pictures, 16x16 places each, of unit contrast; flat."""
    plain = spectrum.reshape(-1, KEPT, KEPT) / np.maximum(whitening(1.0), 1.0)
    pictures = (_cosines().T @ plain @ _cosines()).ravel()
    return np.asarray(pictures / max(float(np.sqrt(np.square(pictures).mean())), 1e-9), np.float32)


@functools.cache
def _cosines() -> Floats:
    k, place = np.arange(KEPT)[:, None], np.arange(16) + 0.5
    return np.asarray(np.cos(np.pi * k * place / 16) * np.where(k, np.sqrt(2.0), 1.0), np.float32)


def _both(a: Look, b: Look, window: Windows) -> tuple[Floats, Floats]:
    """What a and b both show, where the whole of b shows `window` of a."""
    of_a, of_b = common(window)
    return a.within(of_a), b.within(of_b)


def _starts(a: Look, b: Look) -> list[tuple[Windows, npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
    """Windows of a that the whole of b may show, the most promising first, each with the numbers of up to four pictures
    of a and of b that show the same in it."""
    found = []
    for back, (u, v) in ((False, (a, b)), (True, (b, a))):
        similarity = (u.probes.reshape(-1, BITS) @ v.whole.T).reshape(*u.probes.shape[:2], -1).swapaxes(0, 1)
        peak = similarity.max(axis=(1, 2))  # of (67, P, M)
        likely = np.argsort(-peak, kind="stable")[:_TRIED]
        for k in likely[peak[likely] >= _LIKELY]:
            near = similarity[k].argmax(1)
            value = similarity[k][np.arange(len(near)), near]
            some = np.argsort(-value, kind="stable")[:4]
            i, j = u.probed[some], near[some]
            rank = -float(value.mean() + 0.5 * peak[k])
            found.append((rank, inverse(grid()[k]), j, i) if back else (rank, grid()[k], i, j))
    found.sort(key=lambda start: start[0])
    return [start[1:] for start in found[:_STARTS]]

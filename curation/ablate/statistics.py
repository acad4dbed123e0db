"""Is the difference between two sides more than chance? An interval that covers other seeds and other films."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

_GRID = 100_001


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean and the interval that holds it with the given confidence."""

    mean: float
    low: float
    high: float

    @property
    def beside_zero(self) -> bool:
        return self.low > 0 or self.high < 0


def interval(
    differences: npt.NDArray[np.float64], films: Sequence[str] | None = None, confidence: float = 0.95
) -> Interval:
    """Of the mean of differences (seeds, clips), for seeds and films drawn anew: another initialisation, other films of
    the same kind. films: of each clip, for clips of one film err alike; every clip is its own if not given.

    Seeds and films are crossed random effects: the variance of the mean is (MS_seeds + MS_films - MS_rest) / (seeds x
    films), of mean squares as in a two-way analysis of variance, and Satterthwaite's degrees of freedom give Student's
    t. (A bootstrap of three seeds holds the truth in about 80 % of cases where it promises 95 %.) Films with several
    clips count by their size, linearised as in a ratio estimate. What there is only one of, seed or film, is not
    covered: see `uncovered`.
    """
    seeds = len(differences)
    columns = _by_film(differences, films)
    count = columns.shape[1]
    mean = float(differences.mean())
    by_seed, by_film = columns.mean(1) - mean, columns.mean(0) - mean
    rest = columns - by_seed[:, None] - by_film - mean
    effects = [
        _MeanSquare.of(count * np.square(by_seed).sum(), seeds - 1),
        _MeanSquare.of(seeds * np.square(by_film).sum(), count - 1),
        _MeanSquare.of(np.square(rest).sum(), (seeds - 1) * (count - 1)),
    ]
    total = effects[0].size + effects[1].size - effects[2].size
    larger = max(effects[:2], key=lambda effect: effect.size)
    if total < larger.size:  # one of the two is none at all
        effects, total = [larger], larger.size
    if not total:
        return Interval(mean, mean, mean)
    freedom = total**2 / sum(effect.size**2 / effect.freedom for effect in effects if effect.freedom)
    reach = student((1 + confidence) / 2, max(freedom, 1.0)) * math.sqrt(total / (seeds * count))
    return Interval(mean, mean - reach, mean + reach)


class _MeanSquare(NamedTuple):
    size: float
    freedom: int

    @classmethod
    def of(cls, squares: float, freedom: int) -> _MeanSquare:
        return cls(float(squares) / freedom if freedom else 0.0, freedom)


def uncovered(seeds: int, films: int) -> str:
    """What an interval says nothing about, in words; "" where it covers both."""
    lacking = [what for what, count in (("other seeds", seeds), ("other films", films)) if count < 2]
    return " and ".join(lacking)


def student(share: float, freedom: float) -> float:
    """A quantile of Student's t above 0.5: t = sqrt(freedom) tan(a), where a has the density cos(a)^(freedom - 1)."""
    angles = np.linspace(0, np.pi / 2, _GRID)
    density = np.cos(angles) ** (freedom - 1)
    below = np.concatenate([[0], np.cumsum(density[1:] + density[:-1])])
    return float(np.sqrt(freedom) * np.tan(np.interp(2 * share - 1, below / below[-1], angles)))


def _by_film(differences: npt.NDArray[np.float64], films: Sequence[str] | None) -> npt.NDArray[np.float64]:
    """(seeds, films), whose means are those of all clips."""
    if films is None:
        return differences
    names, film = np.unique(np.asarray(films), return_inverse=True)
    clips = np.bincount(film)
    sums = np.stack([np.bincount(film, weights=row) for row in differences])
    of_seeds = differences.mean(1, keepdims=True)
    return of_seeds + (sums / clips - of_seeds) * clips * len(names) / len(film)

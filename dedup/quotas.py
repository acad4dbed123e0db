"""Quotas: shares that parts of the drawn set should have, such as 60 % landscape.

Chances from concept resampling are scaled part by part until the expected shares hold (iterative proportional fitting),
and no chance exceeds one; where a part is too small for its share, the other part is drawn less, down to a limit.

Sources: Movie Gen sections on data (60/40 and 80/20 landscape to portrait, at least 60 % with people); Deming and
Stephan 1940 for the fitting.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

_SWEEPS = 100


@dataclass(frozen=True, slots=True)
class Quota:
    """Of the drawn clips, those whose `column` is at least `least` shall be between `low` and `high` of all, 0..1.

    Not enforced where no clip, or every clip, is such: there is nothing to choose from. A clip without a value is not
    such a clip.
    """

    name: str
    column: str
    least: float
    low: float = 0.0
    high: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.low <= self.high <= 1:
            raise ValueError(f"quota {self.name}: give 0 <= low <= high <= 1, not {self.low:g} and {self.high:g}.")


def balance(
    chance: Floats,
    members: npt.NDArray[np.bool_],
    quotas: Sequence[Quota],
    counts: npt.NDArray[np.int64] | None = None,
    largest_loss: float = 0.5,
) -> Floats:
    """Chances (N,) such that the expected shares of `members` (Q, N) keep within the quotas.

    counts: (N,) how many clips each entry stands for, one by default.

    The expected number drawn stays what it was if the parts are large enough for that, and is lowered otherwise, by at
    most `largest_loss` of it: a quota that a collection cannot meet is not worth throwing most of it away.
    """
    asked = [(m, q) for m, q in zip(members, quotas, strict=True) if m.any() and not m.all()]
    many = np.ones(len(chance)) if counts is None else counts.astype(np.float64)
    total = float(chance @ many)
    if not asked or not total:
        return chance
    low, high = (1 - largest_loss) * total, total
    best, held = _fit(chance, asked, high, many)
    if held:
        return best
    best, held = _fit(chance, asked, low, many)
    if not held:
        return _topped_up(best, low, many)
    for _ in range(20):
        middle = (low + high) / 2
        tried, held = _fit(chance, asked, middle, many)
        low, high = (middle, high) if held else (low, middle)
        best = tried if held else best
    return best


def _topped_up(chance: Floats, total: float, many: Floats) -> Floats:
    """Chances scaled to that sum as far as ones allow."""
    for _ in range(_SWEEPS):
        chance = np.minimum(1.0, chance * (total / max(float(chance @ many), 1e-12)))
    return chance


def _fit(
    chance: Floats, asked: Sequence[tuple[npt.NDArray[np.bool_], Quota]], total: float, many: Floats
) -> tuple[Floats, bool]:
    """Chances with that sum, and whether the quotas hold to one in a hundred."""
    fitted = chance.copy()
    for _ in range(_SWEEPS):
        for member, quota in asked:
            inside, outside = float(fitted[member] @ many[member]), float(fitted[~member] @ many[~member])
            share = inside / max(inside + outside, 1e-12)
            wanted = min(max(share, quota.low), quota.high)
            fitted[member] *= wanted * total / max(inside, 1e-12)
            fitted[~member] *= (1 - wanted) * total / max(outside, 1e-12)
            fitted = np.minimum(1.0, fitted)
    drawn = float(fitted @ many)
    shares = [(float(fitted[m] @ many[m] / max(drawn, 1e-12)), q) for m, q in asked]
    held = all(q.low - 0.01 <= s <= q.high + 0.01 for s, q in shares)
    return fitted, held and abs(drawn - total) < 0.01 * total

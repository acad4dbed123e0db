"""DSG-Video's arithmetic: how much of what captions name was never seen (STIV, arXiv 2412.07730).

An object is hallucinated when it is seen in none of the frames that were looked at. Of a caption, DSG-Video_i is the
share of its objects that are hallucinated, DSG-Video_s the share of its sentences that name such an object. Over many
captions both are micro averages, sums over sums; their intervals are percentiles of a bootstrap over captions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

DRAWS = 2000
_AT_ONCE = 4_000_000


def never_seen(seen: Bools) -> Bools:
    """seen: (objects, frames). Which objects are hallucinated (objects,): those seen in no frame."""
    return np.logical_not(np.asarray(seen, bool).any(axis=1))


@dataclass(frozen=True, slots=True)
class Counts:
    """Of one caption, or of many together. named: unique objects; false_sentences: those with a hallucinated one."""

    named: int
    hallucinated: int
    sentences: int
    false_sentences: int

    @property
    def i(self) -> float | None:
        """DSG-Video_i, 0..1; None where no object is named."""
        return self.hallucinated / self.named if self.named else None

    @property
    def s(self) -> float | None:
        """DSG-Video_s, 0..1; None where there is no sentence."""
        return self.false_sentences / self.sentences if self.sentences else None


def count(mentions: Bools, hallucinated: Bools) -> Counts:
    """mentions: (objects, sentences), which sentence names which object; hallucinated: (objects,)."""
    false = mentions[hallucinated].any(axis=0) if mentions.size else np.zeros(mentions.shape[1], bool)
    return Counts(mentions.shape[0], int(hallucinated.sum()), mentions.shape[1], int(false.sum()))


@dataclass(frozen=True, slots=True)
class Estimate:
    """A share, and where it lies with 95 % confidence. All None where it is undefined."""

    value: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class Summary:
    """DSG-Video of a set of captions. counts: sums over them; i, s: micro averages."""

    captions: int
    counts: Counts
    i: Estimate
    s: Estimate

    @property
    def richness(self) -> float:
        """Unique objects of a caption, on average."""
        return self.counts.named / self.captions if self.captions else 0.0


def summarise(counts: Ints, draws: int = DRAWS, seed: int = 0) -> Summary:
    """counts: (captions, 4), the fields of `Counts` of each caption."""
    totals = Counts(*(int(n) for n in counts.sum(axis=0)))
    sums = _resampled(counts, draws, seed)
    return Summary(
        len(counts),
        totals,
        _estimate(totals.i, _ratio(sums[:, 1], sums[:, 0])),
        _estimate(totals.s, _ratio(sums[:, 3], sums[:, 2])),
    )


def difference(a: Ints, b: Ints, draws: int = DRAWS, seed: int = 0) -> tuple[Estimate, Estimate]:
    """How much b's DSG-Video_i and _s lie above a's, for two captions (captions, 4) of each of the same clips, which
    are drawn together."""
    both = np.concatenate([a, b], axis=1)
    sums = _resampled(both, draws, seed)
    before, after = (Counts(*(int(n) for n in one.sum(axis=0))) for one in (a, b))
    found = []
    for top, bottom, old, new in ((1, 0, before.i, after.i), (3, 2, before.s, after.s)):
        drawn = _ratio(sums[:, top + 4], sums[:, bottom + 4]) - _ratio(sums[:, top], sums[:, bottom])
        found.append(_estimate(None if old is None or new is None else new - old, drawn))
    return found[0], found[1]


def _resampled(counts: Ints, draws: int, seed: int) -> Ints:
    """(draws, columns): sums over as many captions as there are, drawn with replacement.

    Captions with equal counts are alike, so it is drawn how often each kind occurs: ten million captions are a few
    thousand kinds.
    """
    if not len(counts):
        return np.zeros((draws, counts.shape[1]), np.int64)
    rng = np.random.default_rng(seed)
    kinds, often = np.unique(counts, axis=0, return_counts=True)
    step = max(1, _AT_ONCE // len(kinds))
    sums = [
        rng.multinomial(len(counts), often / len(counts), size=min(step, draws - start)) @ kinds
        for start in range(0, draws, step)
    ]
    return np.concatenate(sums)


def _ratio(top: Ints, bottom: Ints) -> Floats:
    return np.divide(top, bottom, out=np.full(len(top), np.nan), where=bottom > 0)


def _estimate(value: float | None, drawn: Floats) -> Estimate:
    known = drawn[np.isfinite(drawn)]
    if value is None or not len(known):
        return Estimate(None, None, None)
    low, high = np.quantile(known, (0.025, 0.975))
    return Estimate(value, float(low), float(high))

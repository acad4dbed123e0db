"""Resampling by inverse square root of concept size, so that common concepts do not drown rare ones.

A clip of a concept with n clips is kept with probability min(1, alpha / sqrt(n)). Whether it is drawn depends on a hash
of seed and clip id alone, so adding data does not reshuffle what was drawn before.

Sources: Mahajan et al. 2018; Movie Gen section on content filtering.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dedup.quotas import Quota


@dataclass(frozen=True, slots=True)
class Resample:
    """keep: share of the kept clips to draw, 0..1 (Movie Gen's table keeps 0.94 of 1.15, that is 0.82)
    seed:   of the draw
    exempt: a column; clips where it is at least `exempt_least` are not weighed down for the size of their concept, as
            Movie Gen keeps the frequency of clips with people
    quotas: shares that parts of the drawn set should have
    """

    keep: float = 0.8
    seed: int = 0
    exempt: str = ""
    exempt_least: float = 0.5
    quotas: tuple[Quota, ...] = ()
    version: int = 1


def probabilities(
    sizes: npt.NDArray[np.int64],
    settings: Resample,
    exempt: npt.NDArray[np.bool_] | None = None,
    counts: npt.NDArray[np.int64] | None = None,
) -> npt.NDArray[np.float64]:
    """Chance of every clip (N,), from the size of its concept (N,), such that their sum is keep * N.

    exempt: (N,) clips that count as if they were alone in their concept. counts: (N,) how many clips each entry stands
    for, one by default.
    """
    weights = 1 / np.sqrt(np.maximum(sizes, 1).astype(np.float64))
    if exempt is not None:
        weights[exempt] = 1.0
    many = np.ones(len(weights), np.int64) if counts is None else counts
    target = min(max(settings.keep, 0.0), 1.0) * many.sum()
    if not len(weights) or target >= many.sum():
        return np.ones(len(weights))
    low, high = 0.0, float(1 / weights.min())
    for _ in range(60):  # the expected number grows with alpha: halve the interval until it is met
        alpha = (low + high) / 2
        low, high = (alpha, high) if np.minimum(1, alpha * weights) @ many < target else (low, alpha)
    return np.minimum(1.0, high * weights)


def drawn(clip_ids: Sequence[str], chance: npt.NDArray[np.float64], settings: Resample) -> npt.NDArray[np.bool_]:
    """Which clips are drawn (N,). If chance leaves none, the luckiest one is: a training set is never empty."""
    luck = np.array([_uniform(f"{settings.seed}:{clip}") for clip in clip_ids])
    chosen = luck < chance
    if len(luck) and not chosen.any():
        chosen[np.argmin(luck / np.maximum(chance, 1e-12))] = True
    return chosen


def _uniform(text: str) -> float:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") / 2**64

"""Pairs of rows that are alike, and how they are found between two sets of vectors."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import faiss
import numpy as np
import numpy.typing as npt

from dedup.signs import AT_ONCE, Codes, near, reach
from dedup.vectors import Floats, Rows, one_thread

ROUNDING = 1e-6
"""Cosines are of float32 numbers: equal vectors may come out that much below 1."""

_DENSE = 1 / 25
"""From this share of candidates on, comparing all by one matrix product is quicker than fetching the candidates."""

_FETCHED = 512


@dataclass(frozen=True, slots=True, eq=False)
class Pairs:
    """Rows `first` < `second` (N,) int64 and their `cosine` (N,) float32; sorted, each pair once."""

    first: Rows
    second: Rows
    cosine: Floats

    def __len__(self) -> int:
        return len(self.first)

    @classmethod
    def of(cls, a: Rows, b: Rows, cosine: npt.NDArray[np.floating]) -> Pairs:
        """From pairs in any order, some perhaps twice."""
        first, second = np.minimum(a, b), np.maximum(a, b)
        order = np.lexsort((second, first))
        first, second = first[order], second[order]
        new = np.ones(len(order), bool)
        new[1:] = (first[1:] != first[:-1]) | (second[1:] != second[:-1])
        return cls(first[new], second[new], np.asarray(cosine, np.float32)[order][new])

    @classmethod
    def merge(cls, several: Iterable[Pairs]) -> Pairs:
        several = [*several, cls(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32))]
        columns = (np.concatenate([getattr(p, name) for p in several]) for name in ("first", "second", "cosine"))
        return cls.of(*columns)

    def save(self, path: Path) -> None:
        """Under another name first: a file that exists is whole."""
        temporary = path.with_name(f".{path.name}.tmp")
        with temporary.open("wb") as file:
            np.savez(file, first=self.first, second=self.second, cosine=self.cosine)
        temporary.replace(path)

    @classmethod
    def load(cls, path: Path) -> Pairs:
        with np.load(path, allow_pickle=False) as stored:
            return cls(stored["first"], stored["second"], stored["cosine"])


def alike(
    a: Floats, rows: Rows, b: Callable[[], Floats], threshold: float, most: int, signs: tuple[Codes, Codes] | None
) -> tuple[Rows, Rows, Floats]:
    """Which of the rows a[rows] and which rows of b (M, D), unit length, have a cosine of at least `threshold`.

    Returns numbers of rows of a, of rows of b, and the cosines; for each row at least its `most` nearest. signs: codes
    of a[rows] and of b; with them most pairs are never compared, b is often not read at all, and a few pairs that lie
    right at the threshold are lost.
    """
    found: list[tuple[Rows, Rows, Floats]] = [(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32))]
    others: Floats | None = None if signs else b()
    size = len(others) if others is not None else len(signs[1]) if signs else 0
    step = max(1, AT_ONCE // max(size, 1))
    for start in range(0, len(rows), step):
        some = rows[start : start + step]
        here = there = some[:0]
        if signs:
            here, there = near(signs[0][start : start + step], signs[1], reach(threshold))
            if not len(here):
                continue
        others = b() if others is None else others
        if not signs or len(here) > _DENSE * len(some) * size:
            here, there = _above(a[some], others, threshold - 2 * ROUNDING)
            if len(here) > most * len(some):
                here, there = _nearest(a[some], others, most)
        cosines = _cosines(a, others, some[here], there)
        good = cosines >= threshold - ROUNDING
        found.append((some[here[good]], there[good], cosines[good]))
    here, there, cosines = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return here, there, cosines


def nearest_of_each(a: Rows, b: Rows, cosines: Floats, most: int) -> npt.NDArray[np.int64]:
    """Positions of the pairs that are among the `most` best of their `a`, ties by `b`."""
    order = np.lexsort((b, -cosines, a))
    ranked = a[order]
    starts = np.searchsorted(ranked, ranked)
    return order[np.arange(len(order)) - starts < most]


def _above(a: Floats, b: Floats, threshold: float) -> tuple[Rows, Rows]:
    index = faiss.IndexFlatIP(b.shape[1])
    index.add(b)
    with one_thread():
        ends, _, at = index.range_search(np.ascontiguousarray(a), threshold)
    return np.repeat(np.arange(len(a)), np.diff(ends.astype(np.int64))), at


def _nearest(a: Floats, b: Floats, most: int) -> tuple[Rows, Rows]:
    """The `most` rows of b nearest to each row of a, which may itself be among them."""
    most = min(most + 1, len(b))
    with one_thread():
        at = faiss.knn(np.ascontiguousarray(a), b, most, metric=faiss.METRIC_INNER_PRODUCT)[1]
    return np.repeat(np.arange(len(a)), most), at.ravel()


def _cosines(a: Floats, b: Floats, rows: Rows, columns: Rows) -> Floats:
    """Row by row, so that a pair has the same cosine to the last bit however it was found."""
    cosines = np.empty(len(rows), np.float32)
    for start in range(0, len(rows), _FETCHED):
        some = slice(start, start + _FETCHED)
        np.einsum("nd,nd->n", a[rows[some]], b[columns[some]], out=cosines[some])
    return cosines

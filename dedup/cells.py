"""Cells: a space of unit vectors cut up by k-means, and exact search in the few cells that a query lies nearest to.

Queries are gathered by cell, so that each cell is read once for all that visit it, and compared by matrix products.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path

import faiss
import numpy as np

from dedup.kmeans import kmeans, polish
from dedup.signs import planes
from dedup.vectors import Floats, Rows, one_thread

Fetch = Callable[[int], tuple[Floats, Rows]]
"""Vectors (m, D) in a cell and their numbers (m,)."""

_ALL = 8192
"""Up to that many centroids a query is compared with all of them; beyond, with those of its nearest families."""

_POLISH = 5
"""Rounds of k-means among all centroids, after which a row's neighbours lie in fewer cells: with 977 cells for a
million clustered vectors, 24 of them held 97.9 % instead of 95.8 %."""

_FAMILIES = 32
"""Of 98,000 centroids in 313 families, these hold the nearest for 98 % of queries, at a fifth of the time."""


@dataclass(frozen=True, slots=True, eq=False)
class Cells:
    """centroids (C, D), unit length; families (F + 1,): where each family of centroids starts; heads (F, D): the
    families' own centres; normals (512, D) of the planes behind sign codes."""

    centroids: Floats
    families: Rows
    heads: Floats
    normals: Floats

    @classmethod
    def train(cls, points: Floats, cells: int, rounds: int, seed: int) -> Cells:
        """From a sample of unit rows (S, D). No points make one cell."""
        if cells <= 1 or len(points) < 2:
            return cls.single(points.shape[1], seed)
        centroids, families = kmeans(points, cells, rounds=rounds, seed=seed, spherical=True)
        if cells <= _ALL:
            centroids = polish(points, centroids, rounds=_POLISH, seed=seed, spherical=True)
            families = np.array([0, len(centroids)])
        sums = np.add.reduceat(centroids, families[:-1], axis=0)
        heads = sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-12)
        return cls(centroids, families, heads, planes(points.shape[1], seed))

    @classmethod
    def single(cls, size: int, seed: int = 0) -> Cells:
        """One cell: all is compared with all."""
        return cls(
            np.zeros((1, size), np.float32), np.array([0, 1]), np.zeros((1, size), np.float32), planes(size, seed)
        )

    @property
    def size(self) -> int:
        """Numbers in a vector."""
        return int(self.centroids.shape[1])

    def __len__(self) -> int:
        return len(self.centroids)

    def nearest(self, queries: Floats, count: int) -> Rows:
        """The cells (Q, count) nearest to each unit query (Q, D), nearest first; -1 beyond the number of cells."""
        if len(self) == 1:
            return np.pad(np.zeros((len(queries), 1), np.int64), ((0, 0), (0, count - 1)), constant_values=-1)
        probes = np.zeros((len(queries), 1), np.int64)
        if len(self) <= _ALL:
            return best(queries, probes, lambda _: (self.centroids, np.arange(len(self))), count)[1]
        heads = np.arange(len(self.heads))
        probes = best(queries, probes, lambda _: (self.heads, heads), min(_FAMILIES, len(heads)))[1]

        def family(number: int) -> tuple[Floats, Rows]:
            numbers = np.arange(self.families[number], self.families[number + 1])
            return self.centroids[numbers[0] : numbers[-1] + 1], numbers

        return best(queries, probes, family, count)[1]

    def save(self, path: Path) -> None:
        """Under another name first: a file that exists is whole."""
        temporary = path.with_name(f".{path.name}.tmp")
        with temporary.open("wb") as file:
            np.savez(file, **{f.name: getattr(self, f.name) for f in fields(self)})
        temporary.replace(path)

    @classmethod
    def load(cls, path: Path) -> Cells:
        with np.load(path, allow_pickle=False) as stored:
            return cls(**{f.name: stored[f.name] for f in fields(cls)})


def best(queries: Floats, probes: Rows, fetch: Fetch, count: int) -> tuple[Floats, Rows]:
    """Cosines and numbers (Q, count) of the best rows in the cells `probes` (Q, P) of each unit query, best first.

    Where there are fewer, the number is -1 and the cosine -inf.
    """
    cosines = np.full((*probes.shape, count), -np.inf, np.float32)
    numbers = np.full(cosines.shape, -1, np.int64)
    for cell, rows, places in visits(probes):
        vectors, names = fetch(cell)
        if not len(vectors):
            continue
        found = min(count, len(vectors))
        with one_thread():
            values, at = faiss.knn(queries[rows], vectors, found, metric=faiss.METRIC_INNER_PRODUCT)
        cosines[rows, places, :found], numbers[rows, places, :found] = values, names[at]
    return keep_best(cosines.reshape(len(queries), -1), numbers.reshape(len(queries), -1), count)


def keep_best(cosines: Floats, numbers: Rows, count: int) -> tuple[Floats, Rows]:
    """The `count` largest of each row (Q, n), largest first, ties by number; padded with -inf and -1."""
    if cosines.shape[1] > count:
        some = np.argpartition(-cosines, count - 1, axis=1)[:, :count]
        cosines, numbers = np.take_along_axis(cosines, some, 1), np.take_along_axis(numbers, some, 1)
    order = np.lexsort((numbers, -cosines), axis=1)
    cosines, numbers = np.take_along_axis(cosines, order, 1), np.take_along_axis(numbers, order, 1)
    missing = ((0, 0), (0, count - cosines.shape[1]))
    return np.pad(cosines, missing, constant_values=-np.inf), np.pad(numbers, missing, constant_values=-1)


def visits(probes: Rows) -> Iterator[tuple[int, Rows, Rows]]:
    """Each cell that is visited, in rising order, with the queries that visit it and at which of their places."""
    order = np.argsort(probes, axis=None, kind="stable")
    cells = probes.ravel()[order]
    edges = np.flatnonzero(np.diff(cells, prepend=-2, append=-2))  # none where there is no probe
    for start, end in itertools.pairwise(edges):
        if cells[start] >= 0:
            yield int(cells[start]), *np.divmod(order[start:end], probes.shape[1])

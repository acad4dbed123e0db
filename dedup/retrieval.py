"""Retrieval: the clips nearest to a text or to other clips, and sets in which every entry of a list has its share.

Movie Gen builds its fine-tuning set so: texts of a taxonomy find candidate clips, people pick a few good ones for each
entry as seeds, the clips nearest to the seeds are taken, and entries are balanced. Cosines of unit vectors throughout;
texts and clips must come from one model. Exact: every block of rows is multiplied with all queries, and only the best
rows are remembered.

Source: Movie Gen (arXiv 2410.13720) section on fine-tuning data; how seeds are chosen by machine, and the round in
which entries take their turns, are ours.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dedup.vectors import Floats, Rows, unit


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """For each of Q queries its nearest rows, best first: similarity (Q, k), -1..1, and row (Q, k), -1 behind the last
    where there are fewer than k."""

    similarity: Floats
    row: Rows

    def pairs(self) -> tuple[Rows, Rows, Floats]:
        """Query, row and similarity of every find."""
        query, place = np.nonzero(self.row >= 0)
        return query.astype(np.int64), self.row[query, place], self.similarity[query, place]


def nearest(blocks: Iterable[Floats], queries: Floats, count: int) -> Found:
    """The `count` rows nearest to each query (Q, D), among rows that come in blocks (n, D). Ties go to the earlier row;
    rows without a direction (zero, NaN) are never found.

    Raises ValueError when queries and rows have different lengths.
    """
    asked, _ = unit(np.atleast_2d(queries))
    similarity = np.full((len(asked), 0), -np.inf, np.float32)
    row = np.zeros((len(asked), 0), np.int64)
    first = 0
    for block in blocks:
        rows, usable = unit(block)
        if rows.shape[1] != asked.shape[1]:
            raise ValueError(
                f"the question has {asked.shape[1]} numbers and the clips' vectors {rows.shape[1]}; use the model that "
                "the clips were measured with."
            )
        scores = asked @ rows.T
        scores[:, ~usable] = -np.inf
        best = _best(scores, count)
        similarity = np.concatenate([similarity, np.take_along_axis(scores, best, axis=1)], axis=1)
        row = np.concatenate([row, best + first], axis=1)
        if similarity.shape[1] > count:
            best = _best(similarity, count)
            similarity, row = np.take_along_axis(similarity, best, axis=1), np.take_along_axis(row, best, axis=1)
        first += len(rows)
    order = np.lexsort((row, -similarity), axis=1)
    similarity, row = np.take_along_axis(similarity, order, axis=1), np.take_along_axis(row, order, axis=1)
    row[~np.isfinite(similarity)] = -1
    return Found(similarity, row)


def _best(scores: Floats, count: int) -> Rows:
    """Columns (Q, at most count) of the largest scores (Q, n) of each row, in no order; of equal ones the first."""
    if scores.shape[1] <= count:
        return np.tile(np.arange(scores.shape[1]), (len(scores), 1))
    least = -np.partition(-scores, count - 1, axis=1)[:, count - 1 : count]
    over = scores > least
    equal = scores == least
    room = count - over.sum(axis=1, keepdims=True)
    taken = over | (equal & (np.cumsum(equal, axis=1) <= room))
    return np.nonzero(taken)[1].reshape(len(scores), count)


def pick_seeds(found: Found, quality: npt.NDArray[np.float64], count: int) -> list[Rows]:
    """For each query the rows that are good seeds: among its finds, the best by the mean of two ranks, similarity and
    `quality` (N,) of all rows (larger is better; NaN is worst). A row is a seed of at most one query, of the one that
    it resembles most."""
    query, row, similarity = found.pairs()
    owner = np.lexsort((query, -similarity, row))
    first = np.unique(row[owner], return_index=True)[1]
    query, row, similarity = (values[owner][first] for values in (query, row, similarity))
    worth = np.nan_to_num(quality[row], nan=-np.inf)
    seeds = []
    for k in range(len(found.row)):
        own = np.flatnonzero(query == k)
        ranks = np.argsort(np.argsort(-similarity[own], kind="stable")) + np.argsort(
            np.argsort(-worth[own], kind="stable")
        )
        seeds.append(row[own[np.lexsort((row[own], ranks))][:count]])
    return seeds


def centers(vectors: Sequence[Floats]) -> Floats:
    """One unit vector per entry (Q, D): the direction of the mean of its seeds (n, D), n > 0."""
    return unit(np.stack([unit(v)[0].mean(axis=0) for v in vectors]))[0]


@dataclass(frozen=True, slots=True, eq=False)
class Balanced:
    """chosen: rows, in the order in which they were taken; entry: for which entry each was; counts: by entry (Q,)."""

    chosen: Rows
    entry: Rows
    counts: Rows


def balance_entries(found: Found, count: int = 0) -> Balanced:
    """A set in which every query occurs about equally often: the query with the fewest rows so far takes its nearest
    row that nobody has taken, until `count` rows are taken or nothing is left.

    count: 0 takes as many as keep the set level: until the first query with finds has run out of them.
    """
    queues = [row[row >= 0][::-1].tolist() for row in found.row]
    counts = np.zeros(len(queues), np.int64)
    turns = [(0, k) for k, queue in enumerate(queues) if queue]
    taken: set[int] = set()
    chosen: list[tuple[int, int]] = []
    while turns and (not count or len(chosen) < count):
        _, k = turns[0]
        queue = queues[k]
        while queue and queue[-1] in taken:
            queue.pop()
        if not queue:
            if not count:
                break
            heapq.heappop(turns)
            continue
        row = queue.pop()
        taken.add(row)
        chosen.append((row, k))
        counts[k] += 1
        heapq.heapreplace(turns, (int(counts[k]), k))
    rows = np.array(chosen, np.int64).reshape(-1, 2)
    return Balanced(rows[:, 0], rows[:, 1], counts)

"""Synthetic embeddings with planted neighbours, and what exact search says about some of them.

Vectors lie in scenes of about 50 (the largest holds a few in a thousand of all), scenes in 200 topics; what tells
vectors of a scene apart has the falling spectrum of real embeddings. A tenth of the rows are near-copies of an earlier
row, at cosines from 0.76 to 0.999, off in any direction of the whole space.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import faiss
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from dedup.pairs import Pairs
from dedup.vectors import Column, Floats, Rows, one_thread, unit

SIZE = 512
COLUMN = "embedding"
COSINES = (0.76, 0.8, 0.85, 0.9, 0.95, 0.98, 0.992, 0.999)
_PART = 50_000
_TOPICS, _SCENE, _COPIES = 200, 50, 0.1


def plant(folder: Path, rows: int, seed: int = 0) -> Column:
    """Writes `rows` vectors as Parquet parts of 50,000, a part at a time."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    spectrum = (1 / np.sqrt(np.arange(1, SIZE + 1))).astype(np.float32)
    turn = np.linalg.qr(rng.standard_normal((SIZE, SIZE)))[0].astype(np.float32)

    def noise(count: int) -> Floats:
        return unit((rng.standard_normal((count, SIZE), np.float32) * spectrum) @ turn)[0]

    count = max(20, rows // _SCENE)
    scenes = unit(0.6 * noise(_TOPICS)[rng.integers(0, _TOPICS, count)] + 0.8 * noise(count))[0]
    weights = 1 / (np.arange(count) + 50) ** 0.8
    files: list[str] = []
    for start in range(0, rows, _PART):
        size = min(_PART, rows - start)
        near = rng.uniform(0.5, 0.8, (size, 1)).astype(np.float32)
        scene = scenes[rng.choice(count, size, p=weights / weights.sum())]
        vectors = unit(near * scene + np.sqrt(1 - near**2) * noise(size))[0]
        _copy_some(vectors, files, rng)
        files.append(str(folder / f"part-{len(files):05d}.parquet"))
        lists = pa.FixedSizeListArray.from_arrays(vectors.ravel(), SIZE)
        pq.write_table(pa.table({COLUMN: lists.cast(pa.list_(pa.float32()))}), files[-1], compression="zstd")
    return Column(tuple(files), COLUMN, SIZE)


def _copy_some(vectors: Floats, earlier: list[str], rng: np.random.Generator) -> None:
    """Makes a tenth of the rows near-copies of rows of one earlier part, or of other rows of this one."""
    chosen = rng.permutation(len(vectors))
    count = int(_COPIES * len(vectors))
    source, (chosen, others) = vectors, np.split(chosen, [count])
    if earlier:
        source = np.concatenate(list(Column((earlier[rng.integers(len(earlier))],), COLUMN, SIZE)))
        others = rng.permutation(len(source))
    original = source[others[:count]]
    cosine = rng.choice(COSINES, count).astype(np.float32)[:, None]
    off = rng.standard_normal((count, SIZE), np.float32)
    off = unit(off - np.einsum("nd,nd->n", off, original)[:, None] * original)[0]
    vectors[chosen] = cosine * original + np.sqrt(1 - cosine**2) * off


@dataclass(frozen=True, slots=True, eq=False)
class Truth:
    """Of some rows (Q,) and their vectors (Q, D): the ten nearest rows (Q, 10) but themselves, and all pairs that they
    are in with a cosine of at least the lowest threshold."""

    rows: Rows
    vectors: Floats
    nearest: Rows
    pairs: Pairs


def exact(vectors: Column, threshold: float, queries: int = 2000, seed: int = 1) -> Truth:
    """By comparing sampled rows with every row."""
    rows = np.sort(np.random.default_rng(seed).choice(len(vectors), min(queries, len(vectors)), replace=False))
    asked, cosines, numbers = (
        rows_of(vectors, rows),
        np.zeros((len(rows), 0), np.float32),
        np.zeros((len(rows), 0), int),
    )
    pairs: list[Pairs] = []
    first = 0
    for block in vectors:
        index = faiss.IndexFlatIP(SIZE)
        index.add(block)
        with one_thread():
            near, at = index.search(asked, 11)
            ends, above, which = index.range_search(asked, threshold)
        cosines, numbers = np.hstack([cosines, near]), np.hstack([numbers, at + first])
        best = np.argsort(-cosines, axis=1)[:, :11]
        cosines, numbers = np.take_along_axis(cosines, best, 1), np.take_along_axis(numbers, best, 1)
        query = rows[np.repeat(np.arange(len(rows)), np.diff(ends.astype(np.int64)))]
        other = query != which + first
        pairs.append(Pairs.of(query[other], which[other] + first, above[other]))
        first += len(block)
    assert (numbers[:, 0] == rows).all(), "a row is its own nearest"
    return Truth(rows, asked, numbers[:, 1:], Pairs.merge(pairs))


def rows_of(vectors: Column, rows: Rows) -> Floats:
    """Vectors (n, D) of rows given in rising order."""
    taken: list[Floats] = []
    first = 0
    for block in vectors:
        taken.append(block[rows[(rows >= first) & (rows < first + len(block))] - first])
        first += len(block)
    return np.concatenate(taken)


def found(truth: Pairs, pairs: Pairs) -> npt.NDArray[np.bool_]:
    """Which of the true pairs are among `pairs`."""
    known = pairs.first << 32 | pairs.second
    return np.isin(truth.first << 32 | truth.second, known)

"""Embeddings of clips as blocks of rows, so that a hundred million of them never lie in memory together.

A *block* is an array (n, D); blocks are an iterable that can be walked more than once (a list, or an object whose
`__iter__` starts anew), and a row's number is its place in the whole walk. A clip without a vector is a row of zeros.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import faiss
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

Floats = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]
Blocks = Iterable[Floats]

_LEAST_NORM = 1e-6


@dataclass(frozen=True, slots=True)
class Column:
    """Vectors of one list column of Parquet files, in their order; a row that is null is zeros.

    Raises ValueError when the files hold vectors of another length than `size`, or no such column.
    """

    files: tuple[str, ...]
    name: str
    size: int
    batch: int = 16384

    def __iter__(self) -> Iterator[Floats]:
        for file in self.files:
            with pq.ParquetFile(file) as table:
                if self.name not in table.schema_arrow.names:
                    raise ValueError(f"{file}: has no column {self.name}; add the signal that measures it.")
                for batch in table.iter_batches(self.batch, columns=[self.name]):
                    yield from_arrow(batch.column(0), self.size, file)

    def __len__(self) -> int:
        return sum(pq.read_metadata(file).num_rows for file in self.files)


def from_arrow(lists: pa.Array | pa.ChunkedArray, size: int, where: str = "vectors") -> Floats:
    """A list column -> (n, size); null rows are zeros. Raises ValueError when a row has another length."""
    if isinstance(lists, pa.ChunkedArray):
        lists = lists.combine_chunks()
    vectors = np.zeros((len(lists), size), np.float32)
    full = np.asarray(pc.is_valid(lists))
    if full.any():
        lengths = set(pc.unique(pc.list_value_length(lists.drop_null())).to_pylist())
        if lengths != {size}:
            raise ValueError(
                f"{where}: holds vectors of {', '.join(map(str, sorted(lengths)))} numbers, not {size}; "
                "measure all parts with one model."
            )
        vectors[full] = pc.list_flatten(lists.drop_null()).to_numpy(zero_copy_only=False).reshape(-1, size)
    return vectors


def unit(vectors: npt.NDArray[np.floating]) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """Rows of unit length (n, D), and which rows (n,) can be compared at all: those neither zero nor NaN nor infinite.

    The others come back as zeros.
    """
    vectors = np.ascontiguousarray(vectors, np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        norms = np.sqrt(np.einsum("nd,nd->n", vectors, vectors))
    good = np.isfinite(norms) & (norms > _LEAST_NORM)
    scale = np.where(good, norms, 1)[:, None]
    rows = vectors / scale
    rows[~good] = 0
    return rows, good


def count(blocks: Blocks) -> int:
    """Rows of all blocks."""
    return len(blocks) if isinstance(blocks, Column) else sum(len(block) for block in blocks)


def chosen(first: int, rows: int, share: float, seed: int) -> npt.NDArray[np.bool_]:
    """Which of the rows numbered first, first + 1, ... belong to a random sample of that share of all rows.

    By a hash of row number and seed (SplitMix64), so that the sample does not depend on how rows are cut into blocks.
    """
    if share >= 1:
        return np.ones(rows, bool)
    with np.errstate(over="ignore"):
        z = np.arange(first, first + rows, dtype=np.uint64) + np.uint64((seed << 40) % 2**64)
        z = (z + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
    return z < np.uint64(min(share, 1) * 2**64 * (1 - 2**-53))


def sample(blocks: Blocks, size: int, share: float, seed: int, first: int = 0) -> Floats:
    """About that share of all rows: unit rows (S, size) without those that cannot be compared.

    first: number of the first row, where `blocks` are only a part of all rows.
    """
    taken = [np.zeros((0, size), np.float32)]
    for block in blocks:
        vectors, good = unit(block[chosen(first, len(block), share, seed)])
        taken.append(vectors[good])
        first += len(block)
    return np.concatenate(taken)


def stretches(blocks: Blocks, rows: int) -> Iterator[Iterator[Floats]]:
    """The same rows in stretches of `rows` (the last may have fewer); walk each before asking for the next.

    Blocks that are cut are slices, so no more than one of them is held.
    """
    walk = iter(blocks)
    left = next(walk, None)
    while left is not None:

        def stretch() -> Iterator[Floats]:
            nonlocal left
            wanted = rows
            while left is not None and wanted:
                part, left = left[:wanted], left[wanted:]
                wanted -= len(part)
                if not len(left):
                    left = next(walk, None)
                yield part

        yield stretch()


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """FAISS computes in this thread alone: sums come out the same every time, and workers do not fight over cores."""
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(threads)

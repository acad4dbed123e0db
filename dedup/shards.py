"""Shards: some rows of an index on disk, sorted by cell, so that a cell is one stretch of each file.

A shard is a folder of .npy files, written under another name and renamed: one that exists is whole. Files are read
by the stretch, not mapped, so that memory in use is what it seems to be.

| file | what |
|---|---|
| vectors.npy | unit rows (U, D) float32, by cell; of rows that are equal bit for bit only the first |
| codes.npy | their sign codes (U, 64) uint8 |
| ids.npy | their row numbers (U,) int64 |
| starts.npy | where each cell starts (C + 1,) int64 |
| twins.npy | (T, 2) int64: a row that is there, and a row equal to it that is not |
"""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dedup.cells import Cells
from dedup.signs import BYTES, codes
from dedup.vectors import Blocks, Floats, Rows, unit

_CHUNK = 16384


def write_shard(folder: Path, cells: Cells, blocks: Blocks, rows: int, first: int = 0) -> None:
    """Writes the rows of `blocks`, numbered from `first`; those that cannot be compared are left out.

    rows: at least as many as there are; room for them is taken in memory. Does nothing where the shard exists.
    """
    if folder.exists():
        return
    vectors, ids = _comparable(blocks, rows, first, cells.size)
    home = np.concatenate([np.zeros(0, np.int64), *(cells.nearest(v, 1)[:, 0] for v in _chunks(vectors))])
    hashes = _hashes(vectors)
    order = np.lexsort((hashes, home))
    twin = np.zeros(len(order), bool)
    twin[1:] = (np.diff(hashes[order]) == 0) & (np.diff(home[order]) == 0)
    twin[twin] = _equal(vectors, order[np.flatnonzero(twin) - 1], order[twin])
    original = order[np.maximum.accumulate(np.where(twin, 0, np.arange(len(order))))]
    single = order[~twin]
    temporary = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}.tmp")
    temporary.mkdir(parents=True)
    try:
        _save(temporary / "vectors.npy", (vectors[rows] for rows in _chunks(single)), (len(single), cells.size))
        signs = (codes(vectors[rows], cells.normals) for rows in _chunks(single))
        _save(temporary / "codes.npy", signs, (len(single), BYTES), np.uint8)
        np.save(temporary / "ids.npy", ids[single])
        np.save(temporary / "starts.npy", np.searchsorted(home[single], np.arange(len(cells) + 1)))
        np.save(temporary / "twins.npy", np.stack([ids[original[twin]], ids[order[twin]]], axis=1))
        temporary.rename(folder)
    except OSError:
        if not folder.exists():  # else another worker was quicker
            raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


class Shard:
    """A shard for reading. Raises ValueError when it is missing or damaged."""

    def __init__(self, folder: Path):
        try:
            self.starts: Rows = np.load(folder / "starts.npy", allow_pickle=False)
            self.files = {name: _Rows(folder / f"{name}.npy") for name in ("vectors", "codes", "ids", "twins")}
        except FileNotFoundError:
            raise LostShard(
                f"{folder}: this shard of the index is gone; build the index again, the rest is kept."
            ) from None
        except (OSError, ValueError, EOFError) as error:
            raise LostShard(f"{folder}: damaged ({error}); build the index again, the rest is kept.") from None

    def __len__(self) -> int:
        return int(self.starts[-1])

    def twins(self) -> Rows:
        """(T, 2), see above."""
        return self.files["twins"].read(0, self.files["twins"].room(self.files["twins"].count))

    def close(self) -> None:
        for file in self.files.values():
            file.close()


def read_all(shards: Sequence[Shard], name: str, start: int, end: int) -> npt.NDArray[Any]:
    """Of one file of each shard, the rows of cells start to end (half open), one shard after the other."""
    bounds = [(int(shard.starts[start]), int(shard.starts[end])) for shard in shards]
    rows = shards[0].files[name].room(sum(b - a for a, b in bounds))
    filled = 0
    for shard, (a, b) in zip(shards, bounds, strict=True):
        shard.files[name].read(a, rows[filled : filled + b - a])
        filled += b - a
    return rows


class LostShard(ValueError):
    """A shard is missing or damaged; what is left of the index is fine."""


class _Rows:
    """Rows of a .npy file, read when asked for."""

    def __init__(self, path: Path):
        self._file = path.open("rb", buffering=0)
        version = np.lib.format.read_magic(self._file)
        if version != (1, 0):
            raise ValueError(f"{path.name} is of .npy version {version}")
        shape, _, self._kind = np.lib.format.read_array_header_1_0(self._file)
        self._start, self._width = self._file.tell(), shape[1:]
        self.count = shape[0]
        self._bytes = int(np.prod(self._width, dtype=np.int64)) * self._kind.itemsize
        if path.stat().st_size != self._start + self.count * self._bytes:
            raise ValueError(f"{path.name} is cut short")

    def room(self, rows: int) -> npt.NDArray[Any]:
        return np.empty((rows, *self._width), self._kind)

    def read(self, start: int, into: Any) -> npt.NDArray[Any]:
        """Fills the array `into` with the rows from `start` on."""
        left = memoryview(into).cast("B") if into.size else b""
        self._file.seek(self._start + start * self._bytes)
        while left:
            got = self._file.readinto(left)
            if not got:
                raise LostShard(f"{self._file.name}: cut short while it was read; build the index again.")
            left = left[got:]
        return np.asarray(into)

    def close(self) -> None:
        self._file.close()


def _comparable(blocks: Blocks, most: int, first: int, size: int) -> tuple[Floats, Rows]:
    """Unit rows and their numbers, without those that cannot be compared."""
    rows, ids, filled = np.empty((most, size), np.float32), np.empty(most, np.int64), 0
    for block in blocks:
        vectors, good = unit(block)
        found = filled + int(good.sum())
        rows[filled:found], ids[filled:found] = vectors[good], first + np.flatnonzero(good)
        filled, first = found, first + len(block)
    return rows[:filled], ids[:filled]


def _hashes(vectors: Floats) -> npt.NDArray[np.uint64]:
    """A number per row; equal rows have equal ones."""
    factors = np.random.default_rng(1).integers(1, 1 << 63, vectors.shape[1], dtype=np.uint64) | np.uint64(1)
    parts = [(v.view(np.uint32).astype(np.uint64) * factors).sum(axis=1, dtype=np.uint64) for v in _chunks(vectors)]
    return np.concatenate([np.zeros(0, np.uint64), *parts])


def _equal(vectors: Floats, a: Rows, b: Rows) -> npt.NDArray[np.bool_]:
    parts = [(vectors[i] == vectors[j]).all(axis=1) for i, j in zip(_chunks(a), _chunks(b), strict=True)]
    return np.concatenate([np.zeros(0, bool), *parts])


def _chunks(rows: Any) -> Iterator[Any]:
    return (rows[start : start + _CHUNK] for start in range(0, len(rows), _CHUNK))


def _save(path: Path, chunks: Iterator[npt.NDArray[Any]], shape: Sequence[int], kind: Any = np.float32) -> None:
    header = {"descr": np.lib.format.dtype_to_descr(np.dtype(kind)), "fortran_order": False, "shape": tuple(shape)}
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for chunk in chunks:
            file.write(np.ascontiguousarray(chunk, kind).data)

"""Nearest neighbours among unit vectors by cosine: a handful, or a hundred million on disk.

Up to `Neighbours.flat` rows, everything is compared with everything. Beyond, the space is cut into cells by k-means, an
inverted file of the vectors themselves lies on disk in shards, and a query is compared with the rows of the nearest
cells: sign codes rule out most of them, and cosines are exact, so a threshold means what it says. What is approximate
is only which cells are looked into.

`python -m benchmarks.dedup` measures it beside exact search and beside FAISS' own inverted files.

Rows that are zero or not finite are nobody's neighbours. A shard needs the cells and its own rows alone, and pairs are
looked for in any range of cells alone, so that both can be done by many workers (`curation.neighbours`).
"""

from __future__ import annotations

import functools
import itertools
import json
import math
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dedup.cells import Cells, best, visits
from dedup.pairs import Pairs, alike, nearest_of_each
from dedup.shards import Shard, read_all, write_shard
from dedup.vectors import Blocks, Floats, Rows, count, sample, stretches, unit

FORMAT = 1
_BLOCK = 65536
"""Rows whose pairs are looked for together: the more, the more of them visit a cell while it is in memory."""

_QUERIES = 16384


@dataclass(frozen=True, slots=True)
class Neighbours:
    """flat: up to that many rows, all are compared with all
    cell: rows in a cell on average; larger sets have more cells
    probes: cells that a row looks into for its pairs; a pair is found when either of its rows looks into the other's
    sample: rows that the cells are learnt from at most, `per_cell` for each
    rounds, seed: of that k-means
    shard: rows in a shard; as many lie in memory once while it is written
    """

    flat: int = 16384
    cell: int = 1024
    probes: int = 24
    sample: int = 1_000_000
    per_cell: int = 48
    rounds: int = 10
    seed: int = 0
    shard: int = 500_000
    version: int = 1

    def cells(self, rows: int) -> int:
        """Number of cells for so many rows."""
        return 1 if rows <= self.flat else math.ceil(rows / self.cell)

    def share(self, rows: int) -> float:
        """Of the rows, the share that the cells are learnt from."""
        return 0.0 if rows <= self.flat else min(rows, self.sample, self.cells(rows) * self.per_cell) / rows

    def learn(self, rows: int, points: Floats) -> Cells:
        """Cells for so many rows from a sample of them."""
        return Cells.train(points, self.cells(rows), self.rounds, self.seed)


@dataclass(frozen=True, slots=True)
class Header:
    """What an index holds: `rows` vectors of `size` numbers made by `model` (any name that tells models apart), in
    `shards` shards. inputs: what tells these vectors from others, such as a hash of file names and sizes."""

    model: str
    size: int
    rows: int
    shards: int
    settings: Neighbours
    inputs: str = ""

    def save(self, folder: Path) -> None:
        """Raises ValueError when the folder holds an index of something else."""
        if (folder / "index.json").exists():
            self.check(folder, Header.load(folder))
            return
        folder.mkdir(parents=True, exist_ok=True)
        temporary = folder / ".index.json.tmp"
        temporary.write_text(json.dumps({"format": FORMAT, **asdict(self)}, indent=1) + "\n")
        temporary.replace(folder / "index.json")

    @classmethod
    def load(cls, folder: Path) -> Header:
        try:
            stored = json.loads((folder / "index.json").read_text())
            if stored.pop("format") != FORMAT:
                raise ValueError("another version wrote it")
            return cls(**{**stored, "settings": Neighbours(**stored["settings"])})
        except FileNotFoundError:
            raise ValueError(f"{folder}: holds no index of vectors; build it first.") from None
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(f"{folder}: its index.json cannot be used ({error}); delete the folder.") from None

    def check(self, folder: Path, there: Header) -> None:
        for name, value in asdict(self).items():
            if value != (held := asdict(there)[name]):
                raise ValueError(
                    f"{folder}: holds an index with {name} {held!r}, not {value!r}; give another folder or delete it."
                )


class Index:
    """An index for reading; close it, or use it in a `with`."""

    def __init__(self, folder: Path, header: Header, cells: Cells, shards: list[Shard]):
        self.folder, self.header, self.cells = folder, header, cells
        self._shards = shards
        self._sizes: Rows = np.sum([np.diff(s.starts) for s in shards], axis=0, dtype=np.int64)

    @classmethod
    def build(cls, folder: Path, blocks: Blocks, settings: Neighbours | None = None, model: str = "") -> Index:
        """Writes an index of all rows of `blocks` into a new folder. The same rows give the same index.

        Raises ValueError when there is an index already, or when `blocks` holds no block at all.
        """
        settings = settings or Neighbours()
        if (folder / "index.json").exists():
            raise ValueError(f"{folder}: holds an index already; open it, give another folder, or delete it.")
        shutil.rmtree(folder, ignore_errors=True)  # what a build that was stopped left there
        folder.mkdir(parents=True)
        rows, size = count(blocks), _size(blocks)
        share = settings.share(rows)
        cells = settings.learn(rows, sample(blocks if share else (), size, share, settings.seed))
        cells.save(folder / "cells.npz")
        shards = 0
        for shards, stretch in enumerate(stretches(blocks, settings.shard), 1):
            first = (shards - 1) * settings.shard
            write_shard(shard_folder(folder, shards - 1), cells, stretch, min(settings.shard, rows - first), first)
        Header(model, size, rows, shards, settings).save(folder)
        return cls.open(folder)

    @classmethod
    def open(cls, folder: Path, model: str | None = None, size: int | None = None) -> Index:
        """Raises ValueError when there is no whole index, or one of vectors of another model or size."""
        header = Header.load(folder)
        for name, asked in (("model", model), ("size", size)):
            held = getattr(header, name)
            if asked is not None and asked != held:
                raise ValueError(
                    f"{folder}: this index is of vectors of {name} {held!r}, not {asked!r}; build one for yours."
                )
        cells = Cells.load(folder / "cells.npz")
        return cls(folder, header, cells, [Shard(shard_folder(folder, k)) for k in range(header.shards)])

    def __len__(self) -> int:
        """Rows that can be found."""
        return int(self._sizes.sum()) + len(self._twins)

    def __enter__(self) -> Index:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        for shard in self._shards:
            shard.close()

    def search(self, queries: npt.NDArray[np.floating], k: int, probes: int = 128) -> tuple[Floats, Rows]:
        """Cosines and row numbers (Q, k) of the rows nearest to each query (Q, D), nearest first.

        Looks into the `probes` nearest cells. Where there are fewer than k, the number is -1 and the cosine -inf; so
        for a query that is zero or not finite. A query that is itself a row finds itself.
        """
        vectors, good = unit(queries)
        if vectors.ndim != 2 or vectors.shape[1] != self.header.size:
            raise ValueError(f"queries of shape {vectors.shape} for an index of vectors of {self.header.size} numbers.")
        probes = min(probes, len(self.cells))
        cosines, numbers = np.full((len(vectors), k), -np.inf, np.float32), np.full((len(vectors), k), -1, np.int64)
        step = max(1, min(_QUERIES, (1 << 24) // (probes * max(k, 1))))
        for start in range(0, len(vectors), step):
            some = slice(start, start + step)
            cells = self.cells.nearest(vectors[some], probes)
            cells[~good[some]] = -1
            found = best(vectors[some], cells, lambda c: (self._read("vectors", c), self._read("ids", c)), k)
            cosines[some], numbers[some] = self._with_twins(*found)
        return cosines, numbers

    def pairs_above(self, threshold: float, most: int = 128, cells: range | None = None) -> Pairs:
        """Pairs of rows with a cosine of at least `threshold`, of each row its `most` nearest.

        Where many rows are alike, `most` keeps their pairs from growing with the square of their number; they stay
        connected. Of rows that are equal bit for bit, the first has pairs with the others, and alone with the rest.
        cells: look only for pairs of the rows in these cells, and leave out those of equal rows (see `twins`).
        """
        asked = cells if cells is not None else range(len(self.cells))
        found = [self._pairs(block, threshold, most) for block in self._blocks(asked)]
        return Pairs.merge(found if cells is not None else [*found, self.twins()])

    def twins(self) -> Pairs:
        """Pairs of rows that are equal bit for bit; one of each pair is in the index, the other stands behind it."""
        return Pairs.of(self._twins[:, 0], self._twins[:, 1], np.ones(len(self._twins), np.float32))

    def ranges(self, parts: int) -> list[range]:
        """The cells in up to that many ranges of about equal rows."""
        ends = np.cumsum(self._sizes)
        cuts = np.searchsorted(ends, np.arange(1, parts) * (ends[-1] / parts)) + 1
        edges = np.unique(np.concatenate([[0], cuts, [len(ends)]]))
        return [range(int(a), int(b)) for a, b in itertools.pairwise(edges)]

    @functools.cached_property
    def _twins(self) -> Rows:
        twins = np.concatenate([np.zeros((0, 2), np.int64), *(shard.twins() for shard in self._shards)])
        return twins[np.lexsort((twins[:, 1], twins[:, 0]))]

    def _pairs(self, block: range, threshold: float, most: int) -> Pairs:
        vectors, codes, ids = (self._read(name, block.start, block.stop) for name in ("vectors", "codes", "ids"))
        places: list[Rows] = [np.zeros(0, np.int64)]
        others: list[Rows] = [np.zeros(0, np.int64)]
        cosines: list[Floats] = [np.zeros(0, np.float32)]
        probes = self.cells.nearest(vectors, min(self.header.settings.probes, len(self.cells)))
        for cell, rows, _ in visits(probes):
            there = self._read("ids", cell)
            if not len(there):
                continue
            signs = None if len(self.cells) == 1 else (codes[rows], self._read("codes", cell))
            read = functools.partial(self._read, "vectors", cell)
            place, at, cosine = alike(vectors, rows, read, threshold, most, signs)
            other = ids[place] != there[at]
            place, name, cosine = place[other], there[at[other]], cosine[other]
            kept = nearest_of_each(place, name, cosine, most)
            places.append(place[kept])
            others.append(name[kept])
            cosines.append(cosine[kept])
        place, name, cosine = np.concatenate(places), np.concatenate(others), np.concatenate(cosines)
        kept = nearest_of_each(place, name, cosine, most)
        return Pairs.of(ids[place[kept]], name[kept], cosine[kept])

    def _blocks(self, cells: range) -> Iterator[range]:
        """Ranges of cells with about as many rows as fit a block."""
        start, rows = cells.start, 0
        for cell in cells:
            rows += int(self._sizes[cell])
            if rows >= _BLOCK or cell == cells.stop - 1:
                yield range(start, cell + 1)
                start, rows = cell + 1, 0

    def _read(self, name: str, start: int, end: int | None = None) -> npt.NDArray[Any]:
        """Rows of cells start to end (half open; one cell if not given) of all shards."""
        return read_all(self._shards, name, start, start + 1 if end is None else end)

    def _with_twins(self, cosines: Floats, numbers: Rows) -> tuple[Floats, Rows]:
        """The same (Q, k) with the rows that stand behind those found."""
        starts = np.searchsorted(self._twins[:, 0], numbers, "left")
        ends = np.searchsorted(self._twins[:, 0], numbers, "right")
        behind: Rows = np.minimum(ends - starts, numbers.shape[1])
        if not behind.any():
            return cosines, numbers
        which = np.repeat(np.arange(numbers.size), 1 + behind.ravel())
        nth = np.arange(len(which)) - np.searchsorted(which, which)
        twin = self._twins[np.minimum(starts.ravel()[which] + nth - 1, len(self._twins) - 1), 1]
        name = np.where(nth == 0, numbers.ravel()[which], twin)
        cosine, query = cosines.ravel()[which], which // numbers.shape[1]
        kept = nearest_of_each(query, np.where(name < 0, np.iinfo(np.int64).max, name), cosine, numbers.shape[1])
        return cosine[kept].reshape(cosines.shape), name[kept].reshape(numbers.shape)


def shard_folder(folder: Path, number: int) -> Path:
    return folder / f"shard-{number:05d}"


def _size(blocks: Blocks) -> int:
    for block in blocks:
        return int(block.shape[1])
    raise ValueError("there is no block of vectors to build an index of; give one of no rows, if there are none.")

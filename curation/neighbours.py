"""Near-duplicates among the vectors of a collection, found by all workers of a cluster.

Each worker builds shards of an index on a disk that all of them share, and looks for the pairs of some cells. Tasks
exchange file names, never vectors. A shard or a list of pairs that exists is done, so a run that was stopped goes on
where it was, and a shard that is lost while others search is the only one built again.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from distributed import Client, Future, wait

from curation.cluster import slots
from dedup.cells import Cells
from dedup.neighbours import Header, Index, Neighbours, shard_folder
from dedup.pairs import Pairs
from dedup.shards import LostShard, Shard, write_shard
from dedup.vectors import Column, count, sample

_ATTEMPTS = 3
_ROWS_PER_TASK = 250_000


@dataclass(frozen=True, slots=True)
class Stretch:
    """Files that one shard is built from: their vectors, how many rows they have, and the number of the first."""

    number: int
    vectors: Column
    rows: int
    first: int


def find_pairs(
    client: Client,
    vectors: Column,
    folder: Path,
    threshold: float,
    settings: Neighbours | None = None,
    model: str = "",
    most: int = 128,
) -> Pairs:
    """Pairs of rows of `vectors` with a cosine of at least `threshold`; see `Index.pairs_above`.

    folder: where the index is kept, on a disk that driver and workers share; one that holds the index of these vectors
    is gone on with. Raises ValueError when it holds another.
    """
    for attempt in range(_ATTEMPTS):
        build_index(client, vectors, folder, settings, model)
        try:
            return _search(client, folder, threshold, most)
        except LostShard:
            if attempt == _ATTEMPTS - 1:
                raise
    raise AssertionError("the last attempt returns or raises")


def build_index(
    client: Client, vectors: Column, folder: Path, settings: Neighbours | None = None, model: str = ""
) -> None:
    """Builds what is missing of the index of `vectors`; `Index.open(folder)` reads it.

    Raises ValueError when the folder holds the index of other vectors, of another model, or by other settings.
    """
    settings = settings or Neighbours()
    stretches = _stretches(client, vectors, settings.shard)
    rows = sum(s.rows for s in stretches)
    Header(model, vectors.size, rows, len(stretches), settings, _inputs(vectors)).save(folder)
    if not (folder / "cells.npz").exists():
        share = settings.share(rows)
        sampled = _run(client, _sample, [(s, share, settings.seed, folder) for s in stretches if share])
        client.submit(_learn, sampled, rows, vectors.size, settings, folder, pure=False).result()
    missing = [s for s in stretches if not _whole(shard_folder(folder, s.number))]
    _run(client, _build, [(s, folder) for s in missing])


def _search(client: Client, folder: Path, threshold: float, most: int) -> Pairs:
    found = folder / f"pairs-{_hash([threshold, most])}"
    found.mkdir(exist_ok=True)
    with Index.open(folder) as index:
        ranges = index.ranges(max(4 * slots(client), len(index) // _ROWS_PER_TASK))
        files = _run(client, _look, [(folder, cells, threshold, most, found) for cells in ranges])
        return Pairs.merge([*(Pairs.load(Path(file)) for file in files), index.twins()])


def _run(client: Client, task: Callable[..., Any], calls: Sequence[tuple[Any, ...]]) -> list[Any]:
    """Results of all calls, in their order. All are tried; then the first failure is raised, a lost shard last."""
    futures: list[Future] = [client.submit(task, *call, pure=False) for call in calls]
    wait(futures)
    failures = [f.exception() for f in futures if f.status == "error"]
    for failure in sorted(failures, key=lambda e: isinstance(e, LostShard)):
        raise failure
    return list(client.gather(futures))


def _stretches(client: Client, vectors: Column, rows: int) -> list[Stretch]:
    """Consecutive files with about that many rows together."""
    step = 256
    chunks = [(replace(vectors, files=vectors.files[k : k + step]),) for k in range(0, len(vectors.files), step)]
    counts = [n for some in _run(client, _count, chunks) for n in some]
    if not counts:
        raise ValueError("there is no file with vectors to build an index of.")
    stretches: list[Stretch] = []
    start = first = 0
    for end, total in enumerate(np.cumsum(counts).tolist(), 1):
        if total - first >= rows or end == len(counts):
            files = replace(vectors, files=vectors.files[start:end])
            stretches.append(Stretch(len(stretches), files, total - first, first))
            start, first = end, total
    return stretches


def _count(vectors: Column) -> list[int]:
    return [count(replace(vectors, files=(file,))) for file in vectors.files]


def _sample(stretch: Stretch, share: float, seed: int, folder: Path) -> str:
    path = folder / f"sample-{stretch.number:05d}.npy"
    np.save(path, sample(stretch.vectors, stretch.vectors.size, share, seed, stretch.first))
    return str(path)


def _learn(sampled: Sequence[str], rows: int, size: int, settings: Neighbours, folder: Path) -> None:
    points = [np.zeros((0, size), np.float32), *(np.load(path, allow_pickle=False) for path in sampled)]
    settings.learn(rows, np.concatenate(points)).save(folder / "cells.npz")
    for path in sampled:
        Path(path).unlink()


def _whole(folder: Path) -> bool:
    try:
        Shard(folder).close()
    except LostShard:
        return False
    return True


def _build(stretch: Stretch, folder: Path) -> None:
    target = shard_folder(folder, stretch.number)
    if target.exists() and not _whole(target):
        shutil.rmtree(target)
    write_shard(target, Cells.load(folder / "cells.npz"), stretch.vectors, stretch.rows, stretch.first)


def _look(folder: Path, cells: range, threshold: float, most: int, found: Path) -> str:
    path = found / f"{cells.start:07d}-{cells.stop:07d}.npz"
    if not path.exists():
        with Index.open(folder) as index:
            index.pairs_above(threshold, most, cells).save(path)
    return str(path)


def _inputs(vectors: Column) -> str:
    """Tells these files from others and from what they were before."""
    stats = [(file, Path(file).stat()) for file in vectors.files]
    return _hash([vectors.name, *((file, s.st_size, s.st_mtime_ns) for file, s in stats)])


def _hash(value: Any) -> str:
    return hashlib.blake2b(json.dumps(value).encode(), digest_size=8).hexdigest()

"""Compares pairs of clips by their pictures, some of them at a time, so that workers can share the work."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from curation.job import Job, Part, pin_threads, unpack
from curation.parts import read_parts
from dedup.agreement import Look
from dedup.candidates import Hashed
from dedup.copies import Track, judge
from dedup.windows import BITS, SIDE
from manifests.ids import part_id
from manifests.schema import column
from manifests.store import Store

_PARTS, _TRACKS = 256, 2048
"""Parts and clips whose pictures are held at a time."""

_FEWEST, _MOST = 8, 2048
"""Pairs of a portion: many enough to be worth sending, few enough that all workers get some."""

_PORTIONS = 32
"""Portions that the pairs are dealt out in, unless these become too small or too large."""

_ROWS = 32
"""Bits of a clip's number that are its row; those above are its part's."""

PAIRS = pa.schema(
    [
        column("a", pa.string(), "clip id"),
        column("b", pa.string(), "clip id of a copy, the larger of the two"),
        column("similarity", pa.float64(), "share of the shorter one's pictures that the other has", range="0..1"),
        column("part_a", pa.string(), "the part that a is in"),
        column("part_b", pa.string(), "the part that b is in"),
    ]
)

T = TypeVar("T")
R = TypeVar("R")
Share = Callable[[Callable[[T], R], Sequence[T]], Iterable[R]]
"""Calls a function with every item, in any order, somewhere."""


def here(function: Callable[[T], R], items: Sequence[T]) -> Iterator[R]:
    """One after the other, in this process."""
    return map(function, items)


@dataclass(frozen=True, slots=True, eq=False)
class Portion:
    """Pairs (N, 2) of clips to compare, by their numbers among the clips of `parts`."""

    parts: tuple[Part, ...]
    pairs: npt.NDArray[np.int64]


def portions(pairs: npt.NDArray[np.int64], parts: Sequence[Part]) -> list[Portion]:
    """All pairs (N, 2) of clips' numbers, those of the same parts together."""
    of = pairs >> _ROWS
    tile = of // (_PARTS // 2)  # the parts of a tile are held together
    pairs = pairs[np.lexsort((*pairs.T[::-1], *of.T[::-1], *tile.T[::-1]))]
    size = min(max(len(pairs) // _PORTIONS, _FEWEST), _MOST)
    return [_portion(pairs[start : start + size], parts) for start in range(0, len(pairs), size)]


def _portion(pairs: npt.NDArray[np.int64], parts: Sequence[Part]) -> Portion:
    """With only the parts that it is about: where there are very many, they need not all be sent."""
    used, number = np.unique(pairs >> _ROWS, return_inverse=True)
    rows = pairs & (1 << _ROWS) - 1
    return Portion(tuple(parts[k] for k in used.tolist()), (number.reshape(-1, 2) << _ROWS) + rows)


def compare(packed: bytes, portion: Portion) -> pa.Table:
    """Those of the pairs that are copies, as `PAIRS`."""
    pin_threads()
    source = _source(packed)
    member: dict[str, str] = {}

    def track(clip: int) -> Track:
        part = portion.parts[clip >> _ROWS]
        found = source.track(part, clip & (1 << _ROWS) - 1)
        member[found.id] = member_id(part)
        return found

    pairs = ((track(a), track(b)) for a, b in portion.pairs.tolist())
    rows = [
        {"a": a, "b": b, "similarity": similarity, "part_a": member[a], "part_b": member[b]}
        for (a, b), similarity in judge(pairs, source.copies).items()
    ]
    return pa.Table.from_pylist(rows, PAIRS)


@functools.lru_cache(maxsize=1)
def _source(packed: bytes) -> Fingerprints:
    """Kept by a worker from portion to portion, with what it read last."""
    return Fingerprints(*unpack(packed))


def member_id(part: Part) -> str:
    """Changes with the videos that are in the part."""
    return part_id([part.name, *(v.id or "" for v in part.videos)])


class Fingerprints:
    """What the scan's parts hold for copy detection."""

    def __init__(self, job: Job, store: Store):
        self.copies = job.recipe.copies
        self._job, self._store = job, store
        self._pictures = functools.lru_cache(_PARTS)(self._read_pictures)
        self.track = functools.lru_cache(_TRACKS)(self._track)

    def hashed(self, part: Part, number: int, which: str) -> Hashed:
        """All hashes of one column of a part, which is the one of this number: a clip's number is made of it and of its
        row."""
        packed = self._read(part, {which})[which].combine_chunks()
        each = pc.fill_null(pc.binary_length(packed), 0).to_numpy() // (BITS // 8)
        hashes = np.frombuffer(b"".join(packed.drop_null().to_pylist()), np.uint8).reshape(-1, BITS // 8)
        return Hashed(hashes, (number << _ROWS) + np.repeat(np.arange(len(each)), each))

    def _track(self, part: Part, number: int) -> Track:
        clips = self._pictures(part)
        row = {name: clips[name][number] for name in clips.column_names}
        pictures = np.frombuffer(row["fingerprint"].as_buffer(), np.uint8).reshape(-1, SIDE, SIDE)
        times = np.asarray(row["fingerprint_us"].values, np.float64) / 1e6
        return Track(row["clip_id"].as_py(), f"{row['video_id']}/{row['shot']}", Look(pictures, times))

    def _read_pictures(self, part: Part) -> pa.Table:
        return self._read(part, {"clip_id", "video_id", "shot", "fingerprint", "fingerprint_us"}).combine_chunks()

    def _read(self, part: Part, columns: set[str]) -> pa.Table:
        recipe = self._job.recipe
        return read_parts(self._store, f"{recipe.scan_stage}/clips", [part], recipe.scan_schema, columns)

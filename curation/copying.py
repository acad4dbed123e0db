"""Copies among the clips of a run, kept as a stage: clips that were compared once are not compared again when videos
come or go.

Parts are taken in groups; each is compared with itself and with all before it, and then what was found is written, so
that a run that was stopped goes on with the next group. Memory: hashes of one group and of one index at a time, and the
pictures of some hundred parts.
"""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from curation.job import Job, Part
from curation.parts import read_column, read_parts
from curation.recipe import Recipe
from dedup.agreement import Look
from dedup.candidates import Hashed, Wholes, stretches
from dedup.copies import Pairs, Track, judge
from dedup.neighbours import Index
from dedup.vectors import from_arrow
from dedup.windows import BITS, SIDE
from manifests.ids import fingerprint, part_id
from manifests.schema import column
from manifests.store import Store

_GROUP = 1_000_000
"""Hashes of whole pictures of one group: a hundred thousand clips of five seconds."""

_PARTS, _TRACKS = 256, 2048
"""Parts and clips whose pictures are held at a time."""

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


def copies(job: Job, store: Store, parts: Sequence[Part]) -> Pairs:
    """Copies among the clips of the parts, by their pictures or descriptors, as the recipe says."""
    settings = job.recipe.copies
    found = by_pictures(job, store, parts) if settings.pictures else {}
    if settings.vectors:
        found = {**by_vectors(job, store, parts), **found}
    return dict(sorted(found.items()))


def by_pictures(job: Job, store: Store, parts: Sequence[Part]) -> Pairs:
    """Looks for copies only where a part has not been compared with another."""
    stage = stage_of(job.recipe)
    named = {member_id(part): part for part in parts}
    compared, found = _known(store, stage, named)
    source = Fingerprints(job, store, named)
    old = [name for name in named if name in compared]
    for group in source.groups([name for name in named if name not in compared]):
        found = pa.concat_tables([found, _compare(source, old, group)])
        old += group
        write(store, stage, found, old)
    ids = zip(found["a"].to_pylist(), found["b"].to_pylist(), strict=True)
    return dict(zip(ids, found["similarity"].to_pylist(), strict=True))


def by_vectors(job: Job, store: Store, parts: Sequence[Part]) -> Pairs:
    """Pairs of clips whose descriptors have the cosine that the recipe asks for; pieces of one shot are none."""
    vectors = _Vectors(job, store, parts)
    if not vectors.size:
        return {}
    with tempfile.TemporaryDirectory() as folder, Index.build(Path(folder) / "index", vectors) as index:
        found = index.pairs_above(job.recipe.copies.cosine)
    clips = read_parts(
        store, f"{job.recipe.scan_stage}/clips", parts, job.recipe.scan_schema, {"clip_id", "video_id", "shot"}
    )
    shots = pc.binary_join_element_wise(clips["video_id"], clips["shot"].cast(pa.string()), "/").to_pylist()
    ids = clips["clip_id"].to_pylist()
    rows = zip(found.first.tolist(), found.second.tolist(), found.cosine.tolist(), strict=True)
    return {
        (min(ids[a], ids[b]), max(ids[a], ids[b])): min(cosine, 1.0) for a, b, cosine in rows if shots[a] != shots[b]
    }


class _Vectors:
    """Blocks of descriptors, a part each, for an index; a clip without one is a row of zeros."""

    def __init__(self, job: Job, store: Store, parts: Sequence[Part]):
        self._job, self._store, self._parts = job, store, parts
        self._name = job.recipe.copies.vectors
        sizes = (pc.max(pc.list_value_length(self._column(part))).as_py() for part in parts)
        self.size = next(filter(None, sizes), 0)

    def __iter__(self) -> Iterator[npt.NDArray[np.float32]]:
        return (from_arrow(self._column(part), self.size, f"column {self._name}") for part in self._parts)

    def _column(self, part: Part) -> pa.ChunkedArray:
        return read_column(self._job, self._store, part, self._name)[self._name]


def stage_of(recipe: Recipe) -> str:
    """Name of the stage's folder: changes with what copies are told by, not with the clips."""
    return f"copies-{fingerprint(recipe.scan_stage, replace(recipe.copies, vectors='', cosine=0.0))}"


def write(store: Store, stage: str, pairs: pa.Table, compared: Sequence[str]) -> None:
    """compared: ids of parts. Pairs of parts that are not among them are of no account, so these are written last."""
    store.write_table(f"stages/{stage}/pairs.parquet", pairs)
    store.write_json(f"stages/{stage}/compared.json", sorted(compared))


def member_id(part: Part) -> str:
    """Changes with the videos that are in the part."""
    return part_id([part.name, *(v.id or "" for v in part.videos)])


class Fingerprints:
    """What the scan's parts hold for copy detection. A clip's number is that of its part, and its row in it."""

    def __init__(self, job: Job, store: Store, parts: dict[str, Part]):
        self.copies = job.recipe.copies
        self._job, self._store, self._parts = job, store, parts
        self._names = list(parts)
        self._number = {name: k for k, name in enumerate(parts)}
        self._pictures = functools.lru_cache(_PARTS)(self._read_pictures)
        self.track = functools.lru_cache(_TRACKS)(self._track)

    def groups(self, names: Sequence[str]) -> Iterator[list[str]]:
        """The parts of these names, in groups of about as many hashes."""
        group: list[str] = []
        held = 0
        for name in names:
            group.append(name)
            held += len(self.hashed(name, "fingerprint_hashes"))
            if held >= _GROUP:
                yield group
                group, held = [], 0
        if group:
            yield group

    def hashed(self, name: str, which: str) -> Hashed:
        """All hashes of one column of a part."""
        packed = self._read(name, {which})[which].combine_chunks()
        each = pc.fill_null(pc.binary_length(packed), 0).to_numpy() // (BITS // 8)
        hashes = np.frombuffer(b"".join(packed.drop_null().to_pylist()), np.uint8).reshape(-1, BITS // 8)
        return Hashed(hashes, (self._number[name] << _ROWS) + np.repeat(np.arange(len(each)), each))

    def part_of(self, clip: int) -> str:
        return self._names[clip >> _ROWS]

    def _track(self, clip: int) -> Track:
        clips = self._pictures(self.part_of(clip))
        row = {name: clips[name][clip & (1 << _ROWS) - 1] for name in clips.column_names}
        pictures = np.frombuffer(row["fingerprint"].as_buffer(), np.uint8).reshape(-1, SIDE, SIDE)
        times = np.asarray(row["fingerprint_us"].values, np.float64) / 1e6
        return Track(row["clip_id"].as_py(), f"{row['video_id']}/{row['shot']}", Look(pictures, times))

    def _read_pictures(self, name: str) -> pa.Table:
        return self._read(name, {"clip_id", "video_id", "shot", "fingerprint", "fingerprint_us"}).combine_chunks()

    def _read(self, name: str, columns: set[str]) -> pa.Table:
        recipe = self._job.recipe
        return read_parts(self._store, f"{recipe.scan_stage}/clips", [self._parts[name]], recipe.scan_schema, columns)


@dataclass(frozen=True, slots=True)
class _Tiles:
    """Order in which pairs of clips are compared: the parts of a tile are held together."""

    side: int = _PARTS // 2

    def sort(self, pairs: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        parts = pairs >> _ROWS
        return pairs[np.lexsort((*pairs.T[::-1], *parts.T[::-1], *(parts // self.side).T[::-1]))]


def _compare(source: Fingerprints, old: Sequence[str], group: Sequence[str]) -> pa.Table:
    """Copies within the group, and between it and the parts before it."""
    found = [np.zeros((0, 2), np.int64)]
    mirror = source.copies.mirror
    for asked, known in ((group, [*old, *group]), (old, group)):
        for hashes in stretches(source.hashed(name, "fingerprint_hashes") for name in known):
            index = Wholes(hashes)
            found += [index.near(source.hashed(name, "fingerprint_probes"), mirror) for name in asked]
    pairs = np.sort(np.concatenate(found), axis=1)
    pairs = _Tiles().sort(np.unique(pairs[pairs[:, 0] != pairs[:, 1]], axis=0))
    parts: dict[str, str] = {}

    def tracks() -> Iterable[tuple[Track, Track]]:
        for a, b in pairs.tolist():
            pair = source.track(a), source.track(b)
            parts.update((track.id, source.part_of(clip)) for clip, track in zip((a, b), pair, strict=True))
            yield pair

    rows = [
        {"a": a, "b": b, "similarity": similarity, "part_a": parts[a], "part_b": parts[b]}
        for (a, b), similarity in judge(tracks(), source.copies).items()
    ]
    return pa.Table.from_pylist(rows, PAIRS)


def _known(store: Store, stage: str, parts: dict[str, Part]) -> tuple[set[str], pa.Table]:
    """Which parts have been compared with one another, and the copies among those that are still there."""
    if not store.exists(f"stages/{stage}/compared.json"):
        return set(), PAIRS.empty_table()
    compared = set(store.read_json(f"stages/{stage}/compared.json")) & parts.keys()
    there = pa.array(sorted(compared), pa.string())
    pairs = store.read_table(f"stages/{stage}/pairs.parquet").cast(PAIRS)
    return compared, pairs.filter(pc.and_(pc.is_in(pairs["part_a"], there), pc.is_in(pairs["part_b"], there)))

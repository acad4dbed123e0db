"""Copies among the clips of a run, kept as a stage: clips that were compared once are not compared again when videos
come or go.

Parts are taken in groups; each is compared with itself and with all before it, and then what was found is written, so
that a run that was stopped goes on with the next group. Memory: hashes of one group and of one index at a time; the
pictures stay with who compares them.
"""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Iterator, Sequence, Set
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from curation.comparing import PAIRS, Fingerprints, Share, compare, here, member_id, portions
from curation.job import Job, Part
from curation.parts import read_column, read_parts
from curation.recipe import Recipe
from dedup.candidates import Hashed, Wholes, stretches
from dedup.copies import Pairs
from dedup.neighbours import Index
from dedup.vectors import from_arrow
from manifests.ids import fingerprint
from manifests.store import Store

_GROUP = 1_000_000
"""Hashes of whole pictures of one group: a hundred thousand clips of five seconds."""


def copies(job: Job, store: Store, parts: Sequence[Part]) -> Pairs:
    """Copies among the clips of the parts, by their pictures or descriptors, as the recipe says."""
    settings = job.recipe.copies
    found = by_pictures(job, store, parts) if settings.pictures else {}
    if settings.vectors:
        found = {**by_vectors(job, store, parts), **found}
    return dict(sorted(found.items()))


def by_pictures(job: Job, store: Store, parts: Sequence[Part], share: Share = here) -> Pairs:
    """Looks for copies only where a part has not been compared with another. share: who compares."""
    stage = stage_of(job.recipe)
    number = {member_id(part): k for k, part in enumerate(parts)}
    compared, found = _known(store, stage, number.keys())
    source = _Hashes(Fingerprints(job, store), parts)
    old = [name for name in number if name in compared]
    ask = functools.partial(compare, job.pack_up())
    for group in source.groups([k for name, k in number.items() if name not in compared]):
        asked = portions(source.candidates([number[name] for name in old], group), parts)
        found = pa.concat_tables([found, *share(ask, asked)]).sort_by([("a", "ascending"), ("b", "ascending")])
        old += [member_id(parts[k]) for k in group]
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


class _Hashes:
    """What names the pairs that are worth comparing; parts by their numbers."""

    def __init__(self, source: Fingerprints, parts: Sequence[Part]):
        self._source, self._parts = source, parts

    def groups(self, numbers: Sequence[int]) -> Iterator[list[int]]:
        """The parts of these numbers, in groups of about as many hashes."""
        group: list[int] = []
        held = 0
        for number in numbers:
            group.append(number)
            held += len(self._wholes(number))
            if held >= _GROUP:
                yield group
                group, held = [], 0
        if group:
            yield group

    def candidates(self, old: Sequence[int], group: Sequence[int]) -> npt.NDArray[np.int64]:
        """Pairs (N, 2) of clips' numbers within the group, and between it and the parts before it."""
        found = [np.zeros((0, 2), np.int64)]
        mirror = self._source.copies.mirror
        for asked, known in ((group, [*old, *group]), (old, group)):
            for hashes in stretches(self._wholes(number) for number in known):
                index = Wholes(hashes)
                found += [index.near(self._probes(number), mirror) for number in asked]
        pairs = np.sort(np.concatenate(found), axis=1)
        return np.unique(pairs[pairs[:, 0] != pairs[:, 1]], axis=0)

    def _wholes(self, number: int) -> Hashed:
        return self._source.hashed(self._parts[number], number, "fingerprint_hashes")

    def _probes(self, number: int) -> Hashed:
        return self._source.hashed(self._parts[number], number, "fingerprint_probes")


def _known(store: Store, stage: str, parts: Set[str]) -> tuple[set[str], pa.Table]:
    """Which of the parts have been compared with one another, and the copies among them."""
    if not store.exists(f"stages/{stage}/compared.json"):
        return set(), PAIRS.empty_table()
    compared = set(store.read_json(f"stages/{stage}/compared.json")) & parts
    there = pa.array(sorted(compared), pa.string())
    pairs = store.read_table(f"stages/{stage}/pairs.parquet").cast(PAIRS)
    return compared, pairs.filter(pc.and_(pc.is_in(pairs["part_a"], there), pc.is_in(pairs["part_b"], there)))

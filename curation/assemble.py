"""From stages' parts to the tables that users read: clips.parquet, shots.parquet, videos.parquet."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from captioners.captions import Captions
from captioners.checks import settled
from curation.captioning.kept import caption_columns
from curation.decide import Decisions, Judged, columns_read, gathered, judged, settle
from curation.job import Job, Part, Video, receipts
from curation.measure import MEASURE_ERROR, derive
from curation.parts import blocks, read_parts
from curation.relate import CLUSTER, UNRELATED, Relations, clusters, relate
from curation.scan import quarantined
from filters.rules import judge
from manifests import families
from manifests.schema import (
    CAPTIONS,
    DECISION,
    HALLUCINATION,
    IDENTITY,
    SHOTS,
    TAGS,
    VIDEOS,
    conform,
    is_internal,
    merge,
)
from manifests.store import Store, join
from manifests.types import Derived

ROWS_PER_PART = 100_000


def manifest_schema(job: Job) -> pa.Schema:
    """Columns of clips.parquet for one recipe."""
    walk = [f for f in job.recipe.walk_schema if not is_internal(f)]
    costly = [f for f in job.recipe.costly_schema if not is_internal(f)]
    derived = [f for f in job.recipe.derived_schema if not is_internal(f)]
    signals = pa.schema([*walk, *costly, *derived, MEASURE_ERROR])
    return merge(IDENTITY, signals, TAGS, families.ADDED, DECISION, CAPTIONS, HALLUCINATION)


def measurements(
    job: Job,
    store: Store,
    parts: Sequence[Part],
    relations: Relations = UNRELATED,
    added: Sequence[pa.Table] = (),
    columns: set[str] | None = None,
) -> pa.Table:
    """Identity, signals, derived columns and what came to the clips later, of some parts, sorted by uri and time.

    added: see `manifests.families`. columns: those to read, and the derived ones to compute; all by default, internal
    ones of the walk left out.
    """
    recipe = job.recipe
    derived = recipe.derived if columns is None else _needed(recipe.derived, columns)
    read = None if columns is None else columns.union(*(one.reads for one in derived), {"start_us"})
    walk = pa.schema([f for f in recipe.scan_schema if not is_internal(f)])
    clips = read_parts(store, f"{recipe.scan_stage}/clips", parts, walk, read)
    clips = derive(_in_order(clips), [one for one in derived if one.early])
    if recipe.costly:
        found = pa.schema([f for f in recipe.measure_schema if not is_internal(f)])
        late = read_parts(store, f"{recipe.measure_stage}/clips", parts, found, read)
        late = late.rename_columns([n if n != MEASURE_ERROR.name else "late_error" for n in late.column_names])
        clips = join(clips, late)
        if read is None:
            clips = _explain(clips, job, late["clip_id"])
    if relations.stage and (columns is None or CLUSTER in columns):
        clips = join(clips, clusters(store, relations.stage, parts))
    return families.added_to(derive(clips, [one for one in derived if not one.early]), added)


def _in_order(clips: pa.Table) -> pa.Table:
    """Sorted by uri and time, as most parts are already."""
    uri, start = clips["uri"], clips["start_us"]
    later = pc.or_(
        pc.less(uri[:-1], uri[1:]), pc.and_(pc.equal(uri[:-1], uri[1:]), pc.less_equal(start[:-1], start[1:]))
    )
    if pc.all(later).as_py() is not False:
        return clips
    return clips.sort_by([("uri", "ascending"), ("start_us", "ascending")])


def _needed(derived: Sequence[Derived], columns: set[str]) -> list[Derived]:
    """Those that give one of the columns, and those that these build upon."""
    found: list[Derived] = []
    wanted = set(columns)
    for one in reversed(derived):
        if wanted & set(one.schema.names):
            found.insert(0, one)
            wanted |= set(one.reads)
    return found


def _explain(clips: pa.Table, job: Job, measured: pa.ChunkedArray) -> pa.Table:
    """`measure_error` says of costly signals too why they are null: failed, or never asked for."""
    names = ", ".join(job.recipe.costly_schema.names)
    nothing, again = pa.scalar(None, pa.string()), "a rule of an earlier run; run again to measure it"
    failed = pc.binary_join(judge(job.recipe.gate, clips), ", ")
    because = pc.if_else(pc.equal(failed, ""), again, failed)
    told = pc.binary_join_element_wise(f"{names}: not measured, the clip already failed", because, " ")
    was_measured = pc.is_in(clips["clip_id"], value_set=measured).combine_chunks()
    early, late = (clips[name].combine_chunks() for name in (MEASURE_ERROR.name, "late_error"))
    skipped = pc.if_else(was_measured, nothing, told)
    reasons = _both(_both(early, late), skipped)
    at = clips.schema.get_field_index(MEASURE_ERROR.name)
    return clips.drop_columns("late_error").set_column(at, MEASURE_ERROR, reasons)


def _both(first: pa.Array, second: pa.Array) -> pa.Array:
    """Joined by a semicolon, or the one that is not null. (PyArrow 26 loses rows when it is asked to skip nulls.)"""
    joined = pc.binary_join_element_wise(first, second, "; ")
    return pc.if_else(pc.is_null(first), second, pc.if_else(pc.is_null(second), first, joined))


def caption_rows(store: Store, clips: pa.Table, kept: pa.ChunkedArray, job: Job) -> pa.Table:
    """Caption columns; clips that are not kept get none."""
    captioner = job.recipe.captioner
    if isinstance(captioner, Captions):
        return caption_columns(store, captioner, clips, kept)
    empty: dict[str, Any] = dict.fromkeys(CAPTIONS.names)
    wanted = [name for name in clips.column_names if not is_internal(clips.schema.field(name))]
    rows = [
        empty | captioner(row) if keep else empty
        for row, keep in zip(clips.select(wanted).to_pylist(), kept.to_pylist(), strict=True)
    ]
    return pa.Table.from_pylist(rows, CAPTIONS)


@dataclass(frozen=True, slots=True, eq=False)
class Decided:
    """blocks: parts of clips.parquet by what they are made of; starts: of each, and the end of the last."""

    blocks: list[tuple[Part, ...]]
    starts: list[int]
    decisions: Decisions


def decide_all(job: Job, store: Store, parts: Sequence[Part], relations: Relations) -> Decided:
    """Reads of every block the columns that decisions need, and decides."""
    rows = {name: receipt.rows for name, receipt in receipts(store, job.recipe.scan_stage).items()}
    pieces = blocks(parts, rows, ROWS_PER_PART)
    read, added = columns_read(job.recipe), families.read_all(store)

    def one(piece: tuple[Part, ...]) -> Judged:
        return judged(measurements(job, store, piece, relations, added, read), job.recipe)

    with ThreadPoolExecutor(os.cpu_count()) as threads:
        found = list(threads.map(one, pieces))
    starts = np.cumsum([0, *(len(one.ids) for one in found)]).tolist()
    return Decided(pieces, starts, settle(gathered(found), job.recipe, relations))


def write_clips(job: Job, store: Store, parts: Sequence[Part]) -> dict[str, int]:
    """Decides, captions and writes clips.parquet, a block of it at a time; returns how many clips there are, how many
    were kept and how many sampled."""
    decided, added = decide_all(job, store, parts, relate(job, store, parts)), families.read_all(store)

    def finished() -> Iterator[pa.Table]:
        for piece, (start, stop) in zip(decided.blocks, itertools.pairwise(decided.starts), strict=True):
            clips, rows = measurements(job, store, piece, added=added), decided.decisions.rows(start, stop)
            captions = caption_rows(store, clips, rows["kept"], job)
            for family in (rows, captions):
                for field in family.schema:
                    clips = clips.append_column(field, family[field.name])
            yield settled(conform(clips, manifest_schema(job)))

    store.replace_table("clips.parquet", finished())
    kept, sampled = decided.decisions.kept, decided.decisions.sampled
    return {"clips": len(kept), "kept": int(kept.sum()), "sampled": int(sampled.sum())}


def write_inputs(
    job: Job, store: Store, parts: Sequence[Part], videos: Sequence[Video], repeats: dict[str, str]
) -> pa.Table:
    """Writes videos.parquet and shots.parquet; returns the videos."""
    stage = job.recipe.scan_stage
    shots = read_parts(store, f"{stage}/shots", parts, SHOTS)
    store.replace_table("shots.parquet", [shots.sort_by([("uri", "ascending"), ("start_frame", "ascending")])])
    scanned = read_parts(store, f"{stage}/videos", parts, VIDEOS)
    others = [quarantined(v, v.error) for v in videos if v.error]
    others += [
        quarantined(v, f"the same bytes as {repeats[v.uri]}") | {"status": "duplicate"}
        for v in videos
        if v.uri in repeats
    ]
    table = pa.concat_tables([scanned, pa.Table.from_pylist(others, VIDEOS)]).sort_by("uri")
    store.replace_table("videos.parquet", [table])
    return table

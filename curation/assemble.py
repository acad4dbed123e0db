"""From stages' parts to the tables that users read: clips.parquet, shots.parquet, videos.parquet."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curation.decide import columns_read, gathered, judged, settle
from curation.job import Job, Part, Video, receipts
from curation.measure import MEASURE_ERROR, derive
from curation.parts import blocks, read_parts
from curation.relate import CLUSTER, UNRELATED, Relations, clusters, relate
from curation.scan import quarantined
from filters.rules import judge
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
    return merge(IDENTITY, signals, TAGS, DECISION, CAPTIONS, HALLUCINATION)


def measurements(
    job: Job, store: Store, parts: Sequence[Part], relations: Relations = UNRELATED, columns: set[str] | None = None
) -> pa.Table:
    """Identity, signals and derived columns of the clips of some parts, sorted by uri and time.

    columns: those to read, and the derived ones to compute; all by default, internal ones of the walk left out.
    """
    recipe = job.recipe
    derived = recipe.derived if columns is None else _needed(recipe.derived, columns)
    read = None if columns is None else columns.union(*(one.reads for one in derived), {"start_us"})
    walk = pa.schema([f for f in recipe.scan_schema if not is_internal(f)])
    clips = read_parts(store, f"{recipe.scan_stage}/clips", parts, walk, read)
    clips = clips.sort_by([("uri", "ascending"), ("start_us", "ascending")])
    clips = derive(clips, [one for one in derived if one.early])
    if recipe.costly:
        found = pa.schema([f for f in recipe.measure_schema if not is_internal(f)])
        late = read_parts(store, f"{recipe.measure_stage}/clips", parts, found, read)
        late = late.rename_columns([n if n != MEASURE_ERROR.name else "late_error" for n in late.column_names])
        clips = join(clips, late)
        if read is None:
            clips = _explain(clips, job, late["clip_id"])
    if relations.stage and (columns is None or CLUSTER in columns):
        clips = join(clips, clusters(store, relations.stage, parts))
    return derive(clips, [one for one in derived if not one.early])


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


def caption_rows(clips: pa.Table, kept: Sequence[bool], job: Job) -> pa.Table:
    """Caption columns; clips that are not kept get none."""
    empty: dict[str, Any] = dict.fromkeys(CAPTIONS.names)
    wanted = [name for name in clips.column_names if not is_internal(clips.schema.field(name))]
    rows = [
        empty | job.recipe.captioner(row) if keep else empty
        for row, keep in zip(clips.select(wanted).to_pylist(), kept, strict=True)
    ]
    return pa.Table.from_pylist(rows, CAPTIONS)


def write_clips(job: Job, store: Store, parts: Sequence[Part]) -> dict[str, int]:
    """Decides, captions and writes clips.parquet, a block of it at a time; returns how many clips there are, how many
    were kept and how many sampled."""
    relations = relate(job, store, parts)
    rows = {name: receipt.rows for name, receipt in receipts(store, job.recipe.scan_stage).items()}
    pieces = blocks(parts, rows, ROWS_PER_PART)
    read = columns_read(job.recipe)
    found = [judged(measurements(job, store, piece, relations, read), job.recipe) for piece in pieces]
    decisions = settle(gathered(found), job.recipe, relations)
    starts = np.cumsum([0, *(len(one.ids) for one in found)]).tolist()
    del found

    def finished() -> Iterator[pa.Table]:
        for piece, (start, stop) in zip(pieces, itertools.pairwise(starts), strict=True):
            clips, decided = measurements(job, store, piece), decisions.rows(start, stop)
            captions = caption_rows(clips, decided["kept"].to_pylist(), job)
            for family in (decided, captions):
                for field in family.schema:
                    clips = clips.append_column(field, family[field.name])
            yield conform(clips, manifest_schema(job))

    store.replace_table("clips.parquet", finished())
    return {"clips": len(decisions.kept), "kept": int(decisions.kept.sum()), "sampled": int(decisions.sampled.sum())}


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

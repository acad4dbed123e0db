"""From stages' parts to the tables that users read: clips.parquet, shots.parquet, videos.parquet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from curation.decide import decide
from curation.job import Job, Part, Video
from curation.measure import MEASURE_ERROR, derive
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

ROWS_PER_PART = 100_000


def manifest_schema(job: Job) -> pa.Schema:
    """Columns of clips.parquet for one recipe."""
    walk = [f for f in job.recipe.walk_schema if not is_internal(f)]
    costly = [f for f in job.recipe.costly_schema if not is_internal(f)]
    derived = [f for f in job.recipe.derived_schema if not is_internal(f)]
    signals = pa.schema([*walk, *costly, *derived, MEASURE_ERROR])
    return merge(IDENTITY, signals, TAGS, DECISION, CAPTIONS, HALLUCINATION)


def measurements(job: Job, store: Store, parts: Sequence[Part]) -> pa.Table:
    """Identity, signals and derived columns of all clips of the parts, internal columns included, sorted by clip id."""
    schema = merge(IDENTITY, job.recipe.walk_schema, pa.schema([MEASURE_ERROR]))
    # A part that an older version wrote lacks the columns that came since.
    clips = pa.concat_tables([schema.empty_table(), *(conform(_part_clips(job, store, p), schema) for p in parts)])
    clips = derive(clips.sort_by("clip_id"), [derived for derived in job.recipe.derived if derived.early])
    if not job.recipe.costly:
        return derive(clips, job.recipe.derived)
    stage = f"stages/{job.recipe.measure_stage}/clips"
    costly = [store.read_table(f"{stage}/{p.name}.parquet") for p in parts if store.exists(f"{stage}/{p.name}.parquet")]
    late = merge(pa.schema([IDENTITY.field("clip_id")]), job.recipe.costly_schema, pa.schema([MEASURE_ERROR]))
    found = pa.concat_tables([late.empty_table(), *costly])
    renamed = found.rename_columns([n if n != "measure_error" else "late_error" for n in found.column_names])
    return derive(_explain(join(clips, renamed), job, renamed["clip_id"]), job.recipe.derived)


def _part_clips(job: Job, store: Store, part: Part) -> pa.Table:
    table = store.read_table(f"stages/{job.recipe.scan_stage}/clips/{part.name}.parquet")
    return _current(table, {v.id: v.uri for v in part.videos})


def _current(table: pa.Table, uris: dict[str | None, str]) -> pa.Table:
    """Rows of the videos asked for, under the uri they have now: files may have moved since they were scanned."""
    table = table.filter(pc.is_in(table["video_id"], value_set=pa.array([i for i in uris if i], pa.string())))
    now = pa.array([uris[i] for i in table["video_id"].to_pylist()], pa.string())
    return table.set_column(table.schema.get_field_index("uri"), table.schema.field("uri"), now)


def _explain(clips: pa.Table, job: Job, measured: pa.ChunkedArray) -> pa.Table:
    """`measure_error` says of costly signals too why they are null: failed, or never asked for."""
    was_measured = pc.is_in(clips["clip_id"], value_set=measured).to_pylist()
    rejected = judge(job.recipe.gate, clips).to_pylist()
    names = ", ".join(job.recipe.costly_schema.names)
    reasons: list[str | None] = []
    for early, late, done, failed in zip(
        clips["measure_error"].to_pylist(), clips["late_error"].to_pylist(), was_measured, rejected, strict=True
    ):
        because = ", ".join(failed) or "a rule of an earlier run; run again to measure it"
        skipped = None if done else f"{names}: not measured, the clip already failed {because}"
        reasons.append("; ".join(r for r in (early, late, skipped) if r) or None)
    at = clips.schema.get_field_index("measure_error")
    return clips.drop_columns("late_error").set_column(at, MEASURE_ERROR, pa.array(reasons, pa.string()))


def caption_rows(clips: pa.Table, kept: Sequence[bool], job: Job) -> pa.Table:
    """Caption columns; clips that are not kept get none."""
    empty: dict[str, Any] = dict.fromkeys(CAPTIONS.names)
    wanted = [name for name in clips.column_names if not is_internal(clips.schema.field(name))]
    rows = [
        empty | job.recipe.captioner(row) if keep else empty
        for row, keep in zip(clips.select(wanted).to_pylist(), kept, strict=True)
    ]
    return pa.Table.from_pylist(rows, CAPTIONS)


def write_clips(job: Job, store: Store, parts: Sequence[Part]) -> pa.Table:
    """Decides, captions and writes clips.parquet; returns it."""
    clips = measurements(job, store, parts)
    decisions = decide(clips, job.recipe)
    captions = caption_rows(clips, decisions["kept"].to_pylist(), job)
    for family in (decisions, captions):
        for field in family.schema:
            clips = clips.append_column(field, family[field.name])
    clips = conform(clips, manifest_schema(job)).sort_by([("uri", "ascending"), ("start_us", "ascending")])
    slices = range(0, max(1, clips.num_rows), ROWS_PER_PART)
    store.replace_table("clips.parquet", [clips.slice(k, ROWS_PER_PART) for k in slices])
    return clips


def write_inputs(
    job: Job, store: Store, parts: Sequence[Part], videos: Sequence[Video], repeats: dict[str, str]
) -> pa.Table:
    """Writes videos.parquet and shots.parquet; returns the videos."""
    stage = f"stages/{job.recipe.scan_stage}"
    shots, scanned = [SHOTS.empty_table()], [VIDEOS.empty_table()]
    for part in parts:
        uris = {v.id: v.uri for v in part.videos}
        shots.append(_current(store.read_table(f"{stage}/shots/{part.name}.parquet"), uris))
        scanned.append(_current(store.read_table(f"{stage}/videos/{part.name}.parquet"), uris))
    store.replace_table(
        "shots.parquet", [pa.concat_tables(shots).sort_by([("uri", "ascending"), ("start_frame", "ascending")])]
    )
    others = [quarantined(v, v.error) for v in videos if v.error]
    others += [
        quarantined(v, f"the same bytes as {repeats[v.uri]}") | {"status": "duplicate"}
        for v in videos
        if v.uri in repeats
    ]
    table = pa.concat_tables([*scanned, pa.Table.from_pylist(others, VIDEOS)]).sort_by("uri")
    store.replace_table("videos.parquet", [table])
    return table

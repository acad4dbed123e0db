"""What people decided about clips, as those see it who use the clips: training, export, buckets."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

KEEP, REJECT = "keep", "reject"

READS = ("review_start_s", "review_end_s", "review_caption")
"""Columns that `as_reviewed` looks at; a manifest that lacks them is as nobody reviewed it."""


def as_reviewed(clips: pa.Table) -> pa.Table:
    """`clips` with start_us, end_us, duration_s and caption as people left them, of these the columns that it has.

    The clip id stays that of the whole clip; `manifests.ids.clip_id` makes the id of a part.
    """
    if not set(READS) <= set(clips.column_names):
        return clips
    if {"start_us", "end_us"} <= set(clips.column_names):
        whole, end = clips["start_us"], clips["end_us"]
        first = pc.coalesce(pc.add(whole, _microseconds(clips["review_start_s"])), whole)
        last = pc.min_element_wise(pc.coalesce(pc.add(whole, _microseconds(clips["review_end_s"])), end), end)
        clips = _put(_put(clips, "start_us", first), "end_us", last)
    if "duration_s" in clips.column_names:
        seconds = clips["duration_s"]
        until = pc.min_element_wise(pc.coalesce(clips["review_end_s"], seconds), seconds)
        clips = _put(clips, "duration_s", pc.subtract(until, pc.coalesce(clips["review_start_s"], 0.0)))
    if "caption" in clips.column_names:
        clips = _put(clips, "caption", pc.coalesce(clips["review_caption"], clips["caption"]))
    return clips


def _microseconds(seconds: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.cast(pc.round(pc.multiply(seconds, 1e6)), pa.int64())


def _put(clips: pa.Table, name: str, values: pa.ChunkedArray) -> pa.Table:
    at = clips.schema.get_field_index(name)
    return clips.set_column(at, clips.schema.field(name), values.cast(clips.schema.field(name).type))

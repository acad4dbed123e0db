"""The second stage: costly signals, measured from the frame packs of clips that the cheap rules let through.

The part of an earlier run is built upon: only clips that have no values yet are measured.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from curation.job import Job, Part, Receipt, Stopwatch, peak_memory_mb, pin_threads, unpack
from curation.scan import MEASURE_ERROR, measure
from filters.rules import judge
from manifests import packs
from manifests.schema import IDENTITY, merge
from manifests.store import Store
from manifests.types import Clip, Frames, Sampling


def measure_part(packed: bytes, part: Part, _scanned: Receipt | None = None) -> Receipt:
    """Measures what is missing in one part. `_scanned` is the receipt of the scan, on which this stage depends."""
    pin_threads()
    job, store = unpack(packed)
    watch, stage = Stopwatch(), job.recipe.measure_stage
    clips = eligible(job, store, part.name)
    known = measured(job, store, part.name)
    if known is not None:
        clips = clips.filter(pc.invert(pc.is_in(clips["clip_id"], value_set=known["clip_id"])))
    schema = merge(pa.schema([IDENTITY.field("clip_id")]), job.recipe.costly_schema, pa.schema([MEASURE_ERROR]))
    rows = [{"clip_id": clip.id} | measure(job.recipe.costly, clip, f) for clip, f in _frames(job, store, clips)]
    table = pa.Table.from_pylist(rows, schema)
    if known is not None:
        table = pa.concat_tables([known, table])
    store.write_table(f"stages/{stage}/clips/{part.name}.parquet", table)
    receipt = Receipt(
        stage,
        part.name,
        tuple(v.id or "" for v in part.videos),
        len(rows),
        watch.seconds,
        memory_mb=round(peak_memory_mb(), 1),
    )
    receipt.save(store)
    return receipt


def eligible(job: Job, store: Store, part: str) -> pa.Table:
    """Rows of a scanned part whose clips are worth the costly signals."""
    clips = store.read_table(f"stages/{job.recipe.scan_stage}/clips/{part}.parquet")
    if job.measure_all:
        return clips
    return clips.filter(pc.equal(pc.list_value_length(judge(job.recipe.gate, clips)), 0))


def measured(job: Job, store: Store, part: str) -> pa.Table | None:
    """What earlier runs measured of that part."""
    name = f"stages/{job.recipe.measure_stage}/clips/{part}.parquet"
    return store.read_table(name) if store.exists(name) else None


def complete(job: Job, store: Store, part: str) -> bool:
    """Whether nothing of a scanned part is left to measure."""
    known = measured(job, store, part)
    if known is None:
        return False
    wanted = eligible(job, store, part)["clip_id"]
    return bool(pc.all(pc.is_in(wanted, value_set=known["clip_id"])).as_py() is not False)


def _frames(job: Job, store: Store, clips: pa.Table) -> Iterator[tuple[Clip, dict[Sampling, Frames]]]:
    """Every clip with the frames that each costly signal wants, from its pack."""
    wants = {signal.wants for signal in job.recipe.costly}
    columns = ["clip_id", "video_id", "uri", "start_us", "end_us", "pack"]
    rows = clips.select(columns).to_pylist()
    for start in range(0, len(rows), packs.ROWS_PER_GROUP):
        batch = rows[start : start + packs.ROWS_PER_GROUP]
        packed = _packed(store, batch)
        for row in batch:
            clip = Clip(row["clip_id"], row["video_id"], row["uri"], row["start_us"], row["end_us"])
            yield clip, {want: packs.frames(packed[clip.id], want.cap) for want in wants}


def _packed(store: Store, rows: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    found = packs.load(store, rows[0]["pack"], [row["clip_id"] for row in rows])
    return {row["clip_id"]: row for row in found.to_pylist()}

"""The second stage: costly signals, measured for the clips that the cheap rules let through.

They look at the clips' frame packs; for what those do not hold, the clips' spans are decoded once more. The part of an
earlier run is built upon: only clips that have no values yet are measured.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from curation.job import Job, Part, Receipt, Stopwatch, peak_memory_mb, pin_threads, unpack
from curation.measure import Row, derive, measure
from filters.rules import judge
from manifests import packs
from manifests.media.again import look_again
from manifests.schema import is_internal
from manifests.store import Store
from manifests.types import Clip, Frames, Image, MediaError, Sampling


@dataclass(frozen=True, slots=True, eq=False)
class Slice:
    """Rows that were measured of some of a part's clips, and what that took."""

    rows: pa.Table
    seconds: float
    memory_mb: float


def measure_part(packed: bytes, part: Part) -> Receipt:
    """Measures what is missing in one part."""
    return join(packed, part, measure_slice(packed, part, 0, 1))


def measure_slice(packed: bytes, part: Part, number: int, count: int, _scanned: Receipt | None = None) -> Slice:
    """Measures what is missing in one of `count` slices of a part, so that several workers can share it. `_scanned` is
    the receipt of the scan, on which this stage depends."""
    pin_threads()
    job, store = unpack(packed)
    watch = Stopwatch()
    clips = eligible(job, store, part.name)
    known = measured(job, store, part.name)
    if known is not None:
        clips = clips.filter(pc.invert(pc.is_in(clips["clip_id"], value_set=known["clip_id"])))
    batches = list(_batches(clips))
    rows: list[Row] = []
    for batch in batches[len(batches) * number // count : len(batches) * (number + 1) // count]:
        rows += _measure_batch(job, store, batch)
    table = pa.Table.from_pylist(rows, job.recipe.measure_schema)
    return Slice(table, watch.seconds, round(peak_memory_mb(), 1))


def join(packed: bytes, part: Part, *slices: Slice) -> Receipt:
    """Writes what all slices of a part measured, after what was known; the order of rows is that of the scan."""
    job, store = unpack(packed)
    known, stage = measured(job, store, part.name), job.recipe.measure_stage
    tables = [one.rows for one in slices]
    table = pa.concat_tables(tables if known is None else [known, *tables])
    store.write_table(f"stages/{stage}/clips/{part.name}.parquet", table)
    receipt = Receipt(
        stage,
        part.name,
        tuple(v.id or "" for v in part.videos),
        sum(rows.num_rows for rows in tables),
        round(sum(one.seconds for one in slices), 3),
        memory_mb=max(one.memory_mb for one in slices),
    )
    receipt.save(store)
    return receipt


def eligible(job: Job, store: Store, part: str) -> pa.Table:
    """Rows of a scanned part whose clips are worth the costly signals."""
    told = {name for one in job.recipe.derived for name in one.reads}
    columns = [f.name for f in job.recipe.scan_schema if not is_internal(f) or f.name in told]  # these are large
    clips = store.read_table(f"stages/{job.recipe.scan_stage}/clips/{part}.parquet", columns)
    if job.measure_all:
        return clips
    known = derive(clips, [derived for derived in job.recipe.derived if derived.early])
    return clips.filter(pc.equal(pc.list_value_length(judge(job.recipe.gate, known)), 0))


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


def _batches(clips: pa.Table) -> Iterator[list[Row]]:
    """Rows of clips, as many at a time as share a row group of their pack: few enough to hold their frames."""
    columns = ["clip_id", "video_id", "uri", "start_us", "end_us", "start_frame", "film_offset_s", "pack"]
    rows = clips.select(columns).to_pylist()
    for start in range(0, len(rows), packs.ROWS_PER_GROUP):
        yield rows[start : start + packs.ROWS_PER_GROUP]


def _measure_batch(job: Job, store: Store, batch: Sequence[Row]) -> list[Row]:
    """Columns of all costly signals for these clips."""
    clips = [Clip(row["clip_id"], row["video_id"], row["uri"], row["start_us"], row["end_us"]) for row in batch]
    wants = {signal.wants for signal in job.recipe.costly}
    packed = {want for want in wants if packs.holds(job.recipe.pack, want)}
    found = packs.load(store, batch[0]["pack"], [clip.id for clip in clips])
    rows = {row["clip_id"]: row for row in found.to_pylist()}
    pictures: list[dict[int, Image]] = [{} for _ in clips]
    frames: list[dict[Sampling, Frames]] = [
        {want: packs.frames(rows[clip.id], want.cap, decoded) for want in packed}
        for clip, decoded in zip(clips, pictures, strict=True)
    ]
    unread: list[str | None] = [None] * len(batch)
    for k, row in enumerate(batch):
        try:
            frames[k] |= _again(job, row, wants - packed)
        except MediaError as error:
            unread[k] = str(error)
    measured = measure(job.recipe.costly, clips, frames, unread)
    return [{"clip_id": clip.id} | row for clip, row in zip(clips, measured, strict=True)]


def _again(job: Job, row: Row, wants: set[Sampling]) -> Mapping[Sampling, Frames]:
    if not wants:
        return {}
    return look_again(
        row["uri"],
        row["start_us"],
        row["end_us"],
        sorted(wants, key=repr),
        first=row["start_frame"],
        offset=row["film_offset_s"],
        limits=job.recipe.limits,
    )

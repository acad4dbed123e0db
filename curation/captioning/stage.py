"""The stage: which kept clips have no caption yet, shares of them for workers, and their captions in the manifest."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import replace

import pyarrow as pa
import pyarrow.compute as pc
from distributed import Client as DaskClient
from distributed import as_completed

from captioners.captions import Captions, with_models
from captioners.checks import settled
from captioners.client import Client, Patience
from curation.captioning.kept import Kept, caption_columns, stage_of
from curation.captioning.work import CaptionJob, Done, caption_some
from curation.cluster import shared, slots
from curation.progress import Board
from manifests import families
from manifests.schema import CAPTIONS, conform
from manifests.store import Store

MOST = 256
"""Clips in one task: few enough that workers finish together, many enough that the last few questions of a task, when
servers have little to do, do not count."""

_HINTS = (
    "camera_motion", "camera_motion_confidence", "motion_flow", "dominant_colors", "text_area", "text_read",
    "face_count",
)  # fmt: skip
_READS = ("clip_id", "uri", "start_us", "end_us", "duration_s", "fps", "pack")


def check_servers(servers: Sequence[str], captions: Captions, tags: str = "") -> Captions:
    """`captions` with its models named, after every server was asked once whether they are there and can see.

    tags: a further model that must see. Raises ValueError, in one sentence, for what would fail later.
    """

    async def checked() -> Captions:
        async with Client(servers, captions.models[0], patience=Patience(deadline_s=60.0, attempt_s=60.0)) as client:
            there = await client.served()
            named = with_models(captions, tuple(there) if len(there) == 1 else ())
            see = {*(share.method.models[0] for share in named.shares), *([tags] if tags else [])}
            await client.check(sorted(see), vision=True)
            await client.check([model for model in named.models if model not in see], vision=False)
            return named

    return asyncio.run(checked())


def caption_kept(
    store: Store,
    captions: Captions,
    servers: Sequence[str],
    patience: Patience,
    dask: DaskClient,
    board: Board,
    again: bool = False,
) -> Done:
    """Captions the kept clips of a folder that have no caption of these settings yet, and writes them down.

    patience: for all workers together. again: clips that came to no caption are asked about once more.
    Call `write_captions` afterwards.
    """
    kept = Kept(store, stage_of(captions))
    kept.join()
    if again:
        failed = kept.clip_ids().filter(pc.invert(pc.is_in(kept.clip_ids(), value_set=kept.clip_ids(failed=False))))
        kept.join(forget=failed)
    todo = _todo(store, kept)
    total = _wanted(store)
    board.stage("caption", total, "clips", done=total - todo.num_rows)
    job = CaptionJob(store.root, captions, tuple(servers), patience).pack_up()
    lanes, each = shared(patience.concurrency, slots(dask), todo.num_rows)
    waiting = _portions(todo, lanes)
    done, sum_ = as_completed(with_results=True), Done()
    for _ in range(lanes):
        for portion in _next(waiting):
            done.add(dask.submit(caption_some, job, portion, each, pure=False))
    for _, result in done:
        sum_ += result
        board.advance("caption", result.captioned + result.unfit, clips=result.captioned + result.unfit)
        if not result.left:
            for portion in _next(waiting):
                done.add(dask.submit(caption_some, job, portion, each, pure=False))
    kept.join()
    left = pc.sum(pc.invert(pc.is_in(todo["clip_id"], value_set=kept.clip_ids()))).as_py() or 0
    return replace(sum_, left=left)


def write_captions(store: Store, captions: Captions) -> None:
    """Puts the captions that there are into clips.parquet; checks of captions that changed go out of it."""
    checks = families.read_all(store)

    def parts() -> Iterator[pa.Table]:
        for name in store.names("clips.parquet", ".parquet"):
            clips = store.read_table(f"clips.parquet/{name}.parquet")
            schema, found = clips.schema, caption_columns(store, captions, clips, clips["kept"])
            for field in CAPTIONS:
                clips = clips.set_column(schema.get_field_index(field.name), field, found[field.name])
            yield conform(settled(families.added_to(clips, checks)), schema)

    store.replace_table("clips.parquet", parts())


def _wanted(store: Store) -> int:
    return int(store.dataset("clips.parquet").count_rows(filter=pc.field("kept")))


def _todo(store: Store, kept: Kept) -> pa.Table:
    """Kept clips without a caption, in the order of their frame packs."""
    there = set(store.dataset("clips.parquet").schema.names)
    columns = [*_READS, *(name for name in _HINTS if name in there)]
    clips = store.read_table("clips.parquet", columns, pc.field("kept"))
    clips = clips.filter(pc.invert(pc.is_in(clips["clip_id"], value_set=kept.clip_ids())))
    return clips.sort_by([(name, "ascending") for name in ("pack", "uri", "start_us")])


def _portions(rows: pa.Table, lanes: int) -> Iterator[pa.Table]:
    size = max(1, min(MOST, -(-rows.num_rows // lanes)))
    for start in range(0, rows.num_rows, size):
        yield rows.slice(start, size)


def _next(portions: Iterator[pa.Table]) -> Iterator[pa.Table]:
    for portion in portions:
        yield portion
        return

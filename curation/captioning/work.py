"""Captions some clips, on a worker: frames out of packs, questions to servers, pieces of captions to disk."""

from __future__ import annotations

import asyncio
import functools
import pickle
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import cloudpickle
import pyarrow as pa
import pyarrow.compute as pc

from captioners.ask import Asker, NotServed, Unreachable, Usage
from captioners.captions import Captions
from captioners.client import Client, Patience
from captioners.seen import Seen, seen
from curation.captioning.kept import Kept, part_of, stage_of
from curation.recipe import RECIPE_MODULE
from manifests import packs
from manifests.store import Store

PIECE = 32
"""Clips in a piece of captions: what is lost at most when a worker dies."""

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Done:
    """What became of some clips. left: clips that no server answered about; why: for one of them."""

    captioned: int = 0
    unfit: int = 0
    left: int = 0
    why: str = ""
    usage: Usage = field(default_factory=Usage)

    def __add__(self, other: Done) -> Done:
        return Done(
            self.captioned + other.captioned,
            self.unfit + other.unfit,
            self.left + other.left,
            self.why or other.why,
            self.usage + other.usage,
        )


@dataclass(frozen=True, slots=True)
class CaptionJob:
    """What workers need to know."""

    root: str
    captions: Captions
    servers: tuple[str, ...]
    patience: Patience

    def pack_up(self) -> bytes:
        """With cloudpickle, by value where a user's recipe file defined a method: workers cannot import that file."""
        for share in self.captions.shares:
            module = type(share.method).__module__
            if module.startswith(RECIPE_MODULE):
                cloudpickle.register_pickle_by_value(sys.modules[module])
        return cloudpickle.dumps(self)


@functools.lru_cache(maxsize=4)
def _unpack(packed: bytes) -> CaptionJob:
    """The bytes come from our own driver."""
    job = pickle.loads(packed)  # noqa: S301
    assert isinstance(job, CaptionJob)
    return job


def caption_some(packed: bytes, rows: pa.Table, concurrency: int) -> Done:
    """Captions these rows of the manifest. concurrency: questions under way at once."""
    job = _unpack(packed)

    async def asked() -> Done:
        async with Client(job.servers, patience=replace(job.patience, concurrency=concurrency)) as client:
            return await caption_rows(Store(job.root), job.captions, client, rows, concurrency)

    try:
        return asyncio.run(asked())
    except ExceptionGroup as group:  # what a task group makes of the first error
        raise group.exceptions[0] from None


async def caption_rows(store: Store, captions: Captions, asker: Asker, rows: pa.Table, at_once: int) -> Done:
    """Captions rows, `at_once` of them at a time and a few more, so that questions never wait for frames to be read.

    Clips that are done are left out: a worker that died may have got that far. Clips about which no server answers in
    time are left as they were; then no further ones are begun.
    """
    kept = Kept(store, stage_of(captions))
    done = kept.clip_ids(parts={part_of(pack) for pack in pc.unique(rows["pack"]).to_pylist()})
    rows = rows.filter(pc.invert(pc.is_in(rows["clip_id"], value_set=done)))
    waiting: dict[str, list[Row]] = {}
    left: list[str] = []
    made: list[Row] = []
    limit = asyncio.Semaphore(at_once + max(2, at_once // 4))

    async def one(clip: Seen) -> None:
        try:
            row = await captions(asker, clip)
        except (Unreachable, NotServed) as error:
            left.append(str(error))
            return
        finally:
            limit.release()
        made.append(row)
        piece = waiting.setdefault(part_of(clip.row["pack"]), [])
        piece.append(row)
        if len(piece) >= PIECE:
            waiting[part_of(clip.row["pack"])] = []
            await asyncio.to_thread(kept.add, part_of(clip.row["pack"]), piece)

    async with asyncio.TaskGroup() as tasks:
        async for clip in _clips(store, rows):
            await limit.acquire()
            if left:
                limit.release()
                break
            tasks.create_task(one(clip))
    for part, piece in waiting.items():
        if piece:
            kept.add(part, piece)
    return Done(
        sum(row.get("caption_text") is not None for row in made),
        sum(row.get("caption_error") is not None for row in made),
        rows.num_rows - len(made),
        left[0] if left else "",
        Usage(**{name: sum(row[f"caption_{name}"] for row in made) for name in Usage.__slots__}),
    )


async def _clips(store: Store, rows: pa.Table) -> AsyncIterator[Seen]:
    """The rows with their frames, those of one row group of their pack at a time; the next ones are read while these
    are asked about."""
    read = _read(store, rows.to_pylist())
    ahead = asyncio.create_task(asyncio.to_thread(next, read, None))
    while (clips := await ahead) is not None:
        ahead = asyncio.create_task(asyncio.to_thread(next, read, None))
        for clip in clips:
            yield clip


def _read(store: Store, rows: Sequence[Row]) -> Iterator[list[Seen]]:
    of: dict[str, dict[str, Row]] = {}
    for row in rows:
        of.setdefault(row["pack"], {})[row["clip_id"]] = row
    for pack, mine in of.items():
        try:
            for group in packs.groups(store, pack, list(mine)):
                yield [seen(mine.pop(packed["clip_id"]), packed) for packed in group.to_pylist()]
        except FileNotFoundError:
            raise ValueError(f"{store.root}/{pack}: the frame pack is gone; run `vidcurate run` again.") from None
        yield [seen(row, {"times_us": [], "jpegs": []}) for row in mine.values()]

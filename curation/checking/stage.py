"""Checks captions against the frames of their clips (DSG-Video), part by part, and repairs them if asked to.

A part's results are kept under the clip and the very text that was checked, and written every few clips, in pieces that
are joined when the part is done. So nothing is asked twice: not after an interruption, not for another comparison, not
when a caption comes back to what it was.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from distributed import Client as DaskClient
from distributed import as_completed

from captioners import checks
from captioners.ask import Picture
from captioners.client import Client, Patience
from captioners.dsg import DSG, Checker
from captioners.repair import repair
from curation.cluster import connect, shared, slots
from curation.folder import Folder
from manifests import families, packs
from manifests.ids import fingerprint, part_id
from manifests.store import Store

Row = dict[str, Any]
_Left = tuple[str, str, Row | None]
"""Clip, text, and the row of an earlier check if only the repair is left to do."""
_PIECE, _PAUSE_S = 4, 1.0
"""Results are written when there are so many clips and so many seconds have passed since the last time: little is lost
when this process is killed, and writing costs next to nothing however fast answers come."""
_PARTS_AT_ONCE = 2
"""The second begins while the last clips of the first are waited for."""


@dataclass(frozen=True, slots=True)
class Check:
    """How captions are checked.

    servers:  addresses of OpenAI-compatible servers
    settings: what decides the results
    repair:   rewrite captions with hallucinated objects, and check them again
    again:    ask anew where there was no usable answer the last time
    """

    servers: tuple[str, ...]
    settings: DSG = field(default_factory=DSG)
    repair: bool = False
    again: bool = False
    patience: Patience = field(default_factory=Patience)


@dataclass(frozen=True, slots=True)
class Run:
    """Where requests are sent from: so many local Dask workers, those of a scheduler, or this process."""

    workers: int | None = None
    scheduler: str | None = None


@dataclass(frozen=True, slots=True)
class Job:
    """What a worker needs. scan: the stage whose packs hold the frames."""

    root: str
    scan: str
    check: Check

    @property
    def stage(self) -> str:
        return f"stages/check-{fingerprint(self.scan, self.check.settings)}/clips"

    @property
    def model(self) -> str:
        sees, reads = self.check.settings.model, self.check.settings.reader
        return sees if reads in ("", sees) else f"{sees} (reader: {reads})"


def check(
    folder: Folder, wanted: pa.Table, how: Check, run: Run = Run(), advance: Callable[[int], None] = lambda clips: None
) -> pa.Table:
    """Checks texts of clips; returns the rows of `families.CHECKED` for these, and leaves the manifest as it is.

    advance: told how many clips were done. Raises ValueError when no server answers or one lacks the model; what was
    done till then is kept.
    """
    most = folder.recipe.pack.cap
    if most and how.settings.frames > most:
        raise ValueError(
            f"--frames {how.settings.frames}: frame packs hold at most {most} frames of a clip; give fewer, or run "
            f"again with --set pack.cap={how.settings.frames}."
        )
    how = replace(how, settings=asyncio.run(_resolved(how)))
    job = Job(folder.store.root, folder.recipe.scan_stage, how)
    parts = by_part(folder.store, wanted)
    if run.workers or run.scheduler:
        with connect(run.workers, run.scheduler) as dask:
            _spread(dask, job, parts, advance)
    else:
        check_parts(job, list(parts.items()), advance)
    return results(job, folder.store, parts)


def _spread(dask: DaskClient, job: Job, parts: dict[str, pa.Table], advance: Callable[[int], None]) -> None:
    """Checks parts on workers, which share the questions that may be under way at once."""
    patience = job.check.patience
    lanes, each = shared(patience.concurrency, slots(dask), len(parts))
    job = replace(job, check=replace(job.check, patience=replace(patience, concurrency=each)))
    waiting, done = iter(parts.items()), as_completed(with_results=True)
    for part in itertools.islice(waiting, lanes):
        done.add(dask.submit(check_parts, job, [part], pure=False))
    for _, clips in done:
        advance(clips)
        for part in itertools.islice(waiting, 1):
            done.add(dask.submit(check_parts, job, [part], pure=False))


async def _resolved(how: Check) -> DSG:
    """The settings with the names of the models that will answer. Raises ValueError when one is not there."""
    settings = how.settings
    async with Client(how.servers, settings.model, how.patience) as client:
        await client.check([settings.model])
        if settings.reader:
            await client.check([settings.reader], vision=False)
        if settings.model:
            return settings
        return replace(settings, model=next(iter(await client.served())))


def by_part(store: Store, wanted: pa.Table) -> dict[str, pa.Table]:
    """The texts by the frame pack of their clips. Raises ValueError for a clip that is not in the manifest."""
    clips = store.read_table(
        "clips.parquet", ["clip_id", "pack"], pc.field("clip_id").isin(wanted["clip_id"].combine_chunks())
    )
    place = pc.index_in(wanted["clip_id"], value_set=clips["clip_id"].combine_chunks())
    if place.null_count:
        lost = wanted["clip_id"].filter(pc.is_null(place))[0].as_py()
        raise ValueError(f"{lost}: no clip of {store.root} has this id; check captions with the run they are of.")
    of = clips["pack"].take(place).combine_chunks()
    return {name: wanted.filter(pc.equal(of, name)) for name in sorted(pc.unique(of).to_pylist())}


def check_parts(
    job: Job, parts: Sequence[tuple[str, pa.Table]], advance: Callable[[int], None] = lambda clips: None
) -> int:
    """Checks the texts of some parts, of each what is not done yet; returns how many clips these were."""
    return asyncio.run(_check_parts(job, parts, advance))


async def _check_parts(job: Job, parts: Sequence[tuple[str, pa.Table]], advance: Callable[[int], None]) -> int:
    async with Client(job.check.servers, job.check.settings.model, job.check.patience) as client:
        return await check_rows(job, Checker(client, client, job.check.settings), parts, advance)


async def check_rows(
    job: Job,
    checker: Checker,
    parts: Sequence[tuple[str, pa.Table]],
    advance: Callable[[int], None] = lambda clips: None,
) -> int:
    """The same, whoever answers."""
    store, free = Store(job.root), asyncio.Semaphore(_PARTS_AT_ONCE)

    async def one(pack: str, wanted: pa.Table) -> int:
        async with free:
            part = _Part(job, store, pack, checker)
            left = list(part.left(wanted))
            advance(wanted.num_rows - len(left))
            async for done in part.run(left):
                advance(done)
            return wanted.num_rows

    tasks = [asyncio.create_task(one(pack, wanted)) for pack, wanted in parts]
    try:
        return sum(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class _Part:
    """The clips of one frame pack. Rows are kept by clip and text."""

    def __init__(self, job: Job, store: Store, pack: str, checker: Checker) -> None:
        self._check, self._model, self._store, self._checker = job.check, job.model, store, checker
        self._pack = pack
        self._name = _part_name(job, pack)
        self._fresh: list[Row] = []
        self._rows: dict[tuple[str, str], Row] = {}
        self._known: set[str] = set()
        self._next_write = 0.0
        self._read(self._files())

    def left(self, wanted: pa.Table) -> Iterator[_Left]:
        """What is not done yet."""
        texts = zip(wanted["clip_id"].to_pylist(), wanted["text"].to_pylist(), strict=True)
        for clip, text in texts:
            row = self._rows.get((clip, text))
            failed = row is not None and row["dsg_sentences"] is None
            if row is None or (self._check.again and failed):
                yield clip, text, None
            elif self._check.repair and self._to_repair(row):
                yield clip, text, row

    def _to_repair(self, row: Row) -> bool:
        tried = row["caption_repaired"] or (row["dsg_repair_error"] and not self._check.again)
        return bool(row["dsg_hallucinated"]) and not tried

    async def run(self, left: Sequence[_Left]) -> AsyncIterator[int]:
        """Does what is left; yields how many clips were done, whenever some were."""
        running: set[asyncio.Task[Row]] = set()
        most = max(2, self._check.patience.concurrency)
        try:
            for clip, text, before, frames in self._with_frames(left):
                running.add(asyncio.create_task(self._one(clip, text, before, frames)))
                if len(running) >= most:
                    done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                    self._take(done)
                    yield len(done)
            while running:
                done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                self._take(done)
                yield len(done)
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
            self._join()

    def _take(self, done: set[asyncio.Task[Row]]) -> None:
        """Keeps results. Raises what a task raised, after the others were kept."""
        self._fresh += [task.result() for task in done if not task.exception()]
        for task in done:
            task.result()
        if len(self._fresh) >= _PIECE and time.monotonic() >= self._next_write:
            piece = f"{self._name}.{part_id(row['clip_id'] for row in self._fresh)}.parquet"
            self._write(piece, self._fresh)
            self._known.add(piece)
            self._keep(self._fresh)
            self._fresh = []
            self._next_write = time.monotonic() + _PAUSE_S

    def _keep(self, rows: Iterable[Row]) -> None:
        self._rows |= {(row["clip_id"], row["dsg_caption"]): row for row in rows}

    def _read(self, names: Iterable[str]) -> None:
        for name in names:
            self._keep(self._store.read_table(name).to_pylist())
            self._known.add(name)

    def _join(self) -> None:
        """Makes one file of the part's pieces, those included that another command wrote meanwhile."""
        files, joined = self._files(), f"{self._name}.parquet"
        mine = self._rows
        self._rows = {}
        self._read(name for name in files if name == joined or name not in self._known)
        self._rows |= mine
        self._keep(self._fresh)
        self._fresh = []
        if self._rows:
            self._write(joined, [self._rows[key] for key in sorted(self._rows)])
        for name in files:
            if name != joined:
                self._store.fs.rm_file(self._store.full(name))

    def _write(self, name: str, rows: Sequence[Row]) -> None:
        schema = families.schema_of(families.CHECKED)
        self._store.write_table(name, pa.Table.from_pylist(list(rows), schema))

    def _files(self) -> list[str]:
        """The joined file, then pieces that something left behind that died."""
        folder, _, stem = self._name.rpartition("/")
        found = [name for name in self._store.names(folder, ".parquet") if name.partition(".")[0] == stem]
        return [f"{folder}/{name}.parquet" for name in found]

    def _with_frames(self, left: Sequence[_Left]) -> Iterator[tuple[str, str, Row | None, list[Picture]]]:
        waiting = {clip: (text, before) for clip, text, before in left}
        for found in packs.groups(self._store, self._pack, list(waiting)):
            for clip, jpegs in zip(found["clip_id"].to_pylist(), found["jpegs"].to_pylist(), strict=True):
                yield clip, *waiting.pop(clip), _evenly(jpegs, self._check.settings.frames)
        for clip, (text, before) in waiting.items():
            yield clip, text, before, []

    async def _one(self, clip: str, text: str, before: Row | None, frames: Sequence[Picture]) -> Row:
        if before is None:
            checked = await self._checker.check(text, frames)
            row = checks.columns(text, checked, self._model)
        else:
            checked, row = checks.remembered(before), before
        if self._check.repair and checked.hallucinated and not checked.error:
            row = checks.with_repair(row, await repair(text, checked, frames, self._checker))
        return row | {"clip_id": clip}


def _evenly(jpegs: Sequence[bytes], most: int) -> list[Picture]:
    count = min(most, len(jpegs))
    return [Picture(jpegs[int((k + 0.5) * len(jpegs) / count)]) for k in range(count)]


def _part_name(job: Job, pack: str) -> str:
    return f"{job.stage}/{pack.rpartition('/')[2].removesuffix('.parquet')}"


def results(job: Job, store: Store, parts: dict[str, pa.Table]) -> pa.Table:
    """Rows of the texts that were asked for."""
    schema = families.schema_of(families.CHECKED)
    tables = [schema.empty_table()]
    for pack, wanted in parts.items():
        keys = {*zip(wanted["clip_id"].to_pylist(), wanted["text"].to_pylist(), strict=True)}
        rows = store.read_table(f"{_part_name(job, pack)}.parquet").cast(schema)
        have = zip(rows["clip_id"].to_pylist(), rows["dsg_caption"].to_pylist(), strict=True)
        tables.append(rows.filter(pa.array([key in keys for key in have], pa.bool_())))
    return pa.concat_tables(tables)

"""One run from start to end: list, identify, scan, measure, decide, write, report."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd
import pyarrow as pa
from distributed import Client

from captioners.captions import Captions
from curation import assemble, costly
from curation.captioning.asking import Asking
from curation.captioning.stage import caption_kept, check_servers, write_captions
from curation.cluster import connect
from curation.comparing import Share
from curation.copying import by_pictures
from curation.drive import Driver, Work
from curation.identify import changed_key, distinct, group, identify
from curation.job import Job, Part, Receipt, Stopwatch, Video, receipts
from curation.progress import Board
from curation.readiness import unready, unready_there
from curation.recipe import Recipe, check_columns, reviewed
from curation.report import write_report
from curation.sources import list_videos
from manifests.offline import without_downloads
from manifests.schema import FORMAT
from manifests.store import Store

try:
    import fcntl
except ImportError:  # not on Windows; two runs on one folder are then the user's to avoid
    fcntl = None  # type: ignore[assignment]


PACKAGES = (
    "vidcurate",
    "av",
    "scenedetect-headless",
    "opencv-python-headless",
    "faiss-cpu",
    "pyarrow",
    "dask",
    "rapidocr",
)

IDS = "stages/identify/ids.json"

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Result:
    """What a run came to. uncaptioned: why some kept clips have no caption yet, though a model was to caption them; ""
    where none is missing."""

    out: str
    videos: pa.Table
    counts: dict[str, int]
    seconds: dict[str, float] = field(default_factory=dict)
    uncaptioned: str = ""

    @property
    def clips(self) -> pa.Table:
        """The manifest, read from the folder each time."""
        return Store(self.out).read_table("clips.parquet")


def curate(
    sources: Sequence[str],
    out: str | os.PathLike[str],
    recipe: Recipe,
    client: Client | None = None,
    **options: Any,
) -> pd.DataFrame:
    """Runs the whole curation and returns the manifest as a pandas DataFrame; `options` are those of `run`.

    client: a dask.distributed client to use; without one a local cluster is started and closed again.
    Raises ValueError for wrong use, with one sentence.
    """
    return run(sources, out, recipe, client=client, **options).clips.to_pandas()


def run(
    sources: Sequence[str],
    out: str | os.PathLike[str],
    recipe: Recipe,
    *,
    client: Client | None = None,
    workers: int | None = None,
    scheduler: str | None = None,
    measure_all: bool = False,
    asking: Asking | None = None,
    origin: dict[str, Any] | None = None,
    board: Board | None = None,
) -> Result:
    """Curates `sources` into `out`; what an earlier run into `out` has done is not done again.

    measure_all: measure costly signals also for clips that the cheap rules rejected.
    asking:      servers and models that caption the kept clips; without one, captions are composed from the signals.
    origin:      where the recipe came from ({"recipe": name, "set": [...]}), kept in run.json for later commands.
    """
    board, watch, seconds = board or Board(), Stopwatch(), {}
    recipe, asking = with_captioner(recipe, asking or Asking())
    check_columns(recipe)
    uris = list_videos(sources)
    store = prepare(out)
    recipe = reviewed(recipe, store)
    job = Job(os.fspath(out) if "://" in os.fspath(out) else os.path.abspath(out), recipe, measure_all)  # noqa: PTH100
    with _alone(store), board.shown(), connect(workers, scheduler, client) as dask:
        seconds["start"] = watch.seconds
        _clean(store, recipe)

        def on_receipt(receipt: Receipt) -> None:
            name = "scan" if receipt.stage == recipe.scan_stage else "measure"
            board.advance(name, clips=receipt.rows)

        for signal, reason in unready_there(dask, job.pack_up(), recipe):
            board.say(f"{signal} cannot measure, its columns will be null: {reason}")
        driver = Driver(dask, job, on_receipt)
        videos = identify_all(driver, store, uris, board)
        seconds["identify"] = round(watch.seconds - sum(seconds.values()), 3)
        fresh, repeats = distinct(videos)
        parts, work = plan(job, store, fresh)
        board.stage("scan", len(parts), "parts", done=len(parts) - sum(w.scan for w in work))
        board.stage("measure", len(parts), "parts", done=len(parts) - sum(w.measure for w in work))
        driver.run(work)
        seconds["scan and measure"] = round(watch.seconds - sum(seconds.values()), 3)
        if recipe.copies.pictures:
            by_pictures(job, store, parts, _shared(driver, board))
        seconds["compare"] = round(watch.seconds - sum(seconds.values()), 3)
        origin = {**(origin or {"recipe": recipe.name, "set": []}), "sources": list(sources)}
        result = finish(job, store, parts, videos, repeats, seconds, origin | {"captioner": asking.noted()})
        if isinstance(recipe.captioner, Captions):
            _, left = caption(store, recipe, asking, dask, board)
            result = dataclasses.replace(result, uncaptioned=left)
    return result


def _shared(driver: Driver, board: Board) -> Share:
    """Pairs are compared by the workers."""

    def share(function: Callable[[T], R], items: Sequence[T]) -> Iterator[R]:
        board.stage("compare", len(items), "portions")
        for result in driver.each(function, items):
            board.advance("compare")
            yield result

    return share


def with_captioner(recipe: Recipe, asking: Asking) -> tuple[Recipe, Asking]:
    """`recipe` with the captioner that `asking` wants, after the servers were asked whether they can do it.

    Raises ValueError, before any video is decoded, for what would fail at the end of the run.
    """
    recipe = asking.applied(recipe)
    if not isinstance(recipe.captioner, Captions):
        return recipe, asking
    if not asking.servers:
        raise ValueError(
            f"recipe {recipe.name} has captions written by a model; say where it is served with --captioner URL."
        )
    captions = check_servers(asking.servers, recipe.captioner, asking.tags)
    models = tuple(m for m in captions.models if m) if not asking.models else asking.models
    return dataclasses.replace(recipe, captioner=captions), dataclasses.replace(asking, models=models)


def caption(
    store: Store, recipe: Recipe, asking: Asking, dask: Client, board: Board, again: bool = False
) -> tuple[dict[str, Any], str]:
    """Captions the kept clips of a finished run, and writes manifest, run.json and report anew.

    again: clips that came to no caption are asked about once more. Returns what it took, and where servers went away
    for good a few words on what is left to do; what was captioned by then is kept.
    """
    assert isinstance(recipe.captioner, Captions)
    watch = Stopwatch()
    done = caption_kept(store, recipe.captioner, asking.servers, asking.patience, dask, board, again)
    write_captions(store, recipe.captioner)
    made = store.read_json("run.json")
    took = {"captioned": done.captioned, "unfit": done.unfit, "left": done.left, **dataclasses.asdict(done.usage)}
    made["captions"] = took
    made["captioner"] = asking.noted()
    made["seconds"]["caption"] = watch.seconds
    store.write_json("run.json", made)
    write_report(store, store.read_table("clips.parquet"), store.read_table("videos.parquet"), recipe, made)
    why = f"{done.left} clips are not captioned yet ({done.why.rstrip('.')}); the same command goes on with them"
    return took, why if done.left else ""


def prepare(out: str | os.PathLike[str]) -> Store:
    """The output folder, made if need be. Raises ValueError when it cannot be written, or is of another format."""
    store = Store(out)
    if store.local and Path(store.path).exists() and not Path(store.path).is_dir():
        raise ValueError(f"--out {out}: that is a file; name a folder.")
    check_format(store)
    try:
        store.write_bytes(".writable", b"")
        store.fs.rm_file(store.full(".writable"))
    except OSError as error:
        raise ValueError(
            f"--out {out}: cannot be written ({error.strerror or error}); choose another folder."
        ) from None
    return store


def check_format(store: Store) -> None:
    if not store.exists("run.json"):
        return
    try:
        made = store.read_json("run.json")
        version = made.get("format")
    except (ValueError, AttributeError):
        version = "unreadable"
    if version != FORMAT:
        made = f"was made by an incompatible version (format {version}, this is {FORMAT})"
        raise ValueError(f"{store.root}: {made}; use another --out.")


@contextlib.contextmanager
def _alone(store: Store) -> Iterator[None]:
    """Two runs in one folder would undo each other's tables; the lock goes with the process, however it ends."""
    if fcntl is None or not store.local:
        yield
        return
    with Path(store.full(".lock")).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ValueError(f"{store.root}: another run is at work here; wait for it or use another --out.") from None
        yield


def _clean(store: Store, recipe: Recipe) -> None:
    """Removes what a killed run left half written."""
    store.clean()
    for stage in (recipe.scan_stage, recipe.measure_stage):
        for family in ("clips", "packs", "shots", "videos", "receipts"):
            store.clean(f"stages/{stage}/{family}")


def identify_all(driver: Driver, store: Store, uris: Sequence[str], board: Board) -> list[Video]:
    """Every input with its id, in the order of `uris`. Ids of files that have not changed are remembered."""
    known = _known(store)
    keys = {uri: changed_key(uri) for uri in uris}
    found = {uri: known[key] for uri, key in keys.items() if key in known}
    left = [uri for uri in uris if uri not in found]
    board.stage("identify", len(uris), "videos", done=len(found))
    for videos in driver.identify(left):
        found |= {v.uri: v for v in videos}
        board.advance("identify", len(videos))
    remembered = [
        (keys[uri], (v.uri, v.bytes, v.id, v.error))
        for uri, v in sorted(found.items())
        if keys[uri] and v.id is not None
    ]
    store.write_json(IDS, remembered)
    return [found[uri] for uri in uris]


def plan(job: Job, store: Store, videos: Sequence[Video]) -> tuple[list[Part], list[Work]]:
    """All parts of a run, and for each that is not whole what is left to do."""
    scanned = receipts(store, job.recipe.scan_stage)
    parts = group(videos, job.recipe.parts, {name: r.videos for name, r in scanned.items()})
    work = []
    for part in parts:
        scan = part.name not in scanned
        measure = bool(job.recipe.costly) and (scan or not costly.complete(job, store, part.name))
        if scan or measure:
            work.append(Work(part, scan, measure))
    return parts, work


def plan_run(sources: Sequence[str], out: str | os.PathLike[str], recipe: Recipe) -> Iterator[str]:
    """Lines of text: what a run would do, and what of it is done. Writes nothing, and downloads nothing."""
    uris = list_videos(sources)
    store = Store(out)
    check_format(store)
    known = _known(store)
    videos = [_remembered(known, uri) or identify([uri])[0] for uri in uris]
    fresh, repeats = distinct(videos)
    parts, work = plan(Job(store.root, recipe), store, fresh)
    unreadable = sum(v.error is not None for v in videos)
    yield f"{len(uris)} inputs: {len(fresh)} to use, {len(repeats)} byte-identical to another, {unreadable} unreadable"
    yield f"{'stage':<10}{'parts':>7}{'done':>7}{'left':>7}  {'needs of a worker':<34}writes"
    scans, measures = sum(w.scan for w in work), sum(w.measure for w in work)
    rows = [
        ("scan", len(parts), scans, "1 core, 1 GiB, reads the videos", f"stages/{recipe.scan_stage}"),
        ("measure", len(parts), measures, "1 core, 1 GiB, reads frame packs", f"stages/{recipe.measure_stage}"),
        ("decide", 1, 1, "runs where the command does", "clips.parquet, report.html"),
    ]
    for stage, total, left, needs, writes in rows:
        yield f"{stage:<10}{total:>7}{total - left:>7}{left:>7}  {needs:<34}{writes}"
    with without_downloads():
        for signal, reason in unready(recipe):
            yield f"{signal} lacks something here, a download perhaps: {reason}"


def finish(
    job: Job,
    store: Store,
    parts: Sequence[Part],
    videos: Sequence[Video],
    repeats: dict[str, str],
    seconds: dict[str, float],
    origin: dict[str, Any],
) -> Result:
    """Decides, and writes the tables that users read, run.json and the report."""
    watch = Stopwatch()
    inputs = assemble.write_inputs(job, store, parts, videos, repeats)
    status = Counter(inputs["status"].to_pylist())
    counts = {
        "videos": inputs.num_rows,
        "quarantined": status["quarantined"],
        "duplicates": status["duplicate"],
        **assemble.write_clips(job, store, parts),
    }
    result = Result(store.root, inputs, counts, seconds)
    seconds["decide and write"] = watch.seconds
    made = {
        "format": FORMAT,
        **origin,
        "measure_all": job.measure_all,
        "stages": {"scan": job.recipe.scan_stage, "measure": job.recipe.measure_stage},
        "counts": result.counts,
        "seconds": seconds,
        "finished": time.strftime("%Y-%m-%d %H:%M:%S"),
        "versions": {name: _version(name) for name in PACKAGES},
    }
    store.write_json("run.json", made)
    write_report(store, result.clips, result.videos, job.recipe, made)
    return result


def _known(store: Store) -> dict[tuple[Any, ...] | None, Video]:
    """Inputs that an earlier run identified, by path, size and time of change."""
    return {tuple(k): Video(*v) for k, v in store.read_json(IDS)} if store.exists(IDS) else {}


def _remembered(known: dict[tuple[Any, ...] | None, Video], uri: str) -> Video | None:
    key = changed_key(uri)
    return known.get(key) if key else None


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None

"""`vidcurate check`: captions held against the frames of their clips."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import pyarrow as pa
import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from captioners.checks import counts_of
from captioners.client import Patience
from captioners.dsg import DSG
from captioners.hallucination import Estimate, Summary, difference, summarise
from captioners.mentions import one_line
from curation.checking import texts
from curation.checking.stage import Check, Run, check
from curation.folder import Folder
from manifests import families

_WIDTH = 120


def check_command(
    folder: Annotated[Path, typer.Argument(help="Folder that `vidcurate run --out` wrote.")],
    server: Annotated[
        list[str] | None,
        typer.Option("--server", "--captioner", help="Address of a server; repeatable. The captioner's if none."),
    ] = None,
    model: Annotated[str, typer.Option("--model", help="That looks at frames; the served one if there is one.")] = "",
    reader: Annotated[str, typer.Option("--reader", help="That reads captions and repairs them; the same.")] = "",
    compare: Annotated[
        tuple[str, str] | None,
        typer.Option(
            "--compare", metavar="A B", help="Two captioners: columns, tables, folders, or models that captioned."
        ),
    ] = None,
    repair: Annotated[bool, typer.Option("--repair", help="Rewrite captions without hallucinated objects.")] = False,
    count: Annotated[int, typer.Option("--count", min=0, help="So many captions, drawn evenly; 0: all.")] = 0,
    which: Annotated[str, typer.Option("--which", help="kept or sampled.")] = "kept",
    frames: Annotated[int, typer.Option("--frames", min=1, help="Frames of a clip to look at.")] = 8,
    at_once: Annotated[
        int, typer.Option("--frames-per-request", min=0, help="Shown at once; 0: as many as the model takes.")
    ] = 0,
    objects_only: Annotated[bool, typer.Option("--objects-only", help="Ask nothing about real objects.")] = False,
    again: Annotated[bool, typer.Option("--again", help="Ask anew where there was no usable answer.")] = False,
    concurrency: Annotated[int, typer.Option("--concurrency", min=1, help="Questions under way at once.")] = 16,
    workers: Annotated[int | None, typer.Option("--workers", min=1, help="Processes to send requests from.")] = None,
    scheduler: Annotated[str | None, typer.Option("--scheduler", help="Of Dask workers to send them from.")] = None,
) -> None:
    """Measure how much captions make up (DSG-Video): objects that are named and seen in no frame.

    Results stand in the columns dsg_* and, with --repair, caption_repaired, which then takes the caption's place in
    training. A second call goes on where the first stopped, and asks nothing twice.

    Examples:

      vidcurate check out --server http://localhost:8000 --repair

      vidcurate check out --server http://localhost:8000 --count 100 --compare caption_raw other-captions.jsonl
    """
    if compare and repair:
        raise ValueError("--compare measures two captioners as they are; repair in a call of its own.")
    opened = Folder(folder)
    servers = tuple(server or opened.asking.servers)
    if not servers:
        raise ValueError("checking captions asks a model: name its server, e.g. --server http://localhost:8000.")
    settings = DSG(frames, at_once, not objects_only, model=model, reader=reader)
    how = Check(servers, settings, repair, again, Patience(concurrency=concurrency))
    run = Run(workers, scheduler)
    if compare:
        _compare(opened, compare, how, run, which, count)
        return
    wanted = texts.some(texts.captions(opened, which), count)
    if not wanted.num_rows:
        raise ValueError(f"{folder}: no {which} clip has a caption; run `vidcurate caption` first.")
    found = _checked(opened, wanted, how, run, "captions")
    families.update(opened.store, families.CHECKED, found)
    opened.judge()
    table = _table()
    _row(table, "as written", found, "dsg_")
    if repair:
        _row(table, "repaired", found, "dsg_final_")
    _console().print(table)
    _troubles(found)


def _compare(folder: Folder, names: tuple[str, str], how: Check, run: Run, which: str, count: int) -> None:
    first, second = (texts.named(folder, name, which) for name in names)
    shared = texts.among(first, second)
    same = shared.num_rows > 0
    if same:
        first = texts.some(shared, count)
        second = texts.among(second, first)
    else:
        first, second = texts.some(first, count), texts.some(second, count)
    table, measured = _table(), []
    for name, some in zip(names, (first, second), strict=True):
        found = _checked(folder, some, how, run, name)
        _row(table, name, found, "dsg_")
        _troubles(found)
        measured.append(found)
    _console().print(table)
    if not same:
        print("The captioners share no clip, so the figures are of different clips.")
        return
    a, b = (found.filter(found["dsg_sentences"].is_valid()) for found in measured)
    a, b = texts.among(a, b), texts.among(b, a)
    of_i, of_s = difference(counts_of(a.sort_by("clip_id")), counts_of(b.sort_by("clip_id")))
    print(f"{names[1]} less {names[0]}, over {a.num_rows} clips of both: _i {_points(of_i)}, _s {_points(of_s)} points")


def _checked(folder: Folder, wanted: pa.Table, how: Check, run: Run, what: str) -> pa.Table:
    with Progress(transient=True, disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task(one_line(what), total=wanted.num_rows)
        return check(folder, wanted, how, run, lambda clips: progress.advance(task, clips))


def _table() -> Table:
    table = Table(title="DSG-Video, in per cent, with 95 % intervals")
    for name in ("captioner", "captions", "total objects", "per caption", "DSG-Video_i", "DSG-Video_s", "not checked"):
        table.add_column(name, justify="left" if name == "captioner" else "right", overflow="fold")
    return table


def _row(table: Table, name: str, found: pa.Table, prefix: str) -> None:
    summary: Summary = summarise(counts_of(found, prefix))
    table.add_row(
        Text(one_line(name)),
        f"{summary.captions:,}",
        f"{summary.counts.named:,}",
        f"{summary.richness:.1f}",
        _share(summary.i),
        _share(summary.s),
        f"{found.num_rows - summary.captions:,}",
    )


def _share(of: Estimate) -> str:
    if of.value is None or of.low is None or of.high is None:
        return "-"
    return f"{100 * of.value:.1f} ({100 * of.low:.1f} to {100 * of.high:.1f})"


def _points(of: Estimate) -> str:
    if of.value is None or of.low is None or of.high is None:
        return "-"
    return f"{100 * of.value:+.1f} ({100 * of.low:+.1f} to {100 * of.high:+.1f})"


def _troubles(found: pa.Table) -> None:
    """A reason for want of a result, and how many there are."""
    for column, what in (("dsg_error", "not checked"), ("dsg_repair_error", "not repaired")):
        reasons = [reason for reason in found[column].to_pylist() if reason]
        if reasons:
            print(f"{len(reasons)} {what}, e.g.: {one_line(reasons[0])}", file=sys.stderr)


def _console() -> Console:
    console = Console()
    return Console(width=_WIDTH) if console.width < _WIDTH and not console.is_terminal else console

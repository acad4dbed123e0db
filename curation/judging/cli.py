"""`vidcurate sample`, `compare` and `votes`: videos for a set of prompts, a blind page to judge them, the verdict."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from curation.judging.page import AXES, write_compare
from curation.judging.prompts import OURS, read_prompts, spread
from curation.judging.samples import Pair, draw, pairs
from curation.judging.votes import Count, count, read_key
from manifests.ids import luck

_NAMED = 10


def sample(
    checkpoint: Annotated[Path, typer.Argument(help="Folder that `vidcurate train --out` wrote.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for the videos; what is there is not made again.")],
    prompts: Annotated[Path, typer.Option("--prompts", help="Table of concept, motion, prompt; ours of 105.")] = OURS,
    number: Annotated[int, typer.Option("--count", min=1, help="How many, from all groups alike.")] = 1 << 30,
    steps: Annotated[int, typer.Option("--steps", min=1, help="Sampler steps.")] = 50,
    guidance: Annotated[float | None, typer.Option("--guidance", help="Scale; the recipe's by default.")] = None,
    seed: Annotated[int, typer.Option("--seed", help="Of the noise; the same for models to compare.")] = 0,
) -> None:
    """Sample a video for each prompt of a tagged set: five groups of concepts, three levels of motion.

    Example: vidcurate sample out/train --out samples/mine --count 30
    """
    chosen = spread(read_prompts(prompts), number)
    with Progress(transient=True, disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task("samples", total=len(chosen))
        draw(checkpoint, chosen, out, steps, guidance, seed, lambda: progress.advance(task))
    print(f"{len(chosen)} videos in {out}")


def compare(
    a: Annotated[Path, typer.Argument(help="Folder of videos.")],
    b: Annotated[Path, typer.Argument(help="Another, with files of the same names.")],
    out: Annotated[Path, typer.Option("--out", help="The page to write.")] = Path("compare.html"),
    number: Annotated[int, typer.Option("--count", min=1, help="Most pairs.")] = 1 << 30,
    axes: Annotated[str, typer.Option("--axes", help=f"Some of {', '.join(x.name for x in AXES)}, by commas.")] = "",
    short: Annotated[
        int, typer.Option("--short", min=0, help="Largest short side of the pictures; 0: no limit.")
    ] = 480,
    seed: Annotated[int, typer.Option("--seed", help="Of the choice and of the sides.")] = 0,
) -> None:
    """Write a page on which people vote between two models without knowing which is which.

    One file with the videos in it, to be opened in any browser, also without a network. Beside it stands its key, which
    you keep. Each pair wants three voters, six for realness and aesthetics.

    Example: vidcurate compare samples/mine samples/theirs --out compare.html
    """
    known = {axis.name: axis for axis in AXES}
    names = [name.strip() for name in axes.split(",") if name.strip()] or list(known)
    if unknown := [name for name in names if name not in known]:
        raise ValueError(f"--axes: there is no {unknown[0]!r}; choose from {', '.join(known)}.")
    found, alone = pairs(a, b)
    found = _some(found, number, seed)
    with Progress(transient=True, disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task("pairs", total=len(found))
        made = write_compare(a, b, found, out, [known[n] for n in names], short, seed, lambda: progress.advance(task))
    print(
        f"page      {made.page}  ({made.pairs} pairs; hand it to at least {max(known[n].voters for n in names)} people)"
    )
    print(f"key       {made.key}  (keep it: it tells which is which)")
    print(f"then      vidcurate votes VOTES.csv ... --key {made.key}")
    if made.unread:
        print(f"{len(made.unread)} pairs could not be read: {', '.join(made.unread[:_NAMED])}", file=sys.stderr)
    if alone:
        print(f"{len(alone)} videos are in one folder only: {', '.join(alone[:_NAMED])}", file=sys.stderr)


def _some(found: list[Pair], number: int, seed: int) -> list[Pair]:
    ranked = sorted(zip(luck([pair.name for pair in found], seed + 1), range(len(found)), strict=True))
    return [found[k] for _, k in sorted(ranked[:number], key=lambda one: one[1])]


def votes(
    files: Annotated[list[Path], typer.Argument(help="Tables of votes that the page saved.")],
    key: Annotated[Path, typer.Option("--key", help="The key beside the page.")],
    out: Annotated[Path | None, typer.Option("--out", help="JSON file to write, too.")] = None,
    complete: Annotated[bool, typer.Option("--complete", help="Only pairs with as many voters as wanted.")] = False,
) -> None:
    """Count votes: win rates of the first folder over the second, with 95 % intervals, by axis, concept and motion.

    Example: vidcurate votes votes-*.csv --key compare.key.json
    """
    found = count(files, read_key(key), complete)
    console = Console()
    console.print(_table(found))
    said = ", ".join(f"{name} {number}" for name, number in sorted(found.voters.items()))
    console.print(f"votes: {said}", highlight=False, markup=False)
    for problem in found.problems[:_NAMED]:
        print(f"left out: {problem}", file=sys.stderr)
    if len(found.problems) > _NAMED:
        print(f"left out: {len(found.problems) - _NAMED} more lines like these", file=sys.stderr)
    if out:
        out.write_text(json.dumps(dataclasses.asdict(found), indent=1, ensure_ascii=False) + "\n")
        print(f"table     {out}")


def _table(found: Count) -> Table:
    title = Text(f"A {found.a} against B {found.b}")
    made = Table(
        "axis", "pairs", "A wins", "B wins", "ties", "net win rate of A", "95 % interval", "complete", title=title
    )
    for r in found.rates:
        name = Text(r.axis if not r.kind else f"  {r.kind}", style="" if r.kind else "bold")
        interval = f"{100 * r.low:+.1f} .. {100 * r.high:+.1f} %"
        complete = f"{r.complete} of {r.pairs} ({found.needed[r.axis]} voters)"
        made.add_row(
            name, str(r.pairs), str(r.wins), str(r.losses), str(r.ties), f"{100 * r.net:+.1f} %", interval, complete
        )
    return made

"""`vidcurate review`: clips to people, and their decisions back."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import Progress

from curation.folder import Folder
from curation.review.choose import choose
from curation.review.decisions import apply

_NAMED = 20


def review(
    folder: Annotated[Path, typer.Argument(help="Folder that `vidcurate run --out` wrote.")],
    count: Annotated[int, typer.Option("--count", min=1, help="How many clips to hand out.")] = 50,
    subset: Annotated[str, typer.Option("--subset", help="Only clips of this subset.")] = "",
    by: Annotated[str, typer.Option("--by", help="Column of which every value has its share.")] = "concept",
    seed: Annotated[int, typer.Option("--seed", help="Of the choice.")] = 0,
    again: Annotated[bool, typer.Option("--again", help="Clips that were reviewed before, too.")] = False,
    to: Annotated[Path | None, typer.Option("--to", help="Folder for page and table; DIR/review by default.")] = None,
    decisions: Annotated[Path | None, typer.Option("--apply", help="Table of decisions to take back.")] = None,
    who: Annotated[str, typer.Option("--by-whom", help="With --apply: who decided, where the table is silent.")] = "",
) -> None:
    """Hand a balanced choice of kept clips to people, and take their decisions back.

    Writes a page to open in a browser and the same as a table with a folder of previews: keep or reject, the part worth
    keeping, a corrected caption. Decisions stand in the columns `review*` of the manifest from then on: what was
    rejected fails the rule `review`, training uses the part and the caption, and later runs do not forget them.

    Examples:

      vidcurate review out --count 100 --subset sft

      vidcurate review out --apply ~/Downloads/decisions.csv
    """
    opened = Folder(folder)
    if decisions is not None:
        _take(opened, decisions, who)
        return
    from curation.review.page import hand_out

    rows = choose(opened, count, subset, by, seed, again)
    with Progress(transient=True, disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task("previews", total=len(rows))
        handed = hand_out(opened.store, rows, to or folder / "review", by, lambda: progress.advance(task))
    print(f"page      {handed.page}" + ("" if handed.embedded else " (shows the videos in previews/ beside it)"))
    print(f"table     {handed.table}")
    print(f"{handed.clips} clips; then: vidcurate review {folder} --apply decisions.csv")
    if handed.missing:
        print(f"{handed.missing} films could not be read; their clips are shown by a few frames.", file=sys.stderr)


def _take(folder: Folder, decisions: Path, who: str) -> None:
    taken = apply(folder.store, decisions, who)
    for problem in taken.problems[:_NAMED]:
        print(f"left out: {problem}", file=sys.stderr)
    if len(taken.problems) > _NAMED:
        print(f"left out: {len(taken.problems) - _NAMED} more lines like these", file=sys.stderr)
    if not taken.applied:
        print(f"vidcurate: {decisions}: no line of it could be used.", file=sys.stderr)
        raise typer.Exit(1)
    result = folder.judge()
    print(f"{taken.applied} decisions taken: {taken.kept} keep, {taken.applied - taken.kept} reject")
    print(", ".join(f"{n} {name}" for name, n in result.counts.items()))

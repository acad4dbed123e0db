"""`vidcurate similar` and `retrieve`: the clips that are like others, or like words."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from curation.folder import Folder
from curation.similar import Neighbour, similar_to_clip, similar_to_text
from manifests.media.container import base_name

Dir = Annotated[Path, typer.Argument(help="Folder that `vidcurate run --out` wrote.")]

_WIDTH = 140
_ENTRIES = 30


def similar(
    folder: Dir,
    clip: Annotated[str | None, typer.Argument(help="A clip_id, or the beginning of one.")] = None,
    text: Annotated[str | None, typer.Option("--text", help="Words in place of a clip; needs CLIP embeddings.")] = None,
    count: Annotated[int, typer.Option("--count", min=1, help="How many to show.")] = 10,
    html: Annotated[Path | None, typer.Option("--html", help="A page with thumbnails to write.")] = None,
) -> None:
    """Show the clips that are most like one, or fit a text best: rejected ones and copies too.

    Compares CLIP embeddings where the recipe measures them, else the embedded descriptors of looks.

    Examples:

      vidcurate similar out 3f2a

      vidcurate similar out --text "a person pouring coffee" --count 20 --html found.html
    """
    if (clip is None) == (text is None):
        raise ValueError("give a CLIP_ID, or --text with words: one of the two.")
    opened = Folder(folder)
    found = similar_to_text(opened, text, count) if text is not None else similar_to_clip(opened, clip or "", count)
    _print(found)
    if html:
        from curation.report.neighbours import write_neighbours

        asked = None if clip is None else opened.clip(clip).to_pylist()[0]
        write_neighbours(opened.store, html, text or "", asked, found)
        print(f"page      {html}")


def _print(found: list[Neighbour]) -> None:
    table = Table("similarity", "clip", "film", "from", "to", "verdict", "caption")
    for each in found:
        row = each.row
        verdict = "sampled" if row["sampled"] else "kept" if row["kept"] else ", ".join(row["failed_rules"])
        span = [f"{row[name] / 1e6:.2f} s" for name in ("start_us", "end_us")]
        words = [row["clip_id"], base_name(row["uri"]), *span, verdict, row["caption"] or ""]
        table.add_row(f"{each.similarity:.3f}", *(Text(word, overflow="fold") for word in words))
    console = Console()
    if console.width < _WIDTH and not console.is_terminal:
        console = Console(width=_WIDTH)
    console.print(table)


def retrieve(
    folder: Dir,
    taxonomy: Annotated[str, typer.Option("--taxonomy", help="File of entries, one a line; ours of 600 if none.")] = "",
    seeds: Annotated[Path | None, typer.Option("--seeds", help="CSV (entry, clip_id) of seeds that you chose.")] = None,
    reviewed: Annotated[
        bool, typer.Option("--reviewed", help="Take seeds only from clips that a person kept in review.")
    ] = False,
    finds: Annotated[int, typer.Option("--finds", min=1, help="Clips that an entry's seeds find.")] = 100,
    least: Annotated[float, typer.Option("--least", min=-1, max=1, help="Cosine below which a clip is no find.")] = 0.0,
    count: Annotated[
        int, typer.Option("--count", min=0, help="Size of the balanced set; 0: as large as keeps it level.")
    ] = 0,
) -> None:
    """Search the kept clips for every entry of a taxonomy, and mark a set in which each has its share.

    Words find clips, the best-looking of these (or those that people kept) find their like. Needs CLIP embeddings,
    unless you bring seeds. Columns: retrieved_for, retrieved_as (the balanced set), retrieved_similarity.

    Examples:

      vidcurate retrieve out --count 10000

      vidcurate retrieve out --seeds picked.csv --finds 50
    """
    from curation.retrieve import Retrieval, read_picked
    from curation.retrieve import retrieve as search

    opened = Folder(folder)
    settings = Retrieval(taxonomy, finds=finds, least=least, count=count, reviewed=reviewed)
    done = search(opened, settings, read_picked(seeds) if seeds else ())
    opened.judge()
    table = Table("entry", "clips", title="The balanced set, by entry")
    shown = sorted(done.entries, key=lambda named: -named[1])
    for name, number in shown[:_ENTRIES]:
        table.add_row(Text(name), str(number))
    console = Console()
    console.print(table)
    if len(shown) > _ENTRIES:
        console.print(f"and {len(shown) - _ENTRIES} more entries", highlight=False)
    console.print(f"{done.found} clips found, {done.taken} in the balanced set", highlight=False)

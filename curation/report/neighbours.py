"""A page of the clips that a search found."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curation.report import pictures
from curation.report.rendering import environment
from manifests.store import Store

if TYPE_CHECKING:
    from curation.similar import Neighbour


def write_neighbours(
    store: Store, path: Path, text: str, asked: dict[str, Any] | None, found: Sequence[Neighbour]
) -> None:
    """Writes a self-contained page: what was asked (a text, or the clip's row), and the finds, nearest first."""
    rows = [*([asked] if asked else []), *(each.row for each in found)]
    page = environment().get_template("neighbours.html.j2")
    html = page.render(text=text, asked=asked, found=found, strips=pictures.strips(store, rows))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(html)

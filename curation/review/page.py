"""The page and the table in which people mark clips. All text is escaped, and the page runs its own script alone."""

from __future__ import annotations

import base64
import csv
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader

from curation.review.decisions import COLUMNS, guarded
from curation.review.previews import Preview, make_previews
from manifests.ids import part_id
from manifests.media.container import base_name
from manifests.store import Store

PAGE, TABLE, PREVIEWS = "review.html", "review.csv", "previews"
LARGEST = 64 << 20
"""Bytes of video up to which the page carries them itself; beyond, it shows those of the folder beside it."""


@dataclass(frozen=True, slots=True)
class Handed:
    """What was written. missing: clips whose film could not be read, shown by a few frames."""

    page: Path
    table: Path
    clips: int
    embedded: bool
    missing: int


def hand_out(
    store: Store, rows: Sequence[dict[str, Any]], to: Path, by: str, tick: Callable[[], None] = lambda: None
) -> Handed:
    """Writes review.html, review.csv and previews/ for these clips (see `choose`). by: the column that groups them."""
    previews = make_previews(store, rows, to / PREVIEWS, tick)
    videos = [p.video for p in previews.values() if p.video]
    embed = sum(video.stat().st_size for video in videos) <= LARGEST
    clips = [_shown(row, previews[row["clip_id"]], by, embed) for row in rows]
    environment = Environment(loader=PackageLoader("curation.review"), autoescape=True, trim_blocks=True)
    assert environment.loader is not None
    script = environment.loader.get_source(environment, "review.js")[0]
    page = environment.get_template("review.html.j2").render(
        clips=clips,
        script=script,
        digest=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        settings={"columns": COLUMNS, "batch": part_id(row["clip_id"] for row in rows)},
    )
    (to / PAGE).write_text(page)
    _write_table(to / TABLE, rows, previews, by)
    return Handed(to / PAGE, to / TABLE, len(rows), embed, len(rows) - len(videos))


def _shown(row: dict[str, Any], preview: Preview, by: str, embed: bool) -> dict[str, Any]:
    linked = f"{PREVIEWS}/{preview.video.name}" if preview.video else ""
    return {
        "id": row["clip_id"],
        "film": base_name(row["uri"]),
        "from": row["start_us"] / 1e6,
        "seconds": row["duration_s"],
        "caption": row["caption"] or "",
        "kind": f"{by} {row[by]}" if row[by] is not None else "",
        "video": preview.embedded() if embed else linked,
        "frames": preview.frames,
        "thumb": preview.thumb,
    }


def _write_table(path: Path, rows: Sequence[dict[str, Any]], previews: dict[str, Preview], by: str) -> None:
    """A line per clip with an empty decision. What stands behind the last of COLUMNS helps people and is not read."""
    with path.open("w", newline="", encoding="utf-8-sig") as file:  # the mark makes spreadsheets read UTF-8
        lines = csv.writer(file)
        lines.writerow([*COLUMNS, "preview", "film", "from_s", "duration_s", by])
        for row in rows:
            video = previews[row["clip_id"]].video
            help_ = [f"{PREVIEWS}/{video.name}" if video else "", guarded(base_name(row["uri"]))]
            kind = "" if row[by] is None else guarded(str(row[by]))
            help_ += [f"{row['start_us'] / 1e6:.3f}", f"{row['duration_s']:.3f}", kind]
            lines.writerow([row["clip_id"], "", "", "", guarded(row["caption"] or ""), "", "", *help_])

"""Puts the report together: numbers and pictures into one self-contained HTML file. All text is escaped."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from jinja2 import Environment, PackageLoader

from curation.recipe import Recipe
from curation.report import numbers, pictures
from manifests.media.container import base_name
from manifests.store import Store

SHEET = 24
PER_REASON = 8
GROUPS = 12
_COLUMNS = (
    "clip_id", "uri", "start_us", "end_us", "duration_s", "width", "height", "pack", "failed_rules", "kept", "sampled",
    "copy_group", "copy_of", "copy_similarity", "caption", "concept", "camera_motion", "motion_flow",
)  # fmt: skip


def write_report(store: Store, clips: pa.Table, videos: pa.Table, recipe: Recipe, run: dict[str, Any]) -> str:
    """Writes report.html and returns its path."""
    rows = pictures.rows_of(clips, _COLUMNS)
    kept = [r for r in rows if r["kept"]]
    by_rule: dict[str, list[pictures.Row]] = defaultdict(list)
    for row in rows:
        for name in row["failed_rules"]:
            by_rule[name].append(row)
    steps = numbers.funnel(clips, recipe)
    sheets = [("kept", len(kept), pictures.pick(kept, SHEET))]
    sheets += [
        (s.name, len(by_rule[s.name]), pictures.pick(by_rule[s.name], PER_REASON)) for s in steps if by_rule[s.name]
    ]
    copies = _copy_groups(rows)
    shown = [row for _, _, some in sheets for row in some] + [row for group in copies[:GROUPS] for row in group]
    page = _environment().get_template("report.html.j2")
    html = page.render(
        run=run,
        recipe=recipe,
        steps=steps,
        total=clips.num_rows,
        corpus=numbers.corpus(clips),
        histograms=numbers.histograms(clips, recipe.rules),
        cameras=numbers.counts(clips["camera_motion"]) if "camera_motion" in clips.column_names else [],
        tags=numbers.counts(pc.list_flatten(clips["tags"])),
        concepts=numbers.counts(clips["concept"]),
        sheets=sheets,
        copies=copies[:GROUPS],
        copy_groups=len(copies),
        strips=pictures.strips(store, shown),
        troubled=[v for v in videos.to_pylist() if v["status"] != "ok"],
    )
    store.write_bytes("report.html", html.encode())
    return store.full("report.html")


def _copy_groups(rows: list[pictures.Row]) -> list[list[pictures.Row]]:
    """Groups of copies, the largest first, the kept clip of each in front."""
    groups: dict[str, list[pictures.Row]] = defaultdict(list)
    for row in rows:
        if row["copy_group"]:
            groups[row["copy_group"]].append(row)
    ordered = sorted(groups.values(), key=lambda g: (-len(g), g[0]["clip_id"]))
    return [sorted(group, key=lambda r: r["copy_of"] is not None) for group in ordered]


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("curation.report"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["name"] = base_name
    environment.filters["clock"] = lambda us: (
        f"{us / 6e7:.0f}:{us / 1e6 % 60:04.1f}" if us >= 6e7 else f"{us / 1e6:.1f} s"
    )
    environment.filters["short"] = lambda v: f"{v:.3g}"
    return environment

"""Puts the report together: numbers and pictures into one self-contained HTML file. All text is escaped."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curation.recipe import Recipe
from curation.report import checked, corpus, numbers, pictures
from curation.report.pictures import Row, Rows
from curation.report.rendering import environment
from curation.report.training import read_training
from manifests.store import Store

SHEET = 24
PER_REASON = 8
GROUPS = 12
PER_GROUP = 6
CONCEPTS = 12
PER_CONCEPT = 8
CONCEPT_NAMES = "concepts.json"
"""Optional file in an output folder: an object from a clip's id to the name of the concept that it is in. Numbers of
concepts change when clips are judged anew; ids do not."""
TRAINING = "train"
"""Where `end-to-end` trains; what is there is shown, too."""
_COLUMNS = (
    "clip_id", "uri", "start_us", "end_us", "duration_s", "width", "height", "pack", "failed_rules", "kept", "sampled",
    "copy_group", "copy_of", "copy_similarity", "caption", "concept", "camera_motion", "motion_flow",
)  # fmt: skip


def write_report(
    store: Store,
    clips: pa.Table,
    videos: pa.Table,
    recipe: Recipe,
    run: dict[str, Any],
    concept_names: Mapping[int, str] | None = None,
) -> str:
    """Writes report.html and returns its path. concept_names: for want of them, those in CONCEPT_NAMES, if any."""
    names = _concept_names(store, clips) if concept_names is None else concept_names
    rows = Rows(clips, _COLUMNS)
    steps = numbers.funnel(clips, recipe)
    kept = np.flatnonzero(np.asarray(clips["kept"]))
    sheets = [("kept", len(kept), rows.some(kept, SHEET))]
    for step in steps:
        if step.alone:
            failing = numbers.rows_with(clips["failed_rules"], step.name)
            sheets.append((step.name, len(failing), rows.some(failing, PER_REASON)))
    copies = _copy_groups(clips, rows)
    concepts = _concepts(clips, rows, names)
    shown = [row for _, _, some in sheets for row in some] + [row for group, _ in copies for row in group]
    page = environment().get_template("report.html.j2")
    html = page.render(
        run=run,
        recipe=recipe,
        steps=steps,
        total=clips.num_rows,
        corpus=corpus.corpus(clips),
        films=corpus.films(videos),
        breakdowns=corpus.breakdowns(clips, names),
        matrix=corpus.matrix(clips, recipe.buckets),
        histograms=numbers.histograms(clips, recipe.rules),
        cameras=numbers.counts(clips["camera_motion"]) if "camera_motion" in clips.column_names else [],
        tags=numbers.counts(pc.list_flatten(clips["tags"])),
        checked=checked.checked(clips),
        training=read_training(Path(store.full(TRAINING))) if store.local else None,
        concepts=concepts,
        concept_count=pc.count_distinct(clips["concept"]).as_py(),
        thumbs=pictures.strips(store, [row for _, _, some in concepts for row in some], frames=1),
        sheets=sheets,
        copies=copies,
        copy_groups=pc.count_distinct(clips["copy_group"]).as_py(),
        strips=pictures.strips(store, shown),
        troubled=videos.filter(pc.not_equal(videos["status"], "ok")).to_pylist(),
    )
    store.write_bytes("report.html", html.encode())
    return store.full("report.html")


def _concept_names(store: Store, clips: pa.Table) -> dict[int, str]:
    if not store.exists(CONCEPT_NAMES):
        return {}
    try:
        names = {str(clip): str(name) for clip, name in store.read_json(CONCEPT_NAMES).items()}
    except (ValueError, AttributeError):
        raise ValueError(f'{store.full(CONCEPT_NAMES)}: write names as {{"a clip_id": "a name"}}.') from None
    named = clips.filter(pc.is_in(clips["clip_id"], value_set=pa.array(names, pa.string())))
    pairs = zip(named["concept"].to_pylist(), named["clip_id"].to_pylist(), strict=True)
    return {concept: names[clip] for concept, clip in pairs if concept is not None}


def _concepts(clips: pa.Table, rows: Rows, names: Mapping[int, str]) -> list[tuple[str, int, list[Row]]]:
    """The largest concepts: name, number of kept clips, some of them."""
    made = []
    sizes = sorted((-count, int(number)) for number, count in numbers.counts(clips["concept"]))
    for size, number in sizes[:CONCEPTS]:
        members = np.flatnonzero(np.asarray(pc.fill_null(pc.equal(clips["concept"], number), False)))
        made.append((names.get(number, f"concept {number}"), -size, rows.some(members, PER_CONCEPT)))
    return made


def _copy_groups(clips: pa.Table, rows: Rows) -> list[tuple[list[Row], int]]:
    """The largest groups of copies, the kept clip of each in front, and how many each has."""
    groups = sorted(numbers.counts(clips["copy_group"]), key=lambda named: (-named[1], named[0]))[:GROUPS]
    made = []
    for group, count in groups:
        members = np.flatnonzero(np.asarray(pc.fill_null(pc.equal(clips["copy_group"], group), False)))
        copies = np.asarray(pc.is_valid(clips["copy_of"].take(pa.array(members))))
        made.append((rows.at(members[np.argsort(copies, kind="stable")][:PER_GROUP]), count))
    return made

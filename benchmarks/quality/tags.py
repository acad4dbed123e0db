"""Negative tags: per tag how many of the planted films are found, what else is called so, and false alarms on clean
real footage; people: against descriptions.

A film carries a tag when at least half of its clips, by time, do. Every planted film is meant to carry one tag and no
other; films that are a matter of judgement count neither way. Clean are real films that the truth calls good, and those
whose description names nothing that a tag stands for; every clip of theirs counts.
"""

from __future__ import annotations

import dataclasses
import json
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import pyarrow as pa

from benchmarks.quality import Row, counted, read_truth
from curation.recipe import Recipe
from curation.recipes.embedded import embedded
from curation.run import run
from filters.people.presence import People
from filters.people.speech import Speech
from filters.tags.negative import NegativeTags
from manifests.schema import TAG_NAMES

MEANT = {
    "frozen": "no_motion_connectivity",
    "slideshow": "no_motion_connectivity",
    "shaky": "low_quality",
    "low_quality": "low_quality",
    "screen_capture": "noisy_screenshot",
    "edited_effects": "editing",
    "lecture_like": "lecture",
}
SPEAKS_AGAINST = {
    "text_overlay", "title_card", "title_text", "text_dominated", "slides", "screen_recording", "ui", "talking_head",
    "letterbox", "pillarbox", "dark",
}  # fmt: skip

Films = dict[Path, list[dict[str, Any]]]


def tag_recipe(weights: str = "") -> Recipe:
    """The default measures, the others that tags read, people, and no rule."""
    base = embedded()
    return dataclasses.replace(
        base, name="tags", costly=(*base.costly, Speech(), People()), derived=(NegativeTags(weights),), rules=()
    )


def measure(folder: Path) -> list[Row]:
    planted = [row for row in read_truth(folder, "tags.jsonl") if row["file"].is_file()]
    told = _descriptions(folder)
    with tempfile.TemporaryDirectory() as out:
        sources = sorted({str(row["file"].resolve()) for row in planted} | {str(path.resolve()) for path in told})
        clips = run(sources, out, tag_recipe(), workers=1, measure_all=True).clips
    films = by_film(clips)
    clean = clean_films(planted, told)
    rows = [tag_row(tag, planted, films, clean) for tag in TAG_NAMES]
    return [*rows, people_row(told, films)]


def by_film(clips: pa.Table) -> Films:
    films: Films = defaultdict(list)
    for clip in clips.to_pylist():
        films[Path(clip["uri"])].append(clip)
    return films


def tag_row(tag: str, planted: list[dict[str, Any]], films: Films, clean: set[Path]) -> Row:
    """Counts over planted and good films, and the share of clean clips that carry the tag."""
    found = wrong = missed = 0
    for row in planted:
        if row["keep"] is None:
            continue
        meant, said = meant_tag(row) == tag, _carries(films[row["file"].resolve()], tag)
        found, wrong, missed = found + (meant and said), wrong + (said and not meant), missed + (meant and not said)
    calm = [clip for film in clean for clip in films[film]]
    alarms = sum(tag in (clip["tags"] or ()) for clip in calm)
    share = round(alarms / len(calm), 4) if calm else None
    return {"tag": tag, **counted(found, wrong, missed), "clean clips": len(calm), "false alarms": share}


def meant_tag(row: dict[str, Any]) -> str | None:
    if row.get("text_dominated"):
        return "text_dominated"
    return MEANT.get(row["tag"])


def _carries(clips: list[dict[str, Any]], tag: str) -> bool:
    total = sum(clip["duration_s"] for clip in clips)
    with_it = sum(clip["duration_s"] for clip in clips if tag in (clip["tags"] or ()))
    return bool(clips) and with_it >= total / 2


def _descriptions(folder: Path) -> dict[Path, set[str]]:
    """Words that describe each real film."""
    path = folder / "public" / "public.jsonl"
    if not path.is_file():
        return {}
    rows = [json.loads(line) for line in path.read_text().splitlines() if line.strip()]
    return {path.parent.resolve() / row["file"]: set(row["tags"]) for row in rows}


def clean_films(planted: list[dict[str, Any]], told: dict[Path, set[str]]) -> set[Path]:
    judged = {row["file"].resolve(): row["tag"] == "good" for row in planted}
    good = {path for path, is_good in judged.items() if is_good}
    return good | {path for path, words in told.items() if path not in judged and not words & SPEAKS_AGAINST}


def people_row(told: dict[Path, set[str]], films: Films) -> Row:
    """Clips of films that show people or not; animated ones, whose people are drawn, are left out."""
    found = wrong = missed = 0
    for path, words in told.items():
        if "animation" in words:
            continue
        for clip in films[path]:
            if clip["person_score"] is None:
                continue
            there, said = "people" in words, clip["person_score"] >= 0.5
            found, wrong, missed = found + (there and said), wrong + (said and not there), missed + (there and not said)
    return {"people": "clips of real films", **counted(found, wrong, missed)}

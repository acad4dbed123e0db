"""Shot boundaries: hard cuts, transitions, what is invented in footage of a single shot, and what it costs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.quality import Row, counted, read_truth
from benchmarks.quality._splitters import TRANSNET, Splitting, splittings
from manifests.types import Boundary

SLACK = 1
"""Frames by which a cut may be off."""
LOCATED = 0.5
"""Intersection over union from which a transition is located."""


def measure(folder: Path) -> list[Row]:
    edited = read_truth(folder, "cuts.jsonl")
    real = [row for row in read_truth(folder, "real_cuts.jsonl") if row["complete"]]
    ways = splittings()
    found = {way.name: _run(way, [*edited, *real]) for way in ways}
    cpu = {name: sum(seconds for _, seconds in answers.values()) for name, answers in found.items()}
    rows = [_hard_cuts(way, edited, real, found[way.name]) for way in ways]
    rows += [_transitions(way, edited, found[way.name]) for way in ways]
    rows += [_invented(way, [row for row in real if not row["hard_cuts"]], found[way.name]) for way in ways]
    if TRANSNET in cpu:
        rows += [
            {"cost": "CPU, decoding included", "method": n, "TransNetV2 / it": round(cpu[TRANSNET] / cpu[n], 1)}
            for n in cpu
        ]
    return rows


Answers = dict[Path, tuple[list[Boundary], float]]


def _run(way: Splitting, films: Sequence[dict[str, Any]]) -> Answers:
    return {row["file"]: way.timed(row["file"]) for row in films}


def _hard_cuts(way: Splitting, edited: Sequence[Any], real: Sequence[Any], answers: Answers) -> Row:
    """Cuts that a tool places inside a true transition are neither right nor wrong here."""
    totals = [0, 0, 0]
    for row in (*edited, *real):
        found = [b.start for b in answers[row["file"]][0] if b.kind == "cut"]
        cuts = row.get("hard_cuts")
        if cuts is None:
            cuts = [e["frame"] for e in row["events"] if e["type"] == "cut"]
            found = [f for f in found if not any(a - SLACK <= f <= b + SLACK for a, b in _spans(row))]
        totals = [x + y for x, y in zip(totals, compare(found, cuts), strict=True)]
    return {"hard cuts": "films and real footage", "method": way.name, **counted(*totals)}


def _transitions(way: Splitting, edited: Sequence[Any], answers: Answers) -> Row:
    """Located: an interval overlaps by half. Touched: some boundary lies in it."""
    wanted = located = touched = invented = 0
    for row in edited:
        found = answers[row["file"]][0]
        spans = _spans(row)
        wanted += len(spans)
        located += sum(any(b.kind != "cut" and overlap(b, *span) >= LOCATED for b in found) for span in spans)
        touched += sum(any(_touches(b, *span) for b in found) for span in spans)
        invented += sum(b.kind != "cut" and not any(_touches(b, *span) for span in spans) for b in found)
    return {
        "transitions": "films",
        "method": way.name,
        "there": wanted,
        "located": located if way.whole else None,
        "touched": touched,
        "invented": invented,
    }


def _invented(way: Splitting, films: Sequence[Any], answers: Answers) -> Row:
    minutes = sum(row["frames"] / row["fps"] for row in films) / 60
    wrong = sum(len([b for b in answers[row["file"]][0] if b.kind == "cut"]) for row in films)
    soft = sum(len([b for b in answers[row["file"]][0] if b.kind in ("dissolve", "wipe", "gradual")]) for row in films)
    return {
        "single shots": f"{len(films)} films, {minutes:.1f} min",
        "method": way.name,
        "cuts": wrong,
        "transitions": soft,
        "a minute": round((wrong + soft) / minutes, 2),
    }


def compare(found: Sequence[int], truth: Sequence[int]) -> tuple[int, int, int]:
    """True, wrong and missed ones; every cut is matched once."""
    left, true = sorted(found), 0
    for cut in sorted(truth):
        near = [f for f in left if abs(f - cut) <= SLACK]
        if near:
            left.remove(min(near, key=lambda f: abs(f - cut)))
            true += 1
    return true, len(left), len(truth) - true


def overlap(found: Boundary, start: int, end: int) -> float:
    common = min(found.end, end) - max(found.start, start) + 1
    return max(0, common) / (max(found.end, end) - min(found.start, start) + 1)


def _spans(row: dict[str, Any]) -> list[tuple[int, int]]:
    return [(e["start"], e["end"]) for e in row["events"] if e["type"] != "cut"]


def _touches(found: Boundary, start: int, end: int) -> bool:
    return found.start <= end + SLACK and found.end >= start - SLACK

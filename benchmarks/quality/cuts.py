"""Shot boundaries: hard cuts, transitions, and what is invented in footage of a single shot."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.quality import Row, counted, read_truth
from filters.cuts import LOOK, Cuts
from manifests.media.container import decode, open_film
from manifests.media.pixels import Picture
from manifests.types import Boundary

SLACK = 1
"""Frames by which a cut may be off."""


def measure(folder: Path) -> list[Row]:
    edited = read_truth(folder, "cuts.jsonl")
    real = [row for row in read_truth(folder, "real_cuts.jsonl") if row["complete"]]
    true = wrong = missed = 0
    for row in edited:
        cuts = [e["frame"] for e in row["events"] if e["type"] == "cut"]
        gradual = [(e["start"], e["end"]) for e in row["events"] if e["type"] != "cut"]
        hard = [f for f in starts(ours(row["file"])) if not any(a - 1 <= f <= b + 1 for a, b in gradual)]
        true, wrong, missed = _add((true, wrong, missed), compare(hard, cuts))
    for row in real:
        true, wrong, missed = _add((true, wrong, missed), compare(starts(ours(row["file"])), row["hard_cuts"]))
    return [{"what": "hard cuts", "method": "vidcurate", **counted(true, wrong, missed)}]


def ours(path: Path) -> list[Boundary]:
    with open_film(str(path)) as film:
        splitter = Cuts().start(film.fps)
        found: list[Boundary] = []
        for decoded in decode(film):
            found += splitter.push(decoded.index, Picture(decoded.frame, film.rotation, film.sar).sample(LOOK))
        return found + splitter.flush()


def starts(found: Sequence[Boundary]) -> list[int]:
    return [b.start for b in found if b.kind == "cut"]


def compare(found: Sequence[int], truth: Sequence[int]) -> tuple[int, int, int]:
    """True, wrong and missed ones; every cut is matched once."""
    left, true = sorted(found), 0
    for cut in sorted(truth):
        near = [f for f in left if abs(f - cut) <= SLACK]
        if near:
            left.remove(min(near, key=lambda f: abs(f - cut)))
            true += 1
    return true, len(left), len(truth) - true


def _add(a: tuple[Any, ...], b: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(x + y for x, y in zip(a, b, strict=True))

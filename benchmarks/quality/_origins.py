"""Where the footage of the public truth was taken from: which clips must be copies, and which cannot be."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from benchmarks.quality import read_truth

COPY, UNKNOWN, DISTINCT = "copy", "unknown", "distinct"

_EXCERPTS = ("bbb_", "mdn_stream-of-water", "mdn_flower", "sintel_trailer")
"""Files whose names begin so are of one film, from places that the truth does not tell."""

_WHOLE = 0.75
"""Share of the shorter of two clips that both must show to be copies; less may be enough, and is not asked for."""


@dataclass(frozen=True, slots=True)
class Origin:
    """A stretch of a source, in seconds; None where that is not known."""

    source: str
    start: float | None = None
    end: float | None = None


class Origins:
    """Of the films in one folder of footage."""

    def __init__(self, folder: Path):
        self._rows: dict[str, dict[str, Any]] = {}
        for name in ("tags.jsonl", "motion.jsonl", "dups.jsonl", "cuts.jsonl"):
            for row in read_truth(folder, name):
                if "file" in row and row["file"].parent.name != "public":
                    self._rows[row["file"].name] = row

    def of(self, path: Path, start: float, end: float) -> tuple[Origin, ...]:
        """Origins of what a film shows between two seconds."""
        row = self._rows.get(path.name)
        if row is None:
            return (_excerpt(path.name, start, end),)
        if "shots" in row:
            return tuple(_of_shots(row, start, end))
        sources = row.get("source") or path.name
        return tuple(Origin(_film(name)) for name in ([sources] if isinstance(sources, str) else sources))

    def family(self, path: Path) -> str | None:
        return self._rows.get(path.name, {}).get("family")


def relation(a: tuple[Origin, ...], b: tuple[Origin, ...]) -> str:
    """Copies if both show one stretch of a source; distinct if nothing of it is in both."""
    found = DISTINCT
    for one in a:
        for other in b:
            if one.source != other.source:
                continue
            if one.start is None or other.start is None or one.end is None or other.end is None:
                found = UNKNOWN
                continue
            both = min(one.end, other.end) - max(one.start, other.start)
            shorter = min(one.end - one.start, other.end - other.start)
            if len(a) == len(b) == 1 and both >= _WHOLE * shorter:
                return COPY
            if both > 0:
                found = UNKNOWN
    return found


def same_scene(a: tuple[Origin, ...], b: tuple[Origin, ...]) -> bool:
    return bool({one.source for one in a} & {one.source for one in b})


def _of_shots(row: dict[str, Any], start: float, end: float) -> list[Origin]:
    fps = float(Fraction(row["fps"]))
    found = []
    for shot in row["shots"]:
        first, last = max(start * fps, shot["start"]), min(end * fps, shot["end"])
        if last - first > 0.3 * fps:
            begin = shot["src_start_s"] + (first - shot["start"]) / fps
            found.append(_excerpt(shot["src"], begin, begin + (last - first) / fps))
    return found


def _excerpt(name: str, start: float, end: float) -> Origin:
    film = _film(name)
    return Origin(film) if film != name else Origin(film, start, end)


def _film(name: str) -> str:
    return next((prefix for prefix in _EXCERPTS if name.startswith(prefix)), name)

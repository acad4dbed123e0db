"""People's decisions, from a table that the review page or a spreadsheet saved, into the folder."""

from __future__ import annotations

import csv
import datetime
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from manifests import families
from manifests.reviews import KEEP, REJECT
from manifests.store import Store

COLUMNS = ("clip_id", "decision", "start_s", "end_s", "caption", "by", "at")
"""Of a table of decisions. start_s, end_s: seconds from the clip's first frame, empty for its ends; caption: as it
should be; by: who decided; at: when, ISO 8601. Only the first two are needed, and others may stand beside them."""

_NEEDED = ("clip_id", "decision")
_WORDS = {"keep": KEEP, "k": KEEP, "yes": KEEP, "reject": REJECT, "r": REJECT, "no": REJECT}
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_SLACK = 0.1  # seconds by which a player's idea of a clip's end may differ from ours


@dataclass(frozen=True, slots=True)
class Taken:
    """How a table was received: decisions applied, how many of them keep, and what is wrong with the other lines."""

    applied: int
    kept: int
    problems: tuple[str, ...]


def apply(store: Store, path: Path, by: str = "") -> Taken:
    """Stores the decisions of a CSV table beside the manifest; judge the folder afterwards. Lines that cannot be used
    are named, and the rest is applied. A decision takes the place of an earlier one about the same clip.

    by: who decided, where the table does not say. Raises ValueError when the file is no table of decisions.
    """
    rows = _read(path)
    problems: list[str] = []
    named = pa.array([row["clip_id"] for _, row in rows], pa.string())
    clips = store.read_table("clips.parquet", ["clip_id", "duration_s", "caption"], pc.field("clip_id").isin(named))
    known = {row["clip_id"]: row for row in clips.to_pylist()}
    stored = families.read(store, families.REVIEWS)
    before = dict(zip(stored["clip_id"].to_pylist(), stored["review_at"].to_pylist(), strict=True))
    now = _moment(datetime.datetime.now(datetime.UTC))
    decided: dict[str, dict[str, Any]] = {}
    for line, row in rows:
        try:
            decision = _decision(row, known, by, now)
            earlier = decided.get(row["clip_id"], {}).get("review_at") or before.get(row["clip_id"]) or ""
            if decision["review_at"] < earlier:
                raise ValueError(f"decided at {decision['review_at']}, and again since, at {earlier}")
        except ValueError as error:
            problems.append(f"line {line}, {row['clip_id'] or 'no clip_id'}: {error}")
            continue
        decided[row["clip_id"]] = decision
    if decided:
        table = pa.Table.from_pylist(list(decided.values()), families.schema_of(families.REVIEWS))
        families.update(store, families.REVIEWS, table)
    return Taken(len(decided), sum(d["review"] == KEEP for d in decided.values()), tuple(problems))


def guarded(text: str) -> str:
    """Text for a table that a spreadsheet may open, which would take one that begins so for a formula."""
    return f"'{text}" if text.startswith(_FORMULA) else text


def _unguarded(text: str) -> str:
    return text[1:] if text.startswith("'") and text[1:].startswith(_FORMULA) else text


def _read(path: Path) -> list[tuple[int, dict[str, str]]]:
    """Lines with their numbers, as text. Raises ValueError when the file is no table of decisions."""
    if not path.is_file():
        raise ValueError(f"{path}: there is no such table of decisions; save one from the review page.")
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            first = file.readline()
            file.seek(0)
            lines = csv.DictReader(file, delimiter=";" if first.count(";") > first.count(",") else ",")
            names = tuple(lines.fieldnames or ())
            if missing := [name for name in _NEEDED if name not in names]:
                raise ValueError(f"{path}: lacks the column {missing[0]}; needed are {', '.join(_NEEDED)}.")
            return [(lines.line_num, {c: (line.get(c) or "").strip() for c in COLUMNS}) for line in lines]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} cannot be read ({error}); save it as CSV in UTF-8.") from None


def _decision(row: dict[str, str], known: dict[str, dict[str, Any]], by: str, now: str) -> dict[str, Any]:
    """Raises ValueError with what is wrong with the line."""
    if row["clip_id"] not in known:
        raise ValueError("the manifest has no such clip")
    if not row["decision"]:
        raise ValueError("no decision")
    if row["decision"].lower() not in _WORDS:
        raise ValueError(f"decision {row['decision']!r} is neither keep nor reject")
    clip = known[row["clip_id"]]
    start, end = _trim(row, clip["duration_s"])
    caption = " ".join(_unguarded(row["caption"]).split())
    return {
        "clip_id": row["clip_id"],
        "review": _WORDS[row["decision"].lower()],
        "review_start_s": start,
        "review_end_s": end,
        "review_caption": caption if caption and caption != " ".join((clip["caption"] or "").split()) else None,
        "review_by": _unguarded(row["by"]) or by or None,
        "review_at": _when(row["at"]) if row["at"] else now,
    }


def _trim(row: dict[str, str], seconds: float) -> tuple[float | None, float | None]:
    start, end = _number(row, "start_s"), _number(row, "end_s")
    first, last = 0.0 if start is None else start, seconds if end is None else end
    if first < 0 or last > seconds + _SLACK or first >= min(last, seconds):
        raise ValueError(f"the part from {first:g} s to {last:g} s does not lie within the clip's {seconds:.3f} s")
    return start or None, None if end is None or end >= seconds else end


def _number(row: dict[str, str], name: str) -> float | None:
    if not row[name]:
        return None
    try:
        value = float(row[name].replace(",", "."))
    except ValueError:
        value = float("nan")
    if value != value or abs(value) == float("inf"):
        raise ValueError(f"{name} {row[name]!r} is no number of seconds")
    return value


def _when(text: str) -> str:
    try:
        moment = datetime.datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{text!r} is no moment like 2026-03-01T12:00:00Z") from None
    return _moment(moment if moment.tzinfo else moment.replace(tzinfo=datetime.UTC))


def _moment(moment: datetime.datetime) -> str:
    return moment.astimezone(datetime.UTC).isoformat(timespec="seconds").replace("+00:00", "Z")

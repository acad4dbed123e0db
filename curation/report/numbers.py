"""What the report counts: the funnel and histograms."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from curation.decide import COPY
from curation.recipe import Recipe
from filters.rules import Rule
from manifests.schema import is_internal


@dataclass(frozen=True, slots=True)
class Step:
    """One row of the funnel. alone: clips that fail this rule; first: clips whose first failed rule it is; only: clips
    that fail nothing else; left: clips that passed it and all before it."""

    name: str
    condition: str
    why: str
    alone: int
    first: int
    only: int
    left: int


def funnel(clips: pa.Table, recipe: Recipe) -> list[Step]:
    failed = clips["failed_rules"].combine_chunks()
    some = failed.filter(pc.greater(pc.list_value_length(failed), 0))
    firsts = pc.list_element(some, 0)
    alone = Counter(dict(counts(pc.list_flatten(failed))))
    first = Counter(dict(counts(firsts)))
    only = Counter(dict(counts(firsts.filter(pc.equal(pc.list_value_length(some), 1)))))
    rules = [(r.name, str(r), r.why) for r in recipe.rules]
    rules.append(
        (COPY, f"similarity < {recipe.copies.share:g}", "the same footage is in the set already, better or longer")
    )
    left, steps = clips.num_rows, []
    for name, condition, why in rules:
        left -= first[name]
        steps.append(Step(name, condition, why, alone[name], first[name], only[name], left))
    return steps


@dataclass(frozen=True, slots=True)
class Histogram:
    """Counts of kept and rejected clips over equal bins from low to high; marks are thresholds, as shares of the
    width, with their text."""

    name: str
    doc: str
    unit: str
    low: float
    high: float
    median: float
    kept: tuple[int, ...]
    rejected: tuple[int, ...]
    marks: tuple[tuple[float, str], ...]
    missing: int


def histograms(clips: pa.Table, rules: Sequence[Rule], bins: int = 32) -> list[Histogram]:
    """One for every numeric signal that was measured, signals that a rule reads first."""
    read = [r.column for r in rules if r.column]
    kept = np.asarray(clips["kept"])
    numeric = [f for f in clips.schema if pa.types.is_floating(f.type) and not is_internal(f)]
    passive = {"fps", "sample_aspect_ratio", "film_offset_s", "copy_similarity", "sample_probability"}
    fields = [f for f in numeric if f.name not in passive and clips[f.name].null_count < clips.num_rows]
    fields.sort(key=lambda f: read.index(f.name) if f.name in read else len(read))
    made = []
    for f in fields:
        values = np.asarray(pc.fill_null(clips[f.name], float("nan")), np.float64)
        there = np.isfinite(values)
        bounds = [b for r in rules if r.column == f.name for b in (r.low, r.high) if b is not None]
        low, high = _range(values[there], bounds)
        edges = np.linspace(low, high, bins + 1)
        inside = np.clip(values, low, high)
        said = {k.decode(): v.decode() for k, v in (f.metadata or {}).items()}
        made.append(
            Histogram(
                f.name,
                said.get("doc", ""),
                said.get("unit", ""),
                low,
                high,
                float(np.median(values[there])),
                tuple(np.histogram(inside[there & kept], edges)[0].tolist()),
                tuple(np.histogram(inside[there & ~kept], edges)[0].tolist()),
                tuple(((b - low) / (high - low), f"{b:g}") for b in bounds),
                int((~there).sum()),
            )
        )
    return made


def _range(values: npt.NDArray[np.float64], bounds: Sequence[float]) -> tuple[float, float]:
    """From the 1st to the 99th percentile, widened to show every threshold; outliers are counted in the end bins."""
    low, high = np.percentile(values, (1, 99))
    low, high = min([low, *bounds]), max([high, *bounds])
    spread = high - low or abs(high) or 1.0
    start = low - 0.02 * spread
    return float(max(start, 0.0) if values.min() >= 0 else start), float(high + 0.05 * spread)


def counts(column: pa.ChunkedArray | pa.Array) -> list[tuple[str, int]]:
    """How often each value occurs, most common first; nulls left out."""
    found = column.drop_null().value_counts().to_pylist()
    return sorted(((str(row["values"]), row["counts"]) for row in found), key=lambda named: -named[1])


def rows_with(lists: pa.ChunkedArray, name: str) -> npt.NDArray[np.int64]:
    """Numbers of the rows of a column of lists that name occurs in."""
    flat = lists.combine_chunks()
    return np.asarray(pc.list_parent_indices(flat).filter(pc.equal(pc.list_flatten(flat), name)), np.int64)

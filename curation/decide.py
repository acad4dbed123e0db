"""From measurements to decisions: rules, copies, concepts, resampling. Reads columns only; decodes nothing.

Clips come in blocks, so that a manifest may be larger than memory. `judged` looks at one block and keeps a few numbers
of each clip; `settle` sees those of all clips and decides what depends on all of them; `Decisions.rows` are the
decision columns of any stretch of clips.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from curation.recipe import Recipe, columns_of
from curation.relate import CLUSTER, UNRELATED, Relations
from dedup.copies import groups
from dedup.quotas import balance
from dedup.resample import Resample, drawn, probabilities
from filters.rules import failures, names_of
from manifests.reviews import READS, as_reviewed
from manifests.schema import DECISION, conform

COPY = "copy"
"""The name under which copies appear in `failed_rules`."""

RANK = ("width", "height", "letterbox_fraction", "bitrate", "duration_s", "aesthetic_photo")
"""What decides which of several copies is kept, see `_worth`; a recipe need not measure all of it."""

Copy = tuple[str | None, float, str]
"""The clip that is kept in its place if any, how alike they are, and the name of the group."""

Bools = npt.NDArray[np.bool_]
Sizes = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """What decisions need to know of clips.

    failed, members: (clips, rules) and (clips, subsets), which rules a clip fails and whose rules it passes. values: of
    the columns that resampling and subsets read, not a number where there is none. buckets: names. clusters: numbers.
    """

    ids: pa.ChunkedArray
    failed: Bools
    members: Bools
    values: dict[str, Floats]
    buckets: pa.ChunkedArray
    clusters: npt.NDArray[np.int32]


def judged(clips: pa.Table, recipe: Recipe) -> Judged:
    """One block of clips, with the columns `columns_read` names."""
    subsets = [~failures(subset.rules, clips).any(axis=1) for subset in recipe.subsets]
    return Judged(
        clips["clip_id"],
        rule_failures(clips, recipe),
        np.stack(subsets, axis=1) if subsets else np.zeros((clips.num_rows, 0), bool),
        {name: _numbers(clips, name) for name in _numeric(recipe)},
        pa.chunked_array([recipe.buckets.assign(as_reviewed(clips))], pa.string()),
        np.asarray(clips[CLUSTER], np.int32) if CLUSTER in clips.column_names else np.zeros(clips.num_rows, np.int32),
    )


def gathered(blocks: Sequence[Judged]) -> Judged:
    """All blocks as one."""
    return Judged(
        pa.chunked_array([chunk for b in blocks for chunk in b.ids.chunks], pa.string()),
        np.concatenate([b.failed for b in blocks]),
        np.concatenate([b.members for b in blocks]),
        {name: np.concatenate([b.values[name] for b in blocks]) for name in blocks[0].values},
        pa.chunked_array([chunk for b in blocks for chunk in b.buckets.chunks], pa.string()),
        np.concatenate([b.clusters for b in blocks]),
    )


def columns_read(recipe: Recipe) -> set[str]:
    """Columns that decisions are made of, derived ones included, and other words of a rule's expression."""
    rules = [*recipe.rules, *(rule for subset in recipe.subsets for rule in subset.rules)]
    columns = {"clip_id", CLUSTER, *READS, *_numeric(recipe), *recipe.buckets.columns}
    return columns.union(*(columns_of(rule) for rule in rules))


def rule_failures(clips: pa.Table, recipe: Recipe) -> Bools:
    """(clips, rules). A costly signal that was skipped because the clip had failed already is no failure of the rule
    that reads it; skipped for any other reason, it is."""
    failed = failures(recipe.rules, clips)
    early = np.array([rule in recipe.gate for rule in recipe.rules], bool)
    rejected = failed[:, early].any(axis=1)
    for k in np.flatnonzero(~early):
        read = [clips[c].is_null().to_numpy() for c in columns_of(recipe.rules[k]) if c in clips.column_names]
        failed[:, k] &= ~(rejected & np.logical_or.reduce(read))
    return failed


@dataclass(frozen=True, slots=True, eq=False)
class Decisions:
    """Of all clips, in the order of `judged`. copies: by row number, the group it is in and its similarity."""

    judged: Judged
    rules: tuple[str, ...]
    copies: dict[int, Copy]
    kept: Bools
    concept: npt.NDArray[np.int32]
    size: Sizes
    chance: Floats
    sampled: Bools
    members: Bools
    subsets: tuple[str, ...]

    def rows(self, start: int = 0, stop: int | None = None) -> pa.Table:
        """Decision columns of the clips from `start` to before `stop`."""
        part = slice(start, len(self.kept) if stop is None else stop)
        kept = self.kept[part]
        found = [self.copies.get(k, (None, None, None)) for k in range(part.start, part.stop)] if self.copies else []
        of, similarity, group = zip(*found, strict=True) if found else [pa.nulls(len(kept))] * 3
        is_copy = np.array([keeper is not None for keeper, _, _ in found], bool) if found else np.zeros(len(kept), bool)
        marks = np.concatenate([self.judged.failed[part], is_copy[:, None]], axis=1)
        columns = {
            "copy_of": pa.array(of, pa.string()),
            "copy_similarity": pa.array(similarity, pa.float64()),
            "copy_group": pa.array(group, pa.string()),
            "concept": pa.array(self.concept[part], mask=~kept),
            "concept_size": pa.array(self.size[part], mask=~kept),
            "sample_probability": self.chance[part],
            "sampled": self.sampled[part],
            "failed_rules": names_of([*self.rules, COPY], marks),
            "kept": kept,
            "subsets": names_of(self.subsets, self.members[part]),
            "bucket": self.judged.buckets.slice(part.start, len(kept)),
        }
        return conform(pa.table(columns), DECISION)


def settle(clips: Judged, recipe: Recipe, relations: Relations) -> Decisions:
    """Copies are looked for among all clips, but one that passes the rules is kept before one that does not."""
    passing: Bools = np.logical_not(np.any(clips.failed, axis=1))
    copies = _copies(clips, passing, relations)
    kept = passing.copy()
    kept[[row for row, (keeper, _, _) in copies.items() if keeper]] = False
    sizes = np.bincount(clips.clusters[kept], minlength=1)
    chance, sampled = np.zeros(len(kept)), np.zeros(len(kept), bool)
    if kept.any():
        chance[kept] = _chances(clips, kept, sizes, recipe.resample)
        sampled[kept] = drawn(clips.ids.filter(pa.array(kept)).to_pylist(), chance[kept], recipe.resample)
    return Decisions(
        clips,
        tuple(rule.name for rule in recipe.rules),
        copies,
        kept,
        *_concepts(clips.clusters, sizes),
        chance,
        sampled,
        _subsets(clips, kept, recipe),
        tuple(subset.name for subset in recipe.subsets),
    )


def decide(clips: pa.Table, recipe: Recipe, relations: Relations = UNRELATED) -> pa.Table:
    """Decision columns for every row of a table that fits into memory, in its order."""
    return settle(judged(clips, recipe), recipe, relations).rows()


def _copies(clips: Judged, passing: Bools, relations: Relations) -> dict[int, Copy]:
    """By row number."""
    involved = relations.involved
    if not len(involved):
        return {}
    rows = pc.index_in(involved, value_set=pa.chunked_array(clips.ids).combine_chunks()).to_numpy(zero_copy_only=False)
    row = {clip: int(at) for clip, at in zip(involved.to_pylist(), rows, strict=True) if at is not None and at == at}
    rank = dict(zip(row, _worth(clips, passing, list(row.values())), strict=True))
    return {
        row[member]: (None if member == group.keeper else group.keeper, group.similarity[member], min(group.members))
        for group in groups({pair: s for pair, s in relations.pairs.items() if set(pair) <= row.keys()}, rank)
        for member in group.members
    }


def _worth(clips: Judged, passing: Bools, rows: Sequence[int]) -> list[tuple[float, ...]]:
    """The copy that is kept passes the rules, if any does; of those it has the larger picture without its border (by
    steps of a tenth), of those the larger bit rate of its file (by steps of a quarter), of those it is longer (by
    tenths of a second), and of those it looks better."""
    of = {name: clips.values[name][rows] for name in RANK}
    area = of["width"] * of["height"] * (1 - np.nan_to_num(of["letterbox_fraction"]))
    with np.errstate(divide="ignore", invalid="ignore"):
        steps = [np.log(area) / np.log(1.1), np.log(of["bitrate"]) / np.log(1.25), of["duration_s"] * 10]
    ranks = [passing[rows], *(np.round(step) for step in steps), of["aesthetic_photo"]]
    return [tuple(map(float, rank)) for rank in np.nan_to_num(np.stack(ranks, axis=1), nan=-np.inf)]


def _concepts(clusters: npt.NDArray[np.int32], sizes: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int32], Sizes]:
    """Concept and its size of every clip: clusters that hold kept clips, numbered by falling size."""
    order = np.argsort(-sizes, kind="stable")
    number = np.empty(len(sizes), np.int32)
    number[order] = np.arange(len(sizes), dtype=np.int32)
    known = np.minimum(clusters, len(sizes) - 1)
    return number[known], sizes[known]


def _chances(clips: Judged, kept: Bools, sizes: Sizes, settings: Resample) -> Floats:
    """Of the kept clips. Those with a concept of one size and alike for quotas share their chance, so that it is
    computed once for all of them."""
    size = sizes[clips.clusters[kept]]
    tests = [(settings.exempt, settings.exempt_least)] if settings.exempt else []
    tests += [(quota.column, quota.least) for quota in settings.quotas]
    kinds = np.zeros(len(size), np.int64)
    for column, least in tests:
        kinds = 2 * kinds + (clips.values[column][kept] >= least)
    known, which = np.unique(size * 2 ** len(tests) + kinds, return_inverse=True)
    counts = np.bincount(which)
    marks = (known[:, None] >> np.arange(len(tests))[::-1]) & 1 == 1
    exempt = marks[:, 0] if settings.exempt else None
    chance = probabilities(known >> len(tests), settings, exempt, counts)
    if settings.quotas:
        chance = balance(chance, marks[:, len(tests) - len(settings.quotas) :].T, settings.quotas, counts)
    return chance[which]


def _numeric(recipe: Recipe) -> list[str]:
    """Columns of which decisions read the numbers."""
    read = [subset.by for subset in recipe.subsets] + [quota.column for quota in recipe.resample.quotas]
    return sorted({*RANK, *read, recipe.resample.exempt} - {""})


def _numbers(clips: pa.Table, name: str) -> Floats:
    if name not in clips.column_names:
        if name in RANK:
            return np.full(clips.num_rows, np.nan)
        raise ValueError(f"column {name} is read by resampling or a subset and not measured; add its signal.")
    return np.asarray(pc.fill_null(clips[name].cast(pa.float64()), np.nan), np.float64)


def _subsets(clips: Judged, kept: Bools, recipe: Recipe) -> Bools:
    """(clips, subsets)."""
    members = clips.members & kept[:, None]
    for k, subset in enumerate(recipe.subsets):
        if not subset.by:
            continue
        rows = np.flatnonzero(members[:, k])
        value = np.nan_to_num(clips.values[subset.by][rows], nan=-np.inf)
        ids = np.array(clips.ids.take(pa.array(rows)).to_pylist(), object)
        best = rows[np.lexsort((ids, -value))]  # ties go to the smaller clip id
        members[:, k] = False
        members[best[: math.ceil(subset.share * kept.sum())], k] = True
    return members

"""From measurements to decisions: rules, copies, concepts, resampling. Reads columns only; decodes nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from curation.recipe import Recipe, columns_of
from dedup.concepts import cluster
from dedup.copies import Track, find_copies
from dedup.descriptor import SIZE
from dedup.pdq import BITS
from dedup.quotas import balance
from dedup.resample import Resample, drawn, probabilities
from filters.rules import judge
from manifests.schema import DECISION

COPY = "copy"
"""The name under which copies appear in `failed_rules`."""


def decide(clips: pa.Table, recipe: Recipe) -> pa.Table:
    """Decision columns for every row of `clips`, in its order; the clips must be sorted by id.

    Copies are looked for among all clips, but one that passes the rules is kept before one that does not.
    """
    failed = failures(clips, recipe)
    passing = np.array([not f for f in failed], bool)
    ids = clips["clip_id"].to_pylist()
    copies = _copies(clips, passing, recipe)
    for k, clip in enumerate(ids):
        if clip in copies and copies[clip]["copy_of"]:
            failed[k].append(COPY)
    kept = np.array([not f for f in failed], bool)
    concept, size = _concepts(clips, kept, recipe)
    chance = np.zeros(len(ids))
    sampled = np.zeros(len(ids), bool)
    if kept.any():
        chance[kept] = _chances(clips.filter(pa.array(kept)), size[kept], recipe.resample)
        sampled[kept] = drawn([c for c, k in zip(ids, kept, strict=True) if k], chance[kept], recipe.resample)
    nothing: dict[str, Any] = {"copy_of": None, "copy_similarity": None, "copy_group": None}
    found = [copies.get(clip, nothing) for clip in ids]
    columns = {
        "copy_of": [c["copy_of"] for c in found],
        "copy_similarity": [c["copy_similarity"] for c in found],
        "copy_group": [c["copy_group"] for c in found],
        "concept": [int(c) if k else None for c, k in zip(concept, kept, strict=True)],
        "concept_size": [int(s) if k else None for s, k in zip(size, kept, strict=True)],
        "sample_probability": chance.tolist(),
        "sampled": sampled.tolist(),
        "failed_rules": failed,
        "kept": kept.tolist(),
        "subsets": _subsets(clips, kept, recipe),
        "bucket": [None] * len(ids),
    }
    return pa.table(columns, schema=DECISION)


def failures(clips: pa.Table, recipe: Recipe) -> list[list[str]]:
    """Rules that each clip fails. A costly signal that was skipped because the clip had failed already is no failure of
    the rule that reads it; skipped for any other reason, it is."""
    failed = judge(recipe.rules, clips).to_pylist()
    early = {rule.name for rule in recipe.gate}
    for rule in recipe.rules:
        if rule.name in early:
            continue
        unmeasured = np.logical_or.reduce(
            [clips[c].is_null().to_numpy() for c in columns_of(rule) if c in clips.column_names]
        )
        for k in np.flatnonzero(unmeasured):
            if early.intersection(failed[k]):
                failed[k].remove(rule.name)
    return failed


def _copies(clips: pa.Table, passing: npt.NDArray[np.bool_], recipe: Recipe) -> dict[str, dict[str, Any]]:
    groups = find_copies(_tracks(clips, passing, recipe.copies.quality), recipe.copies)
    return {
        member: {
            "copy_of": None if member == group.keeper else group.keeper,
            "copy_similarity": group.similarity[member],
            "copy_group": min(group.members),
        }
        for group in groups
        for member in group.members
    }


def _tracks(clips: pa.Table, passing: npt.NDArray[np.bool_], least_quality: int) -> list[Track]:
    names = ["clip_id", "video_id", "shot", "width", "height", "duration_s"]
    names += ["fingerprint", "fingerprint_quality", "fingerprint_us"]
    tracks = []
    for row, ok in zip(clips.select(names).to_pylist(), passing, strict=True):
        if row["fingerprint"] is None:
            continue
        hashes = np.frombuffer(row["fingerprint"], np.uint8).reshape(-1, BITS // 8)
        trusted = np.asarray(row["fingerprint_quality"]) >= least_quality
        rank = (float(ok), float(row["width"] * row["height"]), round(row["duration_s"], 1))
        times = np.asarray(row["fingerprint_us"], np.float64)[trusted] / 1e6
        tracks.append(Track(row["clip_id"], hashes[trusted], times, f"{row['video_id']}/{row['shot']}", rank))
    return tracks


def _concepts(
    clips: pa.Table, kept: npt.NDArray[np.bool_], recipe: Recipe
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Concept and concept size of each row; meaningful for kept rows only."""
    concept, size = np.zeros(len(kept), np.int64), np.ones(len(kept), np.int64)
    if kept.any():
        vectors = clips.filter(pa.array(kept))["descriptor"].combine_chunks()
        filled = pc.fill_null(vectors, pa.scalar([0.0] * SIZE, vectors.type)) if vectors.null_count else vectors
        labels = cluster(np.asarray(filled.flatten(), np.float32).reshape(-1, SIZE), recipe.concepts)
        concept[kept] = labels
        size[kept] = np.bincount(labels)[labels]
    return concept, size


def _chances(kept: pa.Table, sizes: npt.NDArray[np.int64], settings: Resample) -> npt.NDArray[np.float64]:
    exempt = _at_least(kept, settings.exempt, settings.exempt_least) if settings.exempt else None
    chance = probabilities(sizes, settings, exempt)
    if not settings.quotas:
        return chance
    return balance(chance, np.stack([_at_least(kept, q.column, q.least) for q in settings.quotas]), settings.quotas)


def _at_least(clips: pa.Table, column: str, least: float) -> npt.NDArray[np.bool_]:
    if column not in clips.column_names:
        raise ValueError(f"resampling reads column {column}, which this recipe does not measure; add its signal.")
    return np.asarray(pc.fill_null(pc.greater_equal(clips[column], least), False))


def _subsets(clips: pa.Table, kept: npt.NDArray[np.bool_], recipe: Recipe) -> Sequence[list[str]]:
    names: list[list[str]] = [[] for _ in kept]
    for subset in recipe.subsets:
        passing = kept & np.array([not failed for failed in judge(subset.rules, clips).to_pylist()], bool)
        if subset.by:
            value = np.asarray(pc.fill_null(clips[subset.by], float("-inf")), np.float64)
            best = np.lexsort((np.arange(len(value)), -value))  # ties go to the smaller clip id
            best = best[passing[best]][: math.ceil(subset.share * kept.sum())]
            passing = np.zeros(len(value), bool)
            passing[best] = True
        for row in np.flatnonzero(passing):
            names[row].append(subset.name)
    return names

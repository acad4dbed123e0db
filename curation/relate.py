"""What clips are to one another: which are copies, which look alike. Kept as a stage over all clips, whatever the rules
say of them, so that judging anew needs neither hashes nor vectors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from curation.job import Job, Part
from curation.parts import read_parts
from curation.recipe import Recipe
from dedup.concepts import assign, number
from dedup.copies import Pairs, Track, copy_pairs
from dedup.kmeans import kmeans
from dedup.pdq import BITS
from dedup.vectors import from_arrow, unit
from manifests.ids import fingerprint, luck, part_id
from manifests.schema import IDENTITY, column
from manifests.store import Store, join

CLUSTER = "cluster"
"""Column with the number of the cluster that a clip is in, counted over all clips, kept or not."""

_CLUSTERS = pa.schema([IDENTITY.field("clip_id"), column(CLUSTER, pa.int32(), "number of the cluster", internal=True)])
_PAIRS = pa.schema(
    [
        column("a", pa.string(), "clip id"),
        column("b", pa.string(), "clip id of a copy, the larger of the two"),
        column("similarity", pa.float64(), "agreement of the two", range="0..1"),
    ]
)


@dataclass(frozen=True, slots=True, eq=False)
class Relations:
    """pairs: copies. stage: where the clusters are."""

    pairs: Pairs
    stage: str = ""

    @property
    def involved(self) -> pa.Array:
        """Ids of clips with a copy, sorted."""
        return pa.array(sorted({clip for pair in self.pairs for clip in pair}), pa.string())


UNRELATED = Relations({})


def relate(job: Job, store: Store, parts: Sequence[Part]) -> Relations:
    """Looks for copies and clusters among the clips of the parts, unless that was done before."""
    stage = stage_of(job.recipe, parts, store)
    if not store.exists(f"stages/{stage}/pairs.parquet"):
        _cluster(job, store, stage, parts)
        write_pairs(store, stage, copy_pairs(_tracks(job, store, parts), job.recipe.copies))
        _forget_others(store, stage)
    table = store.read_table(f"stages/{stage}/pairs.parquet")
    ids = zip(table["a"].to_pylist(), table["b"].to_pylist(), strict=True)
    return Relations(dict(zip(ids, table["similarity"].to_pylist(), strict=True)), stage)


def stage_of(recipe: Recipe, parts: Sequence[Part], store: Store) -> str:
    """Name of the stage's folder: changes with the clips and with what decides how alike they are."""
    members = [part_id([part.name, *(v.id or "" for v in part.videos)]) for part in parts]
    made_of: list[object] = [recipe.scan_stage, recipe.copies, recipe.concepts, sorted(members)]
    if recipe.concepts.vectors not in recipe.walk_schema.names:  # costly: later runs may have measured more clips
        files = [f"stages/{recipe.measure_stage}/clips/{part.name}.parquet" for part in parts]
        made_of += [recipe.measure_stage, sum(store.dataset(f).count_rows() for f in files if store.exists(f))]
    return f"relate-{fingerprint(*made_of)}"


def write_clusters(store: Store, stage: str, part: Part, clips: pa.ChunkedArray, labels: pa.Array) -> None:
    store.write_table(f"stages/{stage}/clips/{part.name}.parquet", pa.table([clips, labels], schema=_CLUSTERS))


def write_pairs(store: Store, stage: str, pairs: Pairs) -> None:
    """Written last: the stage is whole when they are there."""
    rows = [{"a": a, "b": b, "similarity": s} for (a, b), s in sorted(pairs.items())]
    store.write_table(f"stages/{stage}/pairs.parquet", pa.Table.from_pylist(rows, _PAIRS))


def clusters(store: Store, stage: str, parts: Sequence[Part]) -> pa.Table:
    """Columns clip_id and cluster of the parts' clips."""
    return read_parts(store, f"{stage}/clips", parts, _CLUSTERS)


def _cluster(job: Job, store: Store, stage: str, parts: Sequence[Part]) -> None:
    """Learns clusters from a sample of all clips, then gives every clip the nearest, part by part. How clips are cut
    into parts makes no difference: the sample is drawn, and rows are sorted, by clip id."""
    settings = job.recipe.concepts
    ids = [_read(job, store, part, set())["clip_id"] for part in parts]
    total = sum(map(len, ids))
    size = next(filter(None, (_size(job, store, part) for part in parts)), 1)
    names, points = [pa.chunked_array([], pa.string())], [np.zeros((0, size), np.float32)]
    for part, of_part in zip(parts, ids, strict=True):
        drawn = luck(of_part.to_pylist(), settings.seed) < settings.sample / max(total, 1)
        vectors, good = unit(from_arrow(_vectors(job, store, part), size))
        names.append(of_part.filter(pa.array(drawn & good)))
        points.append(vectors[drawn & good])
    learnt_from = np.concatenate(points)[_order(names)]
    centroids = np.zeros((0, size), np.float32)
    if len(learnt_from):
        centroids, _ = kmeans(
            learnt_from,
            settings.clusters(total),
            rounds=settings.rounds,
            tries=settings.tries,
            seed=settings.seed,
        )
    labels = [assign(from_arrow(_vectors(job, store, part), size), centroids) for part in parts]
    order, numbers = _order(ids), np.empty(total, np.int32)
    numbers[order] = number(np.concatenate([np.zeros(0, np.int32), *labels])[order], centroids, settings.merge)[0]
    ends = np.cumsum([len(of_part) for of_part in ids])
    for part, of_part, end in zip(parts, ids, ends, strict=True):
        write_clusters(store, stage, part, of_part, pa.array(numbers[end - len(of_part) : end], pa.int32()))


def _order(ids: Sequence[pa.ChunkedArray]) -> npt.NDArray[np.int64]:
    """Row numbers by rising id."""
    return np.asarray(pc.sort_indices(pa.chunked_array([c for one in ids for c in one.chunks], pa.string())), np.int64)


def _read(job: Job, store: Store, part: Part, columns: set[str]) -> pa.Table:
    return read_parts(store, f"{job.recipe.scan_stage}/clips", [part], job.recipe.scan_schema, columns)


def _vectors(job: Job, store: Store, part: Part) -> pa.ChunkedArray:
    """The column that is clustered; null where a clip has no vector."""
    name = job.recipe.concepts.vectors
    clips = _read(job, store, part, {name})
    if name not in clips.column_names:
        costly = pa.schema([f for f in job.recipe.measure_schema if f.name in ("clip_id", name)])
        clips = join(clips, read_parts(store, f"{job.recipe.measure_stage}/clips", [part], costly))
    return clips[name]


def _size(job: Job, store: Store, part: Part) -> int | None:
    return pc.max(pc.list_value_length(_vectors(job, store, part))).as_py()  # type: ignore[no-any-return]


def _tracks(job: Job, store: Store, parts: Sequence[Part]) -> list[Track]:
    names = ["clip_id", "video_id", "shot", "fingerprint", "fingerprint_quality", "fingerprint_us"]
    tracks = []
    for part in parts:
        for row in _read(job, store, part, {*names}).select(names).to_pylist():
            if row["fingerprint"] is None:
                continue
            hashes = np.frombuffer(row["fingerprint"], np.uint8).reshape(-1, BITS // 8)
            trusted = np.asarray(row["fingerprint_quality"]) >= job.recipe.copies.quality
            times = np.asarray(row["fingerprint_us"], np.float64)[trusted] / 1e6
            tracks.append(Track(row["clip_id"], hashes[trusted], times, f"{row['video_id']}/{row['shot']}"))
    return tracks


def _forget_others(store: Store, stage: str) -> None:
    """What was found among another set of clips serves no one."""
    for name in store.folders("stages"):
        if name.startswith("relate-") and name != stage:
            store.remove(f"stages/{name}")

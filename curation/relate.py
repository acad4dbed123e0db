"""What clips are to one another: which are copies, which look alike. Kept as stages over all clips, whatever the rules
say of them, so that judging anew needs neither pictures nor vectors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from curation.comparing import member_id
from curation.copying import copies
from curation.job import Job, Part
from curation.parts import read_column, read_parts
from curation.recipe import Recipe
from dedup.concepts import assign, number
from dedup.copies import Pairs
from dedup.kmeans import kmeans
from dedup.vectors import from_arrow, unit
from manifests.ids import fingerprint, luck
from manifests.schema import IDENTITY, column
from manifests.store import Store

CLUSTER = "cluster"
"""Column with the number of the cluster that a clip is in, counted over all clips, kept or not."""

_CLUSTERS = pa.schema([IDENTITY.field("clip_id"), column(CLUSTER, pa.int32(), "number of the cluster", internal=True)])


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
    if not store.exists(f"stages/{stage}/done.json"):
        _cluster(job, store, stage, parts)
        mark_done(store, stage, parts)
        _forget_others(store, stage)
    return Relations(copies(job, store, parts), stage)


def stage_of(recipe: Recipe, parts: Sequence[Part], store: Store) -> str:
    """Name of the clusters' folder: changes with the clips and with what decides how alike they are."""
    made_of: list[object] = [recipe.scan_stage, recipe.concepts, sorted(member_id(part) for part in parts)]
    if recipe.concepts.vectors not in recipe.walk_schema.names:  # costly: later runs may have measured more clips
        files = [f"stages/{recipe.measure_stage}/clips/{part.name}.parquet" for part in parts]
        made_of += [recipe.measure_stage, sum(store.dataset(f).count_rows() for f in files if store.exists(f))]
    return f"relate-{fingerprint(*made_of)}"


def write_clusters(store: Store, stage: str, part: Part, clips: pa.ChunkedArray, labels: pa.Array) -> None:
    store.write_table(f"stages/{stage}/clips/{part.name}.parquet", pa.table([clips, labels], schema=_CLUSTERS))


def mark_done(store: Store, stage: str, parts: Sequence[Part]) -> None:
    """Written last: the clusters are whole when it is there."""
    store.write_json(f"stages/{stage}/done.json", {"parts": len(parts)})


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
    return read_column(job, store, part, name)[name]


def _size(job: Job, store: Store, part: Part) -> int | None:
    return pc.max(pc.list_value_length(_vectors(job, store, part))).as_py()  # type: ignore[no-any-return]


def _forget_others(store: Store, stage: str) -> None:
    """What was found among another set of clips serves no one."""
    for name in store.folders("stages"):
        if name.startswith("relate-") and name != stage:
            store.remove(f"stages/{name}")

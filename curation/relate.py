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
from dedup.concepts import cluster
from dedup.copies import Pairs, Track, copy_pairs
from dedup.descriptor import SIZE
from dedup.pdq import BITS
from manifests.ids import fingerprint, part_id
from manifests.schema import IDENTITY, column
from manifests.store import Store

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
    stage = stage_of(job.recipe, parts)
    if not store.exists(f"stages/{stage}/pairs.parquet"):
        clips = _clips(job, store, parts)
        labels = pa.array(_clusters(clips, job.recipe), pa.int32())
        for part in parts:
            mine = pc.equal(clips["part"], part.name)
            write_clusters(store, stage, part, clips["clip_id"].filter(mine), labels.filter(mine.combine_chunks()))
        write_pairs(store, stage, copy_pairs(_tracks(clips, job.recipe.copies.quality), job.recipe.copies))
        _forget_others(store, stage)
    table = store.read_table(f"stages/{stage}/pairs.parquet")
    ids = zip(table["a"].to_pylist(), table["b"].to_pylist(), strict=True)
    return Relations(dict(zip(ids, table["similarity"].to_pylist(), strict=True)), stage)


def stage_of(recipe: Recipe, parts: Sequence[Part]) -> str:
    """Name of the stage's folder: changes with the clips and with what decides how alike they are."""
    members = [part_id([part.name, *(v.id or "" for v in part.videos)]) for part in parts]
    return f"relate-{fingerprint(recipe.scan_stage, recipe.copies, recipe.concepts, sorted(members))}"


def write_clusters(store: Store, stage: str, part: Part, clips: pa.ChunkedArray, labels: pa.Array) -> None:
    store.write_table(f"stages/{stage}/clips/{part.name}.parquet", pa.table([clips, labels], schema=_CLUSTERS))


def write_pairs(store: Store, stage: str, pairs: Pairs) -> None:
    """Written last: the stage is whole when they are there."""
    rows = [{"a": a, "b": b, "similarity": s} for (a, b), s in sorted(pairs.items())]
    store.write_table(f"stages/{stage}/pairs.parquet", pa.Table.from_pylist(rows, _PAIRS))


def clusters(store: Store, stage: str, parts: Sequence[Part]) -> pa.Table:
    """Columns clip_id and cluster of the parts' clips."""
    return read_parts(store, f"{stage}/clips", parts, _CLUSTERS)


def _clips(job: Job, store: Store, parts: Sequence[Part]) -> pa.Table:
    """What copies and clusters are found by, of all clips."""
    columns = {"shot", *job.recipe.fingerprint.schema.names, *job.recipe.descriptor.schema.names}
    tables = []
    for part in parts:
        table = read_parts(store, f"{job.recipe.scan_stage}/clips", [part], job.recipe.scan_schema, columns)
        tables.append(table.append_column("part", pa.array([part.name] * table.num_rows, pa.string())))
    return pa.concat_tables(tables).sort_by("clip_id")


def _clusters(clips: pa.Table, recipe: Recipe) -> npt.NDArray[np.int32]:
    vectors = clips["descriptor"].combine_chunks()
    filled = pc.fill_null(vectors, pa.scalar([0.0] * SIZE, vectors.type)) if vectors.null_count else vectors
    return cluster(np.asarray(filled.flatten(), np.float32).reshape(-1, SIZE), recipe.concepts)


def _tracks(clips: pa.Table, least_quality: int) -> list[Track]:
    names = ["clip_id", "video_id", "shot", "fingerprint", "fingerprint_quality", "fingerprint_us"]
    tracks = []
    for row in clips.select(names).to_pylist():
        if row["fingerprint"] is None:
            continue
        hashes = np.frombuffer(row["fingerprint"], np.uint8).reshape(-1, BITS // 8)
        trusted = np.asarray(row["fingerprint_quality"]) >= least_quality
        times = np.asarray(row["fingerprint_us"], np.float64)[trusted] / 1e6
        tracks.append(Track(row["clip_id"], hashes[trusted], times, f"{row['video_id']}/{row['shot']}"))
    return tracks


def _forget_others(store: Store, stage: str) -> None:
    """What was found among another set of clips serves no one."""
    for name in store.folders("stages"):
        if name.startswith("relate-") and name != stage:
            store.remove(f"stages/{name}")

"""How long it takes to judge and resample a manifest of ten million clips, and how much memory.

`python -m benchmarks.judging [--rows 10000000] [--save FILE]`

Writes parts with made-up signals as a scan would leave them, then does what `vidcurate judge` does up to the decision
columns: reads what the rules, tags, quotas and buckets of the default recipe need, block by block, judges, resamples by
concept, and writes the decisions as Parquet. Copies and concepts are given: finding them is another benchmark's.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa

from benchmarks.curate import machine
from curation import comparing, copying, recipes
from curation.assemble import ROWS_PER_PART, decide_all
from curation.job import Job, Part, Receipt, Video, peak_memory_mb
from curation.recipe import Recipe
from curation.relate import mark_done, relate, stage_of, write_clusters
from dedup.quotas import Quota
from manifests.ids import clip_id
from manifests.schema import conform
from manifests.store import Store

CLIPS_PER_VIDEO = 20
CONCEPTS = 50_000
TARGETS = {"seconds per ten million rows": 60.0, "peak memory, GB": 8.0}


def recipe() -> Recipe:
    """The default one, with a quota."""
    base = recipes.embedded()
    quotas = (Quota("landscape", "aspect", 1.0, 0.6, 0.6),)
    return dataclasses.replace(base, resample=dataclasses.replace(base.resample, quotas=quotas))


def write_part(store: Store, plan: Recipe, part: Part, rows: int, seed: int) -> None:
    """Signals at random within the range of footage, two decimals each."""
    rng = np.random.default_rng(seed)
    starts = np.arange(rows) % CLIPS_PER_VIDEO * 5_000_000
    videos = np.repeat([v.id for v in part.videos], CLIPS_PER_VIDEO)[:rows]
    uris = np.repeat([v.uri for v in part.videos], CLIPS_PER_VIDEO)[:rows]
    ids = [clip_id(video, start, start + 5_000_000) for video, start in zip(videos, starts.tolist(), strict=True)]
    given = {"clip_id": ids, "video_id": videos, "uri": uris, "start_us": starts, "end_us": starts + 5_000_000}
    bounds = {rule.column: (rule.low, rule.high) for rule in plan.rules if rule.column}
    for stage, schema in ((plan.scan_stage, plan.scan_schema), (plan.measure_stage, plan.measure_schema)):
        columns = {name: pa.array(values) for name, values in given.items() if name in schema.names}
        for field in schema:
            if field.name in columns or not (pa.types.is_floating(field.type) or pa.types.is_integer(field.type)):
                continue
            low, high = bounds.get(field.name, (None, None))
            values = rng.normal(0, 1, rows).round(2)
            if high is not None:
                values = high - np.abs(values - 2) * max(high, 0.1) / 3  # a few in a hundred are over it
            elif low is not None:
                values = low + np.abs(values + 2) * max(low, 0.1) / 3
            columns[field.name] = pa.array(values if pa.types.is_floating(field.type) else values.astype(int))
        columns |= {"duration_s": pa.array(np.full(rows, 5.0))} if "duration_s" in schema.names else {}
        store.write_table(f"stages/{stage}/clips/{part.name}.parquet", conform(pa.table(columns), schema))
    Receipt(plan.scan_stage, part.name, tuple(v.id or "" for v in part.videos), rows, 0.0).save(store)


def write_all(folder: str, plan: Recipe, rows: int) -> tuple[Job, Store, list[Part]]:
    store, parts = Store(folder), []
    for k, start in enumerate(range(0, rows, ROWS_PER_PART)):
        count = min(ROWS_PER_PART, rows - start)
        names = [f"{k:06d}{v:026d}" for v in range(-(-count // CLIPS_PER_VIDEO))]
        parts.append(Part(f"part-{k:05d}", tuple(Video(f"s3://films/{n}.mp4", 1, n) for n in names)))
        write_part(store, plan, parts[-1], count, k)
    stage = stage_of(plan, parts, store)
    rng = np.random.default_rng(0)
    for part in parts:
        ids = store.read_table(f"stages/{plan.scan_stage}/clips/{part.name}.parquet", ["clip_id"])["clip_id"]
        labels = np.minimum(rng.zipf(1.3, len(ids)), CONCEPTS) - 1
        write_clusters(store, stage, part, ids, pa.array(labels, pa.int32()))
    mark_done(store, stage, parts)
    copying.write(store, copying.stage_of(plan), comparing.PAIRS.empty_table(), [comparing.member_id(p) for p in parts])
    return Job(folder, plan), store, parts


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rows", type=int, default=10_000_000)
    options.add_argument("--save", type=Path, help="write the figures to this JSON file")
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        job, store, parts = write_all(folder, recipe(), chosen.rows)
        before = peak_memory_mb()
        start = time.perf_counter()
        decided = decide_all(job, store, parts, relate(job, store, parts))
        judged = time.perf_counter() - start
        for k, (first, last) in enumerate(itertools.pairwise(decided.starts)):
            store.write_table(f"decisions/part-{k:05d}.parquet", decided.decisions.rows(first, last))
        seconds = time.perf_counter() - start
    kept, sampled = decided.decisions.kept, decided.decisions.sampled
    figures = {
        "machine": machine(),
        "rows": chosen.rows,
        "seconds per ten million rows": round(seconds * 1e7 / chosen.rows, 1),
        "of these, until decided": round(judged * 1e7 / chosen.rows, 1),
        "peak memory, GB": round(peak_memory_mb() / 1024, 2),
        "peak memory before, GB": round(before / 1024, 2),
        "kept": int(kept.sum()),
        "sampled": int(sampled.sum()),
        "targets": TARGETS,
    }
    print(json.dumps(figures, indent=1))
    if chosen.save:
        chosen.save.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()

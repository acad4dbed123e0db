"""How well and how fast neighbours and concepts are found among up to a million vectors of 512 numbers.

`python -m benchmarks.dedup [--rows 10000 100000 1000000] [--check 4000000] [--folder SCRATCH] [--save FILE]`

1. for each number of rows, in one thread: an index is built and all pairs with a cosine of at least 0.75 are found;
   their recall is that among the pairs of 2,000 sampled rows that exact search finds in the same run
2. the same with two Dask workers that build shards on disk, for the largest number of rows
3. FAISS' own inverted files on the same cells, in one thread
4. concepts: k-means on a sample, and every row assigned
5. what a hundred million rows take, from the cost of a row with workers: comparing it with the centroids is measured
   with as many as those would have, the rest is as before; `--check ROWS` holds this against one more run

Every measurement has a process of its own, so that its peak of memory is its own. Costs and growth are counted in
seconds of the processor, to which nothing else that runs on the machine adds; elapsed ones stand beside them.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from distributed import Client

from benchmarks.curate import machine
from benchmarks.vectors import SIZE, Truth, exact, found, plant, rows_of
from curation.cluster import connect
from curation.job import peak_memory_mb
from curation.neighbours import find_pairs
from dedup.cells import Cells
from dedup.concepts import Concepts, assign, learn, number
from dedup.kmeans import nearest
from dedup.neighbours import Index, Neighbours
from dedup.pairs import Pairs
from dedup.vectors import Column, Floats, Rows, one_thread, sample

THRESHOLD, WORKERS, FAR = 0.75, 2, 100_000_000
TARGETS = {"recall of pairs": 0.99, "growth over that of n log n": 1.0, "peak memory, GB": 8.0}


def neighbours(vectors: Column, folder: Path) -> dict[str, Any]:
    """One thread, one process; libraries are loaded before time is taken."""
    Index.build(folder.with_name("warm"), [next(iter(vectors))[:1000]]).pairs_above(THRESHOLD)
    start, elapsed = time.process_time(), time.perf_counter()
    index = Index.build(folder, vectors)
    built = time.process_time() - start
    pairs = index.pairs_above(THRESHOLD)
    seconds, elapsed = time.process_time() - start, time.perf_counter() - elapsed
    memory = peak_memory_mb() / 1024
    truth = exact(vectors, THRESHOLD)
    start = time.process_time()
    numbers = index.search(truth.vectors, 11)[1]
    asked = (time.process_time() - start) / len(truth.rows)
    block = next(iter(vectors))
    return {
        "rows": len(vectors),
        "cells": len(index.cells),
        "seconds": round(seconds, 2),
        "of these, building": round(built, 2),
        "elapsed seconds": round(elapsed, 2),
        "microseconds per row": round(seconds / len(vectors) * 1e6, 1),
        "of these, centroids": round(sum(_centroids(index.cells, block, n) for n in (1, Neighbours().probes)), 1),
        "peak memory, GB": round(memory, 2),
        "disk, bytes per clip": _bytes(folder, len(vectors)),
        "pairs": len(pairs),
        **recalls(truth, pairs),
        "ten nearest of a query, recall": _share(truth.nearest, numbers),
        "search, milliseconds per query": round(asked * 1e3, 2),
    }


def recalls(truth: Truth, pairs: Pairs) -> dict[str, Any]:
    """Recall of the pairs of the sampled rows, from each cosine on."""
    hit = found(truth.pairs, pairs)
    figures = {
        f"recall of pairs from {least}": round(float(hit[truth.pairs.cosine >= least].mean()), 4)
        for least in (THRESHOLD, 0.9, 0.99)
    }
    return {**figures, "pairs by exact search": len(hit)}


def workers(vectors: Column, folder: Path) -> dict[str, Any]:
    """Several processes, each with a shard in memory at a time."""
    with connect(WORKERS) as client:
        settings = Neighbours(shard=max(1, len(vectors) // (4 * WORKERS)))
        start = time.perf_counter()
        before = _used(client)
        pairs = find_pairs(client, vectors, folder, THRESHOLD, settings, "synthetic")
        seconds, used = time.perf_counter() - start, _used(client) - before
        memory = [peak_memory_mb() / 1024, *(mb / 1024 for mb in client.run(peak_memory_mb).values())]
    with Index.open(folder) as index:
        cells, shards = index.cells, index.header.shards
    block = next(iter(vectors))
    return {
        "rows": len(vectors),
        "workers": WORKERS,
        "shards": shards,
        "cells": len(cells),
        "elapsed seconds": round(seconds, 2),
        "core microseconds per row": round(used / len(vectors) * 1e6, 1),
        "of these, centroids": round(sum(_centroids(cells, block, n) for n in (1, Neighbours().probes)), 1),
        "disk, bytes per clip": _bytes(folder, len(vectors)),
        "peak memory of driver and workers, GB": [round(m, 2) for m in memory],
        "peak memory, GB": round(sum(memory), 2),
        **recalls(exact(vectors, THRESHOLD), pairs),
    }


def _used(client: Client) -> float:
    """Seconds of the processor that workers and driver have had."""
    return time.process_time() + sum(client.run(time.process_time).values())


def others(vectors: Column, folder: Path) -> dict[str, Any]:
    """FAISS' inverted files with our centroids and as many probes: what a row takes, and the share of its pairs whose
    other row is among the first 128 found. Re-ranking those by exact cosines is not counted.

    Our figures for one row of a pair, as pairs are lost here that would be found from the other row: those whose other
    row lies in a cell that it looks into."""
    truth, cells, probes = exact(vectors, THRESHOLD), Index.open(folder).cells, Neighbours().probes
    queries, names = _sides(truth)
    some, where = np.unique(names, return_inverse=True)
    home = cells.nearest(rows_of(vectors, some), 1)[where]
    hit = (cells.nearest(truth.vectors, probes)[queries] == home).any(axis=1)
    figures: dict[str, Any] = {"probes": probes, "recall of the cells": round(float(hit.mean()), 4)}
    coarse = faiss.IndexFlatIP(SIZE)
    coarse.add(cells.centroids)
    args = (coarse, SIZE, len(cells))
    kinds = {
        "IVF flat": faiss.IndexIVFFlat(*args, faiss.METRIC_INNER_PRODUCT),
        "IVF-PQ 64x8": faiss.IndexIVFPQ(*args, 64, 8, faiss.METRIC_INNER_PRODUCT),
        "IVF-PQ 128x4 fast scan": faiss.IndexIVFPQFastScan(*args, 128, 4, faiss.METRIC_INNER_PRODUCT),
    }
    points = sample(vectors, SIZE, 50_000 / len(vectors), 0)
    for name, kind in kinds.items():
        kind.nprobe, kind.by_residual = probes, False
        with one_thread():
            start = time.process_time()
            kind.train(points)
            for block in vectors:
                kind.add(block)
            added = time.process_time() - start
            start = time.process_time()
            numbers = kind.search(truth.vectors, 128)[1]
            row = (time.process_time() - start) / len(truth.rows)
        figures[name] = {
            "microseconds per row, adding": round(added / len(vectors) * 1e6, 1),
            "microseconds per row, searching": round(row * 1e6, 1),
            "recall of pairs from 0.75": round(float((numbers[queries] == names[:, None]).any(axis=1).mean()), 4),
        }
        kind.reset()
    return figures


def _sides(truth: Truth) -> tuple[Rows, Rows]:
    """For each true pair and each of its rows that was sampled: which sampled row it is, and the other row."""
    rows = np.concatenate([truth.pairs.first, truth.pairs.second])
    others = np.concatenate([truth.pairs.second, truth.pairs.first])
    asked = np.isin(rows, truth.rows)
    return np.searchsorted(truth.rows, rows[asked]), others[asked]


def concepts(vectors: Column, folder: Path) -> dict[str, Any]:
    """k-means in two levels on a sample, then all rows; and k-means in one level, as often tried, for comparison."""
    rows, settings = len(vectors), Concepts()
    start = time.process_time()
    centroids = learn(vectors, rows, settings)
    learnt = time.process_time() - start
    labels = np.concatenate([assign(block, centroids) for block in vectors])
    numbers, kept = number(labels, centroids, settings.merge)
    seconds, memory = time.process_time() - start, peak_memory_mb() / 1024
    points = sample(vectors, SIZE, settings.sample / rows, settings.seed)
    start = time.process_time()
    with one_thread():
        flat = faiss.Kmeans(SIZE, len(centroids), niter=settings.rounds, nredo=settings.tries, seed=1)
        flat.train(points)
    return {
        "rows": rows,
        "clusters": len(centroids),
        "concepts after merging": len(kept),
        "largest": int(np.bincount(numbers)[0]),
        "sample": len(points),
        "seconds": round(seconds, 2),
        "of these, learning": round(learnt, 2),
        "peak memory, GB": round(memory, 2),
        "mean squared distance": _distance(points, centroids),
        "in one level, seconds of learning": round(time.process_time() - start, 2),
        "in one level, mean squared distance": _distance(points, np.asarray(flat.centroids)),
    }


def coarse(vectors: Column, folder: Path) -> dict[str, Any]:
    """Cost of finding a row's cells, with the cells of a hundred million rows."""
    settings = Neighbours()
    start = time.process_time()
    points = sample(vectors, SIZE, settings.sample / len(vectors), settings.seed)
    cells = Cells.train(points, settings.cells(FAR), settings.rounds, settings.seed)
    learnt = time.process_time() - start
    queries = points[np.sort(np.random.default_rng(0).choice(len(points), min(16384, len(points)), replace=False))]
    return {
        "cells": len(cells),
        "learning, seconds": round(learnt, 1),
        "centroids, microseconds per row": round(sum(_centroids(cells, queries, n) for n in (1, settings.probes)), 1),
        "peak memory, GB": round(peak_memory_mb() / 1024, 2),
    }


def _centroids(cells: Cells, queries: Floats, probes: int) -> float:
    """Microseconds per row for its cells."""
    start = time.process_time()
    cells.nearest(queries, min(probes, len(cells)))
    return (time.process_time() - start) / len(queries) * 1e6


def _bytes(folder: Path, rows: int) -> int:
    return round(sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / rows)


def _share(wanted: Rows, given: Rows) -> float:
    """Of what each row of `wanted` holds, the share that the same row of `given` holds."""
    return round(float(np.mean([np.isin(a, b).mean() for a, b in zip(wanted, given, strict=True)])), 4)


def _distance(points: Floats, centroids: Floats) -> float:
    """Mean squared distance to the nearest."""
    return round(float(((points - centroids[nearest(points, centroids)]) ** 2).sum(axis=1).mean()), 4)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    options.add_argument(
        "--check", type=int, help="rows of one more run with workers, to hold the last figures against"
    )
    options.add_argument("--folder", type=Path, help="where to write vectors and indexes, about 5 kB per row; removed")
    options.add_argument("--save", type=Path, help="write the figures to this JSON file")
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory(dir=chosen.folder) as scratch:
        figures = measure(sorted(chosen.rows), chosen.check, Path(scratch))
    if chosen.save:
        chosen.save.parent.mkdir(parents=True, exist_ok=True)
        chosen.save.write_text(json.dumps(figures, indent=1) + "\n")


def measure(rows: list[int], check: int | None, scratch: Path) -> dict[str, Any]:
    figures: dict[str, Any] = {"machine": machine(), "targets": TARGETS, "neighbours, one thread": []}
    for n in rows:
        shutil.rmtree(scratch / "vectors", ignore_errors=True)
        shutil.rmtree(scratch / "index", ignore_errors=True)
        shutil.rmtree(scratch / "warm", ignore_errors=True)
        vectors = plant(scratch / "vectors", n)
        figures["neighbours, one thread"].append(_apart(neighbours, vectors, scratch / "index"))
    figures["growth"] = growth(figures["neighbours, one thread"])
    print(json.dumps(figures["growth"], indent=1), flush=True)
    for name, task, folder in (
        ("other indexes", others, "index"),
        ("neighbours, workers", workers, "shared"),
        ("concepts", concepts, ""),
        ("cells of 100 million rows", coarse, ""),
    ):
        figures[name] = _apart(task, vectors, scratch / folder)
    if check:
        for folder in ("vectors", "index", "shared"):
            shutil.rmtree(scratch / folder)
        figures["neighbours, workers, check"] = _apart(workers, plant(scratch / "vectors", check), scratch / "shared")
    figures["100 million rows"] = extrapolate(figures)
    print(json.dumps(figures["100 million rows"], indent=1), flush=True)
    return figures


def growth(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """From each number of rows to the largest: how many times the seconds, and how many times n log n."""
    last = runs[-1]
    return [
        {
            "from": run["rows"],
            "to": last["rows"],
            "seconds": round(last["seconds"] / run["seconds"], 1),
            "n log n": round(last["rows"] * math.log(last["rows"]) / (run["rows"] * math.log(run["rows"])), 1),
        }
        for run in runs[:-1]
    ]


def extrapolate(figures: dict[str, Any]) -> dict[str, Any]:
    """From the run with workers. A row is compared with more centroids, as measured; the rest of its cost stays."""
    run, far = figures["neighbours, workers"], figures["cells of 100 million rows"]
    rest = run["core microseconds per row"] - run["of these, centroids"]
    hours = (rest + far["centroids, microseconds per row"]) * FAR / 3.6e9
    told = {
        "core microseconds per row": round(hours * 3.6e9 / FAR, 1),
        "core hours": round(hours, 1),
        "hours on 1 machine of 2 cores": round(hours / 2, 1),
        "hours on 8 machines of 16 cores": round(hours / 128, 2),
        "disk of the index, GB": round(run["disk, bytes per clip"] * FAR / 1e9),
    }
    if check := figures.get("neighbours, workers, check"):
        told["the same for the rows of the check"] = round(rest + check["of these, centroids"], 1)
        told["measured there"] = check["core microseconds per row"]
    return told


def _apart(task: Callable[[Column, Path], dict[str, Any]], vectors: Column, folder: Path) -> dict[str, Any]:
    """In a process of its own, with one thread."""
    os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        figures = pool.submit(task, vectors, folder).result()
    print(task.__name__, json.dumps(figures, indent=1), flush=True)
    return figures


if __name__ == "__main__":
    main()

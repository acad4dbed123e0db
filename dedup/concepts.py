"""Concepts: clusters of clips that look alike, by FAISS k-means on their descriptors."""

from __future__ import annotations

from dataclasses import dataclass

import faiss
import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, slots=True)
class Concepts:
    """count: number of clusters; 0 takes the square root of half the number of clips, the usual rule of thumb.
    rounds, tries, seed: of the k-means; the best of several tries is taken."""

    count: int = 0
    rounds: int = 20
    tries: int = 5
    seed: int = 0
    version: int = 1


def cluster(vectors: npt.NDArray[np.float32], settings: Concepts) -> npt.NDArray[np.int32]:
    """Cluster number (N,) of every row of `vectors` (N, D), unit length; numbered by falling size, then by first row.

    The same rows in the same order give the same numbers: FAISS is held to one thread while it sums.
    """
    count = len(vectors)
    if not count:
        return np.zeros(0, np.int32)
    wanted = settings.count or round(np.sqrt(count / 2))
    clusters = int(min(max(1, wanted), count))
    vectors = np.ascontiguousarray(vectors, np.float32)
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        means = faiss.Kmeans(
            vectors.shape[1],
            clusters,
            niter=settings.rounds,
            nredo=settings.tries,
            seed=settings.seed + 1,
            min_points_per_centroid=1,
        )
        means.train(vectors)
        _, nearest = means.index.search(vectors, 1)
    finally:
        faiss.omp_set_num_threads(threads)
    labels, first, inverse, sizes = np.unique(nearest[:, 0], return_index=True, return_inverse=True, return_counts=True)
    order = np.lexsort((first, -sizes))
    rank = np.empty(len(labels), np.int32)
    rank[order] = np.arange(len(labels), dtype=np.int32)
    return rank[inverse]

"""Concepts: clusters of clips that look alike or, with embeddings of a video-text model, are about the same thing.

FAISS k-means on a bounded sample, in two levels where clusters are many; then every clip goes to the nearest centroid,
a block at a time. Clusters whose centroids are nearly the same are merged, as Movie Gen merges duplicate clusters
before it resamples (arXiv 2410.13720, section on content filtering).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import faiss
import numpy as np
import numpy.typing as npt

from dedup.kmeans import kmeans, nearest, polish
from dedup.vectors import Blocks, Floats, count, one_thread, sample, unit

_POLISH = 5
"""Rounds in one level after k-means in two."""

Labels = npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Concepts:
    """vectors: the column that is clustered: `descriptor` (how clips look), or `clip_embedding` of filters.learned.clip
    count: number of clusters; 0 takes the square root of half the number of clips, the usual rule of thumb
    rounds, tries, seed: of the k-means; the best of several tries is taken
    sample: clips that the centroids are learnt from at most
    merge: clusters are merged where the cosine of their centroids is at least that; above 1 merges none
    """

    vectors: str = "descriptor"
    count: int = 0
    rounds: int = 20
    tries: int = 5
    seed: int = 0
    sample: int = 262_144
    merge: float = 0.98
    version: int = 2

    def clusters(self, rows: int) -> int:
        """For so many clips, before any are merged."""
        return int(min(max(1, self.count or round(np.sqrt(rows / 2))), max(1, rows)))


def cluster(vectors: npt.NDArray[np.floating], settings: Concepts) -> Labels:
    """Cluster number (N,) of every row of `vectors` (N, D); numbered by falling size, then by first row.

    The same rows in the same order give the same numbers, on one machine.
    """
    return cluster_blocks([vectors], settings)[0]


def cluster_blocks(blocks: Blocks, settings: Concepts) -> tuple[Labels, Floats]:
    """Cluster number (N,) of every row of all blocks (n, D), and the clusters' centroids (K, D), of unit length.

    Walks the blocks two or three times, and holds no more than the sample, one block, and four bytes per row. How rows
    are cut into blocks makes no difference. Rows that are zero or not finite have one cluster of their own, whose
    centroid is zeros.
    """
    rows = count(blocks)
    centroids = learn(blocks, rows, settings)
    labels = [assign(block, centroids) for block in blocks]
    return number(np.concatenate([np.zeros(0, np.int32), *labels]), centroids, settings.merge)


def learn(blocks: Blocks, rows: int, settings: Concepts) -> Floats:
    """Centroids (K, D), in no particular order, from a sample of all `rows` rows."""
    size = next((block.shape[1] for block in blocks), 0)
    points = sample(blocks, size, settings.sample / max(rows, 1), settings.seed)
    if not len(points):
        return np.zeros((0, size), np.float32)
    wanted = settings.clusters(rows)
    centroids, families = kmeans(points, wanted, rounds=settings.rounds, tries=settings.tries, seed=settings.seed)
    return polish(points, centroids, rounds=_POLISH, seed=settings.seed) if len(families) > 2 else centroids


def assign(block: npt.NDArray[np.floating], centroids: Floats) -> Labels:
    """Nearest centroid (n,) of each row (n, D); K, the number of centroids, for a row that is zero or not finite."""
    vectors, good = unit(block)
    labels = np.full(len(vectors), len(centroids), np.int32)
    if good.any():
        labels[good] = nearest(vectors[good], centroids)
    return labels


def number(labels: Labels, centroids: Floats, merge: float = 2.0) -> tuple[Labels, Floats]:
    """Final numbers (N,) of what `assign` gave for all rows, and the centroids (K', D) that go with them.

    The largest cluster comes first, of equal ones that of the earlier row; each takes in the smaller ones whose
    centroids lie within `merge` of its own, so that chains of neighbours do not all become one. Empty clusters vanish.
    """
    known, first, sizes = np.unique(labels, return_index=True, return_counts=True)
    centers, good = unit(np.vstack([centroids, np.zeros((1, centroids.shape[1]), np.float32)])[known])
    leader = _leaders(centers, good, np.lexsort((first, -sizes)), merge)
    merged = np.bincount(leader, sizes, len(known)).astype(np.int64)
    earliest = np.full(len(known), len(labels), np.int64)
    np.minimum.at(earliest, leader, first)
    order = np.lexsort((earliest, -merged))[: int((merged > 0).sum())]
    rank = np.empty(len(known), np.int32)
    rank[order] = np.arange(len(order), dtype=np.int32)
    sums = np.zeros_like(centers, np.float64)
    np.add.at(sums, leader, centers * sizes[:, None])
    new = np.zeros(len(centroids) + 1, np.int32)
    new[known] = rank[leader]
    return new[labels], unit(sums[order])[0]


def name_concepts(centroids: Floats, phrase_embeddings: Floats, phrases: Sequence[str]) -> list[str | None]:
    """For each centroid (K, D) the phrase whose embedding (P, D), by the text side of the same model, is nearest.

    None for a centroid of zeros. Raises ValueError when phrases and embeddings do not match, or none is given.
    """
    texts, _ = unit(np.atleast_2d(phrase_embeddings))
    centers, good = unit(centroids)
    if not phrases or texts.shape != (len(phrases), centers.shape[1]):
        raise ValueError(
            f"{len(phrases)} phrases with embeddings of shape {np.shape(phrase_embeddings)} cannot name concepts of "
            f"{centers.shape[1]} numbers; embed the phrases with the model that embedded the clips."
        )
    with one_thread():
        at = faiss.knn(centers, texts, 1, metric=faiss.METRIC_INNER_PRODUCT)[1][:, 0]
    return [phrases[k] if ok else None for k, ok in zip(at, good, strict=True)]


def _leaders(
    centers: Floats, good: npt.NDArray[np.bool_], order: npt.NDArray[np.int64], merge: float
) -> npt.NDArray[np.int64]:
    """For each cluster the one that takes it in, perhaps itself; clusters are asked in `order`."""
    leader = np.arange(len(centers))
    if merge > 1:
        return leader
    free = good.copy()
    for k in order:
        if free[k]:
            near = free & (centers @ centers[k] >= merge)
            near[k] = True
            leader[near] = k
            free[near] = False
    return leader

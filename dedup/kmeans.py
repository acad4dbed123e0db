"""k-means by FAISS, in two levels where clusters are many, so that its cost grows with their square root."""

from __future__ import annotations

import math

import faiss
import numpy as np
import numpy.typing as npt

from dedup.vectors import Floats, Rows, one_thread

ONE_LEVEL = 256
"""Up to that many clusters are found at once."""


def kmeans(
    points: Floats, clusters: int, *, rounds: int = 20, tries: int = 1, seed: int = 0, spherical: bool = False
) -> tuple[Floats, Rows]:
    """Centroids (K, D) of points (N, D), and where each family of them starts (F + 1,).

    A family is the clusters that one coarse cluster was split into; clusters are given to it by the number of its
    points. K is `clusters`, or the number of points where that is smaller. spherical: centroids have unit length.
    The same points in the same order give the same centroids.
    """
    clusters = max(1, min(clusters, len(points)))
    if clusters <= ONE_LEVEL:
        return _one_level(points, clusters, rounds, tries, seed, spherical), np.array([0, clusters])
    coarse = _one_level(points, round(math.sqrt(clusters)), rounds, tries, seed, spherical)
    family = nearest(points, coarse)
    members = np.split(np.argsort(family, kind="stable"), np.cumsum(np.bincount(family, minlength=len(coarse)))[:-1])
    members = [rows for rows in members if len(rows)]
    shares = _shares(np.array([len(rows) for rows in members]), clusters)
    fine = [
        _one_level(points[rows], share, rounds, tries, seed, spherical)
        for rows, share in zip(members, shares, strict=True)
    ]
    return np.concatenate(fine), np.append(0, np.cumsum(shares))


def polish(points: Floats, centroids: Floats, *, rounds: int, seed: int = 0, spherical: bool = False) -> Floats:
    """Centroids (K, D) after some more rounds in which all of them compete for each point, in one level."""
    return _one_level(points, len(centroids), rounds, 1, seed, spherical, centroids)


def nearest(points: npt.NDArray[np.float32], centroids: Floats) -> Rows:
    """Number (N,) of the centroid that is nearest to each point (N, D) by Euclidean distance."""
    with one_thread():
        return np.asarray(faiss.knn(np.ascontiguousarray(points, np.float32), centroids, 1)[1][:, 0], np.int64)


def _one_level(
    points: Floats, clusters: int, rounds: int, tries: int, seed: int, spherical: bool, start: Floats | None = None
) -> Floats:
    means = faiss.Kmeans(
        points.shape[1],
        clusters,
        niter=rounds,
        nredo=tries,
        seed=seed + 1,
        min_points_per_centroid=1,
        spherical=spherical,
    )
    with one_thread():
        means.train(points, init_centroids=start)
    return np.asarray(means.centroids, np.float32)


def _shares(sizes: Rows, clusters: int) -> Rows:
    """Clusters for each family, by its size: at least one, at most as many as it has points; they sum to `clusters`."""
    exact = sizes * (clusters / sizes.sum())
    shares = np.clip(exact.astype(np.int64), 1, sizes)
    while missing := clusters - int(shares.sum()):
        step = 1 if missing > 0 else -1
        free = shares < sizes if step > 0 else shares > 1
        order = np.argsort(np.where(free, step * (shares - exact), np.inf), kind="stable")
        shares[order[: min(abs(missing), int(free.sum()))]] += step
    return shares

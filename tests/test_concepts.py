"""Concepts: clusters from samples and blocks, merged, numbered and named; and how many clips each keeps."""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt
import pytest

from dedup.concepts import Concepts, assign, cluster, cluster_blocks, learn, name_concepts, number
from dedup.kmeans import kmeans
from dedup.resample import Resample, drawn, probabilities
from dedup.vectors import unit

Floats = npt.NDArray[np.float32]


def blobs(
    sizes: list[int], size: int = 32, spread: float = 0.03, seed: int = 0
) -> tuple[Floats, npt.NDArray[np.int64]]:
    """Unit vectors in shuffled clusters of these sizes, about random centres; and which is whose."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    centers = unit(rng.standard_normal((len(sizes), size)))[0]
    return unit(centers[labels] + rng.normal(0, spread, (len(labels), size)))[0], labels


def agree(found: npt.NDArray[np.integer], truth: npt.NDArray[np.integer]) -> bool:
    """Whether both are the same partition."""
    pairs = np.unique(np.stack([found, truth]), axis=1)
    return len(np.unique(found)) == len(np.unique(truth)) == pairs.shape[1]


def test_how_rows_are_cut_into_blocks_makes_no_difference() -> None:
    vectors, _ = blobs([300] * 10)
    settings = Concepts(count=12, sample=1000)
    labels, centroids = cluster_blocks([vectors], settings)
    for cuts in ([1], [7, 8, 2000], list(range(100, 3000, 100))):
        again, same = cluster_blocks(np.split(vectors, cuts), settings)
        assert (again == labels).all() and (same == centroids).all()
    assert (cluster(vectors, settings) == labels).all()


def test_a_sample_finds_the_clusters_of_all() -> None:
    vectors, truth = blobs([400, 900, 1500, 2200])
    settings = Concepts(count=4, sample=300)
    assert learn([vectors], len(vectors), settings).shape == (4, 32)
    labels, centroids = cluster_blocks([vectors], settings)
    assert agree(labels, truth) and np.bincount(labels).tolist() == [2200, 1500, 900, 400]
    assert (np.argmax(vectors @ centroids.T, axis=1) == labels).all()


def test_many_clusters_are_found_in_two_levels() -> None:
    vectors, truth = blobs([20] * 400, size=48, spread=0.01)
    centroids, families = kmeans(vectors, 800, rounds=10, seed=0)
    assert centroids.shape == (800, 48) and len(families) == 29 and families[-1] == 800
    labels = assign(vectors, centroids)
    pure = sum(len(np.unique(truth[labels == k])) == 1 for k in np.unique(labels))
    assert pure >= 0.95 * len(np.unique(labels))
    assert (kmeans(vectors, 800, rounds=10, seed=0)[0] == centroids).all()
    assert (kmeans(vectors, 800, rounds=10, seed=1)[0] != centroids).any()


def test_two_levels_cope_with_few_and_equal_points() -> None:
    points = np.ones((700, 8), np.float32)
    centroids, families = kmeans(points, 650, rounds=2)
    assert centroids.shape == (650, 8) and families[0] == 0 and families[-1] == 650 and (np.diff(families) > 0).all()
    assert kmeans(points[:5], 300)[0].shape == (5, 8)


def test_clusters_that_are_nearly_one_are_merged() -> None:
    vectors, truth = blobs([600, 300, 100])
    split, _ = cluster_blocks([vectors], Concepts(count=12, merge=2.0))
    assert len(np.unique(split)) > 3
    merged, centroids = cluster_blocks([vectors], Concepts(count=12, merge=0.9))
    assert agree(merged, truth) and np.bincount(merged).tolist() == [600, 300, 100]
    assert (np.argmax(vectors @ centroids.T, axis=1) == merged).all()
    assert np.linalg.norm(centroids, axis=1) == pytest.approx(np.ones(3), abs=1e-5)


def test_chains_of_neighbours_do_not_become_one() -> None:
    angles = np.radians([0, 10, 20, 30, 40])
    centroids = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    labels = np.repeat(np.arange(5, dtype=np.int32), [5, 4, 30, 2, 3])
    found, _ = number(labels, centroids, merge=float(np.cos(np.radians(11))))
    assert found[[0, 5, 9, 39, 41]].tolist() == [1, 0, 0, 0, 2], "the largest takes in its neighbours, not theirs"


def test_numbers_go_by_size_then_by_first_row() -> None:
    labels = np.array([3, 1, 1, 0, 3, 5], np.int32)
    found, centroids = number(labels, np.eye(6, dtype=np.float32))
    assert found.tolist() == [0, 1, 1, 2, 0, 3], "of equal ones the earlier row's comes first"
    assert np.argmax(centroids, axis=1).tolist() == [3, 1, 0, 5] and found.dtype == np.int32


def test_rows_without_a_direction_have_a_concept_of_their_own() -> None:
    vectors, truth = blobs([50, 30])
    vectors[[2, 40]], vectors[61, 5], vectors[7] = 0, np.nan, np.inf
    truth[[2, 40, 61, 7]] = 9
    labels, centroids = cluster_blocks([vectors[:33], vectors[33:]], Concepts(count=2))
    assert agree(labels, truth) and np.isfinite(centroids).all()
    assert not centroids[labels[2]].any()
    assert (cluster(np.zeros((5, 4)), Concepts()) == 0).all() and (
        cluster(np.full((5, 4), np.nan), Concepts()) == 0
    ).all()


@pytest.mark.parametrize("rows", [0, 1, 3])
@pytest.mark.parametrize("count", [0, 1, 50])
def test_more_clusters_than_clips_and_no_clips(rows: int, count: int) -> None:
    vectors = blobs([1] * rows)[0] if rows else np.zeros((0, 32), np.float32)
    labels, centroids = cluster_blocks([vectors], Concepts(count=count))
    assert len(labels) == rows and len(centroids) == len(np.unique(labels)) == (
        min(rows, count) if count else min(rows, 1)
    )
    assert cluster_blocks([], Concepts())[0].shape == (0,)


def test_identical_clips_are_one_concept() -> None:
    labels, centroids = cluster_blocks([np.ones((2000, 16), np.float32)], Concepts(count=40))
    assert (labels == 0).all() and centroids.shape == (1, 16)


def test_concepts_are_named_by_the_nearest_phrase() -> None:
    phrases = ["a dog", "the sea", "a street at night"]
    texts = np.eye(3, 8, dtype=np.float32) + 0.2
    centroids = np.vstack([texts[2] + 0.1, texts[0], np.zeros(8)]).astype(np.float32)
    assert name_concepts(centroids, 5 * texts, phrases) == ["a street at night", "a dog", None]
    for wrong in (texts[:2], texts[:, :5]):
        with pytest.raises(ValueError, match=r"3 phrases with embeddings .* concepts of 8 numbers"):
            name_concepts(centroids, wrong, phrases)
    with pytest.raises(ValueError, match="0 phrases"):
        name_concepts(centroids, np.zeros((0, 8)), [])


def test_concepts_of_1_4_and_100_clips_keep_1_2_and_10() -> None:
    vectors, truth = blobs([100, 4, 1])
    labels = cluster(vectors, Concepts(count=3, merge=2.0))
    sizes = np.bincount(labels)
    assert agree(labels, truth) and sizes.tolist() == [100, 4, 1]
    ids = [f"clip{k}" for k in range(len(labels))]
    settings = Resample(keep=13 / 105)
    chance = probabilities(sizes[labels], settings)
    assert np.bincount(labels, chance) == pytest.approx([10, 2, 1], abs=1e-5), "alpha / sqrt(size), alpha = 1"
    draws = [drawn(ids, chance, dataclasses.replace(settings, seed=seed)) for seed in range(300)]
    kept = np.mean([np.bincount(labels[draw], minlength=3) for draw in draws], axis=0)
    assert kept == pytest.approx([10, 2, 1], abs=0.6)

"""Retrieval on vectors: exact neighbours in blocks, seeds, and sets in which every entry has its share."""

from __future__ import annotations

import numpy as np
import pytest

from dedup.retrieval import Found, balance_entries, centers, nearest, pick_seeds
from dedup.vectors import unit


def vectors(count: int, size: int = 16, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, size)).astype(np.float32)


@pytest.mark.parametrize("step", [1, 7, 50, 1000])
def test_blocks_find_what_one_product_finds(step: int) -> None:
    rows, questions = vectors(300), vectors(5, seed=1)
    found = nearest([rows[k : k + step] for k in range(0, len(rows), step)], questions, 12)
    cosines = unit(questions)[0] @ unit(rows)[0].T
    order = np.argsort(-cosines, axis=1)[:, :12]
    assert (found.row == order).all()
    assert found.similarity == pytest.approx(np.take_along_axis(cosines, order, axis=1), abs=1e-6)


def test_equal_rows_are_found_in_their_order() -> None:
    rows = np.ones((40, 4), np.float32)
    rows[10] *= -1
    found = nearest([rows[:15], rows[15:]], np.ones(4, np.float32), 20)
    assert found.row[0].tolist() == [*range(10), *range(11, 21)] and found.similarity[0] == pytest.approx(1)


def test_rows_without_a_direction_are_never_found() -> None:
    rows = vectors(6)
    rows[1], rows[3, 0] = 0, np.nan
    found = nearest([rows], vectors(2, seed=2), 10)
    assert found.row.shape == (2, 6) and set(found.row[0].tolist()) == {0, 2, 4, 5, -1}
    assert found.row[0, -2:].tolist() == [-1, -1]
    query, row, similarity = found.pairs()
    assert len(query) == len(row) == len(similarity) == 8 and np.isfinite(similarity).all()
    nothing = nearest([], vectors(2), 3)
    assert nothing.row.shape == (2, 0) and balance_entries(nothing).counts.tolist() == [0, 0]


def test_vectors_of_another_model_are_refused() -> None:
    with pytest.raises(ValueError, match="the question has 8 numbers and the clips' vectors 16"):
        nearest([vectors(3)], vectors(1, 8), 2)


def test_seeds_are_near_and_good_and_of_one_entry() -> None:
    found = Found(
        np.array([[0.9, 0.8, 0.7, 0.6], [0.95, 0.5, 0.4, 0.3]], np.float32), np.array([[0, 1, 2, 3], [1, 4, 5, 6]])
    )
    quality = np.array([1.0, 9.0, 8.0, 2.0, np.nan, 7.0, 3.0])
    mine, other = pick_seeds(found, quality, 2)
    assert mine.tolist() == [2, 0], "row 1 resembles the other entry more; of 0, 2, 3 the ranks of 2 and 0 are best"
    assert other.tolist() == [1, 5]


def test_the_center_of_seeds_is_a_direction() -> None:
    middle = centers([np.array([[2.0, 0], [0, 0.1]], np.float32), np.array([[3.0, 0]], np.float32)])
    assert middle == pytest.approx(np.array([[2**-0.5, 2**-0.5], [1, 0]]), abs=1e-6)


def test_every_entry_has_its_share() -> None:
    clusters = np.repeat(np.arange(4), [500, 200, 40, 10])
    means = unit(vectors(4, 32, seed=3))[0]
    rows = means[clusters] + 0.02 * vectors(len(clusters), 32, seed=4)
    found = nearest([rows], means, 60)
    even = balance_entries(found)
    assert max(even.counts) - min(even.counts) <= 1 and even.counts.min() > 50, "distant finds count too"
    near = Found(
        np.where(found.similarity > 0.8, found.similarity, -np.inf), np.where(found.similarity > 0.8, found.row, -1)
    )
    level = balance_entries(near)
    assert max(level.counts) - min(level.counts) <= 1 and level.counts.min() == 10
    more = balance_entries(near, 100)
    assert len(more.chosen) == 100 and sorted(more.counts) == [10, 30, 30, 30]
    everything = balance_entries(near, 10**6)
    assert everything.counts.tolist() == [60, 60, 40, 10]
    assert (clusters[everything.chosen] == everything.entry).all()


def test_a_clip_found_twice_is_taken_once() -> None:
    found = Found(np.array([[0.9, 0.8], [0.95, 0.7], [0.5, 0.4]], np.float32), np.array([[0, 1], [0, 1], [0, 2]]))
    made = balance_entries(found, 10)
    assert sorted(made.chosen.tolist()) == [0, 1, 2] and made.entry.tolist() == [0, 1, 2]
    assert balance_entries(found, 2).chosen.tolist() == [0, 1]

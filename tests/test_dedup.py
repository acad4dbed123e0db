"""PDQ, concepts and resampling."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from benchmarks.quality._pdq import distances, mirrored, pdq
from dedup.concepts import Concepts, cluster
from dedup.resample import Resample, drawn, probabilities
from manifests.films.photos import photo
from manifests.types import Image

# Made with pdqhash 0.2.8, which wraps the reference implementation, from the luma of these photographs at this size.
REFERENCE = {
    "astronaut": "6d6b1af3ad56c729e79ca352506fa814d4196c81d6fd04de0a26b851fc99b724",
    "coffee": "9c629e7792663698f9a31846c126726c21a679f61fb6e1f8c799a7e23c8299e0",
    "cat": "5fab7331f05ca156898e2b772da5d2430412edbd23f48942464522317db32ffd",
    "temple": "bf18cee3407e867af6833b1937d14066988c5cf20c6eac5df81103f157abf10e",
}


def luma(name: str, size: tuple[int, int] = (320, 180)) -> Image:
    small = cv2.resize(photo(name), size, interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.cvtColor(small, cv2.COLOR_BGR2GRAY), np.uint8)


@pytest.mark.parametrize("name", REFERENCE)
def test_pdq_equals_the_reference(name: str) -> None:
    hashes, quality = pdq([luma(name)])
    assert hashes[0].tobytes().hex() == REFERENCE[name]
    assert quality[0] == 100


def test_pdq_of_many_is_pdq_of_each() -> None:
    pictures = [luma(name) for name in REFERENCE]
    together, _ = pdq(pictures)
    assert [h.tobytes() for h in together] == [pdq([p])[0][0].tobytes() for p in pictures]


def test_pdq_knows_plain_pictures() -> None:
    assert pdq([np.full((90, 160), 99, np.uint8)])[1][0] < 10
    assert pdq([])[0].shape == (0, 32)


def test_mirrored_hash_is_near_the_mirror_images() -> None:
    for name in REFERENCE:
        here, _ = pdq([luma(name)])
        there, _ = pdq([np.ascontiguousarray(luma(name)[:, ::-1])])
        assert distances(mirrored(here), there)[0, 0] <= 24 < distances(here, there)[0, 0]


def blobs(sizes: list[int], seed: int = 0) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    rng = np.random.default_rng(seed)
    centers = np.eye(len(sizes), 16, dtype=np.float32)
    labels = np.repeat(np.arange(len(sizes)), sizes)
    points = centers[labels] + rng.normal(0, 0.03, (len(labels), 16)).astype(np.float32)
    return (points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float32), labels


def test_concepts_are_the_clusters_numbered_by_size() -> None:
    points, labels = blobs([5, 40, 15])
    found = cluster(points, Concepts(count=3))
    assert {tuple(np.unique(found[labels == k])) for k in range(3)} == {(0,), (1,), (2,)}
    assert np.bincount(found).tolist() == [40, 15, 5]
    assert (found == cluster(points, Concepts(count=3))).all()


@pytest.mark.parametrize("count", [0, 1, 2, 7])
def test_few_clips_still_make_concepts(count: int) -> None:
    found = cluster(blobs([count])[0], Concepts())
    assert len(found) == count and found.dtype == np.int32


def test_probability_falls_with_the_square_root_of_size() -> None:
    sizes = np.repeat([1, 4, 100], [1, 4, 100])
    chance = probabilities(sizes, Resample(keep=13 / 105))
    one, four, hundred = chance[0], chance[1], chance[-1]
    assert one == pytest.approx(1.0, abs=1e-6)
    assert four == pytest.approx(0.5, abs=1e-6) and hundred == pytest.approx(0.1, abs=1e-6)
    assert chance.sum() == pytest.approx(13.0, abs=1e-6)


@pytest.mark.parametrize("keep", [0.0, 0.2, 0.8, 0.99, 1.0])
def test_probabilities_add_up_to_what_was_asked(keep: float) -> None:
    sizes = np.repeat([3, 10, 50, 400], [3, 10, 50, 400])
    chance = probabilities(sizes, Resample(keep=keep))
    assert chance.sum() == pytest.approx(keep * len(sizes), abs=1e-3) and (chance <= 1).all()


def test_the_draw_depends_on_clip_and_seed_alone() -> None:
    ids = [f"clip{k}" for k in range(2000)]
    chance = np.full(2000, 0.3)
    chosen = drawn(ids, chance, Resample())
    assert 0.26 < chosen.mean() < 0.34
    assert (drawn(ids[::-1], chance, Resample())[::-1] == chosen).all()
    assert (drawn([*ids, "new"], np.append(chance, 0.3), Resample())[:2000] == chosen).all()
    assert (drawn(ids, chance, Resample(seed=1)) != chosen).any()
    assert (drawn(ids, chance + 0.1, Resample())[chosen]).all(), "a larger chance only adds"
    assert drawn(["a", "b"], np.zeros(2), Resample()).sum() == 1

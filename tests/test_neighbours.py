"""Nearest neighbours of vectors: against exact search, on disk, by many workers, and with bad input."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from distributed import Client

from curation.neighbours import build_index, find_pairs
from dedup.cells import Cells
from dedup.neighbours import Index, Neighbours, shard_folder
from dedup.pairs import Pairs
from dedup.vectors import Column, from_arrow, sample, stretches, unit

Floats = npt.NDArray[np.float32]

ON_DISK = Neighbours(flat=100, cell=64, probes=16, shard=1500)
"""Cells and several shards for sets of a few thousand."""


def planted(rows: int, size: int = 64, seed: int = 0) -> tuple[Floats, npt.NDArray[np.int64]]:
    """Vectors in groups of about 40, and pairs (P, 2) of rows of which the second was made from the first."""
    rng = np.random.default_rng(seed)
    centers = unit(rng.standard_normal((rows // 40, size)))[0]
    vectors = unit(
        0.6 * centers[rng.integers(0, len(centers), rows)] + 0.8 * unit(rng.standard_normal((rows, size)))[0]
    )[0]
    pairs = rng.permutation(rows)[: rows // 5].reshape(-1, 2)
    cosine = rng.choice([0.86, 0.9, 0.95, 0.99, 0.999], len(pairs)).astype(np.float32)[:, None]
    noise = rng.standard_normal((len(pairs), size)).astype(np.float32)
    source = vectors[pairs[:, 0]]
    noise = unit(noise - (noise * source).sum(1, keepdims=True) * source)[0]
    vectors[pairs[:, 1]] = cosine * source + np.sqrt(1 - cosine**2) * noise
    return vectors, pairs


def exact(vectors: Floats, threshold: float) -> set[tuple[int, int]]:
    first, second = np.nonzero(np.triu(vectors @ vectors.T, 1) >= threshold)
    return set(zip(first.tolist(), second.tolist(), strict=True))


def as_set(pairs: Pairs) -> set[tuple[int, int]]:
    return set(zip(pairs.first.tolist(), pairs.second.tolist(), strict=True))


def parquet(vectors: Floats, folder: Path, parts: int) -> Column:
    """The vectors as a column of Parquet files; rows of zeros are null."""
    folder.mkdir(parents=True)
    files = []
    for k, part in enumerate(np.array_split(vectors, parts)):
        rows = pa.array([row if row.any() else None for row in part], pa.list_(pa.float32()))
        files.append(str(folder / f"part-{k:02d}.parquet"))
        pq.write_table(pa.table({"clip_id": [f"{k}-{n}" for n in range(len(part))], "embedding": rows}), files[-1])
    return Column(tuple(files), "embedding", vectors.shape[1])


@pytest.mark.parametrize("settings", [Neighbours(), ON_DISK], ids=["all with all", "cells on disk"])
def test_pairs_are_those_of_exact_search(settings: Neighbours, tmp_path: Path) -> None:
    vectors, made = planted(6000)
    with Index.build(tmp_path / "index", [vectors], settings) as index:
        found = index.pairs_above(0.85)
    truth = exact(vectors, 0.85)
    assert len(truth) >= len(made) and as_set(found) <= exact(vectors, 0.85 - 2e-6), "a threshold means what it says"
    assert len(truth & as_set(found)) >= 0.99 * len(truth)
    cosines = np.einsum("nd,nd->n", vectors[found.first], vectors[found.second])
    assert found.cosine == pytest.approx(cosines, abs=1e-6) and (found.first < found.second).all()
    if settings == ON_DISK:
        assert len(list((tmp_path / "index").glob("shard-*"))) == 4 and len(index.cells) == 94


def test_search_finds_the_nearest_of_each_query(tmp_path: Path) -> None:
    vectors, _ = planted(5000)
    queries = np.random.default_rng(1).choice(len(vectors), 300, replace=False)
    sims = vectors[queries] @ vectors.T
    truth = np.argsort(-sims, axis=1)[:, :10]
    with Index.build(tmp_path / "index", [vectors], ON_DISK) as index:
        cosines, numbers = index.search(3 * vectors[queries], 10, probes=48)
        assert (numbers[:, 0] == queries).all() and (np.diff(cosines, axis=1) <= 0).all()
        assert np.mean([np.isin(a, b).mean() for a, b in zip(truth, numbers, strict=True)]) >= 0.99
        assert cosines == pytest.approx(np.take_along_axis(sims, numbers, axis=1), abs=1e-5)
        few = index.search(vectors[queries], 10, probes=1)[1]
        assert np.mean([np.isin(a, b).mean() for a, b in zip(truth, few, strict=True)]) < 0.95, "cells are at work"


def test_the_same_rows_give_the_same_pairs_however_they_are_cut(tmp_path: Path) -> None:
    vectors, _ = planted(3000)
    found = []
    for k, cuts in enumerate(([], [1000, 1001], list(range(70, 3000, 70)))):
        with Index.build(tmp_path / str(k), np.split(vectors, cuts), ON_DISK) as index:
            found.append(index.pairs_above(0.85))
            parts = [index.pairs_above(0.85, cells=some) for some in index.ranges(5)]
            merged = Pairs.merge([*parts, index.twins()])
            assert len(parts) == 5 and as_set(merged) == as_set(found[-1]), "cells may be looked into in parts"
    for other in found[1:]:
        assert as_set(other) == as_set(found[0]) and (other.cosine == found[0].cosine).all()


@pytest.mark.parametrize("settings", [Neighbours(), ON_DISK], ids=["all with all", "cells on disk"])
def test_vectors_without_a_direction_are_nobodys_neighbours(settings: Neighbours, tmp_path: Path) -> None:
    vectors, _ = planted(400)
    vectors[[3, 5]], vectors[7, 2], vectors[9, :] = 0, np.nan, np.inf
    bad = {3, 5, 7, 9}
    with Index.build(tmp_path / "index", [vectors], settings) as index:
        found = index.pairs_above(0.85)
        assert found and not bad & {*found.first.tolist(), *found.second.tolist()}
        cosines, numbers = index.search(vectors[:10], 400)
        assert not bad & set(numbers.ravel().tolist()) and len(index) == 396
        assert (numbers[sorted(bad)] == -1).all() and (cosines[sorted(bad)] == -np.inf).all()
        good = numbers[0][numbers[0] >= 0]
        assert len(good) == len(set(good.tolist())) == 396, "k is larger than there are rows"


@pytest.mark.parametrize("rows", [0, 1])
def test_no_clip_and_a_single_clip(rows: int, tmp_path: Path) -> None:
    with Index.build(tmp_path / "index", [np.ones((rows, 8), np.float32)]) as index:
        assert len(index.pairs_above(0.5)) == 0
        assert index.search(np.ones((1, 8)), 3)[1].tolist() == [[0, -1, -1] if rows else [-1, -1, -1]]
    with pytest.raises(ValueError, match="no block of vectors"):
        Index.build(tmp_path / "nothing", [])


@pytest.mark.parametrize("settings", [Neighbours(), ON_DISK], ids=["all with all", "cells on disk"])
def test_identical_clips_are_linked_once_each(settings: Neighbours, tmp_path: Path) -> None:
    vectors = np.ones((4000, 16), np.float32)
    with Index.build(tmp_path / "index", [vectors], settings) as index:
        found = index.pairs_above(0.9)
        assert len(groups(found, 4000)) == 1 and len(found) < 4010 and (found.cosine > 1 - 1e-6).all()
        numbers = index.search(vectors[:1], 50)[1][0].tolist()
        assert len(set(numbers)) == 50 and min(numbers) >= 0


def test_many_clips_alike_stay_one_group_with_few_pairs(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).normal(0, 0.01, (3000, 32)).astype(np.float32)
    with Index.build(tmp_path / "index", [np.eye(1, 32, dtype=np.float32) + noise], ON_DISK) as index:
        found = index.pairs_above(0.9, most=16)
        assert len(groups(found, 3000)) == 1 and len(found) <= 16 * 3000


def groups(pairs: Pairs, rows: int) -> set[int]:
    """Smallest row of each connected group."""
    least = np.arange(rows)
    while True:
        new = least.copy()
        np.minimum.at(new, pairs.first, least[pairs.second])
        np.minimum.at(new, pairs.second, least[pairs.first])
        if (new == least).all():
            return set(least.tolist())
        least = new


def test_an_index_of_something_else_is_refused_in_a_sentence(tmp_path: Path) -> None:
    vectors, _ = planted(300)
    Index.build(tmp_path / "index", [vectors], model="SSCD").close()
    with pytest.raises(ValueError, match=r"vectors of model 'SSCD', not 'CLIP'; build one"):
        Index.open(tmp_path / "index", model="CLIP")
    with pytest.raises(ValueError, match=r"vectors of size 64, not 512; build one"):
        Index.open(tmp_path / "index", model="SSCD", size=512)
    with pytest.raises(ValueError, match="holds an index already"):
        Index.build(tmp_path / "index", [vectors])
    with pytest.raises(ValueError, match="holds no index"):
        Index.open(tmp_path)
    with Index.open(tmp_path / "index") as index, pytest.raises(ValueError, match="for an index of vectors of 64"):
        index.search(np.ones((1, 5)), 1)


def test_damage_is_noticed(tmp_path: Path) -> None:
    vectors, _ = planted(3000)
    Index.build(tmp_path / "index", [vectors], ON_DISK).close()
    (shard_folder(tmp_path / "index", 0) / "vectors.npy").write_bytes(b"")
    with pytest.raises(ValueError, match="shard-00000: damaged"):
        Index.open(tmp_path / "index")
    shutil.rmtree(shard_folder(tmp_path / "index", 0))
    with pytest.raises(ValueError, match="shard-00000: this shard of the index is gone"):
        Index.open(tmp_path / "index")
    (tmp_path / "index" / "index.json").write_text("{}")
    with pytest.raises(ValueError, match=r"index\.json cannot be used"):
        Index.open(tmp_path / "index")


def test_workers_find_what_one_process_finds(client: Client, tmp_path: Path) -> None:
    vectors, _ = planted(6000)
    vectors[[17, 4000]] = 0
    column = parquet(vectors, tmp_path / "parts", 12)
    found = find_pairs(client, column, tmp_path / "shared", 0.85, ON_DISK, "SSCD")
    with Index.open(tmp_path / "shared", "SSCD") as index:
        assert index.header.shards == 4 and len(index) == 5998
        assert as_set(index.pairs_above(0.85)) == as_set(found)
    truth = exact(vectors, 0.85)
    assert len(truth & as_set(found)) >= 0.99 * len(truth)
    assert not list((tmp_path / "shared").glob("sample-*")) and not list((tmp_path / "shared").glob("**/*.tmp"))


def test_a_lost_shard_is_the_only_one_built_again(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vectors, _ = planted(4000)
    column = parquet(vectors, tmp_path / "parts", 8)
    index = tmp_path / "index"
    before = find_pairs(client, column, index, 0.85, ON_DISK)
    made = {path.name: path.stat().st_mtime_ns for path in index.glob("shard-*")}
    listed = {path: path.stat().st_mtime_ns for path in index.glob("pairs-*/*")}
    assert len(made) == 3 and len(listed) >= 4
    shutil.rmtree(shard_folder(index, 1))
    next(iter(listed)).unlink()

    opened = Index.open

    def lose_another(folder: Path) -> Index:  # one shard goes while the others are searched
        monkeypatch.setattr(Index, "open", opened)
        (shard_folder(folder, 2) / "codes.npy").unlink()
        return opened(folder)

    monkeypatch.setattr(Index, "open", lose_another)
    after = find_pairs(client, column, index, 0.85, ON_DISK)
    again = {path.name: path.stat().st_mtime_ns for path in index.glob("shard-*")}
    assert {name for name in made if made[name] != again[name]} == {"shard-00001", "shard-00002"}
    assert sum(path.stat().st_mtime_ns != when for path, when in listed.items()) == 1, "the other lists were kept"
    assert as_set(after) == as_set(before) and (after.cosine == before.cosine).all()


def test_a_folder_with_other_vectors_is_refused(client: Client, tmp_path: Path) -> None:
    vectors, _ = planted(300)
    column = parquet(vectors, tmp_path / "parts", 2)
    build_index(client, column, tmp_path / "index", model="SSCD")
    build_index(client, column, tmp_path / "index", model="SSCD")
    for changed, said in (
        ({"model": "CLIP"}, "with model 'SSCD', not 'CLIP'; give another folder"),
        ({"model": "SSCD", "settings": ON_DISK}, "with shards 1, not|with settings"),
    ):
        with pytest.raises(ValueError, match=said):
            build_index(client, column, tmp_path / "index", **changed)
    more = parquet(planted(300, seed=1)[0], tmp_path / "more", 2)
    with pytest.raises(ValueError, match="with inputs"):
        build_index(client, more, tmp_path / "index", model="SSCD")
    with pytest.raises(ValueError, match=r"vectors of 64 numbers, not 32; measure all parts with one model"):
        build_index(client, dataclasses.replace(column, size=32), tmp_path / "other")
    with pytest.raises(ValueError, match="has no column sscd"):
        build_index(client, dataclasses.replace(column, name="sscd"), tmp_path / "another")
    with pytest.raises(ValueError, match="no file with vectors"):
        build_index(client, dataclasses.replace(column, files=()), tmp_path / "none")


def test_columns_of_any_list_type_are_read() -> None:
    rows = [[3.0, 4.0], None, [0.0, 1.0]]
    for kind in (
        pa.list_(pa.float32()),
        pa.list_(pa.float32(), 2),
        pa.large_list(pa.float64()),
        pa.list_(pa.float16()),
    ):
        values = (
            [None if r is None else np.array(r, np.float16) for r in rows] if kind == pa.list_(pa.float16()) else rows
        )
        assert from_arrow(pa.array(values, kind), 2).tolist() == [[3, 4], [0, 0], [0, 1]]
    assert from_arrow(pa.chunked_array([pa.array([None], pa.list_(pa.float32()))]), 2).tolist() == [[0, 0]]
    with pytest.raises(ValueError, match="vectors of 1, 2 numbers, not 2"):
        from_arrow(pa.array([[1.0], [1.0, 2.0]]), 2)


def test_a_sample_does_not_depend_on_blocks() -> None:
    vectors, _ = planted(5000, 8)
    whole = sample([vectors], 8, 0.2, seed=3)
    assert (whole == sample(np.split(vectors, [13, 2500]), 8, 0.2, seed=3)).all()
    assert 900 < len(whole) < 1100 and len(sample([vectors], 8, 1.0, seed=3)) == 5000
    assert (whole == np.concatenate([sample([vectors[k : k + 500]], 8, 0.2, 3, k) for k in range(0, 5000, 500)])).all()
    again = [[len(part) for part in stretch] for stretch in stretches(np.split(vectors, [13, 2500]), 1000)]
    assert again == [[13, 987], [1000], [500, 500], [1000], [1000]]


def test_with_many_cells_queries_are_led_through_their_families(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors, _ = planted(8000)
    monkeypatch.setattr("dedup.cells._ALL", 100)
    cells = Cells.train(vectors, 600, 5, 0)
    assert len(cells) == 600 and len(cells.heads) == len(cells.families) - 1 == 24
    true = np.argsort(-vectors @ cells.centroids.T, axis=1)[:, :3]
    monkeypatch.setattr("dedup.cells._FAMILIES", 12)
    led = cells.nearest(vectors, 3)
    assert 0.9 < (led[:, 0] == true[:, 0]).mean() < 1

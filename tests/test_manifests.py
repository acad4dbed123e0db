"""Ids, schema and store."""

from __future__ import annotations

import io
import pickle
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import ClassVar

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from manifests import packs, schema
from manifests.ids import BLOCK, WHOLE_BELOW, clip_id, fingerprint, part_id, video_id
from manifests.store import Store, join, read_clips
from manifests.types import Frames


def test_small_files_are_hashed_whole() -> None:
    a, b = bytearray(BLOCK), bytearray(BLOCK)
    b[BLOCK // 2] = 1
    assert video_id(io.BytesIO(a), len(a)) != video_id(io.BytesIO(b), len(b))
    assert video_id(io.BytesIO(a), len(a)) == video_id(io.BytesIO(bytes(a)), len(a))


class Sparse(io.RawIOBase):
    """Zeros of any size with some bytes set, so that a large file costs no memory."""

    def __init__(self, size: int, ones: dict[int, int]):
        self.size, self.ones, self.at = size, ones, 0
        self.reads: list[tuple[int, int]] = []

    def seek(self, offset: int, whence: int = 0) -> int:
        self.at = offset
        return offset

    def read(self, count: int = -1) -> bytes:
        data = bytearray(min(count, self.size - self.at))
        self.reads.append((self.at, len(data)))
        for place, value in self.ones.items():
            if self.at <= place < self.at + len(data):
                data[place - self.at] = value
        self.at += len(data)
        return bytes(data)


def test_large_files_are_hashed_at_head_tail_and_sixteen_places() -> None:
    size = 200 * BLOCK
    plain = Sparse(size, {})
    first = video_id(plain, size)  # type: ignore[arg-type]
    assert len(plain.reads) == 18
    assert plain.reads[0] == (0, BLOCK) and plain.reads[-1] == (size - BLOCK, BLOCK)
    starts = [at for at, _ in plain.reads[1:-1]]
    gaps = {b - a for a, b in pairwise(starts)}
    assert max(gaps) - min(gaps) <= 1 and starts[0] >= BLOCK and starts[-1] + BLOCK <= size - BLOCK
    assert video_id(Sparse(size, {starts[7]: 9}), size) != first  # type: ignore[arg-type]
    assert video_id(Sparse(size + 1, {}), size + 1) != first  # type: ignore[arg-type]
    assert WHOLE_BELOW == 18 * BLOCK


def test_ids_sort_by_time_and_parts_do_not_care_for_order() -> None:
    assert sorted([clip_id("v", 20_000_000, 1), clip_id("v", 3_000_000, 1)])[0] == clip_id("v", 3_000_000, 1)
    assert part_id(["a", "b"]) == part_id(["b", "a"]) != part_id(["a"])


def test_fingerprint_changes_with_every_setting_and_with_the_version() -> None:
    @dataclass(frozen=True)
    class Operator:
        threshold: float = 1.0
        version: ClassVar[int] = 1

    before = fingerprint(Operator())
    assert before == fingerprint(Operator(1.0)) != fingerprint(Operator(1.5))
    Operator.version = 2
    assert fingerprint(Operator()) != before


def test_every_contract_column_is_there_and_documented() -> None:
    names = set(
        schema.merge(schema.IDENTITY, schema.TAGS, schema.DECISION, schema.CAPTIONS, schema.HALLUCINATION).names
    )
    wanted = """clip_id video_id uri start_us end_us start_frame end_frame fps duration_s width height has_audio pack
    tag_editing tag_no_motion_connectivity tag_low_quality tag_lecture tag_text_dominated tag_noisy_screenshot tags
    copy_of copy_similarity copy_group concept concept_size sample_probability sampled failed_rules kept subsets caption
    caption_raw caption_short caption_model caption_prompt caption_category caption_error dsg_objects dsg_hallucinated
    dsg_video_i dsg_video_s dsg_model dsg_error bucket"""
    assert set(wanted.split()) <= names
    for table in (schema.IDENTITY, schema.SHOTS, schema.VIDEOS, schema.DECISION):
        assert all(field.metadata[b"doc"] for field in table)
    assert schema.IDENTITY.field("start_us").metadata[b"unit"] == b"microsecond"


def test_merge_refuses_two_meanings_of_one_name() -> None:
    a = pa.schema([schema.column("x", pa.float64(), "one thing")])
    b = pa.schema([schema.column("x", pa.float64(), "another")])
    assert schema.merge(a, a).names == ["x"]
    with pytest.raises(AssertionError, match="two meanings of x"):
        schema.merge(a, b)


def test_conform_adds_nulls_and_orders() -> None:
    wanted = pa.schema([schema.column("a", pa.int64(), "a"), schema.column("b", pa.string(), "b")])
    table = schema.conform(pa.table({"b": ["x"], "c": [1.0]}), wanted)
    assert table.to_pylist() == [{"a": None, "b": "x"}]


@pytest.fixture(params=["disk", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return Store(tmp_path / "out" if request.param == "disk" else f"memory://{tmp_path.name}/out")


def test_parts_come_back_filtered_and_in_order(store: Store) -> None:
    store.write_table("t/b.parquet", pa.table({"x": [3, 4]}))
    store.write_table("t/a.parquet", pa.table({"x": [1, 2]}))
    assert store.names("t", ".parquet") == ["a", "b"]
    assert store.read_table("t")["x"].to_pylist() == [1, 2, 3, 4]
    assert store.read_table("t", where=pc.field("x") > 2)["x"].to_pylist() == [3, 4]
    assert store.read_table("t/a.parquet")["x"].to_pylist() == [1, 2]
    with pytest.raises(FileNotFoundError, match="run the stage that writes it"):
        store.read_table("nothing")


def test_replacing_a_table_leaves_nothing_of_the_old(store: Store) -> None:
    store.replace_table("t", [pa.table({"x": [1]}), pa.table({"x": [2]})])
    store.replace_table("t", [pa.table({"x": [7]})])
    assert store.read_table("t")["x"].to_pylist() == [7]
    assert store.names("t", ".parquet") == ["part-00000"]


def test_a_writer_that_fails_leaves_no_part(store: Store) -> None:
    with pytest.raises(RuntimeError), store.writer("p/x.parquet", pa.schema([("x", pa.int64())])) as writer:
        writer.write_table(pa.table({"x": [1]}))
        raise RuntimeError
    assert not store.exists("p/x.parquet")
    with store.writer("p/x.parquet", pa.schema([("x", pa.int64())])) as writer:
        writer.write_table(pa.table({"x": [1]}))
        writer.write_table(pa.table({"x": [2]}))
    assert store.read_table("p")["x"].to_pylist() == [1, 2]


def test_half_written_files_are_cleaned_and_never_read(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.write_table("t/a.parquet", pa.table({"x": [1]}))
    (tmp_path / "t" / ".killed.tmp").write_bytes(b"PAR1 half")
    assert store.read_table("t")["x"].to_pylist() == [1]
    store.clean("t")
    assert [p.name for p in (tmp_path / "t").iterdir()] == ["a.parquet"]


def test_store_travels_to_workers(store: Store) -> None:
    store.write_json("a.json", {"x": 1})
    assert pickle.loads(pickle.dumps(store)).read_json("a.json") == {"x": 1}


def test_families_are_joined_by_id_not_by_position() -> None:
    left = pa.table({"clip_id": ["c", "a", "b"], "x": [1, 2, 3]})
    right = pa.table({"clip_id": ["a", "c"], "y": [10, 30]})
    assert join(left, right)["y"].to_pylist() == [30, 10, None]


def test_reading_a_folder_without_manifest_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no clips\.parquet here; give the folder"):
        read_clips(tmp_path)


def test_packs_give_clips_a_row_group_at_a_time_and_each_once(tmp_path: Path) -> None:
    store, ids = Store(tmp_path), [f"c{k * 7 % 40:02d}" for k in range(40)]  # as unordered as hashes
    shown = Frames([], [0], [0], (64, 36), 24.0)
    store.write_table("pack.parquet", packs.table(ids, [(shown, [name.encode()]) for name in ids]), 16)
    wanted = [*reversed(ids[3:20]), "elsewhere", ids[39]]
    found = [table["clip_id"].to_pylist() for table in packs.groups(store, "pack.parquet", wanted)]
    assert found == [ids[3:16], ids[16:20], ids[39:]]
    loaded = packs.load(store, "pack.parquet", wanted)
    assert loaded["jpegs"].to_pylist() == [[name.encode()] for name in (*ids[3:20], ids[39])]
    assert packs.load(store, "pack.parquet", []).num_rows == 0 and packs.load(store, "pack.parquet").num_rows == 40
    with pytest.raises(FileNotFoundError):
        packs.load(store, "none.parquet", ids)

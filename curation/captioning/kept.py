"""Captions on disk: parts below `stages/caption-<fingerprint>/clips`, one for each frame pack, and fresh pieces.

A piece holds a few clips and is written as soon as they are captioned, so that little is lost when a worker dies.
Pieces are joined to their part when the stage ends; a clip that stands twice, since something died in between, counts
once.
"""

from __future__ import annotations

import posixpath
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from captioners.captions import SCHEMA, Captions
from manifests.ids import part_id
from manifests.schema import CAPTIONS, conform
from manifests.store import Store, align

NOT_YET = "not captioned yet; run `vidcurate caption` on the folder"

Row = dict[str, Any]


def stage_of(captions: Captions) -> str:
    return f"caption-{captions.prompt}"


def part_of(pack: str) -> str:
    """Name of the part that clips of this frame pack belong to."""
    return posixpath.basename(pack).removesuffix(".parquet")


class Kept:
    """What one captioner has said so far."""

    def __init__(self, store: Store, stage: str):
        self._store, self._folder = store, f"stages/{stage}/clips"

    def add(self, part: str, rows: Sequence[Row]) -> None:
        """Writes a piece."""
        name = f"{part}.{part_id(row['clip_id'] for row in rows)}"
        self._store.write_table(f"{self._folder}/{name}.parquet", pa.Table.from_pylist(list(rows), SCHEMA))

    def rows(self, parts: Iterable[str] | None = None) -> pa.Table:
        """Rows of these parts, or of all, each clip once."""
        files = self._files()
        wanted = files if parts is None else [part for part in set(parts) if part in files]
        return self._read(name for part in sorted(wanted) for name in files[part])

    def clip_ids(self, failed: bool = True, parts: Collection[str] | None = None) -> pa.Array:
        """Ids of the clips that are done, in these parts or in all. failed: those without a caption count as done."""
        found = [pa.array([], pa.string())]
        for part, names in self._files().items():
            for name in names if parts is None or part in parts else ():
                table = self._store.read_table(name, ["clip_id", "caption_error"])
                table = table if failed else table.filter(pc.is_null(table["caption_error"]))
                found += table["clip_id"].chunks
        return pa.concat_arrays(found)

    def join(self, forget: pa.Array | None = None) -> None:
        """Makes one part of all its pieces. forget: clips to leave out, because they are asked about again."""
        self._store.clean(self._folder)
        for part, names in self._files().items():
            if names == [f"{self._folder}/{part}.parquet"] and not forget:
                continue
            table = self._read(names)
            if forget is not None:
                table = table.filter(pc.invert(pc.is_in(table["clip_id"], value_set=forget)))
            self._store.write_table(f"{self._folder}/{part}.parquet", table.sort_by("clip_id"))
            for name in names:
                if name != f"{self._folder}/{part}.parquet":
                    self._store.fs.rm_file(self._store.full(name))

    def _read(self, names: Iterable[str]) -> pa.Table:
        tables = [conform(self._store.read_table(name), SCHEMA) for name in names]
        table = pa.concat_tables([SCHEMA.empty_table(), *tables])
        first = pc.index_in(table["clip_id"], value_set=table["clip_id"].combine_chunks().unique())
        places = pa.table({"id": first, "row": pa.array(range(table.num_rows), pa.int64())})
        if places.num_rows == pc.count_distinct(first).as_py():
            return table
        return table.take(places.group_by("id").aggregate([("row", "min")])["row_min"].sort())

    def _files(self) -> dict[str, list[str]]:
        """Files of every part: its joined part first, then its pieces."""
        files = defaultdict(list)
        for name in self._store.names(self._folder, ".parquet"):
            files[name.partition(".")[0]].append(f"{self._folder}/{name}.parquet")
        return dict(files)


def caption_columns(store: Store, captions: Captions, clips: pa.Table, kept: pa.Array | pa.ChunkedArray) -> pa.Table:
    """The columns CAPTIONS of these clips (with `pack` and what the layout reads); none for clips not kept."""
    found = Kept(store, stage_of(captions)).rows(part_of(pack) for pack in pc.unique(clips["pack"]).to_pylist())
    matched = align(clips["clip_id"], found, "clip_id")
    mine = pc.if_else(kept, clips["clip_id"], None)
    done = pc.and_(kept, pc.is_valid(matched["clip_id"]))
    read = [n for n in ("fps", "camera_motion", "camera_motion_confidence") if n in clips.column_names]
    texts = pc.if_else(done, matched["caption_text"], None).to_pylist()
    rows = clips.select(read).to_pylist()
    laid_out = [None if text is None else captions.layout(text, row) for text, row in zip(texts, rows, strict=True)]
    columns = {name: pc.if_else(done, matched[name], None) for name in CAPTIONS.names if name != "caption"}
    missing = pc.and_(pc.is_valid(mine), pc.invert(done))
    columns["caption_error"] = pc.if_else(missing, NOT_YET, columns["caption_error"])
    return conform(pa.table({**columns, "caption": pa.array(laid_out, pa.string())}), CAPTIONS)

"""A folder of Parquet parts, on a disk or behind any fsspec URL.

A part is written under a temporary name and renamed, so a part that exists is whole. Column families are folders of
parts that share a key; they are joined by id, never by position.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import posixpath
import shutil
import tempfile
import uuid
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq


class Store:
    """Everything below one output folder; all paths are relative to it and use forward slashes."""

    def __init__(self, root: str | os.PathLike[str]):
        self.root = os.fspath(root)
        self.fs, self.path = fsspec.core.url_to_fs(self.root)
        self.local = "file" in (self.fs.protocol if isinstance(self.fs.protocol, tuple) else (self.fs.protocol,))

    def __reduce__(self) -> tuple[type[Store], tuple[str]]:
        return Store, (self.root,)

    def full(self, name: str) -> str:
        return posixpath.join(self.path, name) if name else self.path

    def exists(self, name: str = "") -> bool:
        return bool(self.fs.exists(self.full(name)))

    def names(self, folder: str, suffix: str) -> list[str]:
        """Names (without folder and suffix) of the whole files directly in `folder`, sorted."""
        if not self.exists(folder):
            return []
        self.fs.invalidate_cache(self.full(folder))
        names = (posixpath.basename(str(p)) for p in self.fs.ls(self.full(folder), detail=False))
        return sorted(n.removesuffix(suffix) for n in names if n.endswith(suffix) and not n.startswith("."))

    def read_bytes(self, name: str) -> bytes:
        return bytes(self.fs.cat_file(self.full(name)))

    def write_bytes(self, name: str, data: bytes | pa.Buffer) -> None:
        """Atomic: readers see the old file or the new one, never a piece. An object store's put is atomic by itself."""
        target = self.full(name)
        if not self.local:
            self.fs.pipe_file(target, bytes(data))
            return
        Path(target).parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(target).with_name(f".{uuid.uuid4().hex}.tmp")
        try:
            temporary.write_bytes(data)
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)

    def read_json(self, name: str) -> Any:
        return json.loads(self.read_bytes(name))

    def write_json(self, name: str, value: Any) -> None:
        self.write_bytes(name, (json.dumps(value, indent=1) + "\n").encode())

    def write_table(self, name: str, table: pa.Table, rows_per_group: int = 65536) -> None:
        sink = io.BytesIO()
        pq.write_table(table, sink, row_group_size=rows_per_group, compression="zstd")
        self.write_bytes(name, sink.getbuffer())

    @contextlib.contextmanager
    def writer(self, name: str, schema: pa.Schema) -> Iterator[pq.ParquetWriter]:
        """For a part too large for memory: row groups are appended, and the part appears when the block ends well."""
        with tempfile.TemporaryDirectory() if not self.local else contextlib.nullcontext() as elsewhere:
            folder = Path(elsewhere) if elsewhere else Path(self.full(name)).parent
            folder.mkdir(parents=True, exist_ok=True)
            temporary = folder / f".{uuid.uuid4().hex}.tmp"
            try:
                with pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
                    yield writer
                if self.local:
                    temporary.replace(self.full(name))
                else:
                    self.fs.put_file(str(temporary), self.full(name))
            finally:
                temporary.unlink(missing_ok=True)

    def read_table(
        self, name: str, columns: Sequence[str] | None = None, where: pc.Expression | None = None
    ) -> pa.Table:
        """One part, or all parts of a folder in name order; the filter is pushed down into the Parquet scan."""
        return self.dataset(name).to_table(columns=None if columns is None else list(columns), filter=where)

    def dataset(self, name: str) -> ds.Dataset:
        """The same to be read in batches, or for its schema alone. Raises FileNotFoundError when there is none."""
        full = self.full(name)
        if name.endswith(".parquet") and self.fs.isfile(full):
            files = [full]
        else:
            files = [posixpath.join(full, f"{part}.parquet") for part in self.names(name, ".parquet")]
        if not files:
            raise FileNotFoundError(f"{self.root}/{name}: there is no such table; run the stage that writes it first.")
        return ds.dataset(files, filesystem=self.fs, format="parquet")

    def folders(self, folder: str) -> list[str]:
        """Names of the folders directly in `folder`, sorted."""
        if not self.exists(folder):
            return []
        return sorted(
            posixpath.basename(d["name"])
            for d in self.fs.ls(self.full(folder), detail=True)
            if d["type"] == "directory"
        )

    def remove(self, folder: str) -> None:
        self.fs.rm(self.full(folder), recursive=True)

    def replace_table(self, name: str, parts: Iterable[pa.Table]) -> None:
        """Writes a whole folder of parts beside the old one and puts it in its place."""
        fresh = f"{name}.{uuid.uuid4().hex[:8]}.tmp"
        stems = []
        for number, part in enumerate(parts):
            stems.append(f"part-{number:05d}")
            self.write_table(f"{fresh}/{stems[-1]}.parquet", part)
        assert stems, "a table has at least one part, if an empty one"
        if self.local:
            old = f"{self.full(name)}.{uuid.uuid4().hex[:8]}.old"
            if self.exists(name):
                Path(self.full(name)).rename(old)
            Path(self.full(fresh)).rename(self.full(name))
            shutil.rmtree(old, ignore_errors=True)
            return
        # Object stores cannot rename folders: parts are replaced one by one, then surplus ones go.
        for stem in stems:
            self.fs.mv(self.full(f"{fresh}/{stem}.parquet"), self.full(f"{name}/{stem}.parquet"))
        for stem in set(self.names(name, ".parquet")) - set(stems):
            self.fs.rm(self.full(f"{name}/{stem}.parquet"))

    def clean(self, folder: str = "") -> None:
        """Removes what a killed run left half written directly in `folder`."""
        if not (self.local and self.exists(folder)):
            return
        for path in Path(self.full(folder)).iterdir():
            if path.name.endswith((".tmp", ".old")):
                shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)


def align(keys: pa.ChunkedArray, table: pa.Table, key: str) -> pa.Table:
    """The rows of `table` in the order of `keys`, null where it has none: a join that keeps the left side's order."""
    rows = pc.index_in(keys, value_set=table[key])
    return table.take(rows)


def join(left: pa.Table, *families: pa.Table, key: str = "clip_id") -> pa.Table:
    """`left` with the columns of every family that it lacks, matched by `key`."""
    for family in families:
        matched = align(left[key], family, key)
        for name in family.column_names:
            if name not in left.column_names:
                left = left.append_column(family.schema.field(name), matched[name])
    return left


def read_clips(
    folder: str | os.PathLike[str],
    columns: Sequence[str] | None = None,
    where: pc.Expression | None = None,
    optional: Sequence[str] = (),
) -> pa.Table:
    """The manifest of an output folder, e.g. `read_clips("out", where=pc.field("kept"))`.

    columns: None for all of them. optional: further ones, of which those that the manifest lacks are left out.

    Raises ValueError when the folder has none.
    """
    store = Store(folder)
    if not store.exists("clips.parquet"):
        raise ValueError(f"{folder}: no clips.parquet here; give the folder that `vidcurate run --out` wrote.")
    if columns is not None and optional:
        there = store.dataset("clips.parquet").schema.names
        columns = [*columns, *(name for name in optional if name in there)]
    return store.read_table("clips.parquet", columns, where)

"""The parts that stages have written, read as the videos are asked for now: in blocks that fit into memory."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from curation.job import Job, Part, Video
from manifests.schema import conform
from manifests.store import Store, join


def read_parts(
    store: Store, folder: str, parts: Sequence[Part], schema: pa.Schema, columns: Collection[str] | None = None
) -> pa.Table:
    """Rows of the parts' videos in `stages/<folder>`, under the uri that these have now: files may have moved since.
    Parts that do not exist are left out; a column that an older version did not write is null.

    columns: those of the schema to read, all by default; the key columns are always there.
    """
    keys = {"clip_id", "video_id", "uri"} & set(schema.names)
    wanted = schema if columns is None else pa.schema([f for f in schema if f.name in columns or f.name in keys])
    tables = [wanted.empty_table()]
    for part in parts:
        name = f"stages/{folder}/{part.name}.parquet"
        if store.exists(name):
            data = store.dataset(name)
            there = set(data.schema.names)
            table = data.to_table([n for n in wanted.names if n in there])
            tables.append(conform(_current(table, part), wanted) if "video_id" in there else table.cast(wanted))
    return pa.concat_tables(tables)


def read_column(job: Job, store: Store, part: Part, name: str) -> pa.Table:
    """One column of the walk or of the costly signals, beside clip_id: all clips of a part, null where it was not
    measured."""
    recipe = job.recipe
    clips = read_parts(store, f"{recipe.scan_stage}/clips", [part], recipe.scan_schema, {name})
    if name not in clips.column_names:
        costly = pa.schema([f for f in recipe.measure_schema if f.name in ("clip_id", name)])
        clips = join(clips, read_parts(store, f"{recipe.measure_stage}/clips", [part], costly))
    return clips


def _current(table: pa.Table, part: Part) -> pa.Table:
    ids = pa.array([v.id for v in part.videos], pa.string())
    uris = pa.array([v.uri for v in part.videos], pa.string())
    place = pc.index_in(table["video_id"], value_set=ids)
    table = table.filter(pc.is_valid(place))
    if "uri" not in table.column_names:
        return table
    now = uris.take(pc.drop_null(place).combine_chunks())
    return table.set_column(table.schema.get_field_index("uri"), table.schema.field("uri"), now)


def blocks(parts: Sequence[Part], rows: Mapping[str, int], largest: int) -> list[tuple[Part, ...]]:
    """The parts' videos in the order of their uris, cut where about `largest` rows are together; `rows`: of each part.
    At least one block, if an empty one."""
    share = {part.name: rows.get(part.name, 0) / max(1, len(part.videos)) for part in parts}
    videos = sorted(((v, part.name) for part in parts for v in part.videos), key=lambda pair: pair[0].uri)
    found: list[dict[str, list[Video]]] = [{}]
    held = 0.0
    for video, name in videos:
        if held >= largest:
            found.append({})
            held = 0.0
        found[-1].setdefault(name, []).append(video)
        held += share[name]
    return [tuple(Part(name, tuple(members)) for name, members in block.items()) for block in found]

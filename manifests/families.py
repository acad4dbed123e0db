"""Columns that come to clips after a run, from people, searches or models, in tables of their own beside the manifest.

They are joined by clip id whenever clips are judged, so they outlive every new judgement and every new run.
"""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from manifests.schema import HALLUCINATION, IDENTITY, RETRIEVAL, REVIEW, conform, merge
from manifests.store import Store, align

REVIEWS, RETRIEVED, CHECKED = "reviews.parquet", "retrieved.parquet", "checked.parquet"
FAMILIES = {REVIEWS: REVIEW, RETRIEVED: RETRIEVAL, CHECKED: HALLUCINATION}
"""Tables below an output folder and their columns beside `clip_id`."""

ADDED = merge(*FAMILIES.values())
"""All of their columns."""


def schema_of(name: str) -> pa.Schema:
    return merge(pa.schema([IDENTITY.field("clip_id")]), FAMILIES[name])


def read(store: Store, name: str) -> pa.Table:
    """A family's rows, none where it does not exist yet."""
    return conform(store.read_table(name), schema_of(name)) if store.exists(name) else schema_of(name).empty_table()


def replace(store: Store, name: str, rows: pa.Table) -> None:
    """Makes these rows the whole family, sorted by clip id."""
    store.replace_table(name, [conform(rows, schema_of(name)).sort_by("clip_id")])


def update(store: Store, name: str, rows: pa.Table) -> None:
    """Adds rows, each in place of an earlier one of the same clip."""
    old = read(store, name)
    kept = old.filter(pc.invert(pc.is_in(old["clip_id"], value_set=rows["clip_id"])))
    replace(store, name, pa.concat_tables([kept, conform(rows, schema_of(name))]))


def added_to(clips: pa.Table, families: Sequence[pa.Table]) -> pa.Table:
    """`clips` with the columns of these families (see `read_all`), null where a clip has no row."""
    for family in families:
        matched = align(clips["clip_id"], family, "clip_id")
        for field in family.schema:
            if field.name != "clip_id":
                at = clips.schema.get_field_index(field.name)
                clips = clips if at < 0 else clips.remove_column(at)
                clips = clips.append_column(field, matched[field.name])
    return clips


def read_all(store: Store) -> list[pa.Table]:
    return [read(store, name) for name in FAMILIES]

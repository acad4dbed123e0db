"""Which clips are handed to people: some of every concept, and none that somebody has looked at already."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from curation.folder import Folder
from manifests import families
from manifests.ids import luck

_COLUMNS = ("clip_id", "uri", "start_us", "end_us", "duration_s", "fps", "pack", "caption", "concept", "retrieved_as")


def choose(
    folder: Folder, count: int = 50, subset: str = "", by: str = "concept", seed: int = 0, again: bool = False
) -> list[dict[str, Any]]:
    """Rows of at most `count` kept clips (of a subset, if named): of every value of the column `by` equally many, as
    far as there are, picked by a hash of seed and clip id. Clips with the same value stand together.

    again: clips that were reviewed before, too. Raises ValueError when there is no such column, subset or clip.
    """
    store = folder.store
    schema = store.dataset("clips.parquet").schema
    there = schema.names
    if by not in there or pa.types.is_nested(schema.field(by).type) or pa.types.is_floating(schema.field(by).type):
        raise ValueError(f"--by {by}: that is no column of kinds; try concept, camera_motion, bucket or uri.")
    read = dict.fromkeys([*_COLUMNS, "subsets", by])
    clips = store.read_table("clips.parquet", [name for name in read if name in there], pc.field("kept"))
    if subset:
        clips = _in_subset(clips, subset)
    if not again:
        seen = families.read(store, families.REVIEWS)["clip_id"]
        clips = clips.filter(pc.invert(pc.is_in(clips["clip_id"], value_set=seen)))
    if not clips.num_rows:
        raise ValueError(
            f"{store.root}: no kept clip is left to review; choose another --subset, loosen the rules, or use --again."
        )
    groups = clips[by].combine_chunks().dictionary_encode(null_encoding="encode").indices
    chosen = turns(np.asarray(groups, np.int64), luck(clips["clip_id"].to_pylist(), seed), count)
    return clips.take(pa.array(chosen)).to_pylist()  # type: ignore[no-any-return]


def turns(groups: npt.NDArray[np.int64], chances: npt.NDArray[np.float64], count: int) -> npt.NDArray[np.int64]:
    """At most `count` rows, of every group equally many as far as there are, those with the smallest chances; in the
    order of groups."""
    order = np.lexsort((chances, groups))
    starts = np.flatnonzero(np.diff(groups[order], prepend=-1))
    place = np.arange(len(order)) - np.repeat(starts, np.diff(starts, append=len(order)))
    taken = order[np.lexsort((chances[order], place))[:count]]
    return taken[np.lexsort((chances[taken], groups[taken]))]


def _in_subset(clips: pa.Table, subset: str) -> pa.Table:
    lists = clips["subsets"].combine_chunks()
    rows = pc.list_parent_indices(lists).filter(pc.equal(pc.list_flatten(lists), subset))
    if not len(rows):
        known = sorted(pc.unique(pc.list_flatten(lists)).to_pylist())
        raise ValueError(f"--subset {subset}: no kept clip is in it; there are {', '.join(known) or 'no subsets'}.")
    return clips.take(rows)

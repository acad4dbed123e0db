"""What checking captions leaves in the manifest: columns of a clip, and what becomes of them when captions change."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from captioners.ask import Usage
from captioners.dsg import Checked, Thing
from captioners.hallucination import Counts, Ints
from captioners.repair import Repaired
from captioners.text import CAMERA
from manifests.schema import HALLUCINATION

Row = dict[str, Any]

COUNTS = ("objects", "hallucinated", "sentences", "false_sentences")
"""Of `Counts`: columns dsg_* of a caption, and dsg_final_* of what became of it."""

STALE = "the caption has changed since it was checked; vidcurate check does it again"

_LAYOUT = (
    rf"^(?P<camera>(?:(?:{'|'.join(re.escape(words.capitalize()) for words in CAMERA.values())})\. )?)"
    r"(?P<text>(?s:.*?))(?P<fps>(?: ?FPS-\d+)?)$"
)


def columns(text: str, checked: Checked, model: str) -> Row:
    """The columns HALLUCINATION of a caption that was checked."""
    row: Row = dict.fromkeys(HALLUCINATION.names) | {"dsg_caption": text, "dsg_model": model}
    row |= _spent(checked.usage, {}) | {"dsg_error": checked.error or None}
    counts = checked.counts
    if counts is None:
        return row
    if counts.i is None:
        row["dsg_error"] = "the caption names no object"
    row |= {"dsg_frames": checked.frames, "dsg_claims": len(checked.claims)}
    row["dsg_false_claims"] = [claim.question for claim in checked.claims if claim.seen is False]
    return row | _figures("dsg_", checked, counts, "dsg_video_") | _figures("dsg_final_", checked, counts, "dsg_final_")


def with_repair(row: Mapping[str, Any], repaired: Repaired) -> Row:
    """The columns of a caption that was checked, and then repaired if that was possible."""
    made = dict(row) | _spent(repaired.usage, row)
    made |= {"caption_repaired": repaired.caption, "dsg_repair_error": repaired.error or None}
    if repaired.checked is None:
        return made
    counts = repaired.checked.counts
    assert counts is not None, "a repaired caption was checked"
    return made | _figures("dsg_final_", repaired.checked, counts, "dsg_final_")


def remembered(row: Mapping[str, Any]) -> Checked:
    """What `columns` was made of, as far as a repair needs to know it."""
    false = set(row["dsg_hallucinated"] or ())
    things = tuple(Thing(name, (), "", name not in false) for name in row["dsg_objects"] or ())
    return Checked(things, (), row["dsg_sentences"] or 0, row["dsg_frames"] or 0)


def _figures(prefix: str, checked: Checked, counts: Counts, figure: str) -> Row:
    return {
        f"{prefix}objects": [thing.name for thing in checked.things],
        f"{prefix}hallucinated": [thing.name for thing in checked.hallucinated],
        f"{prefix}sentences": counts.sentences,
        f"{prefix}false_sentences": counts.false_sentences,
        f"{figure}i": counts.i,
        f"{figure}s": counts.s,
    }


def _spent(usage: Usage, before: Mapping[str, Any]) -> Row:
    tokens = usage.prompt_tokens + usage.completion_tokens
    return {
        "dsg_tokens": (before.get("dsg_tokens") or 0) + tokens,
        "dsg_seconds": (before.get("dsg_seconds") or 0.0) + usage.seconds,
    }


def counts_of(clips: pa.Table, prefix: str = "dsg_") -> Ints:
    """(checked captions, 4): the fields of `Counts` of every row that was checked. prefix: dsg_ or dsg_final_."""
    done = clips.filter(pc.is_valid(clips[f"{prefix}sentences"]))
    found = [done[f"{prefix}{name}"] for name in COUNTS]
    numbers = [pc.list_value_length(one) if pa.types.is_list(one.type) else one for one in found]
    return np.stack([np.asarray(one, np.int64) for one in numbers], axis=1)


def descriptions(captions: pa.ChunkedArray) -> pa.ChunkedArray:
    """Captions without the camera's motion in front and the frame rate at the end: what a captioner said."""
    return pc.struct_field(pc.extract_regex(captions, _LAYOUT), "text")


def settled(clips: pa.Table) -> pa.Table:
    """`clips` with repaired captions in their captions' place, and without the checks of captions that have changed.

    clips: with the columns CAPTIONS and HALLUCINATION; a clip without a caption keeps its check.
    """
    if not set(HALLUCINATION.names) <= set(clips.column_names):  # a manifest of an older version
        return clips
    if clips["dsg_caption"].null_count == clips.num_rows:
        return clips
    captions = clips["caption"]
    parts = pc.extract_regex(captions, _LAYOUT)
    text = pc.struct_field(parts, "text")
    stale = pc.fill_null(pc.not_equal(text, clips["dsg_caption"]), False)
    for field in HALLUCINATION:
        why = pa.scalar(STALE if field.name == "dsg_error" else None, field.type)
        at = clips.schema.get_field_index(field.name)
        clips = clips.set_column(at, field, pc.if_else(stale, why, clips[field.name]))
    mended = pc.binary_join_element_wise(
        pc.struct_field(parts, "camera"), clips["caption_repaired"], pc.struct_field(parts, "fps"), ""
    )
    at = clips.schema.get_field_index("caption")
    return clips.set_column(at, clips.schema.field("caption"), pc.coalesce(mended, captions))

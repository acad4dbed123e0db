"""What DSG-Video found, for the report."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from captioners.checks import counts_of
from captioners.hallucination import Summary, summarise
from curation.report.numbers import counts

LARGEST = 12
_READ = ("dsg_claims", "dsg_tokens", "dsg_seconds")


@dataclass(frozen=True, slots=True)
class Checked:
    """models: who verified. written: captions as they were; final: after repair, None where nothing was repaired.
    invented: the hallucinated objects named most often, and how often. tokens, seconds: for a caption, on average."""

    models: tuple[str, ...]
    written: Summary
    final: Summary | None
    unchecked: int
    repaired: int
    unrepaired: int
    invented: list[tuple[str, int]]
    claims: int
    false_claims: int
    tokens: float
    seconds: float


def checked(clips: pa.Table) -> Checked | None:
    """None where no caption was checked. clips: of the manifest."""
    if "dsg_caption" not in clips.column_names:  # a manifest of an older version
        return None
    clips = clips.filter(pc.is_valid(clips["dsg_caption"]))
    if not clips.num_rows:
        return None
    written = summarise(counts_of(clips))
    repaired = clips.num_rows - clips["caption_repaired"].null_count
    invented = sorted(counts(pc.list_flatten(clips["dsg_hallucinated"])), key=lambda named: (-named[1], named[0]))
    claims, tokens, seconds = (pc.sum(clips[name]).as_py() or 0 for name in _READ)
    return Checked(
        tuple(sorted(pc.unique(clips["dsg_model"].drop_null()).to_pylist())),
        written,
        summarise(counts_of(clips, "dsg_final_")) if repaired else None,
        clips.num_rows - written.captions,
        repaired,
        clips.num_rows - clips["dsg_repair_error"].null_count,
        invented[:LARGEST],
        claims,
        len(pc.list_flatten(clips["dsg_false_claims"])),
        tokens / clips.num_rows,
        seconds / clips.num_rows,
    )

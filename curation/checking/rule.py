"""A rule on what captions make up."""

from __future__ import annotations

import pyarrow.compute as pc

from filters.rules import Rule


def truthful(most: float = 0.0) -> Rule:
    """Of the objects that a caption names, after repair, at most this share is in no frame; a caption that was not
    checked passes. Best as a rule of a subset: a clip that is not kept has no caption that could be checked again."""
    figure = pc.field("dsg_final_i")
    return Rule(
        "truthful",
        where=figure.is_null() | (figure <= most),
        says=f"dsg_final_i is not over {most:g}",
        why="the caption names what is in no frame",
    )

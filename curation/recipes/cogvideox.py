"""CogVideoX's data recipe."""

from __future__ import annotations

import dataclasses

import pyarrow.compute as pc

from curation.recipe import Recipe, Subset
from curation.recipes.embedded import embedded, tag_rules
from filters.learned.laion import LaionAesthetics
from filters.people.speech import Speech
from filters.rules import Rule
from filters.text.watermark import Overlay
from manifests.media.scan import Pieces


def cogvideox(*, learned: bool = False, motion: float = 4.0, tag: float = 0.5) -> Recipe:
    """Six negative tags, a floor for motion, a floor for looks.

    Command:   vidcurate run VIDEOS --out DIR --recipe cogvideox
    Published: the six tags; aesthetic score of at least 4.5; single-shot clips, 6 s on average; a last training on the
               best 20 % without subtitles, watermarks or low bit rate (arXiv 2408.06072, section on data and Table 6)
    Ours:      `motion`, the least mean flow (the paper adjusts its own during training and tells neither model nor
               number); `tag`, the score from which a tag counts; the splitter; clips of 2 to 10 s; the embedded looks
               score and its floor where `learned` is off; no concept resampling, as the paper has none
    Cost:      the default run, speech and watermarks
    Expect:    in the paper's labelled sample, 11 to 88 % of videos, by tag, carry a given negative tag
    """
    looks = (
        Rule("aesthetic", "aesthetic_laion", low=4.5, why="CogVideoX Table 6: at least 4.5")
        if learned
        else Rule("aesthetic", "aesthetic_photo", low=0.5, why="ours, for LAION's 4.5")
    )
    best = Subset(
        "high_quality",
        (
            Rule("no_subtitles", "subtitles", high=0.3, why="CogVideoX: none in the best data"),
            Rule(
                "no_watermark", where=~(pc.field("watermark") > 0.5) | pc.field("watermark").is_null(), why="the same"
            ),
            Rule("no_coding_blocks", "blockiness", high=0.5, why="ours, for a low bit rate"),
        ),
        by=looks.column,
        share=0.2,
    )
    base = embedded()
    return dataclasses.replace(
        base,
        name="cogvideox",
        costly=(*base.costly, Speech(), Overlay(), *((LaionAesthetics(),) if learned else ())),
        rules=(
            Rule("duration", "duration_s", low=2.0, high=10.0, why="ours; the paper's clips are 6 s on average"),
            *tag_rules(tag),
            Rule("motion", "motion_flow", low=motion, why="ours; the paper adjusts its own"),
            looks,
        ),
        subsets=(best,),
        pieces=Pieces(longest=10.0, shortest=2.0),
        resample=dataclasses.replace(base.resample, keep=1.0),
    )

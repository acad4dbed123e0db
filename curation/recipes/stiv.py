"""STIV's data recipe."""

from __future__ import annotations

import dataclasses

from curation.recipe import Recipe, Subset
from curation.recipes.embedded import embedded
from filters.learned.clip import VIT_L_14
from filters.learned.consistency import ClipConsistency
from filters.learned.laion import LaionAesthetics
from filters.rules import Rule
from manifests.media.scan import Pieces


def stiv(
    *,
    learned: bool = False,
    motion: float = 4.0,
    text: float = 0.05,
    clarity: float = 0.4,
    consistency: float = 0.85,
    short_side: int = 256,
) -> Recipe:
    """STIV's features of a segment, each with a bound; two subsets, as Panda-30M and Panda-10M were made.

    Command:   vidcurate run VIDEOS --out DIR --recipe stiv
    Published: cuts and gradual fades by PySceneDetect; motion, aesthetics, text area, height, width, clarity, temporal
               consistency, orientation of every segment (arXiv 2412.07730, data engine); Panda-30M by the pipeline,
               Panda-10M by a further motion and aesthetic filter
    Ours:      every number: the paper tells neither thresholds nor the models behind the features
    Cost:      the default run
    Expect:    of Panda-70M the paper keeps about 30 of 70 million, then 10
    """
    looks = ("aesthetic_laion", 4.0, 5.0) if learned else ("aesthetic_photo", 0.45, 0.65)
    together = "temporal_consistency_clip" if learned else "temporal_consistency"
    base = embedded()
    return dataclasses.replace(
        base,
        name="stiv",
        costly=(*base.costly, LaionAesthetics(which="uniform"), ClipConsistency(VIT_L_14)) if learned else base.costly,
        rules=(
            Rule("duration", "duration_s", low=2.0, why="ours"),
            Rule("size", "short_side", low=short_side, why="ours; STIV trains at 256 and 512"),
            Rule("text", "text_area", high=text, why="ours"),
            Rule("aesthetic", looks[0], low=looks[1], why="ours"),
            Rule("motion", "motion_flow", low=motion, why="ours"),
            Rule("clarity", "sharpness", low=clarity, why="ours"),
            Rule("consistency", together, low=consistency, why="ours; inconsistent segments are dropped"),
        ),
        subsets=(
            Subset("all_filters"),
            Subset(
                "dynamic",
                (
                    Rule("more_motion", "motion_flow", low=4 * motion, why="ours, for Panda-10M"),
                    Rule("better_looks", looks[0], low=looks[2], why="ours, for Panda-10M"),
                ),
            ),
        ),
        pieces=Pieces(longest=20.0, shortest=2.0),
        resample=dataclasses.replace(base.resample, keep=1.0),
    )

"""EasyAnimate's data recipe."""

from __future__ import annotations

import dataclasses
from typing import Literal, get_args

import pyarrow.compute as pc

from curation.recipe import Recipe
from curation.recipes.embedded import TAG_SIGNALS, embedded
from filters.learned.consistency import ClipConsistency
from filters.learned.laion import LaionAesthetics
from filters.motion.farneback import FarnebackMotion
from filters.motion.raft import RaftMotion
from filters.rules import Rule
from filters.shots.cuts import Cuts
from filters.text.area import Text
from filters.text.ocr import EmbeddedOcr
from manifests.buckets import TokenBuckets
from manifests.media.scan import Pieces
from manifests.types import Signal

Variant = Literal["paper", "code"]

AS_SCRIPTED = Cuts(detector="content", threshold=27.0, least=15, gradual=False, fades=False, verify=False)
"""What `scenedetect detect-content` finds, with nothing added or dropped."""


def easyanimate(
    variant: Variant = "paper",
    *,
    learned: bool = False,
    motion: tuple[float, float] = (2.0, 20.0),
    raft_range: tuple[float, float] = (5.0, 100.0),
) -> Recipe:
    """Length, motion, text, looks: as the paper says, or as the released scripts do.

    Command:   vidcurate run VIDEOS --out DIR --recipe easyanimate            (or easyanimate:code)
    Published: PySceneDetect and clips of 3 to 10 s; text area of at most 1 % (paper) or 2 % (scripts); RAFT motion
               (paper) or Farneback motion of 2 to 20 pixels at 2 fps (scripts, every version); aesthetic score of at
               least 4.0, frames that agree (CLIP cosine of neighbours at least 0.8), at least 512 x 512 pixels, and
               the last half second of a shot dropped (scripts) (arXiv 2405.18991 and aigc-apps/EasyAnimate)
    Ours:      `raft_range`, pixels a second at 360 pixels' short side, since the paper tells neither range nor rate nor
               size (true flow reads about 5 and 100 where Farneback reads 2 and 20, on 28 real clips); Farneback in
               RAFT's place, and the embedded looks and consistency scores, where `learned` is off
    Cost:      the default run, and a second look at kept clips, two frames a second
    Expect:    the paper keeps about 12 million images and videos, and does not say of how many
    """
    if variant not in get_args(Variant):
        raise ValueError(f"easyanimate has no variant {variant!r}; choose from {', '.join(get_args(Variant))}.")
    code = variant == "code"
    scores: tuple[Signal, ...] = (LaionAesthetics(which="uniform", count=4),) if learned else ()
    if learned and code:
        scores += (ClipConsistency(),)
    raft = learned and not code
    looks = (
        Rule("aesthetic", "aesthetic_laion", low=4.0, why="scripts: at least 4.0")
        if learned
        else Rule("aesthetic", "aesthetic_photo", low=0.45, why="ours, for 4.0")
    )
    large = Rule("size", where=pc.field("width") * pc.field("height") >= 512 * 512, why="scripts: 512 x 512 pixels")
    agree = (
        Rule("consistency", "temporal_consistency_clip", low=0.8, why="scripts: CLIP cosine of at least 0.8")
        if learned
        else Rule("consistency", "temporal_consistency", low=0.85, why="ours, for 0.8")
    )
    base = embedded()
    return dataclasses.replace(
        base,
        name=f"easyanimate:{variant}",
        costly=(Text(EmbeddedOcr(longest=768)), RaftMotion() if raft else FarnebackMotion(), *scores, *TAG_SIGNALS),
        rules=(
            Rule("duration", "duration_s", low=3.0, high=10.0, why="EasyAnimate: 3 to 10 s"),
            *((large, agree) if code else ()),
            Rule("motion", "motion_raft", low=raft_range[0], high=raft_range[1], why="ours; the paper gives no range")
            if raft
            else Rule("motion", "motion_farneback", low=motion[0], high=motion[1], why="scripts: 2 to 20 pixels"),
            Rule("text", "text_area", high=0.02 if code else 0.01, why="paper 1 %, scripts 2 %"),
            looks,
        ),
        cuts=AS_SCRIPTED if code else base.cuts,
        pieces=Pieces(longest=10.0, shortest=3.0, trim_end=0.5 if code else 0.0),
        resample=dataclasses.replace(base.resample, keep=1.0),
        buckets=TokenBuckets(),
    )

"""Movie Gen Video's data recipe."""

from __future__ import annotations

import dataclasses
from typing import Literal, get_args

import pyarrow.compute as pc

from curation.recipe import Recipe, Subset
from curation.recipes.embedded import SIGNALS, embedded
from dedup.concepts import Concepts
from dedup.copies import Copies
from dedup.quotas import Quota
from dedup.resample import Resample
from dedup.sscd import Sscd
from filters.draw import Draw
from filters.learned.clip import ClipEmbedding
from filters.learned.laion import LaionAesthetics
from filters.motion.vectors import MotionVectors
from filters.people.presence import People
from filters.people.subject import MovingArea, SalientArea, SubjectArea
from filters.rules import Rule
from filters.shots.cuts import Cuts
from manifests.buckets import MOVIE_GEN_SFT_LENGTHS, Buckets
from manifests.media.scan import Pieces
from manifests.reviews import KEEP

Stage = Literal["low_res", "high_res", "sft"]

AT_180 = 0.75
"""VMAF motion at 180 pixels' short side over that at the film's own size: the median of eleven real clips."""

HAND_PICKED = (
    Subset("sft_balanced", (Rule("retrieved", where=pc.field("retrieved_as").is_valid(), says="retrieved_as is set"),)),
    Subset("sft_picked", (Rule("picked", where=pc.field("review") == KEEP, says="review is keep"),)),
)
"""Of fine-tuning: what `vidcurate retrieve` took so that every verb has its share, and what people kept in review."""

_SHORT_SIDE = {"low_res": 720, "high_res": 768, "sft": 768}
_LANDSCAPE = {"low_res": 0.6, "sft": 0.8}


def moviegen(
    stage: Stage = "high_res",
    *,
    learned: bool = False,
    shortest: float = 4.0,
    trim_start: float = 2.0,
    still: float = 0.5,
    border: float = 0.05,
    scenes: int = 2,
    subject: float = 0.05,
) -> Recipe:
    """Movie Gen's filters, in the order of the table in its appendix B.1.

    Command:   vidcurate run VIDEOS --out DIR --recipe moviegen:high_res      (or low_res, sft)
    Published: films of 4 to 120 s; short side of at least 720 pixels (low_res) or 768; landscape alone (high_res, the
               table), 60/40 (low_res) or 80/20 with at least 60 % people (sft); text product below 0.6; no border;
               one clip of 4 to 16 s from one or two scenes of a video (FFmpeg's scene detection); LAION aesthetic of
               the middle frame at least 4.0; VMAF motion over 2; mean motion vector 0.5 to 7; fewer than 0.85 cuts a
               second; no still films or slide shows; copies dropped, with `learned` also by SSCD at a
               cosine of 0.99; concepts resampled; buckets of five aspects and five durations, for sft 16 s at 16
               frames a second and 10.6 to 16 s at 24 (arXiv 2410.13720)
    Ours:      `trim_start`, seconds cut off every film's start; `still`, the largest still share; `border`, the
               largest bordered share; `scenes`, taken of one video; VMAF motion measured at 180 pixels' short side and
               its bound times 0.75 for that; vectors in coded pixels per frame; the slide show detector; the embedded
               looks score where `learned` is off; for sft, `subject`, the smallest share of the picture that its
               subject takes, by what moves and stands out in place of a detector; stricter looks and motion; clips
               over 10.6 s; people by faces and figures in place of retrieval by verbs; 4:3 and 3:4 among the aspects
    By hand:   for sft, `vidcurate retrieve` and `vidcurate review` fill the subsets sft_balanced and sft_picked
    Cost:      the default run, and a third more decoding for the motion vectors
    Expect:    in the paper 25 % pass the size, 7 % landscape, 1.94 % text, and less than 1 % everything
    """
    if stage not in get_args(Stage):
        raise ValueError(f"moviegen has no stage {stage!r}; choose from {', '.join(get_args(Stage))}.")
    strict = stage == "sft"
    least = 10.6 if strict else shortest
    base = embedded()
    draw = Draw(shortest=least, longest=16.0)
    return dataclasses.replace(
        base,
        name=f"moviegen:{stage}",
        signals=(*SIGNALS, MotionVectors(), *((MovingArea(),) if strict else ())),
        costly=(
            *base.costly,
            *((LaionAesthetics(which="middle"), ClipEmbedding(), Sscd()) if learned else ()),
            *((People(), SalientArea()) if strict else ()),
        ),
        derived=(*base.derived, *((SubjectArea(),) if strict else ()), draw),
        rules=(
            Rule("raw_duration", "film_duration_s", low=4.0, high=120.0, why="Movie Gen B.1: films of 4 s to 2 min"),
            Rule("resolution", "short_side", low=_SHORT_SIDE[stage], why="Movie Gen: width and height"),
            *_landscape(stage),
            Rule("text", "text_score", high=0.6, why="Movie Gen B.1: detection x recognition below 0.6"),
            Rule("border", "letterbox_fraction", high=border, why="ours; Movie Gen drops large borders"),
            Rule("start", "film_offset_s", low=trim_start, why="ours; Panda-70M drops unstable first seconds"),
            Rule("duration", "duration_s", low=least, high=16.0, why="Movie Gen: clips of 4 to 16 s"),
            Rule("one_of_scene", "draw_in_shot", high=0, why="Movie Gen: one clip of a scene"),
            Rule("few_scenes", "draw_of_shot", high=scenes - 1, why="Movie Gen: one or two scenes of a video"),
            _looks(learned, strict),
            Rule(
                "slow", "motion_vmaf", low=(3.0 if strict else 2.0) * AT_180, why="Movie Gen B.1: over 2, at full size"
            ),
            Rule("vectors", "motion_vectors", low=0.5, high=7.0, why="Movie Gen B.1: 0.5 to 7"),
            Rule("still", "static_fraction", high=still, why="ours, for an unpublished detector"),
            Rule("slideshow", "slideshow", high=0.7, why="ours; Movie Gen drops slide shows"),
            Rule("jitter", "cuts_per_s", high=0.85, why="Movie Gen B.1: below 0.85 shots a second"),
            *_subject(strict, subject),
        ),
        subsets=(Subset(stage), *(HAND_PICKED if strict else ())),
        cuts=Cuts(detector="scdet"),
        pieces=Pieces(longest=16.0, shortest=least, trim_start=trim_start),
        copies=Copies(vectors="sscd", cosine=0.99) if learned else base.copies,
        concepts=Concepts(vectors="clip_embedding") if learned else base.concepts,
        resample=_resample(stage),
        buckets=Buckets(lengths=MOVIE_GEN_SFT_LENGTHS) if strict else Buckets(),
    )


def _landscape(stage: Stage) -> tuple[Rule, ...]:
    return () if stage in _LANDSCAPE else (Rule("aspect", "aspect", low=1.0, why="Movie Gen B.1: landscape"),)


def _subject(strict: bool, least: float) -> tuple[Rule, ...]:
    return (Rule("small_subject", "subject_area", low=least, why="Movie Gen: no small subjects"),) if strict else ()


def _looks(learned: bool, strict: bool) -> Rule:
    if learned:
        return Rule("aesthetic", "aesthetic_laion", low=5.0 if strict else 4.0, why="Movie Gen B.1: at least 4.0")
    return Rule("aesthetic", "aesthetic_photo", low=0.6 if strict else 0.45, why="ours, for LAION's 4.0")


def _resample(stage: Stage) -> Resample:
    """The table keeps 0.94 of 1.15."""
    quotas = tuple(Quota("landscape", "aspect", 1.0, share, share) for share in [_LANDSCAPE.get(stage)] if share)
    if stage != "sft":
        return Resample(keep=0.82, quotas=quotas)
    people = Quota("people", "person_score", 0.5, low=0.6)
    return Resample(keep=0.82, exempt="person_score", quotas=(*quotas, people))

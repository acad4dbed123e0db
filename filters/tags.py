"""The six negative tags of CogVideoX (section on video data): scores, and the list of those that a clip carries.

Three engines fill the same columns `tag_<name>`, 0..1:

`NegativeTags`  small classifiers over measured columns, computed when clips are judged: no model is needed
`ZeroShotTags`  a CLIP model that is asked in words (`filters.zero_shot`)
`QUESTIONS`     what a video LLM is asked, one yes or no per tag; the probability of yes is the score. CogVideoX itself
                trained one Video-LLaMA per tag on 20,000 labelled videos; neither labels nor models were published

`TagList` makes the list of names out of the scores, whoever gave them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar

import pyarrow as pa

from filters.tag_model import load
from manifests.schema import TAG_NAMES, TAGS


@dataclass(frozen=True, slots=True)
class TagQuestion:
    """What a video LLM is asked about a clip, to be answered with yes or no.

    A signal that asks has the columns `tag_<name>` of `manifests.schema.TAGS`, each the probability of yes, and
    `tags_error` for clips that got no answer; `TagList` does the rest.
    """

    tag: str
    question: str

    @property
    def column(self) -> str:
        return f"tag_{self.tag}"


QUESTIONS = (
    TagQuestion(
        "editing",
        "Has this video visibly been reworked after it was shot, with special effects, filters, split screens, "
        "frames, stickers or other graphics, so that it no longer shows the scene as a camera saw it?",
    ),
    TagQuestion(
        "no_motion_connectivity",
        "Does this video lack continuous motion, because it is a still picture, a series of stills, or pieces joined "
        "without any connection between their movements?",
    ),
    TagQuestion(
        "low_quality",
        "Is this video poorly shot: hard to make out, blurred, too dark or too bright, noisy, badly compressed, or "
        "shaken by the camera?",
    ),
    TagQuestion(
        "lecture",
        "Does this video mainly show one person who keeps talking, as in a lecture, a live stream or an interview, "
        "with hardly any other movement?",
    ),
    TagQuestion(
        "text_dominated",
        "Is text the main thing to see in this video, such as credits, titles, a page, slides or large captions?",
    ),
    TagQuestion(
        "noisy_screenshot",
        "Was this video recorded from or filmed off the screen of a phone, a computer or a television?",
    ),
)


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Score from which a clip carries a tag."""

    editing: float = 0.5
    no_motion_connectivity: float = 0.5
    low_quality: float = 0.5
    lecture: float = 0.5
    text_dominated: float = 0.5
    noisy_screenshot: float = 0.5


@dataclass(frozen=True, slots=True)
class NegativeTags:
    """weights: file that `vidcurate tags fit` wrote; the shipped ones where empty (see data/tags.md beside this file).
    missing: share of a classifier's weight that may lack its column; what is lacking counts as average. With more, the
    score is null and `tags_error` names the columns."""

    weights: str = ""
    thresholds: Thresholds = field(default_factory=Thresholds)
    missing: float = 0.4
    early: ClassVar[bool] = False
    schema: ClassVar[pa.Schema] = TAGS

    def __call__(self, clips: pa.Table) -> dict[str, list[Any]]:
        model = load(self.weights)
        scores: dict[str, list[float | None]] = {name: [None] * clips.num_rows for name in TAG_NAMES}
        reasons: list[list[str]] = [[] for _ in range(clips.num_rows)]
        for classifier in model.classifiers:
            logits, lacking = classifier.logits(clips)
            for row, (logit, share) in enumerate(zip(logits.tolist(), lacking.tolist(), strict=True)):
                if share <= self.missing:
                    scores[classifier.tag][row] = 1 / (1 + math.exp(-max(-60.0, min(60.0, logit))))
                else:
                    columns = ", ".join(classifier.lacks(row, clips))
                    reasons[row].append(f"{classifier.tag}: {columns} not measured")
        for name in set(TAG_NAMES) - {c.tag for c in model.classifiers}:
            for why in reasons:
                why.append(f"{name}: the weights have no such classifier")
        return {
            **{f"tag_{name}": values for name, values in scores.items()},
            "tags": _names([scores[name] for name in TAG_NAMES], self.thresholds),
            "tags_error": ["; ".join(why) or None for why in reasons],
        }


@dataclass(frozen=True, slots=True)
class TagList:
    """For recipes whose `tag_<name>` columns come from elsewhere."""

    thresholds: Thresholds = field(default_factory=Thresholds)
    early: ClassVar[bool] = False
    schema: ClassVar[pa.Schema] = pa.schema([TAGS.field("tags")])

    def __call__(self, clips: pa.Table) -> dict[str, list[Any]]:
        nothing = [None] * clips.num_rows
        names = [f"tag_{name}" for name in TAG_NAMES]
        scores = [clips[name].to_pylist() if name in clips.column_names else nothing for name in names]
        return {"tags": _names(scores, self.thresholds)}


def _names(scores: Sequence[Sequence[float | None]], thresholds: Thresholds) -> list[list[str] | None]:
    """Per clip the names of its tags; None where not one score was measured."""
    least = asdict(thresholds)
    rows: list[list[str] | None] = []
    for row in zip(*scores, strict=True):
        measured = [(name, score) for name, score in zip(TAG_NAMES, row, strict=True) if score is not None]
        rows.append([name for name, score in measured if score >= least[name]] if measured else None)
    return rows

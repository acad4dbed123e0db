"""The six negative tags of CogVideoX (section on video data): scores, and the list of those that a clip carries.

Three engines fill the same columns `tag_<name>`, 0..1:

`NegativeTags`  small classifiers over measured columns, computed when clips are judged: no model is needed
`ZeroShotTags`  a CLIP model that is asked in words (`filters.learned.zero_shot`)
`QUESTIONS`     what a video LLM is asked, one yes or no per tag; the probability of yes is the score. CogVideoX itself
                trained one Video-LLaMA per tag on 20,000 labelled videos; neither labels nor models were published

`TagList` makes the list of names out of the scores, whoever gave them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from filters.rules import names_of
from filters.tags.model import load
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

    @property
    def reads(self) -> tuple[str, ...]:
        return tuple(sorted({feature.column for one in load(self.weights).classifiers for feature in one.features}))

    def __call__(self, clips: pa.Table) -> dict[str, Any]:
        classifiers = {one.tag: one for one in load(self.weights).classifiers}
        scores = np.full((clips.num_rows, len(TAG_NAMES)), np.nan)
        lacks = np.zeros((clips.num_rows, 0), bool)  # per clip and feature of all classifiers that lack too much
        said: list[tuple[str, str]] = []  # tag and column of each
        for k, tag in enumerate(TAG_NAMES):
            if tag not in classifiers:
                continue
            logits, missing, share = classifiers[tag].logits(clips)
            enough = share <= self.missing
            scores[enough, k] = 1 / (1 + np.exp(-np.clip(logits[enough], -60, 60)))
            lacks = np.concatenate([lacks, missing & ~enough[:, None]], axis=1)
            said += [(tag, feature.column) for feature in classifiers[tag].features]
        never = [f"{tag}: the weights have no such classifier" for tag in TAG_NAMES if tag not in classifiers]
        return {
            **{f"tag_{tag}": pa.array(scores[:, k], from_pandas=True) for k, tag in enumerate(TAG_NAMES)},
            "tags": _names(scores, self.thresholds),
            "tags_error": _reasons(lacks, said, never),
        }


@dataclass(frozen=True, slots=True)
class TagList:
    """For recipes whose `tag_<name>` columns come from elsewhere."""

    thresholds: Thresholds = field(default_factory=Thresholds)
    early: ClassVar[bool] = False
    schema: ClassVar[pa.Schema] = pa.schema([TAGS.field("tags")])

    @property
    def reads(self) -> tuple[str, ...]:
        return tuple(f"tag_{name}" for name in TAG_NAMES)

    def __call__(self, clips: pa.Table) -> dict[str, Any]:
        nothing = pa.nulls(clips.num_rows, pa.float64())
        scores = [clips[name] if name in clips.column_names else nothing for name in self.reads]
        return {"tags": _names(np.stack([np.asarray(s, np.float64) for s in scores], axis=1), self.thresholds)}


def _names(scores: npt.NDArray[np.float64], thresholds: Thresholds) -> pa.Array:
    """Names of each clip's tags, from scores (clips, tags); null where not one was measured."""
    least = np.array([getattr(thresholds, tag) for tag in TAG_NAMES])
    return names_of(TAG_NAMES, scores >= least, none=np.asarray(np.all(np.isnan(scores), axis=1)))


def _reasons(lacks: npt.NDArray[np.bool_], said: Sequence[tuple[str, str]], never: Sequence[str]) -> pa.Array:
    """One sentence for every pattern of missing columns there is."""
    code = np.zeros(len(lacks), np.int64)
    for column in lacks.T:  # patterns are few, so that their numbers stay small
        _, code = np.unique(2 * code + column, return_inverse=True) if column.any() else (None, code)
    _, first, which = np.unique(code, return_index=True, return_inverse=True)
    sentences = []
    for pattern in lacks[first]:
        columns: dict[str, list[str]] = {}
        for k in np.flatnonzero(pattern):
            tag, column = said[k]
            columns.setdefault(tag, []).append(column)
        told = [f"{tag}: {', '.join(dict.fromkeys(names))} not measured" for tag, names in columns.items()]
        sentences.append("; ".join([*told, *never]) or None)
    return pa.array(sentences, pa.string()).take(pa.array(which.ravel()))

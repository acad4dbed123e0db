"""Six small classifiers of negative tags: what they look at, how a score is computed, and the file they are kept in.

A feature is a ramp over one measured column: 0 up to `low`, 1 from `high`, straight or logarithmic between; or 1 where
a text column has a value. A score is the logistic function of a bias and a weighted sum of features; 0.5 is the
threshold that was best in training. Everything is in one JSON file that can be read and changed by hand.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from manifests.schema import TAG_NAMES

FORMAT = 1
SHIPPED = Path(__file__).parent / "data" / "tags.json"

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Feature:
    """column, low, high: see above; log: the ramp is straight over the logarithm; equals: of a text column, instead;
    sign: 1 if it can only speak for the tag, -1 if only against it. alone: its strongest
    evidence makes a usual clip carry the tag. weight: in the sum; mean: stands in for null."""

    column: str
    low: float = 0.0
    high: float = 1.0
    log: bool = False
    equals: str = ""
    sign: int = 1
    alone: bool = False
    weight: float = 0.0
    mean: float = 0.0

    def __post_init__(self) -> None:
        if not self.low < self.high or (self.log and self.low <= 0):
            raise ValueError(f"feature {self.column}: low must lie below high, and above 0 where log is set.")

    def values(self, clips: pa.Table) -> Floats:
        """0..1 for every clip; not a number where the column is null or missing."""
        if self.column not in clips.column_names:
            return np.full(clips.num_rows, np.nan)
        column = clips[self.column]
        if self.equals:
            same = pc.fill_null(pc.equal(column, self.equals), False)  # null is a value like any other
            return np.asarray(same.cast(pa.float64()))
        given = column.cast(pa.float64()).to_numpy(zero_copy_only=False)
        at, low, high = given, self.low, self.high
        if self.log:
            at, low, high = np.log(np.maximum(given, 1e-9)), math.log(low), math.log(high)
        return np.asarray(np.clip((at - low) / (high - low), 0, 1), np.float64)


@dataclass(frozen=True, slots=True)
class Classifier:
    """One tag's. trained_on: how many clips with and without it."""

    tag: str
    features: tuple[Feature, ...]
    bias: float = 0.0
    trained_on: tuple[int, int] = (0, 0)

    def logits(self, clips: pa.Table) -> tuple[Floats, npt.NDArray[np.bool_], Floats]:
        """For every clip the weighted sum, (clips, features) whether a feature with weight has no value, and the share
        of all weight that these have, 0..1."""
        values = matrix(self.features, clips)
        weights = np.array([f.weight for f in self.features])
        means = np.array([f.mean for f in self.features])
        missing = np.isnan(values)
        total = max(float(np.abs(weights).sum()), 1e-12)
        logits = np.where(missing, means, values) @ weights + self.bias
        return logits, missing & (weights != 0), missing @ np.abs(weights) / total


@dataclass(frozen=True, slots=True)
class TagModel:
    """about: what it was trained on, in a sentence."""

    classifiers: tuple[Classifier, ...]
    about: str = ""

    def save(self, path: str | Path) -> None:
        tags = {c.tag: {k: v for k, v in asdict(c).items() if k != "tag"} for c in self.classifiers}
        text = json.dumps({"format": FORMAT, "about": self.about, "tags": _rounded(tags)}, indent=1)
        Path(path).write_text(text + "\n")


def matrix(features: Sequence[Feature], clips: pa.Table) -> Floats:
    """(clips, features)."""
    if not features:
        return np.zeros((clips.num_rows, 0))
    return np.stack([feature.values(clips) for feature in features], axis=1)


@functools.lru_cache(maxsize=8)
def _load(path: str, _changed: float) -> TagModel:
    try:
        given = json.loads(Path(path).read_text())
    except (ValueError, UnicodeDecodeError) as error:
        raise ValueError(
            f"{path} is no JSON file of tag weights ({error}); write one with vidcurate tags fit."
        ) from None
    if not isinstance(given, dict) or given.get("format") != FORMAT or not isinstance(given.get("tags"), dict):
        raise ValueError(f"{path} holds no tag weights of format {FORMAT}; write them with vidcurate tags fit.")
    unknown = set(given["tags"]) - set(TAG_NAMES)
    if unknown:
        raise ValueError(f"{path}: there is no tag {sorted(unknown)[0]!r}; choose from {', '.join(TAG_NAMES)}.")
    try:
        classifiers = [_classifier(tag, given["tags"][tag]) for tag in TAG_NAMES if tag in given["tags"]]
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{path}: a tag's weights are not what they should be ({error}); write them again.") from None
    return TagModel(tuple(classifiers), str(given.get("about", "")))


def load(path: str = "") -> TagModel:
    """The weights that ship with vidcurate, or those in a file. Raises ValueError with one sentence."""
    file = Path(path) if path else SHIPPED
    if not file.is_file():
        raise ValueError(
            f"{file}: there are no tag weights; write some with vidcurate tags fit, or leave the name out."
        )
    return _load(str(file), file.stat().st_mtime)


def _classifier(tag: str, given: dict[str, Any]) -> Classifier:
    known = {f.name for f in fields(Feature)}
    features = [Feature(**{k: v for k, v in one.items() if k in known}) for one in given["features"]]
    numbers = [float(given["bias"]), *(float(x) for f in features for x in (f.low, f.high, f.weight, f.mean))]
    if not all(math.isfinite(x) for x in numbers):
        raise ValueError(f"tag weights of {tag} hold a number that is none; write them again with vidcurate tags fit.")
    positive, negative = given.get("trained_on", (0, 0))
    return Classifier(tag, tuple(features), float(given["bias"]), (int(positive), int(negative)))


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 5)
    if isinstance(value, dict):
        return {k: _rounded(v) for k, v in value.items()}
    return [_rounded(v) for v in value] if isinstance(value, (list, tuple)) else value

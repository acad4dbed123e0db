"""Trains the classifiers of `filters.tags.model` on labelled clips: logistic regression with signs.

Loss: mean logistic loss, both classes with equal weight, plus `L2 / 2` times the squared weights; a weight never goes
against the sign of its feature, so that a few films cannot teach that blur speaks for quality. Minimised by projected
gradient steps with momentum (FISTA, Beck and Teboulle 2009). The threshold is the one with the best F1 in a five-fold
cross-validation, and is put into the bias, so that 0.5 is the threshold of every tag.

Some traces are too rare among labelled clips to be learnt from, and yet leave no doubt: features marked `alone` weigh
so much that a usual clip with the full trace carries the tag, unless a twentieth of the clips labelled as without it
would carry it, too.

CogVideoX tests its classifiers on a random tenth of the labels (Table 14); so here, with all clips of a film on one
side.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from filters.tags.model import Classifier, Feature, TagModel, matrix

L2 = 0.001
MARGIN = 1.0
"""Logit, at the least, of a usual clip with one full trace that suffices alone."""
TOLERATED = 0.05
"""Share of the clips without the tag that one trace may make carry it, to suffice alone."""
LEAST = 5
"""Clips of each class that a tag needs to be trained."""

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

FEATURES: dict[str, tuple[Feature, ...]] = {
    "editing": (
        Feature("seam", 0.65, 0.95),
        Feature("seam_moving", 0.45, 0.75),
        Feature("inset_frame", 0.5, 1.0, alone=True),
        Feature("mirrored", 0.6, 0.9, alone=True),
        Feature("repeated", 0.6, 0.9),
        Feature("cold_colors", 0.55, 0.8, alone=True),
        Feature("flashes_per_s", 0.5, 2.5),
        Feature("border_kind", equals="blurred", alone=True),
        Feature("border_kind", equals="pattern", alone=True),
        Feature("letterbox_fraction", 0.3, 0.5),
        Feature("few_colors", 0.7, 0.95, sign=-1),
        Feature("ruled_lines", 1.0, 8.0, sign=-1),
        Feature("text_area", 0.1, 0.3, log=True, sign=-1),
        Feature("talking_head", 0.1, 0.7, sign=-1),
        Feature("static_fraction", 0.25, 0.7, sign=-1),
    ),
    "no_motion_connectivity": (
        Feature("static_fraction", 0.25, 0.7),
        Feature("slideshow", 0.3, 0.9),
        Feature("motion_vmaf", 0.03, 0.5, log=True, sign=-1),
        Feature("text_area", 0.05, 0.2, log=True, sign=-1),
        Feature("talking_head", 0.1, 0.7, sign=-1),
    ),
    "low_quality": (
        Feature("shake", 20.0, 50.0, alone=True),
        Feature("sharpness", 0.35, 0.6, sign=-1),
        Feature("noise", 3.0, 8.0, log=True, alone=True),
        Feature("grid_steps", 1.7, 3.0),
        Feature("quantizer", 38.0, 46.0, alone=True),
        Feature("exposure", 0.12, 0.24, sign=-1, alone=True),
        Feature("exposure", 0.8, 0.95),
        Feature("contrast", 0.1, 0.4, sign=-1),
        Feature("aesthetic_photo", 0.4, 0.8, sign=-1),
        Feature("text_area", 0.05, 0.2, log=True, sign=-1),
        Feature("moire", 2.5, 4.5, sign=-1),
        Feature("tilted_screen", 0.1, 0.4, sign=-1),
        Feature("ruled_lines", 1.0, 8.0, sign=-1),
    ),
    "lecture": (
        Feature("talking_head", 0.3, 0.7),
        Feature("speech_fraction", 0.0, 0.4),
        Feature("still_area", 0.6, 0.98),
    ),
    "text_dominated": (
        Feature("text_area", 0.05, 0.25, log=True),
        Feature("few_colors", 0.8, 0.98),
        Feature("talking_head", 0.1, 0.7, sign=-1),
    ),
    "noisy_screenshot": (
        Feature("moire", 2.5, 4.5),
        Feature("tilted_screen", 0.1, 0.4),
        Feature("ruled_lines", 1.0, 8.0),
        Feature("flat_area", 0.4, 0.8),
        Feature("few_colors", 0.5, 0.9),
        Feature("noise", 0.02, 0.4, log=True, sign=-1),
        Feature("text_area", 0.005, 0.1, log=True),
        Feature("text_area", 0.13, 0.4, log=True, sign=-1),
        Feature("talking_head", 0.1, 0.7, sign=-1),
    ),
}


@dataclass(frozen=True, slots=True)
class Test:
    """Counts on the held-out tenth; a positive carries the tag."""

    tag: str
    tp: int
    fp: int
    tn: int
    fn: int

    @property
    def clips(self) -> int:
        return self.tp + self.fp + self.tn + self.fn

    @property
    def accuracy(self) -> float:
        return (self.tp + self.tn) / max(1, self.clips)


@dataclass(frozen=True, slots=True)
class Fit:
    """skipped: by tag, why it was not trained."""

    model: TagModel
    tests: tuple[Test, ...]
    skipped: dict[str, str]


def fit(clips: pa.Table, labels: Mapping[str, Sequence[bool | None]], about: str = "", seed: int = 0) -> Fit:
    """clips: measured columns and `uri`; labels: by tag, one per clip, None where it is not known.

    Raises ValueError when no tag can be trained.
    """
    films = np.asarray(clips["uri"].to_pylist())
    classifiers, tests, skipped = [], [], {}
    for tag, given in labels.items():
        known = np.array([value is not None for value in given], bool)
        truth = np.array([bool(value) for value in given], bool)[known]
        table = clips.filter(pa.array(known))
        reason = _unfit(FEATURES[tag], table, truth)
        if reason:
            skipped[tag] = reason
            continue
        rng = np.random.default_rng(seed)
        held_out = parts(truth, films[known], 10, rng) == 0
        classifier = train(tag, table.filter(pa.array(~held_out)), truth[~held_out], films[known][~held_out], rng)
        said = classifier.logits(table.filter(pa.array(held_out)))[0] >= 0
        classifiers.append(classifier)
        tests.append(_counted(tag, said, truth[held_out]))
    if not classifiers:
        raise ValueError(f"no tag can be trained: {'; '.join(f'{tag}: {why}' for tag, why in skipped.items())}.")
    return Fit(TagModel(tuple(classifiers), about), tuple(tests), skipped)


def train(tag: str, clips: pa.Table, truth: Bools, films: npt.NDArray[np.str_], rng: np.random.Generator) -> Classifier:
    """A classifier whose threshold is 0.5. Columns without a single value are left out."""
    values = matrix(FEATURES[tag], clips)
    there = np.flatnonzero(~np.isnan(values).all(axis=0))
    features = [FEATURES[tag][k] for k in there]
    values = values[:, there]
    means = np.nanmean(values, axis=0)
    values = np.where(np.isnan(values), means, values)
    signs = np.array([feature.sign for feature in features])
    fold = parts(truth, films, 5, rng)
    scores = np.zeros(len(truth))
    for k in range(5):
        weights, bias = regress(values[fold != k], truth[fold != k], signs)
        scores[fold == k] = values[fold == k] @ weights + bias
    weights, bias = regress(values, truth, signs)
    bias -= best_threshold(scores, truth)
    weights, bias = lifted(features, values, truth, weights, bias)
    found = tuple(
        dataclasses.replace(feature, weight=float(w), mean=float(m))
        for feature, w, m in zip(features, weights, means, strict=True)
    )
    return Classifier(tag, found, float(bias), (int(truth.sum()), int((~truth).sum())))


def lifted(
    features: Sequence[Feature], values: Floats, truth: Bools, weights: Floats, bias: float
) -> tuple[Floats, float]:
    """Weights and bias with which features that are marked `alone` suffice, see above."""
    before = values @ weights + bias
    usual = float(np.median(before[~truth]))
    added, offset = np.zeros(len(features)), 0.0
    for k in (k for k, feature in enumerate(features) if feature.alone):
        more = features[k].sign * max(MARGIN - usual - abs(weights[k]), 0.0)
        at = min(more, 0.0)  # what speaks against the tag is usually there: without it
        after = before + more * values[:, k] - at
        if ((after >= 0) & (before < 0))[~truth].mean() < TOLERATED:
            added[k], offset = more, offset - at
    return weights + added, bias + offset


def regress(values: Floats, truth: Bools, signs: npt.NDArray[np.int_], l2: float = L2) -> tuple[Floats, float]:
    """Weights (features,) and bias that minimise the loss described above; values (clips, features) in 0..1."""
    balance = np.where(truth, 0.5 / max(1, truth.sum()), 0.5 / max(1, (~truth).sum()))
    design = np.column_stack([values, np.ones(len(values))])
    penalty = np.append(np.full(values.shape[1], l2), 0.0)
    step = 1 / (0.25 * float(np.linalg.norm(design.T @ (design * balance[:, None]), 2)) + l2)
    here = ahead = np.zeros(design.shape[1])
    momentum = 1.0
    for _ in range(4000):
        slope = design.T @ (balance * (1 / (1 + np.exp(-design @ ahead)) - truth)) + penalty * ahead
        there = ahead - step * slope
        there[:-1] = np.where(there[:-1] * signs > 0, there[:-1], 0.0)
        grown = (1 + np.sqrt(1 + 4 * momentum * momentum)) / 2
        ahead = there + (momentum - 1) / grown * (there - here)
        moved, here, momentum = float(np.abs(there - here).max()), there, grown
        if moved < 1e-8:
            break
    return here[:-1], float(here[-1])


def best_threshold(scores: Floats, truth: Bools) -> float:
    """The middle of the widest gap between scores that gives the best F1."""
    order = np.unique(scores)
    cuts = (order[1:] + order[:-1]) / 2
    if not len(cuts):
        return float(order[0])
    said = scores[None] >= cuts[:, None]
    hits = (said & truth).sum(axis=1)
    f1 = 2 * hits / np.maximum(said.sum(axis=1) + truth.sum(), 1)
    best = np.flatnonzero(f1 >= f1.max() - 1e-12)
    gaps = (order[1:] - order[:-1])[best]
    return float(cuts[best[gaps.argmax()]])


def parts(truth: Bools, films: npt.NDArray[np.str_], count: int, rng: np.random.Generator) -> npt.NDArray[np.intp]:
    """A part for every clip: all clips of a film in one, and films with and without the tag spread alike."""
    names, number = np.unique(films, return_inverse=True)
    positive = np.zeros(len(names), bool)
    positive[number[truth]] = True
    part = np.zeros(len(names), np.intp)
    for group in (positive, ~positive):
        members = rng.permutation(np.flatnonzero(group))
        part[members] = np.arange(len(members)) % count
    return part[number]


def _unfit(features: Sequence[Feature], clips: pa.Table, truth: Bools) -> str:
    """Why a tag cannot be trained, if so."""
    for count, word in ((int(truth.sum()), "with"), (int((~truth).sum()), "without")):
        if count < LEAST:
            return f"{count} labelled clips {word} it, at least {LEAST} are needed"
    if np.isnan(matrix(features, clips)).all():
        return f"none of its columns is measured ({', '.join(f.column for f in features)})"
    return ""


def _counted(tag: str, said: Bools, truth: Bools) -> Test:
    counts = [(said & truth).sum(), (said & ~truth).sum(), (~said & ~truth).sum(), (~said & truth).sum()]
    return Test(tag, *(int(n) for n in counts))

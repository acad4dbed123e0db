"""What CLIP says about a clip when asked in words: CogVideoX's six negative tags, people, phrases of a taxonomy.

A probability is a softmax over the cosines of a frame with a few descriptions that would be true and a few that would
not, scaled as the model was trained; the true ones' shares add up, and the mean over frames counts. CogVideoX trained
six classifiers on 20,000 labelled videos instead, which were not published; words in their place are ours. Prompts and
thresholds wait for a calibration on footage of yours: print the columns of a sample before you reject by them.

Sources: CogVideoX (arXiv 2408.06072) section on video data; Radford et al. 2021 for zero-shot classification; Movie Gen
(arXiv 2410.13720) for people and the taxonomy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import cv2
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from filters.learned import taxonomy
from filters.learned.clip import ClipModel, mean
from filters.learned.consistency import neighbours
from filters.learned.embeddings import Vectors, embed, pick
from filters.looks.frames import LOOKS
from manifests.schema import TAG_NAMES, TAGS, column
from manifests.types import Clip, Frames


@dataclass(frozen=True, slots=True)
class Probe:
    """A question put to CLIP: descriptions that are true of what `name` means, and of what it does not."""

    name: str
    true: tuple[str, ...]
    false: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.true or not self.false:
            raise ValueError(f"probe {self.name}: give at least one description that is true and one that is false.")


TAG_PROBES = (
    Probe(
        "editing",
        (
            "a split screen with several pictures",
            "a picture with a decorative border or blurred bars added at its sides",
            "a picture with artificial effects, filters or inverted colors",
            "a picture with stickers, graphics and overlays",
        ),
        ("an unedited photo taken with a camera", "a film still", "a natural scene", "an animated film"),
    ),
    Probe(
        "low_quality",
        (
            "a blurry photo that is out of focus",
            "a dark, badly exposed photo",
            "a low resolution picture with compression artifacts",
            "a photo smeared by camera shake",
        ),
        ("a sharp, clear photo", "a well lit photo", "a high resolution film still", "a professional photo"),
    ),
    Probe(
        "lecture",
        (
            "a lecturer in front of a slide",
            "a person talking to a webcam",
            "a speaker at a lectern",
            "a presenter sitting at a desk and talking",
        ),
        ("people doing something outdoors", "a landscape", "an animal", "an object in close-up", "a street"),
    ),
    Probe(
        "text_dominated",
        ("a page of text", "a title card", "rolling credits", "a slide full of text", "a picture covered by lettering"),
        ("a photo without any text", "a film still without subtitles", "a scene without writing", "a landscape"),
    ),
    Probe(
        "noisy_screenshot",
        (
            "a screenshot of a computer program",
            "a screenshot of a phone app",
            "a photo of a computer monitor",
            "a screen recording with a mouse pointer",
        ),
        ("a photo of the real world", "a film still", "people", "an animal", "an animated film"),
    ),
)

PERSON = Probe(
    "person",
    ("a photo of a person", "a photo of people", "a close-up of a face", "a photo of a person from behind"),
    ("a photo of an animal", "a landscape without people", "a photo of an object", "an empty room", "a photo of food"),
)


def probability(model: ClipModel, embeddings: Vectors, probe: Probe) -> float | None:
    """Mean over frames (n, D) of how probably the probe's true descriptions fit, 0..1; None without frames."""
    if not len(embeddings):
        return None
    logits = model.logit_scale * (embeddings @ model.read(probe.true + probe.false).T).astype(np.float64)
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    return float(shares[:, : len(probe.true)].sum(axis=1).mean())


@dataclass(frozen=True, slots=True)
class ZeroShotTags:
    """CogVideoX's negative tags, each 0..1.

    No single frame shows a lack of motion connectivity, so `tag_no_motion_connectivity` is the share of neighbouring
    frames between which nothing moves on: their CLIP cosine is below `unrelated` (0.8, EasyAnimate's bound between
    shots), or they differ by less than `still` grey levels on average. A slow pan over a still picture escapes it.
    """

    model: ClipModel = field(default_factory=ClipModel)
    probes: tuple[Probe, ...] = TAG_PROBES
    unrelated: float = 0.8
    still: float = 1.0
    wants = LOOKS
    schema: ClassVar[pa.Schema] = pa.schema([TAGS.field(f"tag_{name}") for name in TAG_NAMES])

    def __post_init__(self) -> None:
        if sorted((*(probe.name for probe in self.probes), "no_motion_connectivity")) != sorted(TAG_NAMES):
            raise ValueError("give one probe for each tag but no_motion_connectivity, which is no matter of words.")

    def prepare(self) -> None:
        for probe in self.probes:
            self.model.read(probe.true + probe.false)

    def __call__(self, clips: Sequence[Clip], frames: Sequence[Frames]) -> dict[str, list[Any]]:
        """Raises ValueError when the model cannot be had."""
        of_clips = embed(self.model, frames, [pick(f, "all") for f in frames])
        tags = {f"tag_{p.name}": [probability(self.model, e, p) for e in of_clips] for p in self.probes}
        broken = [self._unconnected(f, e) for f, e in zip(frames, of_clips, strict=True)]
        return {**tags, "tag_no_motion_connectivity": broken}

    def _unconnected(self, frames: Frames, embeddings: Vectors) -> float | None:
        if len(frames) < 2:
            return None
        steps = zip(frames.images[:-1], frames.images[1:], neighbours(embeddings), strict=True)
        alone = [bool(cosine < self.unrelated) or _difference(a, b) < self.still for a, b, cosine in steps]
        return sum(alone) / len(alone)


def _difference(a: npt.NDArray[np.uint8], b: npt.NDArray[np.uint8]) -> float:
    """Mean absolute difference of two pictures of one size, grey levels."""
    return cv2.norm(a, b, cv2.NORM_L1) / a.size


@dataclass(frozen=True, slots=True)
class PersonClip:
    """How probably there are people to be seen: Movie Gen's last subset is to show them in 60 % of its clips."""

    model: ClipModel = field(default_factory=ClipModel)
    probe: Probe = PERSON
    wants = LOOKS
    schema: ClassVar[pa.Schema] = pa.schema(
        [column("person_clip", pa.float64(), "CLIP's probability of people", range="0..1")]
    )

    def prepare(self) -> None:
        self.model.read(self.probe.true + self.probe.false)

    def __call__(self, clips: Sequence[Clip], frames: Sequence[Frames]) -> dict[str, list[Any]]:
        """Raises ValueError when the model cannot be had."""
        of_clips = embed(self.model, frames, [pick(f, "all") for f in frames])
        return {"person_clip": [probability(self.model, e, self.probe) for e in of_clips]}


@dataclass(frozen=True, slots=True)
class Taxonomy:
    """The phrase of a list that fits a clip best: nearest text to the mean embedding of its frames.

    Movie Gen finds videos of people by retrieval with a taxonomy of 600 human verbs and expressions.

    file:     phrases, one a line; empty lines and those that begin with # do not count. "": our 600
    template: a sentence around a phrase, which takes the place of {}
    """

    model: ClipModel = field(default_factory=ClipModel)
    file: str = ""
    template: str = "a photo of a person {}"
    version: int = 2
    wants = LOOKS
    schema: ClassVar[pa.Schema] = pa.schema(
        [
            column("taxonomy_phrase", pa.string(), "best-fitting phrase of the taxonomy"),
            column("taxonomy_score", pa.float64(), "cosine of clip and that phrase", range="-1..1"),
        ]
    )

    def __post_init__(self) -> None:
        if "{}" not in self.template:
            raise ValueError(f"template {self.template!r}: write {{}} where the phrase belongs.")

    def prepare(self) -> None:
        self._texts(self.phrases())

    def __call__(self, clips: Sequence[Clip], frames: Sequence[Frames]) -> dict[str, list[Any]]:
        """Raises ValueError when the model or the list cannot be had."""
        phrases = self.phrases()
        texts = self._texts(phrases)
        of_clips = embed(self.model, frames, [pick(f, "all") for f in frames])
        scores = [texts @ mean(e) if len(e) else None for e in of_clips]
        return {
            "taxonomy_phrase": [None if s is None else phrases[int(s.argmax())] for s in scores],
            "taxonomy_score": [None if s is None else float(s.max()) for s in scores],
        }

    def phrases(self) -> tuple[str, ...]:
        """Raises ValueError when the file cannot be read or holds none."""
        return taxonomy.phrases(self.file)

    def _texts(self, phrases: tuple[str, ...]) -> Vectors:
        return self.model.read(tuple(self.template.replace("{}", phrase) for phrase in phrases))

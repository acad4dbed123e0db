"""People: whether there are persons to be seen. Movie Gen's last subset is to show them in 60 % of its clips.

`people` is the share of the sampled frames with a person in them; `person_score`, 0..1, is the evidence that two of
these frames agree on, and 0.5 says that there are people. Movie Gen finds such videos by retrieval with a taxonomy of
human verbs; this is ours.

The embedded detector puts together faces (frontal, two cascades that must agree, and profiles) and upright figures
(histograms of oriented gradients with the linear classifier that ships with OpenCV). It overlooks people who are small,
seated, bent, half hidden or far from upright, and it takes a bottle for a figure now and then. `Segmenter` is the place
of a learned one.

Sources: Viola and Jones 2001; Dalal and Triggs 2005; Howard et al. 2019 (LR-ASPP).
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

import cv2
import numpy as np
import pyarrow as pa

from filters.looks.frames import LOOKS
from filters.people.faces import Haar, Looked, cascade, spread
from filters.weights import find, first_line, once, tensors
from manifests.schema import column
from manifests.types import Clip, Frames, Image

PERSON = 15
"""Number of the class in the labels of PASCAL VOC, which the published segmentation weights have."""


class PersonDetector(Protocol):
    """Evidence of people in a few frames of a clip, evenly spread, 0..1 each, 0.5 being in doubt; must be a frozen
    dataclass."""

    def evidence(self, frames: Frames, looks: int) -> list[float]: ...


@dataclass(frozen=True, slots=True)
class Figures:
    """figure, profile: margin of the classifier, and confidence of the cascade, at which a find is in doubt; lines:
    height to which pictures are scaled for both."""

    faces: Haar = field(default_factory=Haar)
    figure: float = 1.75
    profile: float = 1.9
    lines: int = 240

    def evidence(self, frames: Frames, looks: int) -> list[float]:
        faces = frames.share(Looked(self.faces, looks))
        images = [frames.images[k] for k in spread(len(frames), looks)]
        return [1.0 if len(boxes) else self._frame(i) for boxes, i in zip(faces, images, strict=True)]

    def _frame(self, image: Image) -> float:
        if min(image.shape[:2]) < 48:
            return 0.0
        scale = min(1.0, self.lines / image.shape[0])
        small = np.asarray(cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), np.uint8)
        figure, profile = self._figure(small), self._profile(small)
        return max(_doubt(figure - self.figure, 0.2), _doubt(profile - self.profile, 0.2))

    def _figure(self, small: Image) -> float:
        """Margin of the best upright figure. The window has a margin of its own: without the continued edge, people
        who are as tall as the picture would not fit into it."""
        rim = self.lines // 5
        wide = cv2.copyMakeBorder(small, rim, rim, rim, rim, cv2.BORDER_REPLICATE)
        margins = _figures().detectMultiScale(wide, winStride=(8, 8), scale=1.08)[1]
        return float(np.max(margins)) if len(margins) else -np.inf

    def _profile(self, small: Image) -> float:
        """Confidence of the best profile, looking either way."""
        gray = cv2.cvtColor(small, cv2.COLOR_BGR2GRAY)
        best = -np.inf
        for way in (gray, np.ascontiguousarray(gray[:, ::-1])):
            found = cascade("haarcascade_profileface.xml").detectMultiScale3(
                way, scaleFactor=1.25, minNeighbors=4, minSize=(20, 20), outputRejectLevels=True
            )
            best = max(best, *(float(c) for c in found[2])) if len(found[2]) else best
        return best


@dataclass(frozen=True, slots=True)
class Segmenter:
    """torchvision's `lraspp_mobilenet_v3_large` with the weights in a file (COCO_WITH_VOC_LABELS_V1, published as
    lraspp_mobilenet_v3_large-d234d4ea.pth), or behind an address; area: share of the frame at which people are in
    doubt."""

    path: str
    area: float = 0.01
    device: str = "auto"

    def evidence(self, frames: Frames, looks: int) -> list[float]:
        """Raises ValueError when the weights cannot be had."""
        import torch

        network, device = _segmenter(self.path, self.device)
        mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
        shares = []
        for image in (frames.images[k] for k in spread(len(frames), looks)):
            rgb = torch.from_numpy(np.ascontiguousarray(image[..., ::-1])).float() / 255
            batch = ((rgb - mean) / deviation).permute(2, 0, 1)[None].to(device)
            with torch.inference_mode():
                labels = network(batch)["out"].argmax(dim=1)
            shares.append(float((labels == PERSON).float().mean()))
        return [share / (share + self.area) for share in shares]


@dataclass(frozen=True, slots=True)
class People:
    """looks: frames of a clip that are looked at, evenly spread."""

    detector: PersonDetector = field(default_factory=Figures)
    looks: int = 4
    wants = LOOKS
    schema: ClassVar[pa.Schema] = pa.schema(
        [
            column("people", pa.float64(), "share of frames with a person", range="0..1"),
            column("person_score", pa.float64(), "evidence that there are people", range="0..1"),
        ]
    )

    def __call__(self, clips: Sequence[Clip], frames: Sequence[Frames]) -> dict[str, list[Any]]:
        found = [self.detector.evidence(f, self.looks) for f in frames]
        return {
            "people": [sum(e >= 0.5 for e in of_clip) / len(of_clip) if of_clip else None for of_clip in found],
            "person_score": [sorted(of_clip)[-min(2, len(of_clip))] if of_clip else None for of_clip in found],
        }


def _doubt(over: float, scale: float) -> float:
    """0..1, one half at 0."""
    return float(1 / (1 + np.exp(-np.clip(over / scale, -60, 60))))


@functools.cache
def _figures() -> cv2.HOGDescriptor:
    detector = cv2.HOGDescriptor()
    detector.setSVMDetector(np.asarray(cv2.HOGDescriptor.getDefaultPeopleDetector(), np.float32))
    return detector


@once
def _segmenter(path: str, device: str) -> tuple[Any, Any]:
    """The network, ready on its device. Raises ValueError with one sentence."""
    try:
        import torch
        from torchvision.models.segmentation import lraspp_mobilenet_v3_large
    except ImportError as error:
        raise ValueError(
            f"people by segmentation need torch and torchvision ({error}): pip install 'vidcurate[learned]'."
        ) from error
    file = find(path)
    network = lraspp_mobilenet_v3_large(weights=None, weights_backbone=None)
    try:
        network.load_state_dict(tensors(file))
    except RuntimeError as error:
        raise ValueError(
            f"{file} holds no weights of lraspp_mobilenet_v3_large ({first_line(error)}); use torchvision's file."
        ) from error
    where = torch.device(
        "cuda" if device == "auto" and torch.cuda.is_available() else "cpu" if device == "auto" else device
    )
    return network.eval().requires_grad_(False).to(where), where

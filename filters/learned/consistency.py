"""Temporal consistency: the least similarity between neighbouring sampled frames. A clip with an undetected cut, or one
spliced from unrelated pictures, is low.

`temporal_consistency` needs no model: cosine of a small descriptor per frame, half gradient orientations on a 4x4 grid,
half a histogram of colours. 0 to 1. Of real and rendered clips of one shot 98 % lie above 0.88 and of clips with an
unmarked cut in them 95 % below; those that stay above are cuts within one framing, dissolves and some black-and-white
film, for which edges and brightness are all there is.

`temporal_consistency_clip` is EasyAnimate's: least cosine between CLIP embeddings of neighbouring frames, of which its
code keeps 0.8 and more (ViT-L/14 at 336 pixels, on the coded key frames and the first frame). Here the frames are those
of the pack: up to eight, evenly spread.

Source: EasyAnimate `video_caption/compute_semantic_consistency.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import cv2
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from filters.learned.clip import VIT_L_14_336, ClipModel
from filters.learned.embeddings import embed, pick
from filters.looks.frames import LOOKS
from manifests.schema import column
from manifests.types import Clip, Frames, Image

_SIDE, _CELLS, _DIRECTIONS, _GRAYS = 64, 4, 8, 4

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class TemporalConsistency:
    """Least similarity of neighbouring sampled frames, by colours and edges."""

    wants = LOOKS
    schema: ClassVar[pa.Schema] = pa.schema(
        [
            column(
                "temporal_consistency",
                pa.float64(),
                "least similarity of neighbouring sampled frames",
                range="0..1",
                better="higher",
            )
        ]
    )

    def __call__(self, clips: Sequence[Clip], frames: Sequence[Frames]) -> dict[str, list[Any]]:
        return {"temporal_consistency": [_consistency(f) for f in frames]}


@dataclass(frozen=True, slots=True)
class ClipConsistency:
    """Least and mean cosine of neighbouring sampled frames' CLIP embeddings."""

    model: ClipModel = field(default=VIT_L_14_336)
    wants = LOOKS
    schema: ClassVar[pa.Schema] = pa.schema(
        [
            column(
                "temporal_consistency_clip",
                pa.float64(),
                "least CLIP cosine of neighbouring sampled frames",
                range="-1..1",
                better="higher",
            ),
            column(
                "temporal_consistency_clip_mean",
                pa.float64(),
                "mean CLIP cosine of neighbouring sampled frames",
                range="-1..1",
                better="higher",
            ),
        ]
    )

    def prepare(self) -> None:
        self.model.prepare()

    def __call__(self, clips: Sequence[Clip], frames: Sequence[Frames]) -> dict[str, list[Any]]:
        """Raises ValueError when the model cannot be had."""
        steps = [neighbours(e) for e in embed(self.model, frames, [pick(f, "all") for f in frames])]
        return {
            "temporal_consistency_clip": [float(s.min()) if len(s) else None for s in steps],
            "temporal_consistency_clip_mean": [float(s.mean()) if len(s) else None for s in steps],
        }


def neighbours(vectors: Floats) -> Floats:
    """Cosines (n-1,) of neighbours among unit vectors (n, D)."""
    return np.asarray((vectors[1:] * vectors[:-1]).sum(axis=1), np.float32)


def _consistency(frames: Frames) -> float | None:
    """0..1; None for fewer than two frames."""
    if len(frames) < 2:
        return None
    return float(np.clip(neighbours(np.stack([_describe(image) for image in frames.images])).min(), 0, 1))


def _describe(image: Image) -> Floats:
    """Unit vector of a BGR picture."""
    small = np.asarray(cv2.resize(image, (_SIDE, _SIDE), interpolation=cv2.INTER_LINEAR), np.uint8)
    gray = cv2.cvtColor(small, cv2.COLOR_BGR2GRAY)
    strength, angle = cv2.cartToPolar(cv2.Sobel(gray, cv2.CV_32F, 1, 0), cv2.Sobel(gray, cv2.CV_32F, 0, 1))
    direction = (np.asarray(angle) * (_DIRECTIONS / np.pi)).astype(int) % _DIRECTIONS
    cell = np.arange(_SIDE) // (_SIDE // _CELLS)
    place = (cell[:, None] * _CELLS + cell) * _DIRECTIONS + direction
    edges = np.bincount(place.ravel(), weights=np.asarray(strength).ravel(), minlength=_DIRECTIONS * _CELLS**2)
    colors = np.bincount(_shade(small).ravel(), minlength=_GRAYS + 24)
    # Square roots: the cosine of two histograms is then their Bhattacharyya coefficient.
    return np.asarray(np.concatenate([_unit(np.sqrt(edges)), _unit(np.sqrt(colors))]) / np.sqrt(2), np.float32)


def _shade(image: Image) -> npt.NDArray[np.intp]:
    """Pixels by hue (8) and saturation (3); those too pale to have a hue by brightness."""
    hue, saturation, value = (np.asarray(c, np.intp) for c in cv2.split(cv2.cvtColor(image, cv2.COLOR_BGR2HSV)))
    return np.where(saturation < 64, value * _GRAYS // 256, _GRAYS + hue * 8 // 180 * 3 + saturation // 64 - 1)


def _unit(vector: npt.NDArray[Any]) -> Floats:
    """Length 1; all directions alike where there is nothing, so that two blank pictures are the same."""
    length = float(np.linalg.norm(vector))
    return np.asarray(vector / length if length else np.full(len(vector), len(vector) ** -0.5), np.float32)

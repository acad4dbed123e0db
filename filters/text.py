"""Text: how much of the picture is text, and how surely it is text.

`text_area` is the largest share of a sampled frame that the union of its text boxes covers (CogVideoX and EasyAnimate
reject by area: 1 % in EasyAnimate's paper, 2 % in its code). `text_score` is the largest product of detection and
recognition score (Movie Gen keeps a clip below 0.6 on all frames). Both 0..1, lower is better.

Only as many lines are recognised as the largest product needs: a line whose detection score is below the best product
so far cannot exceed it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import cv2
import numpy as np
import pyarrow as pa

from filters.ocr import EmbeddedOcr, OcrEngine, TextBox
from manifests.schema import column
from manifests.types import Clip, Frames, Image, Sampling


@dataclass(frozen=True, slots=True)
class Text:
    """short_clip: seconds below which two frames are read instead of three.
    margin:     share of a line's height by which the detector's boxes stand off the text on every side.
    large:      share of the frame from which a box counts only if it can be read: smooth pictures sometimes give one
                box that is nearly the whole frame.
    huge:       share of the frame that no single line of text covers.
    read_at_all: text score below which nothing in the clip could be read, and none of its boxes is believed.
    """

    engine: OcrEngine = field(default_factory=EmbeddedOcr)
    short_clip: float = 6.0
    margin: float = 0.13
    large: float = 0.15
    huge: float = 0.4
    read_at_all: float = 0.3
    wants = Sampling(fps=4.0, short=360, cap=3, color=True)
    schema: ClassVar[pa.Schema] = pa.schema(
        [
            column("text_area", pa.float64(), "largest share of a frame under text", range="0..1", better="lower"),
            column("text_score", pa.float64(), "largest detection x recognition score", range="0..1", better="lower"),
        ]
    )

    def __call__(self, clips: Sequence[Clip], frames: Sequence[Frames]) -> dict[str, list[Any]]:
        read = [self._read(clip, _distinct(f.images)) for clip, f in zip(clips, frames, strict=True)]
        return {"text_area": [area for area, _ in read], "text_score": [score for _, score in read]}

    def _read(self, clip: Clip, images: Sequence[Image]) -> tuple[float | None, float | None]:
        if not images or min(images[0].shape[:2]) < 16:
            return None, None
        if clip.seconds < self.short_clip and len(images) == 3:
            images = [images[0], images[2]]
        found = [(image, self._lines(image)) for image in images]
        area = max(self._union(image, boxes) for image, boxes in found)
        lines = sorted(((box, image) for image, boxes in found for box in boxes), key=lambda line: -line[0].score)
        best = 0.0
        for box, image in lines:
            if box.score <= best:
                break
            best = max(best, box.score * self.engine.recognize(image, box)[1])
        return area if best >= self.read_at_all else 0.0, best

    def _lines(self, image: Image) -> list[TextBox]:
        """Credible lines of text; the full detector runs only where a glance found something."""
        frame = image.shape[0] * image.shape[1]
        if not any(_area(box) < self.huge * frame for box in self.engine.glance(image)):
            return []
        boxes = [box for box in self.engine.detect(image) if _area(box) < self.huge * frame]
        return [box for box in boxes if _area(box) < self.large * frame or self._readable(image, box)]

    def _readable(self, image: Image, box: TextBox) -> bool:
        text, score = self.engine.recognize(image, box)
        return len(text.strip()) >= 3 and score >= 0.9

    def _union(self, image: Image, boxes: Sequence[TextBox]) -> float:
        mask = np.zeros(image.shape[:2], np.uint8)
        for box in boxes:
            center, size, angle = cv2.minAreaRect(box.corners)
            inset = 2 * self.margin * min(size)
            line = cv2.boxPoints((center, (size[0] - inset, size[1] - inset), angle))
            cv2.fillPoly(mask, [line.round().astype(np.int32)], (1,))
        return float(mask.mean())


def _distinct(images: Sequence[Image]) -> list[Image]:
    """Without frames that repeat the one before: a still picture is read once."""
    kept: list[Image] = []
    for image in images:
        if not kept or cv2.norm(image, kept[-1], cv2.NORM_L1) > 1.0 * image.size:
            kept.append(image)
    return kept


def _area(box: TextBox) -> float:
    return float(cv2.contourArea(box.corners))

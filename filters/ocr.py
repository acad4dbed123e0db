"""Engines that find and read text in a picture.

An engine is a frozen dataclass with `detect` and `recognize`; `filters.text` works with any of them. This one runs the
PP-OCR models that ship inside the rapidocr wheel, on ONNX Runtime with one thread.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from manifests.types import Image


@dataclass(frozen=True, slots=True, eq=False)
class TextBox:
    """corners: (4, 2) in pixels, clockwise from the top left; score: of the detector, 0..1."""

    corners: npt.NDArray[np.float32]
    score: float


class OcrEngine(Protocol):
    def glance(self, image: Image) -> list[TextBox]:
        """A quick look for boxes that may hold text: it may be wrong about a box, but should not miss text."""

    def detect(self, image: Image) -> list[TextBox]:
        """Text lines in a BGR picture."""

    def recognize(self, image: Image, box: TextBox) -> tuple[str, float]:
        """What stands in that box, and how sure that is, 0..1; ("", 0) where nothing can be read."""


@dataclass(frozen=True, slots=True)
class EmbeddedOcr:
    """PP-OCRv6 small, detection and recognition.

    longest: side to which larger pictures are reduced before detection; glance_longest: the same for the quick look,
    which costs 40 % of a detection and found all lines of at least 3 % of the picture's height in our trial.
    """

    longest: int = 640
    glance_longest: int = 384
    version: int = 1

    def glance(self, image: Image) -> list[TextBox]:
        return _boxes(_engine(self.glance_longest, 0.3), image)

    def detect(self, image: Image) -> list[TextBox]:
        return _boxes(_engine(self.longest, 0.5), image)

    def recognize(self, image: Image, box: TextBox) -> tuple[str, float]:
        from rapidocr.utils.process_img import get_rotate_crop_image

        line = get_rotate_crop_image(image, box.corners.copy())
        read = _engine(self.longest, 0.5)(line, use_det=False, use_cls=False, use_rec=True)
        return next(
            ((t, float(s)) for t, s in zip(read.txts or (), read.scores or (), strict=True) if t.strip()), ("", 0.0)
        )


def _boxes(engine: Any, image: Image) -> list[TextBox]:
    found = engine(image, use_det=True, use_cls=False, use_rec=False)
    if found.boxes is None:
        return []
    return [TextBox(np.asarray(b, np.float32), float(s)) for b, s in zip(found.boxes, found.scores, strict=True)]


@functools.cache
def _engine(longest: int, least_score: float) -> Any:
    """One engine per process and setting; its models are loaded when they are first used."""
    try:
        from rapidocr import RapidOCR
    except ImportError as error:
        raise ValueError("text detection needs rapidocr: pip install vidcurate.") from error
    return RapidOCR(
        params={
            "Global.log_level": "critical",
            "Det.limit_type": "max",
            "Det.limit_side_len": longest,
            "Det.box_thresh": least_score,
            "Det.thresh": min(0.3, least_score - 0.1),
            "EngineConfig.onnxruntime.intra_op_num_threads": 1,
            "EngineConfig.onnxruntime.inter_op_num_threads": 1,
        }
    )

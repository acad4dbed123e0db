"""Engines that find and read text in a picture.

An engine is a frozen dataclass with `glance`, `detect` and `recognize`; `filters.text.area` works with any of them.
This one runs the PP-OCR models that ship inside the rapidocr wheel, on ONNX Runtime with one thread. What surrounds the
models is written after PaddleOCR: differentiable binarisation for detection (Liao et al. 2020), greedy CTC for
recognition.
"""

from __future__ import annotations

import functools
import importlib.util
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
import numpy.typing as npt

from manifests.types import Image

THRESHOLD = 0.3
"""Probability from which a pixel is text."""
UNCLIP = 1.6
"""PP-OCR learns shrunken lines; a box is grown by so many times its area over its perimeter."""
RIM = 1.0
"""By how many pixels of the map a box is too large on every side: measured on lettering of known size."""
MEAN = np.array([0.485, 0.456, 0.406], np.float32)
SPREAD = np.array([0.229, 0.224, 0.225], np.float32)
"""By which PP-OCR's detectors want colours (of BGR, in this order) shifted and divided."""
LINE_HEIGHT = 48
"""Of the lines that the recogniser was trained on, in pixels."""


@dataclass(frozen=True, slots=True, eq=False)
class TextBox:
    """corners: (4, 2) in pixels, clockwise from the top left. score: of the detector, 0..1.

    rim: by how many pixels the grid of the detector makes the box larger on every side; the box stands off the text by
    that, and by a share of its height besides.
    """

    corners: npt.NDArray[np.float32]
    score: float
    rim: float = 0.0


class EngineError(ValueError):
    """An engine that cannot run as it is set up. The message is one sentence with the remedy."""


class OcrEngine(Protocol):
    """All pictures are BGR (H, W, 3). What is raised concerns one of the pictures, unless it is an EngineError."""

    def glance(self, images: Sequence[Image]) -> list[list[TextBox]]:
        """A quick look for large text: it may be wrong about a box, but should not miss a line of 7 % of the height."""

    def detect(self, images: Sequence[Image]) -> list[list[TextBox]]:
        """Text lines of every picture."""

    def recognize(self, lines: Sequence[tuple[Image, TextBox]]) -> list[tuple[str, float]]:
        """What stands in the box of each picture, and how sure that is, 0..1; ("", 0) where nothing can be read."""


@dataclass(frozen=True, slots=True)
class EmbeddedOcr:
    """PP-OCRv6 small, detection and recognition.

    longest: longer side that 16:9 pictures are given before detection; others get as many pixels. In our trial, 512
    found 96 % of lines between 2 and 10 % of the picture's height, and 82 % of those between 2 and 4 %; 640 found
    91 % of these for half as much time again, 768 found 95 % for twice as much.
    glance_longest: the same for the quick look; 288 found all lines of at least 7 %, for a third of the time.
    """

    longest: int = 512
    glance_longest: int = 288
    version: int = 2

    def glance(self, images: Sequence[Image]) -> list[list[TextBox]]:
        return [_detect(image, self.glance_longest, 0.3) for image in images]

    def detect(self, images: Sequence[Image]) -> list[list[TextBox]]:
        return [_detect(image, self.longest, 0.5) for image in images]

    def recognize(self, lines: Sequence[tuple[Image, TextBox]]) -> list[tuple[str, float]]:
        return [_read(cut_out(image, box)) for image, box in lines]


def fitted(image: Image, longest: int) -> tuple[int, int]:
    """Width and height, multiples of 32 as PP-OCR wants, with about the pixels of a 16:9 picture of that longer side;
    at most half as large again as the picture."""
    height, width = image.shape[:2]
    scale = min(1.5, longest * math.sqrt(9 / 16 / (height * width)))
    return max(32, round(width * scale / 32) * 32), max(32, round(height * scale / 32) * 32)


def cut_out(image: Image, box: TextBox) -> Image:
    """The line in a box, made level; upright lines are laid on their side."""
    top_left, top_right, bottom_right, bottom_left = box.corners
    width = round(max(math.dist(top_left, top_right), math.dist(bottom_left, bottom_right), 1))
    height = round(max(math.dist(top_left, bottom_left), math.dist(top_right, bottom_right), 1))
    level = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
    turn = cv2.getPerspectiveTransform(np.asarray(box.corners, np.float32), level)
    line = cv2.warpPerspective(image, turn, (width, height), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(np.rot90(line) if height >= 1.5 * width else line, np.uint8)


def bundled(kind: str) -> Path:
    """The det or rec model inside the rapidocr wheel. Raises EngineError if it is not there."""
    spec = importlib.util.find_spec("rapidocr")
    folder = Path(spec.origin).parent / "models" if spec and spec.origin else None
    found = sorted(folder.glob(f"PP-OCR*_{kind}_*.onnx")) if folder else []
    if not found:
        raise EngineError("text detection needs the models inside rapidocr: pip install 'rapidocr==3.10.0'.")
    return found[-1]


def alphabet(model: Any) -> list[str]:
    """Characters that a recogniser knows, as its ONNX session tells them."""
    return str(model.get_modelmeta().custom_metadata_map["character"]).splitlines()


@functools.cache
def session(path: Path) -> Any:
    """An ONNX Runtime session with one thread; one per process and model."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _detect(image: Image, longest: int, least: float) -> list[TextBox]:
    """Lines whose mean probability is at least `least`, top to bottom."""
    width, height = fitted(image, longest)
    small = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
    pixels = cv2.dnn.blobFromImage(small, 1 / 255)  # planes, in which each channel's shift costs a tenth
    pixels = (pixels - MEAN[:, None, None]) / SPREAD[:, None, None]
    model = session(bundled("det"))
    text = model.run(None, {model.get_inputs()[0].name: pixels})[0][0, 0]
    found = boxes(text, min(THRESHOLD, least - 0.1), least)
    scale = np.array([image.shape[1] / width, image.shape[0] / height], np.float32)
    return [TextBox(corners * scale, score, rim=RIM * float(scale.mean())) for corners, score in found]


def boxes(text: npt.NDArray[np.float32], threshold: float, least: float) -> list[tuple[npt.NDArray[np.float32], float]]:
    """Boxes (4, 2) in a map of the probability of text, with their mean probability."""
    mask = cv2.dilate((text > threshold).astype(np.uint8), np.ones((2, 2), np.uint8))
    contours, _ = cv2.findContours(mask, cv2.RETR_LIST, cv2.CHAIN_APPROX_SIMPLE)
    found = []
    for contour in contours:
        center, size, angle = cv2.minAreaRect(contour)
        if min(size) < 3:
            continue
        score = _mean_inside(text, cv2.boxPoints((center, size, angle)))
        if score < least:
            continue
        grow = 2 * UNCLIP * size[0] * size[1] / (2 * (size[0] + size[1]))
        corners = _clockwise(cv2.boxPoints((center, (size[0] + grow, size[1] + grow), angle)))
        corners = np.clip(corners, 0, (text.shape[1] - 1, text.shape[0] - 1)).astype(np.float32)
        found.append((corners, score))
    return sorted(found, key=lambda box: float(box[0][0, 1]))


def _mean_inside(text: npt.NDArray[np.float32], corners: npt.NDArray[Any]) -> float:
    left, top = np.maximum(np.floor(corners.min(axis=0)), 0).astype(int)
    part = text[top : math.ceil(corners[:, 1].max()) + 1, left : math.ceil(corners[:, 0].max()) + 1]
    mask = np.zeros(part.shape, np.uint8)
    cv2.fillPoly(mask, [(corners - (left, top)).astype(np.int32)], (1,))
    return float(cv2.mean(part, mask)[0])


def _clockwise(corners: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """The four corners from the top left on."""
    left, right = np.split(corners[np.argsort(corners[:, 0], kind="stable")], 2)
    (top_left, bottom_left), (top_right, bottom_right) = (side[np.argsort(side[:, 1])] for side in (left, right))
    return np.array([top_left, top_right, bottom_right, bottom_left], np.float32)


def _read(line: Image) -> tuple[str, float]:
    """Greedy CTC: the likeliest character of every step, without repeats and blanks."""
    width = math.ceil(LINE_HEIGHT * line.shape[1] / line.shape[0])
    pixels = np.zeros((1, 3, LINE_HEIGHT, max(width, 320)), np.float32)
    resized = cv2.resize(line, (width, LINE_HEIGHT), interpolation=cv2.INTER_LINEAR)
    pixels[..., :width] = cv2.dnn.blobFromImage(resized, 1 / 127.5, mean=(127.5, 127.5, 127.5))
    model = session(bundled("rec"))
    steps = model.run(None, {model.get_inputs()[0].name: pixels})[0][0]
    best = steps.argmax(axis=1)
    kept = (best != 0) & (best != np.concatenate([[-1], best[:-1]]))
    characters = ["", *alphabet(model), " "]
    text = "".join(characters[k] for k in best[kept])
    return (text, float(steps.max(axis=1)[kept].mean())) if text.strip() else ("", 0.0)

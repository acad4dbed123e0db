"""Text: how much of the picture is text, how surely it is text, and whether it is subtitles.

`text_area` is the largest share of a sampled frame that the union of its lines of text covers (CogVideoX and
EasyAnimate reject by area: 1 % in EasyAnimate's paper, 2 % in its code). `text_score` is the largest product of
detection and recognition score (Movie Gen keeps a clip below 0.6 on all frames). `subtitles` is the share of the
sampled frames with one to three level lines in the middle of the lower third that agree from frame to frame.

The middle frame is searched closely, the others only glanced at where the middle one holds no text: small lettering
that lies over a film mostly stays, and a title that does not is large. Only as many lines are recognised as the largest
product needs: a line whose detection score is below the best product so far cannot exceed it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeVar

import cv2
import numpy as np
import pyarrow as pa

from filters.text.ocr import EmbeddedOcr, EngineError, OcrEngine, TextBox
from manifests.schema import column
from manifests.types import Clip, Frames, Image, Sampling

log = logging.getLogger("vidcurate")

Of = TypeVar("Of")
Gives = TypeVar("Gives")
Rect = tuple[tuple[float, float], tuple[float, float], float]
"""Centre, size and angle in degrees, as OpenCV has it."""


@dataclass(slots=True)
class _Seen:
    """What is known of one clip: its frames, the boxes in those that could be searched, why the others could not, the
    best score and the line of text that has it."""

    images: list[Image]
    boxes: dict[int, list[TextBox]] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)
    best: float = 0.0
    read: str = ""


@dataclass(frozen=True, slots=True)
class Text:
    """margin:   share of a line's height by which boxes stand off the text on every side, their rim apart.
    large:       share of the frame from which a box counts only if it can be read: smooth pictures sometimes give one
                 box that is nearly the whole frame.
    huge:        share of the frame that no single line of text covers.
    read_at_all: text score below which nothing in the clip could be read, and none of its boxes is believed.
    """

    engine: OcrEngine = field(default_factory=EmbeddedOcr)
    margin: float = 0.13
    large: float = 0.15
    huge: float = 0.4
    read_at_all: float = 0.3
    version: int = 3
    wants = Sampling(fps=4.0, short=360, cap=3, color=True)
    schema: ClassVar[pa.Schema] = pa.schema(
        [
            column("text_area", pa.float64(), "largest share of a frame under text", range="0..1", better="lower"),
            column("text_score", pa.float64(), "largest detection x recognition score", range="0..1", better="lower"),
            column("subtitles", pa.float64(), "share of sampled frames with subtitles", range="0..1", better="lower"),
            column("text_read", pa.string(), "the line of text that was read with the largest score"),
            column("text_error", pa.string(), "why no frame could be searched for text"),
        ]
    )

    def __call__(self, clips: Sequence[Clip], frames: Sequence[Frames]) -> dict[str, list[Any]]:
        seen = [_Seen(_distinct(f.images)) for f in frames]
        self._search(seen)
        self._score(seen)
        rows = [self._row(clip, one) for clip, one in zip(clips, seen, strict=True)]
        return {name: [row[k] for row in rows] for k, name in enumerate(self.schema.names)}

    def _row(self, clip: Clip, seen: _Seen) -> tuple[float | None, float | None, float | None, str | None, str | None]:
        if seen.failed:
            log.warning("%s: %d of %d frames: no text found, for %s", clip.id, len(seen.failed), len(seen.images),
                        seen.failed[0])  # fmt: skip
        if not seen.boxes:
            return None, None, None, None, seen.failed[0] if seen.failed else None
        if seen.best < self.read_at_all:
            return 0.0, seen.best, 0.0, None, None
        lines = {n: [self._ink(box) for box in boxes] for n, boxes in seen.boxes.items()}
        shape = seen.images[0].shape
        area = max(_covered(shape, rects) for rects in lines.values())
        subtitles = subtitled([_subtitle(shape, rects) for rects in lines.values()])
        return area, seen.best, subtitles, seen.read or None, None

    # -- where ---------------------------------------------------------------------------------------------------------

    def _search(self, seen: Sequence[_Seen]) -> None:
        """Finds the boxes of all clips, as many pictures at a time as there are."""
        middle = [(one, len(one.images) // 2) for one in seen if one.images and min(one.images[0].shape[:2]) >= 16]
        self._detect(middle)
        other = [(one, n) for one, m in middle for n in range(len(one.images)) if n != m]
        close = [(one, n) for one, n in other if one.failed or any(one.boxes.values())]
        glanced = [(one, n) for one, n in other if not (one.failed or any(one.boxes.values()))]
        for (one, n), boxes in zip(glanced, _each(self.engine.glance, [o.images[n] for o, n in glanced]), strict=True):
            if isinstance(boxes, Exception):
                one.failed.append(_reason(boxes))
            elif any(_area(box) < self.huge * _pixels(one.images[n]) for box in boxes):
                close.append((one, n))
            else:
                one.boxes[n] = []
        self._detect(close)

    def _detect(self, wanted: Sequence[tuple[_Seen, int]]) -> None:
        found = _each(self.engine.detect, [one.images[n] for one, n in wanted])
        for (one, n), boxes in zip(wanted, found, strict=True):
            if isinstance(boxes, Exception):
                one.failed.append(_reason(boxes))
            else:
                one.boxes[n] = self._credible(one.images[n], boxes)

    def _credible(self, image: Image, boxes: Sequence[TextBox]) -> list[TextBox]:
        """Without boxes too large for a line; a large one may be two lines of a title."""
        kept = []
        for box in boxes:
            share = _area(box) / _pixels(image)
            if share < self.large:
                kept.append(box)
            elif share < self.huge:
                lines = [box, *_halves(box)]
                read = _each(self.engine.recognize, [(image, line) for line in lines])
                well = [
                    line
                    for line, it in zip(lines, read, strict=True)
                    if not isinstance(it, Exception) and len(it[0].strip()) >= 3 and it[1] >= 0.9
                ]
                kept += well[:1] if box in well else well
        return kept

    # -- how surely ----------------------------------------------------------------------------------------------------

    def _score(self, seen: Sequence[_Seen]) -> None:
        """The largest product of every clip; in each round, the next line of every clip that may still exceed it."""
        lines = [sorted(((one.images[n], box) for n, boxes in one.boxes.items() for box in boxes),
                        key=lambda line: -line[1].score) for one in seen]  # fmt: skip
        for turn in range(max(map(len, lines), default=0)):
            open_ = [k for k, of in enumerate(lines) if turn < len(of) and of[turn][1].score > seen[k].best]
            read = _each(self.engine.recognize, [lines[k][turn] for k in open_])
            for k, it in zip(open_, read, strict=True):
                if isinstance(it, Exception):
                    continue
                score = lines[k][turn][1].score * it[1]
                if score > seen[k].best:
                    seen[k].best, seen[k].read = score, it[0].strip()

    def _ink(self, box: TextBox) -> Rect:
        """The text itself, without what the detector puts around it."""
        center, size, angle = cv2.minAreaRect(box.corners)
        inset = 2 * (self.margin * min(size) + box.rim)
        width, height = (max(side - inset, 1.0) for side in size)
        return (float(center[0]), float(center[1])), (width, height), float(angle)


def _each(do: Callable[[Sequence[Of]], Sequence[Gives]], items: Sequence[Of]) -> Sequence[Gives | Exception]:
    """What `do` gives for all items; where it fails, for each of them alone, or how that failed."""
    if not items:
        return []
    try:
        return do(items)
    except EngineError:
        raise
    except Exception as error:
        return [error] if len(items) == 1 else [_each(do, [item])[0] for item in items]


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _distinct(images: Sequence[Image]) -> list[Image]:
    """Without frames that repeat the one before: a still picture is read once."""
    kept: list[Image] = []
    for image in images:
        if not kept or cv2.norm(image, kept[-1], cv2.NORM_L1) > 1.0 * image.size:
            kept.append(image)
    return kept


def _area(box: TextBox) -> float:
    return float(cv2.contourArea(box.corners))


def _pixels(image: Image) -> int:
    return image.shape[0] * image.shape[1]


def _halves(box: TextBox) -> list[TextBox]:
    """The upper and the lower half of a box."""
    top_left, top_right, bottom_right, bottom_left = box.corners
    left, right = (top_left + bottom_left) / 2, (top_right + bottom_right) / 2
    quads = (top_left, top_right, right, left), (left, right, bottom_right, bottom_left)
    return [TextBox(np.array(quad, np.float32), box.score, box.rim) for quad in quads]


def _covered(shape: Sequence[int], lines: Sequence[Rect]) -> float:
    """Share of a frame under the union of lines."""
    mask = np.zeros(shape[:2], np.uint8)
    for line in lines:
        corners = (cv2.boxPoints(line) * 16).round().astype(np.int32)  # sixteenths of a pixel
        cv2.fillPoly(mask, [corners], (1,), shift=4)
    return float(mask.mean())


# -- subtitles ---------------------------------------------------------------------------------------------------------


def _subtitle(shape: Sequence[int], lines: Sequence[Rect]) -> tuple[float, float] | None:
    """Where the lowest subtitle of a frame stands: its lower edge and its height as shares of the frame's height; None
    where nothing looks like one. Slides, titles and credits have more such lines above."""
    height, width = shape[:2]
    level = [_level(line) for line in lines]
    low = [line for line in level if line[1] > 0.62 * height]
    middle = [line for line in level if abs(line[0] - width / 2) <= 0.07 * width]
    good = [(y, h) for x, y, w, h in middle if y > 0.62 * height and 0.02 <= h / height <= 0.11 and w >= 2.5 * h]
    if not good or len(low) > 3 or len(level) > len(low) + 4:
        return None
    y, h = max(good)
    if any(0.6 <= other / h <= 1.6 for _, above, _, other in middle if above <= 0.62 * height):
        return None
    return (y + h / 2) / height, h / height


def _level(line: Rect) -> tuple[float, float, float, float]:
    """Centre, width and height of a line; a line that is not level has the height of its bounding box."""
    width, height = np.ptp(cv2.boxPoints(line), axis=0)
    return line[0][0], line[0][1], float(width), float(height)


def subtitled(found: Sequence[tuple[float, float] | None]) -> float:
    """Share of frames with a subtitle that stands where another one does, and is as tall; 0..1."""
    there = [one for one in found if one is not None]
    if not there:
        return 0.0
    alike = [
        sum(abs(one[0] - other[0]) <= 0.4 * one[1] and 0.7 <= one[1] / other[1] <= 1.4 for other in there)
        for one in there
    ]
    return max(alike) / len(found)

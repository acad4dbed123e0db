"""Watermark: a logo or lettering that stays where it is while the picture moves behind it.

Works without reading: of every pixel, the gradients of all sampled frames are added up as vectors. Where they agree,
their sum is as long as the sum of their lengths; behind a camera that moves, they cancel out. A watermark is a small
patch of gradients that agree, with edges in more than one direction, away from the middle and off the rim of the
picture, around which nothing agrees.

Where most of the picture stands still, as on a tripod, everything stays in its place and a watermark cannot be told
from a sign on a wall: the answer is null. Lettering that stands still for the whole clip, subtitles too, counts.
The measure is ours; Movie Gen and CogVideoX reject watermarked clips but do not say how they are found.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import cv2
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from filters.looks.frames import LOOKS, grays
from manifests.schema import column
from manifests.types import Clip, Frames, Image

Mask = npt.NDArray[np.bool_]
FEWEST = 4
"""Frames; of three, gradients agree by chance too often."""


Patch = tuple[slice, slice]
"""Rows and columns."""


CAP = 3.0
"""Times the least gradient of an edge: what is stronger counts as much."""


@dataclass(frozen=True, slots=True, eq=False)
class _Plane:
    """agreement: (H, W) of the gradients, 0..1. edges: in any frame. stayed: edges that stay. patches: of these, where
    a watermark may be. elsewhere: edges outside all patches."""

    agreement: npt.NDArray[np.float32]
    edges: Mask
    stayed: Mask
    elsewhere: Mask
    patches: tuple[Patch, ...]


@dataclass(frozen=True, slots=True)
class Overlay:
    """least:  grey levels per pixel from which a gradient is an edge.
    agree:     agreement, 0..1, from which an edge has stayed.
    moving:    share of the other edges, at most, that are half in agreement if the picture moves at all.
    largest:   share of the frame that a watermark covers at most.
    sure:      edge pixels, at a short side of 360, of a watermark that there is no doubt of.
    """

    least: float = 3.5
    agree: float = 0.88
    moving: float = 0.15
    largest: float = 0.12
    sure: int = 150
    wants = LOOKS
    schema: ClassVar[pa.Schema] = pa.schema(
        [
            column(
                "watermark",
                pa.float64(),
                "how surely a logo or lettering stays in its place while the picture moves",
                range="0..1",
                better="lower",
                null="the picture stands still, or has too few frames or edges to tell",
            )
        ]
    )

    def __call__(self, clips: Sequence[Clip], frames: Sequence[Frames]) -> dict[str, list[Any]]:
        return {"watermark": [self._measure(f) for f in frames]}

    def _measure(self, frames: Frames) -> float | None:
        if len(frames) < FEWEST or min(frames.images[0].shape[:2]) < 64:
            return None
        luma = self._plane(frames.share(grays), self.least)
        if luma.elsewhere.mean() < 0.02 or (luma.agreement[luma.elsewhere] > 0.5).mean() > self.moving:
            return None
        # Red and blue logos hardly differ from grey in luma; colours change slowly, so their edges must be strong.
        color = self._plane(_red_minus_blue(frames.images), 3 * self.least)
        return max(self._surely(plane, patch) for plane in (luma, color) for patch in (*plane.patches, None))

    def _plane(self, images: Sequence[Image], least: float) -> _Plane:
        """What stays and what does not in one channel (H, W) of all frames."""
        across, down, power = (np.zeros(images[0].shape, np.float32) for _ in range(3))
        for image in images:
            x, y = (part.astype(np.float32) for part in cv2.spatialGradient(image))
            # Beyond a few times an edge, strength tells how light the picture behind is, and nothing of the logo.
            cap = np.minimum(8 * CAP * least / (cv2.magnitude(x, y) + 1), np.float32(1))
            for part, total in ((x, across), (y, down)):
                cv2.multiply(part, cap, dst=part)
                cv2.accumulate(part, total)
                cv2.accumulateSquare(part, power)
        count, enough = len(images), (8 * least) ** 2  # Sobel's weights add up to eight
        length = across * across + down * down
        agreement = np.asarray(length / np.maximum(count * power, 1), np.float32)
        edges = power > count * enough
        stayed = (agreement > self.agree) & (length > count * count * enough)
        _without_lines(edges, stayed)
        stayed &= _crossed(np.abs(across) > np.abs(down), stayed)
        patches = tuple(self._patches(stayed))
        elsewhere = edges.copy()
        for patch in patches:
            elsewhere[patch] = False
        return _Plane(agreement, edges, stayed, elsewhere, patches)

    def _patches(self, stayed: Mask) -> Iterator[Patch]:
        """Rows and columns of patches of edges that stay, large enough and where watermarks are."""
        height, width = stayed.shape
        joined = cv2.morphologyEx(stayed.astype(np.uint8), cv2.MORPH_CLOSE, np.ones((11, 11), np.uint8))
        _, _, boxes, _ = cv2.connectedComponentsWithStats(joined, connectivity=8)
        for x, y, w, h, size in boxes[1:].tolist():
            inside = x > 1 and y > 1 and x + w < width - 1 and y + h < height - 1
            off_center = max(abs((x + w / 2) / width - 0.5), abs((y + h / 2) / height - 0.5)) >= 0.22
            if size >= 40 and h >= 5 and w >= 8 and inside and off_center and w * h <= self.largest * width * height:
                yield slice(y, y + h), slice(x, x + w)

    def _surely(self, plane: _Plane, patch: Patch | None) -> float:
        """0..1: many edges that stay, many of all edges there, and hardly any around that are half in agreement."""
        if patch is None:
            return 0.0
        count = int(plane.stayed[patch].sum())
        among = count / max(int(plane.edges[patch].sum()), 1)
        rows, columns = patch
        margin = max(8, round(0.4 * min(rows.stop - rows.start, columns.stop - columns.start)))
        ring = (
            slice(max(rows.start - margin, 0), rows.stop + margin),
            slice(max(columns.start - margin, 0), columns.stop + margin),
        )
        around = plane.agreement[ring][plane.elsewhere[ring]]
        scale = (min(plane.edges.shape) / 360) ** 2
        slow = float((around > 0.5).mean()) if len(around) > 50 * scale else 0.0
        return min(1.0, count / (self.sure * scale)) * min(1.0, among / 0.2) * max(0.0, 1 - 4 * slow)


def _red_minus_blue(images: Sequence[Image]) -> list[Image]:
    """Half the difference, around 128, at half the size."""
    small = [cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA) for image in images]
    return [np.asarray(cv2.addWeighted(i[..., 2], 0.5, i[..., 0], -0.5, 128), np.uint8) for i in small]


def _without_lines(edges: Mask, stayed: Mask) -> None:
    """Clears rows and columns along which edges stay, and those beside them: where bars, or split pictures, meet."""
    for axis in (0, 1):
        lines = np.convolve(stayed.mean(axis=1 - axis) > 0.4, np.ones(7), "same") > 0
        for mask in (edges, stayed):
            mask[lines if axis == 0 else (slice(None), lines)] = False


def _crossed(upright: Mask, stayed: Mask) -> Mask:
    """Where both upright and level edges are near, neither under a tenth: a single straight edge is no watermark."""
    near = (31, 31)
    all_, some = (cv2.boxFilter(mask.astype(np.float32), -1, near) for mask in (stayed, stayed & upright))
    return np.asarray((some > 0.1 * all_) & (some < 0.9 * all_))

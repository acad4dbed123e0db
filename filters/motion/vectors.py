"""Codec motion vectors: how far the encoder found blocks to move, from frame to frame.

`motion_vectors` is the mean over the clip's predicted frames of the mean vector length, weighted by the area of the
blocks: pixels of the coded picture per frame, quarter pixels included, not scaled by size or frame rate. Higher is more
motion. It says what the encoder chose, not what moved: cheap presets leave motion out, and vectors that point several
frames away count whole. Null for codecs that give no vectors (VP9, AV1, HEVC as FFmpeg decodes it).

Movie Gen (arXiv 2410.13720, appendix B.1) keeps clips whose mean length is over 0.5 and under 7. Its unit, the size of
the picture it applies to and the weighting of frames are not published; recipes apply both numbers to this column as
they stand, on the film as it is coded.

Source: FFmpeg `AV_FRAME_DATA_MOTION_VECTORS`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import pyarrow as pa

from filters.coded import mean
from manifests.schema import column
from manifests.types import EVERY_FRAME, Clip, Frames, Sampling


@dataclass(frozen=True, slots=True)
class MotionVectors:
    """Mean vector length over the clip."""

    wants = Sampling(EVERY_FRAME, 0, coded="vectors")
    schema: ClassVar[pa.Schema] = pa.schema(
        [column("motion_vectors", pa.float64(), "mean codec motion vector", unit="pixel/frame", range=">= 0")]
    )

    def __call__(self, clips: Sequence[Clip], frames: Sequence[Frames]) -> dict[str, list[Any]]:
        return {"motion_vectors": [mean(f) for f in frames]}

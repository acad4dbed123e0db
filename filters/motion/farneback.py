"""Optical flow as EasyAnimate's scripts measure it: Farneback's method between frames half a second apart.

`motion_farneback` is the mean over frame pairs of the mean flow magnitude, in pixels of the film's own size per pair;
higher is more motion. EasyAnimate keeps 2 to 20 (its second version 3 to 8), and its paper speaks of RAFT instead. The
method follows only small displacements, so fast motion reads low; dense flow (`motion_flow`) does not have that limit.

Source: EasyAnimate `video_caption/compute_motion_score.py` (pyr_scale 0.5, 3 levels, window 15, 3 iterations, poly 5,
1.2, on grey frames at 2 fps); OpenCV `calcOpticalFlowFarneback`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import cv2
import numpy as np
import pyarrow as pa

from manifests.schema import column
from manifests.types import Clip, Frames, Sampling


@dataclass(frozen=True, slots=True)
class FarnebackMotion:
    """A costly signal: it decodes the clip again at its full size, and takes about a tenth of a second per 720p pair.

    fps: of the compared frames; short: short side to which larger films are reduced for speed; the result is scaled
    back to the film's own size (0: no reduction, as upstream).
    """

    fps: float = 2.0
    short: int = 360

    schema: ClassVar[pa.Schema] = pa.schema(
        [column("motion_farneback", pa.float64(), "mean Farneback flow", unit="pixel of the film per pair")]
    )

    @property
    def wants(self) -> Sampling:
        return Sampling(self.fps, self.short or 1 << 14)

    def __call__(self, clips: Sequence[Clip], frames: Sequence[Frames]) -> dict[str, list[Any]]:
        return {"motion_farneback": [self._mean(f) for f in frames]}

    def _mean(self, frames: Frames) -> float | None:
        if len(frames) < 2:
            return None
        scale = min(frames.size) / min(frames.images[0].shape)
        flows = (
            cv2.calcOpticalFlowFarneback(before, after, None, 0.5, 3, 15, 3, 5, 1.2, 0)  # type: ignore[call-overload]
            for before, after in zip(frames.images, frames.images[1:], strict=False)
        )
        return scale * float(np.mean([np.hypot(flow[..., 0], flow[..., 1]).mean() for flow in flows]))

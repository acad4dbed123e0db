"""Flow motion: mean magnitude of dense optical flow, camera and objects together.

Unit: pixels per second in a picture of 360 pixels' short side, so that neither resolution nor frame rate matters.
Higher is more motion. Scores of other tools (Farneback at native size and 2 fps in EasyAnimate's scripts, UniMatch in
Open-Sora's) are in other units.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from filters.motion.flow import TENTHS, camera_path
from manifests.schema import column
from manifests.types import Clip, Frames


@dataclass(frozen=True, slots=True)
class FlowMotion:
    """Time-weighted mean of the flow's magnitude."""

    wants = TENTHS
    schema: ClassVar[pa.Schema] = pa.schema(
        [column("motion_flow", pa.float64(), "mean optical flow", unit="pixel/second at 360-pixel short side")]
    )

    def __call__(self, clips: Sequence[Clip], frames: Sequence[Frames]) -> dict[str, list[Any]]:
        paths = [f.share(camera_path) for f in frames]
        return {"motion_flow": [float(np.average(p.speed, weights=p.seconds)) if len(p) else None for p in paths]}

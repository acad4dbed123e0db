"""VMAF motion: how much the smoothed luma changes from frame to frame.

Unit: 8-bit grey levels per frame, mean over the clip's frames with 0 for the first, as FFmpeg's `vmafmotion` prints
it. Depends on frame rate and on the analysis size (short side 180). Higher is more motion. Movie Gen keeps clips over
2.0 at an unstated size and rate; on eleven real clips of 360 to 720 lines the score at the film's own size is 1.0 to
2.0 times the one here, 1.3 times in the middle, so 2.0 there is about 1.5 here.

Source: Netflix/vmaf, FFmpeg `vf_vmafmotion.c`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import pyarrow as pa

from filters.motion.changes import LUMA, changes
from manifests.schema import column
from manifests.types import Clip, Frames


@dataclass(frozen=True, slots=True)
class VmafMotion:
    """Mean VMAF motion of every frame at the analysis size."""

    wants = LUMA
    schema: ClassVar[pa.Schema] = pa.schema(
        [column("motion_vmaf", pa.float64(), "mean VMAF motion", unit="grey level/frame", range=">= 0")]
    )

    def __call__(self, clips: Sequence[Clip], frames: Sequence[Frames]) -> dict[str, list[Any]]:
        return {"motion_vmaf": [float(f.share(changes).mean.sum() / len(f)) if len(f) > 1 else None for f in frames]}

"""Shake: the part of the camera's motion that is not smooth.

Root mean square, over the clip, of the camera's velocity after its local median (half a second) is taken away, each
pair of frames weighted by the share of the picture that moves with the camera. Unit: pixels per second in a picture of
360 pixels' short side. A tripod gives 0 to 5, a hand 5 to 30. Lower is better. The measure is ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from filters.motion.flow import TENTHS, CameraPath, camera_path
from manifests.schema import column
from manifests.types import Clip, Frames


def unsteadiness(path: CameraPath) -> npt.NDArray[np.float64]:
    """Speed of the unsteady part of every pair, weighted by its support."""
    parts = [path.x, path.y, path.roll * path.radius]
    rough = [part - _running_median(part) for part in parts]
    return np.asarray(np.sqrt(sum(r * r for r in rough)) * path.support)


def _running_median(values: npt.NDArray[np.float64], width: int = 5) -> npt.NDArray[np.float64]:
    padded = np.pad(values, width // 2, mode="reflect" if len(values) > width // 2 else "edge")
    return np.median(np.lib.stride_tricks.sliding_window_view(padded, width), axis=1)


@dataclass(frozen=True, slots=True)
class Shake:
    """How unsteady the camera is."""

    wants = TENTHS
    schema: ClassVar[pa.Schema] = pa.schema(
        [column("shake", pa.float64(), "unsteady camera motion", unit="pixel/second at 360", better="lower")]
    )

    def __call__(self, clips: Sequence[Clip], frames: Sequence[Frames]) -> dict[str, list[Any]]:
        paths = [f.share(camera_path) for f in frames]
        return {"shake": [float(np.sqrt(np.mean(unsteadiness(p) ** 2))) if len(p) else None for p in paths]}

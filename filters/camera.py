"""Camera motion: which way the camera moves, as one word and a confidence.

The words are Movie Gen's 16 plus roll_cw and roll_ccw. From a similarity fitted to the flow this signal tells pan,
tilt, zoom, roll, static and handheld; truck, pedestal, push, pull, arc and tracking need parallax, which it does not
use. The words describe the camera: in a pan to the left the picture moves to the right.

Confidence, 0..1, is the product of how much of the picture follows the motion, how steady its direction is, and how
much it stands out from the other components.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from filters.flow import TENTHS, CameraPath, camera_path
from filters.shake import unsteadiness
from manifests.schema import column
from manifests.types import Clip, Frames


@dataclass(frozen=True, slots=True)
class CameraMotion:
    """least: slowest speed that is called a motion; shaky: unsteadiness that is called handheld, both in pixels per
    second at 360-pixel short side."""

    least: float = 8.0
    shaky: float = 9.0
    wants = TENTHS
    schema: ClassVar[pa.Schema] = pa.schema(
        [
            column("camera_motion", pa.string(), "what the camera does"),
            column("camera_motion_confidence", pa.float64(), "how sure that is", range="0..1", better="higher"),
        ]
    )

    def __call__(self, clips: Sequence[Clip], frames: Sequence[Frames]) -> dict[str, list[Any]]:
        answers = [self._name(f.share(camera_path)) for f in frames]
        return {
            "camera_motion": [word for word, _ in answers],
            "camera_motion_confidence": [confidence for _, confidence in answers],
        }

    def _name(self, path: CameraPath) -> tuple[str | None, float | None]:
        if not len(path):
            return None, None
        # Every component as a speed of the picture, so that they compare.
        components = {
            ("pan_left", "pan_right"): path.x,
            ("tilt_up", "tilt_down"): path.y,
            ("zoom_in", "zoom_out"): path.zoom * path.radius,
            ("roll_ccw", "roll_cw"): path.roll * path.radius,
        }
        support = float(np.average(path.support, weights=path.seconds))
        typical = {words: float(np.median(speed)) for words, speed in components.items()}
        words = max(typical, key=lambda w: abs(typical[w]))
        speed, all_speeds = typical[words], components[words]
        scatter = 1.4826 * float(np.median(np.abs(all_speeds - speed)))
        if abs(speed) >= self.least and abs(speed) > scatter:
            others = np.hypot.reduce([v for w, v in typical.items() if w != words])
            stands_out = abs(speed) / (abs(speed) + others)
            steady = float((np.sign(all_speeds) == np.sign(speed)).mean())
            confidence = float(np.sqrt(min(1.0, 1.5 * support)) * stands_out * steady)
            return words[0] if speed > 0 else words[1], confidence
        rough = float(np.sqrt(np.mean(unsteadiness(path) ** 2)))
        if rough >= self.shaky:
            return "handheld", float(min(1.0, 0.5 * rough / self.shaky))
        calm = 1 - max(abs(speed) / (2 * self.least), rough / (2 * self.shaky))
        return "static", float(max(0.0, calm) * np.sqrt(support))

"""The layout of the training text, after Movie Gen: the camera's motion first where it is sure, then the description,
then the frame rate as a token. "Pan left. A dog runs over a lawn. FPS-24"
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

CAMERA = {
    "pan_left": "pan left",
    "pan_right": "pan right",
    "tilt_up": "tilt up",
    "tilt_down": "tilt down",
    "zoom_in": "zoom in",
    "zoom_out": "zoom out",
    "push_in": "push in",
    "pull_out": "pull out",
    "truck_left": "truck left",
    "truck_right": "truck right",
    "pedestal_up": "pedestal up",
    "pedestal_down": "pedestal down",
    "arc": "arc shot",
    "tracking": "tracking shot",
    "roll_cw": "roll clockwise",
    "roll_ccw": "roll counter-clockwise",
    "static": "static shot",
    "handheld": "handheld shot",
}
"""The camera's motion as the column `camera_motion` names it, in words: Movie Gen's sixteen classes and two of ours."""


@dataclass(frozen=True, slots=True)
class Layout:
    """sure: camera-motion confidence from which the motion is put in front; fps: whether the frame rate ends it."""

    sure: float = 0.6
    fps: bool = True

    def __call__(self, description: str, row: Mapping[str, Any]) -> str:
        """The training text of a clip. row: its columns in the manifest."""
        camera = camera_of(row, self.sure)
        return training_text(description, camera, row.get("fps") if self.fps else None)


def camera_of(row: Mapping[str, Any], sure: float) -> str:
    """The camera's motion in words, or "" where it is not known surely enough."""
    if (row.get("camera_motion_confidence") or 0.0) < sure:
        return ""
    return CAMERA.get(row.get("camera_motion") or "", "")


def training_text(description: str, camera: str = "", fps: float | None = None) -> str:
    prefix = f"{camera.capitalize()}. " if camera else ""
    return f"{prefix}{description} {fps_token(fps)}".strip()


def fps_token(fps: float | None) -> str:
    """Tells the generator the frame rate, as Movie Gen does in its captions."""
    return f"FPS-{round(fps)}" if fps else ""

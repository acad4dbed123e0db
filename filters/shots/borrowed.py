"""PySceneDetect's own detectors, behind the interface of `filters.shots.detectors`."""

from __future__ import annotations

from typing import Any

from scenedetect import FrameTimecode, SceneDetector
from scenedetect.detectors import ContentDetector, HashDetector, HistogramDetector, ThresholdDetector

from filters.shots import transnet
from filters.shots.content import content_score, to_hsv
from manifests.types import Boundary, Image

_KINDS = {"hash": HashDetector, "histogram": HistogramDetector, "threshold": ThresholdDetector}


def make(name: str, fps: float, threshold: float, least: int) -> Borrowed:
    """content, hash, histogram or threshold; `least` is the least number of frames between two cuts."""
    if name == "content":
        return Borrowed(_FastContent(threshold, least), fps, delay=least)
    return Borrowed(_KINDS[name](threshold=threshold, min_scene_len=least), fps, delay=0)


class Borrowed:
    """One of PySceneDetect's detectors. All cuts score 1."""

    def __init__(self, detector: SceneDetector, fps: float, delay: int):
        self.delay = delay
        self._detector = detector
        self._fps = fps
        self._index = -1

    @property
    def holding(self) -> int:
        fade = getattr(self._detector, "last_fade", {"type": None})
        if fade["type"] == "out":  # a threshold cut lies in the middle of the dark, however long that is
            return int(fade["frame"].frame_num)
        return self._index - self.delay

    def push(self, image: Image) -> list[Boundary]:
        self._index += 1
        return self._told(self._detector.process_frame(self._timecode, image))

    def flush(self) -> list[Boundary]:
        return self._told(self._detector.post_process(self._timecode)) if self._index >= 0 else []

    @property
    def _timecode(self) -> FrameTimecode:
        return FrameTimecode(self._index, self._fps)

    def _told(self, cuts: list[FrameTimecode]) -> list[Boundary]:
        return [transnet.cut(c.frame_num, 1.0) for c in cuts if c.frame_num > 0]


class _FastContent(ContentDetector):  # type: ignore[misc]
    """The same scores, from OpenCV's vectorised differences."""

    _before: Image | None = None

    def _calculate_frame_score(self, timecode: FrameTimecode, frame_img: Any) -> float:
        hsv = to_hsv(frame_img)
        score = 0.0 if self._before is None else content_score(hsv, self._before)
        self._before = hsv
        return score

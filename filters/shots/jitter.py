"""Cuts per second: boundaries that a content detector fires inside a clip.

What PySceneDetect's ContentDetector says of the clip at its defaults, threshold 27 and scenes of at least 0.6 seconds,
with cuts that come too soon suppressed, as it did before version 0.6.4 learned to merge them: flashes and violent
shakes that our splitter passes over are counted, each for as long as it lasts. Unit: 1/second, at most 1.67; lower is
better.

Movie Gen runs the same detector on each clip and keeps those with fewer than 0.85 shots a second, because a jittery
camera is over-segmented. It does not say whether a clip without a cut counts as one shot; we count cuts, so that short
clips may stay.

Sources: PySceneDetect 0.7 `ContentDetector`, `FlashFilter.Mode.SUPPRESS`; Movie Gen appendix B.1.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import pyarrow as pa

from filters.shots.content import content_score, to_hsv
from filters.shots.cuts import LOOK
from manifests.schema import column
from manifests.types import Clip, Frames


@dataclass(frozen=True, slots=True)
class Jitter:
    """threshold: PySceneDetect's, in mean HSV difference; least: seconds between two cuts."""

    threshold: float = 27.0
    least: float = 0.6
    wants = LOOK
    schema: ClassVar[pa.Schema] = pa.schema(
        [column("cuts_per_s", pa.float64(), "content cuts inside the clip", unit="1/second", better="lower")]
    )

    def __call__(self, clips: Sequence[Clip], frames: Sequence[Frames]) -> dict[str, list[Any]]:
        return {"cuts_per_s": [self._rate(c, f) if len(f) > 1 else None for c, f in zip(clips, frames, strict=True)]}

    def _rate(self, clip: Clip, frames: Frames) -> float:
        least = round(self.least * frames.fps)
        last, count = 0, 0
        for k, (before, hsv) in enumerate(itertools.pairwise(map(to_hsv, frames.images)), start=1):
            if k - last >= least and content_score(hsv, before) >= self.threshold:
                last, count = k, count + 1
        return count / max(clip.seconds, 1e-3)

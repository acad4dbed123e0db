"""Cuts per second: boundaries that a content detector fires inside a clip.

Counts what PySceneDetect's ContentDetector (threshold 27) would call a cut within the clip, flashes and violent shakes
that the splitter passed over included. Unit: 1/second; lower is better. Movie Gen keeps clips below 0.85, because a
jittery camera is over-segmented.

Sources: PySceneDetect `ContentDetector`; Movie Gen appendix B.1.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import pyarrow as pa

from filters.content import content_score, to_hsv
from filters.cuts import LOOK
from manifests.schema import column
from manifests.types import Clip, Frames


@dataclass(frozen=True, slots=True)
class Jitter:
    """threshold: PySceneDetect's, in mean HSV difference."""

    threshold: float = 27.0
    wants = LOOK
    schema: ClassVar[pa.Schema] = pa.schema(
        [column("cuts_per_s", pa.float64(), "content cuts inside the clip", unit="1/second", better="lower")]
    )

    def __call__(self, clips: Sequence[Clip], frames: Sequence[Frames]) -> dict[str, list[Any]]:
        return {"cuts_per_s": [self._rate(c, f) if len(f) > 1 else None for c, f in zip(clips, frames, strict=True)]}

    def _rate(self, clip: Clip, frames: Frames) -> float:
        hsv = [to_hsv(image) for image in frames.images]
        fired = sum(content_score(b, a) >= self.threshold for a, b in itertools.pairwise(hsv))
        return fired / max(clip.seconds, 1e-3)

"""Slideshow: the share of a clip that is made of still pictures, 0..1; lower is better.

Movie Gen removes "special motion effects such as slide shows" and CogVideoX "videos manually spliced or edited from
static images"; neither publishes how. Ours looks at up to six moments spread over the clip, each at most a second
long, and counts those that are

- still: no block of the picture changes
- a picture that is panned over, zoomed into or turned (Ken Burns): the camera moves steadily, and every point that can
  be followed goes where one similarity puts it, but for a fraction of a pixel: no parallax, no keystone, no people
- a cross-fade of stills: the frame in the middle is a mixture of the first and the last one

A real pan or zoom over a place so far away and so empty that nothing in it moves, made without a tremor and through a
long lens, looks the same and counts as well; and a film that pans over a photograph is what it is looking for, whatever
it was made for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import cv2
import numpy as np
import pyarrow as pa

from filters.motion.changes import strongest_block
from filters.motion.flow import TENTHS, camera_path
from filters.motion.parallax import looks, pairs, quantiles
from filters.motion.shake import unsteadiness
from manifests.schema import column
from manifests.types import Clip, Frames, Image

_FADES = 8.0
"""Grey levels that the strongest block changes at least in a cross-fade."""


@dataclass(frozen=True, slots=True)
class Slideshow:
    """still: change of the strongest block, grey levels, up to which a picture stands still
    slow:  pixels per second at 360-pixel short side that a picture which is moved about moves at least
    rest:  pixels at 180-pixel short side by which points may miss their place, and `share` of the way they went;
           what misses by twice as much is no still picture
    rough: unsteadiness, pixels per second at 360-pixel short side, that no smooth move has, and `tremor` of its speed
    mixed: what a mixture may leave over, as a share of the difference between its ends
    """

    still: float = 1.0
    slow: float = 3.0
    rest: float = 0.3
    share: float = 0.02
    rough: float = 2.0
    tremor: float = 0.01
    mixed: float = 0.1
    wants = TENTHS
    schema: ClassVar[pa.Schema] = pa.schema(
        [column("slideshow", pa.float64(), "share made of still pictures", range="0..1", better="lower")]
    )

    def __call__(self, clips: Sequence[Clip], frames: Sequence[Frames]) -> dict[str, list[Any]]:
        return {"slideshow": [self._score(f) for f in frames]}

    def _score(self, frames: Frames) -> float | None:
        moments = pairs(frames.share(camera_path))
        if not moments:
            return None
        flat = [self._unmoved(*(frames.images[k] for k in (a, (a + b) // 2, b))) for a, b in moments]
        if all(flat):
            return 1.0
        moved = self._moved(frames)
        scores = [1.0 if still else moved.get(a, 0.0) for still, (a, _) in zip(flat, moments, strict=True)]
        return sum(scores) / len(scores)

    def _unmoved(self, first: Image, middle: Image, last: Image) -> bool:
        """Whether the picture stands still or fades into another that does."""
        whole = cv2.subtract(last, first, dtype=cv2.CV_32F)
        change = max(strongest_block(np.abs(whole)), strongest_block(cv2.absdiff(middle, first).astype(np.float32)))
        if change <= self.still:
            return True
        if middle is first or middle is last or change < _FADES:
            return False
        part = cv2.subtract(middle, first, dtype=cv2.CV_32F)
        power = float(np.vdot(whole, whole))
        left = part - whole * (float(np.vdot(whole, part)) / max(power, 1e-6))
        return float(np.vdot(left, left)) < self.mixed**2 * power

    def _moved(self, frames: Frames) -> dict[int, float]:
        """By the number of its first frame, how surely each moment shows one rigid picture that is moved about."""
        path = frames.share(camera_path)
        if path.pace < self.slow / 2:
            return {}
        look = frames.share(looks)
        if not len(look):
            return {}
        unit = min(look.size) / 180
        (missed,) = quantiles(look.rest, look.sure, 0.9)
        way = np.where(look.sure, np.hypot(look.u, look.v), 0).sum(axis=1) / look.sure.sum(axis=1)
        speed = way * 2 / unit / look.seconds
        rigid = np.clip(2 - missed / (self.rest * unit + self.share * way), 0, 1)
        tremor = float(np.sqrt(np.mean(unsteadiness(path) ** 2)))
        smooth = tremor <= self.rough + self.tremor * speed
        scores = np.where(smooth & (speed >= self.slow), rigid, 0.0)
        return dict(zip(look.start.tolist(), scores.tolist(), strict=True))

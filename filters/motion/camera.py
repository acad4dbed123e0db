"""Camera motion: what the camera does, as one word with a confidence, and how fast.

The words are Movie Gen's 16 (arXiv 2410.13720, which publishes no classifier) plus roll_cw and roll_ccw. They describe
the camera: in a pan to the left the picture moves to the right.

- pan, tilt, zoom, roll: the strongest component of the similarity fitted to the flow, if it is fast and steady
- truck, pedestal, push, pull: the camera travels, which shows as depth (`filters.motion.parallax`): points move by
  different amounts in the same direction. Before a flat wall, or far from everything, travel looks like a turn and is
  called one
- tracking: sideways travel (or a pan) that keeps something in the middle of the picture still
- arc: the same, where what is far goes faster than what is near, or the other way
- handheld, static: neither; told apart by how unsteady the camera is

Each of up to six looks at a clip votes for a travel or for none; more than half must agree on one. Confidence, 0..1, of
a travel is the share of looks that voted for it; of the others it is the product of how much of the picture follows the
motion, how steady its direction is, how much it stands out from the other components, and the share of looks that show
no travel even at half the depth. It needs no further map: of clips with 0.8 or more, 19 of 20 were named rightly on
rendered places with depth, and all on photographs and on windows that move over real footage.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from filters.motion.flow import TENTHS, CameraPath, camera_path
from filters.motion.parallax import Along, Depth, depth, looks
from filters.motion.shake import unsteadiness
from manifests.schema import column
from manifests.types import Clip, Frames

_KINDS = (
    ("truck_left", "tracking", "arc"),
    ("truck_right", "tracking", "arc"),
    ("pedestal_up",),
    ("pedestal_down",),
    ("push_in",),
    ("pull_out",),
)
"""Votes that agree with one another."""
_ENOUGH = 4  # looks; fewer cannot make sure of a travel
_SLOW = 4.0  # pixels per second at the reference size: what is slower is not looked at again
_SPEED = "pixel/second at 360-pixel short side"


@dataclass(frozen=True, slots=True)
class CameraMotion:
    """least:  slowest speed that is called a motion, in pixels per second at 360-pixel short side
    shaky:  unsteadiness that is called handheld, same unit
    deep:   spread of speeds, as a share of the picture's speed, from which on depth is seen
    clean:  of that spread, how much may be left over across the direction of travel
    """

    least: float = 8.0
    shaky: float = 9.0
    deep: float = 0.5
    clean: float = 0.35
    version: int = 2
    wants = TENTHS
    schema: ClassVar[pa.Schema] = pa.schema(
        [
            column("camera_motion", pa.string(), "what the camera does"),
            column("camera_motion_confidence", pa.float64(), "how sure that is", range="0..1", better="higher"),
            column("camera_pan", pa.float64(), "median speed of the camera to the right", unit=_SPEED),
            column("camera_tilt", pa.float64(), "median speed of the camera upwards", unit=_SPEED),
            column("camera_zoom", pa.float64(), "median relative growth of the picture", unit="1/second"),
            column("camera_roll", pa.float64(), "median turn of the camera, clockwise", unit="degree/second"),
        ]
    )

    def __call__(self, clips: Sequence[Clip], frames: Sequence[Frames]) -> dict[str, list[Any]]:
        rows = [(*self._name(f), *speeds(f)) for f in frames]
        return {name: [row[k] for row in rows] for k, name in enumerate(self.schema.names)}

    def _name(self, frames: Frames) -> tuple[str | None, float | None]:
        path = frames.share(camera_path)
        if not len(path):
            return None, None
        word, confidence = self._turn(path)
        speed, support = (float(np.average(part, weights=path.seconds)) for part in (path.speed, path.support))
        if speed < self.least or (path.pace < self.least / 2 and support > 0.6):
            return word, confidence
        signs = frames.share(depth)
        votes = Counter(self._travel(signs, k, self.deep) for k in range(len(signs)))
        for kind in _KINDS:
            if sum(votes[travel] for travel in kind) > len(signs) / 2:
                travel = max(kind, key=lambda one: votes[one])
                return travel, votes[travel] / max(len(signs), _ENOUGH)
        doubts = sum(self._travel(signs, k, self.deep / 2) is not None for k in range(len(signs)))
        return word, confidence * (1 - doubts / max(1, len(signs)))

    def _travel(self, signs: Depth, k: int, deep: float) -> str | None:
        """The travel that look `k` shows, if there is so much depth in it."""
        if signs.speed[k] < self.least or signs.sides[k] > 0.3:
            return None
        sideways, upright, ahead = signs.sideways, signs.upright, signs.ahead
        growth = ahead.middle[k]
        away = ahead.low[k] * ahead.high[k] > 0 and abs(growth) > 0.3
        if away and ahead.spread[k] > deep * abs(growth) and ahead.error[k] < 0.5 * ahead.spread[k]:
            return "push_in" if growth > 0 else "pull_out"
        held = signs.middle[k] > 0.35
        found = [along for along in (sideways, upright) if self._shows(along, k, deep)]
        if not found:
            return None
        along = min(found, key=lambda one: one.error[k] / one.spread[k])
        positive = along.low[k] + along.high[k] > 0
        if along is sideways and held and _circles(signs, k):
            return "arc"
        if not _one_way(along, k):
            return None
        if along is upright:
            return "pedestal_up" if positive else "pedestal_down"
        if held:
            return "tracking"
        return "truck_left" if positive else "truck_right"

    def _shows(self, along: Along, k: int, deep: float) -> bool:
        return bool(along.spread[k] > deep and along.error[k] < self.clean * along.spread[k])

    def _turn(self, path: CameraPath) -> tuple[str, float]:
        """Of a camera that stays where it is."""
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


def _one_way(along: Along, k: int) -> bool:
    """Whether all points move the same way, but for a little."""
    ends = sorted((along.low[k], along.high[k]), key=abs)
    return bool(ends[0] * ends[1] >= 0 or abs(ends[0]) <= 0.15 * abs(ends[1]))


def _circles(signs: Depth, k: int) -> bool:
    """Whether what is far, above, goes fastest and what is near, below, slower or the other way, as on an arc. On every
    other travel near things are the fastest."""
    above, below = signs.above[k], signs.below[k]
    return bool(abs(above) > 0.5 and below != 0 and below / above < 0.4)


def speeds(frames: Frames) -> tuple[float | None, float | None, float | None, float | None]:
    """Pan, tilt, zoom and roll of the camera, median over the clip, in the units of the columns."""
    path = frames.share(camera_path)
    if not len(path):
        return None, None, None, None
    pan, tilt = -float(np.median(path.x)), float(np.median(path.y))
    grow, turn = float(np.median(path.zoom)), float(np.median(path.roll))
    look = frames.share(looks) if path.pace >= _SLOW else None
    if look is not None and len(look) > 1:
        # In a tenth of a second growth and turn are too small to be seen in the middle and on flat ground.
        grow = float(np.median(np.log(np.hypot(1 + look.motion[:, 0], look.motion[:, 1])) / look.seconds))
        turn = float(np.median(np.arctan2(look.motion[:, 1], 1 + look.motion[:, 0]) / look.seconds))
    return pan, tilt, grow, -float(np.degrees(turn))

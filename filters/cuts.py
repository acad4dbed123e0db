"""Shot boundaries: hard cuts and fades.

Cuts are proposed by PySceneDetect's AdaptiveDetector on small BGR frames and dropped when the picture before them
comes back within a third of a second (a photographic flash, a black frame) or when they lie inside a fade.

Source: PySceneDetect 0.7, `AdaptiveDetector` and `ThresholdDetector`.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, replace

import cv2
import numpy as np
import numpy.typing as npt
from scenedetect import FrameTimecode

from filters.content import FastAdaptiveDetector
from filters.fades import Fade, FadeFinder
from manifests.types import EVERY_FRAME, Boundary, Image, Sampling, Splitter

LOOK = Sampling(EVERY_FRAME, 90, color=True)
_REPEAT = 0.05
"""Mean difference (grey levels) below which a frame repeats the one before, as in animation drawn on twos."""
_MOST_REPEATS = 4
"""So many repeats are kept from the detector; more are a picture that stands still, which it must see."""
_RETURNS = 0.35
"""A cut is a flash when some frame after it is closer to some frame before it than this share of the jump."""


@dataclass(frozen=True, slots=True)
class Cuts:
    """How boundaries are found.

    ratio:    how many times a frame's change exceeds its neighbours' (PySceneDetect's adaptive_threshold; its default
              is 3.0, and 2.85 also finds jump cuts within a scene without adding false ones on our footage)
    content:  least change of a cut, mean HSV difference in grey levels (PySceneDetect's min_content_val)
    lag:      seconds that a cut waits to be recognised as part of a flash or a fade
    """

    ratio: float = 2.85
    content: float = 15.0
    lag: float = 1.0
    version: int = 1

    def start(self, fps: float) -> Splitter:
        """A splitter for one film of this nominal frame rate."""
        return CutSplitter(self, fps)


class CutSplitter:
    """State of the search in one film."""

    wants = LOOK

    def __init__(self, settings: Cuts, fps: float):
        fps = float(min(max(fps, 1.0), 240.0))
        self._fps = fps
        self._detector = FastAdaptiveDetector(
            adaptive_threshold=settings.ratio, min_content_val=settings.content, min_scene_len=1
        )
        self._fed: deque[tuple[int, float]] = deque(maxlen=16)  # film frame number, score of what the detector saw
        self._fed_count = 0
        self._last: Image | None = None
        self._repeats = 0
        self._lag = max(8, math.ceil(settings.lag * fps))
        self._flash = max(3, math.ceil(fps / 3))
        self._thumbs: deque[npt.NDArray[np.float32]] = deque(maxlen=self._lag + 8 * self._flash)
        self._finders = (FadeFinder(fps), FadeFinder(fps))
        self._cuts: list[tuple[int, float]] = []
        self._done = 0  # first frame after the last boundary reported
        self._any_shot = False
        self._index = -1

    @property
    def settled(self) -> int:
        held = [f.holding for f in self._finders if f.holding is not None]
        return max(self._done, min([self._index + 1 - self._lag, *held]))

    def push(self, index: int, image: Image) -> list[Boundary]:
        self._index = index
        self._thumbs.append(cv2.resize(image, (16, 9), interpolation=cv2.INTER_AREA).astype(np.float32))
        self._propose(index, image)
        mean, deviation = (float(v.mean()) for v in cv2.meanStdDev(image))
        fades = self._finders[0].push(index, mean + 2 * deviation)
        fades += self._finders[1].push(index, 255 - mean + 2 * deviation)
        return self._report(fades, self.settled)

    def flush(self) -> list[Boundary]:
        end = self._index + 1
        fades = [fade for finder in self._finders for fade in finder.flush(end)]
        found = self._report(fades, end)
        return found if self._any_shot or self._done < end else []  # a film that is all fade keeps its row

    # -- cuts ------------------------------------------------------------------------------------------------------

    def _propose(self, index: int, image: Image) -> None:
        if self._last is not None and cv2.norm(image, self._last, cv2.NORM_L1) < _REPEAT * image.size:
            self._repeats += 1
            if self._repeats <= _MOST_REPEATS:
                return
        else:
            self._repeats = 0
        self._last = image
        proposed = self._detector.process_frame(FrameTimecode(self._fed_count, self._fps), image)
        self._fed.append((index, self._detector.score))
        for timecode in proposed:  # the detector answers a few frames late
            self._cuts.append(self._fed[timecode.frame_num - self._fed_count - 1])
        self._fed_count += 1

    def _is_flash(self, start: int, end: int) -> bool:
        """Whether a picture from just before frame `start` is seen again just after frame `end`."""
        first = self._index + 1 - len(self._thumbs)
        thumbs = np.stack(self._thumbs)
        before = thumbs[max(0, start - self._flash - first) : max(0, start - first)]
        after = thumbs[max(0, end - first) : max(0, end + self._flash - first)]
        if not (len(before) and len(after)):
            return False
        jump = np.abs(before[-1] - thumbs[max(0, start - first)]).mean()
        across = np.abs(before[:, None] - after[None, :]).mean(axis=(2, 3, 4))
        return bool(across.min() < _RETURNS * jump)

    # -- putting both together -------------------------------------------------------------------------------------

    def _report(self, fades: list[Fade], settled: int) -> list[Boundary]:
        found: list[Boundary] = []
        for fade in fades:
            self._cuts = [c for c in self._cuts if not fade.start - 1 <= c[0] <= fade.end + 1]
            hard_start, hard_end = fade.hard_edges
            if hard_start and hard_end and self._is_flash(fade.start, fade.end + 1):
                continue
            if hard_start and fade.start > self._done:
                found.append(Boundary("cut", fade.start, fade.start, 1.0))
            found.append(Boundary("fade", fade.start, fade.end, 1.0))
            if hard_end and fade.end < self._index:
                found.append(Boundary("cut", fade.end + 1, fade.end + 1, 1.0))
        self._cuts = [c for c in self._cuts if c[0] > self._done]  # the detector may answer after a fade is told
        ready = [c for c in self._cuts if c[0] < settled]
        self._cuts = [c for c in self._cuts if c[0] >= settled]
        found += [Boundary("cut", k, k, score) for k, score in ready if not self._is_flash(k, k)]
        told = []
        for boundary in sorted(found, key=lambda b: (b.start, b.next_shot)):
            if boundary.kind == "cut" and boundary.start >= self._done:
                told.append(boundary)
            elif boundary.end >= self._done:  # a fade from black right after one to white begins where that one ended
                told.append(replace(boundary, start=max(boundary.start, self._done)))
            else:
                continue
            self._any_shot |= boundary.start > self._done
            self._done = boundary.next_shot
        return told

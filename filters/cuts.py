"""Shot boundaries: hard cuts, fades, dissolves and wipes.

Cuts are proposed by PySceneDetect's AdaptiveDetector on small BGR frames and dropped when the picture before them
comes back within a third of a second (a photographic flash, a black frame) or when they lie inside a transition.

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
from filters.gradual import Gradual, GradualFinder
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
        self._finders = (FadeFinder(fps), FadeFinder(fps))
        self._gradual = GradualFinder(fps)
        self._thumbs: deque[npt.NDArray[np.float32]] = deque(maxlen=self._lag + 8 * self._flash + self._gradual.reach)
        self._fades: list[Fade] = []
        self._faded: list[Fade] = []  # the last few that were told
        self._graduals: list[Gradual] = []
        self._cuts: list[tuple[int, float]] = []
        self._done = 0  # first frame after the last boundary reported
        self._any_shot = False
        self._index = -1

    @property
    def settled(self) -> int:
        return max(self._done, min([self._decided, *(g.start for g in self._graduals)]))

    @property
    def _decided(self) -> int:
        """First frame before which no finder will report anything that it has not reported yet."""
        return min(self._index + 1 - self._lag, self._gradual.holding, *self._fades_begin)

    @property
    def _fades_begin(self) -> list[int]:
        """Where fades begin that are not over yet; beyond the film where there is none."""
        return [self._index + 1 if f.holding is None else f.holding for f in self._finders]

    def push(self, index: int, image: Image) -> list[Boundary]:
        self._index = index
        self._thumbs.append(cv2.resize(image, (16, 9), interpolation=cv2.INTER_AREA).astype(np.float32))
        self._propose(index, image)
        mean, deviation = (float(v.mean()) for v in cv2.meanStdDev(image))
        fades = self._finders[0].push(index, mean + 2 * deviation)
        fades += self._finders[1].push(index, 255 - mean + 2 * deviation)
        self._add(fades, self._gradual.push(image))
        return self._report(self._decided)

    def flush(self) -> list[Boundary]:
        end = self._index + 1
        self._add([fade for finder in self._finders for fade in finder.flush(end)], self._gradual.flush())
        found = self._report(end)
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

    def _add(self, fades: list[Fade], graduals: list[Gradual]) -> None:
        """Fades come before other transitions, and both before cuts that lie inside them."""
        self._fades += fades
        known = [(fade.start, fade.end) for fade in (*self._fades, *self._faded)]
        self._graduals = [
            g
            for g in (*self._graduals, *graduals)
            if not any(g.start <= end and g.end >= start for start, end in known)
        ]
        self._drop_cuts_inside()

    def _drop_cuts_inside(self) -> None:
        spans = [(f.start, f.end) for f in (*self._fades, *self._faded)] + [(g.start, g.end) for g in self._graduals]
        self._cuts = [c for c in self._cuts if not any(start - 1 <= c[0] <= end + 1 for start, end in spans)]

    def _report(self, decided: int) -> list[Boundary]:
        """What lies before `decided`, in film order."""
        self._drop_cuts_inside()  # the detector answers late
        found: list[Boundary] = []
        for fade in [f for f in self._fades if f.start < decided]:
            self._fades.remove(fade)
            self._faded = [fade, *self._faded[:3]]
            hard_start, hard_end = fade.hard_edges
            if hard_start and hard_end and self._is_flash(fade.start, fade.end + 1):
                continue
            if hard_start and fade.start > self._done:
                found.append(Boundary("cut", fade.start, fade.start, 1.0))
            found.append(Boundary("fade", fade.start, fade.end, 1.0))
            if hard_end and fade.end < self._index:
                found.append(Boundary("cut", fade.end + 1, fade.end + 1, 1.0))
        begin = min(self._fades_begin)  # a fade that goes on may yet take these in
        for gradual in [g for g in self._graduals if g.start < decided and g.end < begin]:
            self._graduals.remove(gradual)
            found.append(Boundary(gradual.kind, gradual.start, gradual.end, gradual.score))
        decided = min([decided, *(g.start for g in self._graduals)])
        self._cuts = [c for c in self._cuts if c[0] > self._done]  # the detector may answer after a fade is told
        ready = [c for c in self._cuts if c[0] < decided]
        self._cuts = [c for c in self._cuts if c[0] >= decided]
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

"""Shot boundaries: hard cuts, fades, dissolves and wipes.

Cuts are proposed by a detector of your choice on small BGR frames. They are dropped when the picture before them comes
back within a third of a second (a photographic flash, a black frame), when it hardly changes but for its detail (a
shaking camera), or when they lie inside a transition.

Source: ours but for the detectors, see `filters.shots.detectors`.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from filters.shots import detectors
from filters.shots.fades import Fade, FadeFinder, levels
from filters.shots.gradual import Gradual, GradualFinder, correlation
from filters.shots.thumbs import Thumbs
from manifests.types import EVERY_FRAME, Boundary, Image, Sampling, Splitter

LOOK = Sampling(EVERY_FRAME, 90, color=True)
_RETURNS, _RETURNS_LIT = 0.2, 0.5
"""A cut is a flash when some frame after it is closer to some frame before it than this share of the jump; more, where
the whole picture became brighter or darker at once and the two frames are alike."""
_ALIKE = 0.5
_JUMP = 6.0
"""Least change of a cut, root mean square of the blurred picture in grey levels."""


@dataclass(frozen=True, slots=True)
class Cuts:
    """How boundaries are found.

    detector: what proposes cuts: adaptive, content, hash, histogram, threshold, scdet or transnetv2
    ratio:    of adaptive: how many times a frame's change exceeds its neighbours' (PySceneDetect's adaptive_threshold;
              its default is 3.0, and 2.85 also finds jump cuts within a scene without adding false ones on our footage)
    content:  of adaptive: least change of a cut, mean HSV difference in grey levels (PySceneDetect's min_content_val)
    threshold: of the other detectors; none: the tool's default (content 27, hash 0.35, histogram 0.2, threshold 12,
              scdet 10, transnetv2 0.5)
    least:    frames between two cuts, at least (PySceneDetect's min_scene_len); none: 1, and 15 for PySceneDetect's
              detectors other than adaptive, as they have it
    gradual:  also find dissolves and wipes, and drop cuts inside them
    fades:    also find fades, and drop cuts inside them
    verify:   drop cuts that are flashes or shakes; switch it off to have a detector's cuts as they are
    lag:      seconds that a cut waits to be recognised as part of a flash or a fade
    weights:  of transnetv2: a state-dict file; empty: those of its package
    """

    detector: str = "adaptive"
    ratio: float = 2.85
    content: float = 15.0
    threshold: float | None = None
    least: int | None = None
    gradual: bool = True
    fades: bool = True
    verify: bool = True
    lag: float = 1.0
    weights: str = ""
    version: int = 2

    def __post_init__(self) -> None:
        detectors.check(self.detector, self.threshold, self.least)

    def start(self, fps: float) -> Splitter:
        """A splitter for one film of this nominal frame rate."""
        return CutSplitter(self, fps)


class CutSplitter:
    """State of the search in one film."""

    wants = LOOK

    def __init__(self, settings: Cuts, fps: float):
        fps = float(min(max(fps, 1.0), 240.0))
        threshold = settings.ratio if settings.detector == "adaptive" else settings.threshold
        self._detector = detectors.make(
            settings.detector, fps, threshold, settings.least, settings.content, settings.weights
        )
        self._verify = settings.verify
        self._lag = max(8, math.ceil(settings.lag * fps))
        self._flash = max(3, math.ceil(fps / 3))
        self._finders = (FadeFinder(fps), FadeFinder(fps)) if settings.fades else ()
        self._gradual = GradualFinder(fps) if settings.gradual else None
        reach = self._detector.delay + (self._gradual.reach if self._gradual else 0)
        self._small = Thumbs()
        self._thumbs: deque[npt.NDArray[np.float32]] = deque(maxlen=self._lag + 8 * self._flash + reach)
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
        first = min(self._index + 1 - self._lag, self._detector.holding, *self._fades_begin)
        return first if self._gradual is None else min(first, self._gradual.holding)

    @property
    def _fades_begin(self) -> list[int]:
        """Where fades begin that are not over yet, and the end of the film so far."""
        return [self._index + 1, *(f.holding for f in self._finders if f.holding is not None)]

    def push(self, index: int, image: Image) -> list[Boundary]:
        self._index = index
        picture = self._small.push(image)
        self._thumbs.append(picture)
        self._add(self._detector.push(image))
        if self._finders:
            for finder, level in zip(self._finders, levels(image), strict=True):
                self._fades += finder.push(index, level)
        if self._gradual:
            self._graduals += self._gradual.push(picture, self._small.since)
        return self._report(self._decided) if self._fades or self._graduals or self._cuts else []

    def flush(self) -> list[Boundary]:
        end = self._index + 1
        self._add(self._detector.flush())
        self._fades += [fade for finder in self._finders for fade in finder.flush(end)]
        if self._gradual:
            self._graduals += self._gradual.flush()
        found = self._report(end)
        return found if self._any_shot or self._done < end else []  # a film that is all fade keeps its row

    def _add(self, proposed: list[Boundary]) -> None:
        for found in proposed:
            if found.kind == "cut":
                self._cuts.append((found.start, found.score))
            else:
                self._graduals.append(Gradual(found.kind, found.start, found.end, found.score))

    # -- cuts ------------------------------------------------------------------------------------------------------

    def _is_real(self, cut: int) -> bool:
        """Whether a proposed cut is neither a flash nor a mere shake."""
        at = cut - (self._index + 1 - len(self._thumbs))
        if not self._verify or not 0 < at < len(self._thumbs):
            return True
        jump = self._thumbs[at] - self._thumbs[at - 1]
        return float(np.sqrt((jump * jump).mean())) >= _JUMP and not self._is_flash(cut, cut)

    def _is_flash(self, start: int, end: int) -> bool:
        """Whether a picture from just before frame `start` is seen again just after frame `end`."""
        first = self._index + 1 - len(self._thumbs)
        thumbs = np.stack(self._thumbs)
        before = thumbs[max(0, start - self._flash - first) : max(0, start - first)]
        after = thumbs[max(0, end - first) : max(0, end + self._flash - first)]
        if not (len(before) and len(after)):
            return False
        jump = before - thumbs[max(0, start - first)]
        sizes = np.abs(jump).mean(axis=(1, 2, 3))
        across = np.abs(before[:, None] - after[None, :]).mean(axis=(2, 3, 4))
        shares = across / np.maximum(np.maximum(sizes, sizes[-1]), 1e-3)[:, None]
        lit = abs(float(jump[-1].mean())) > 0.9 * sizes[-1]
        if not lit or shares.min() < _RETURNS:
            return bool(shares.min() < _RETURNS)
        b, a = np.unravel_index(int(shares.argmin()), shares.shape)
        return bool(shares[b, a] < _RETURNS_LIT and correlation(before[[b]], after[[a]])[0] > _ALIKE)

    # -- putting both together -------------------------------------------------------------------------------------

    def _drop_inside(self) -> None:
        """Fades come before other transitions, and both before cuts that lie inside them."""
        spans = [(fade.start, fade.end) for fade in (*self._fades, *self._faded)]
        kept: list[Gradual] = []
        for gradual in self._graduals:
            others = (*spans, *((g.start, g.end) for g in kept))
            if gradual.start >= self._done and not any(gradual.start <= b and gradual.end >= a for a, b in others):
                kept.append(gradual)
        self._graduals = kept
        spans += [(g.start, g.end) for g in kept]
        self._cuts = [c for c in self._cuts if not any(start - 1 <= c[0] <= end + 1 for start, end in spans)]

    def _report(self, decided: int) -> list[Boundary]:
        """What lies before `decided`, in film order."""
        self._drop_inside()
        found: list[Boundary] = []
        for fade in [f for f in self._fades if f.start < decided]:
            self._fades.remove(fade)
            self._faded = [fade, *self._faded[:3]]
            hard_start, hard_end = fade.hard_edges
            short = fade.end - fade.start < self._flash or (hard_start and hard_end)
            if short and self._verify and self._is_flash(fade.start, fade.end + 1):
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
        found += [Boundary("cut", k, k, score) for k, score in ready if self._is_real(k)]
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

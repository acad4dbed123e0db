"""The words every other package speaks: clip, sampling, frames, boundary, signal."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar, runtime_checkable

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Image = npt.NDArray[np.uint8]
"""Luma (H, W), or BGR (H, W, 3); 8 bit."""

T = TypeVar("T")


class MediaError(ValueError):
    """A video that cannot be used. The message is one sentence that names the file and the remedy."""


@dataclass(frozen=True, slots=True)
class Clip:
    """A span of one video, half open, in integer microseconds of the container's presentation timestamps."""

    id: str
    video: str
    uri: str
    start: int
    end: int

    @property
    def seconds(self) -> float:
        return (self.end - self.start) / 1e6


@dataclass(frozen=True, slots=True)
class Sampling:
    """The pixels an operator wants. Equal wishes share one array.

    fps:    at most so many frames a second, on a grid that starts with the film (`inf`: every frame)
    short:  short side in pixels after rotation and with square pixels; nothing is enlarged; the long side is at
            most four times as long. 0 asks for the film's own pixels (only sensible with `crop`)
    cap:    at most so many frames of a clip, evenly spread over it (0: no cap)
    color:  BGR; otherwise luma alone, as coded
    crop:   the central square of at most so many pixels (0: the whole picture), aligned to the 16-pixel coding grid
    coded:  no pixels but what the encoder chose, "vectors" or "quantizer": each "image" is the mean length of motion
            vectors or the mean quantiser, (1,), or (0,) where the codec tells none
    audio:  no pixels but sound: the one "image" is mono int16 (samples,) at so many samples a second; none where the
            film has no sound. Only for costly signals

    A costly signal is served from the clip's frame pack where that holds what it wants; otherwise the clip's span of
    the film is decoded once more, for all such signals together.
    """

    fps: float
    short: int
    cap: int = 0
    color: bool = False
    crop: int = 0
    coded: str = ""
    audio: int = 0


EVERY_FRAME = float("inf")


@dataclass(frozen=True, slots=True, eq=False)
class Frames:
    """What one clip looks like under one sampling; the images are read-only.

    `times` are microseconds and `indices` frame numbers, both on the film's own scale; `size` is the film's
    (width, height) after rotation and `fps` its nominal frame rate.
    """

    images: Sequence[Image]
    times: Sequence[int]
    indices: Sequence[int]
    size: tuple[int, int]
    fps: float
    _shared: dict[Any, Any] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return len(self.images)

    def share(self, compute: Callable[[Frames], T]) -> T:
        """`compute(self)`, done once however many signals ask; `compute` must be hashable and pure."""
        if compute not in self._shared:
            self._shared[compute] = compute(self)
        return self._shared[compute]  # type: ignore[no-any-return]


@dataclass(frozen=True, slots=True)
class Boundary:
    """Where a shot ends and the next begins, in frame numbers.

    A cut at k has start = end = k, the first frame of the new shot. A fade, dissolve or wipe has its first and its
    last frame that is not clean; those frames belong to no shot.
    """

    kind: str
    start: int
    end: int
    score: float

    @property
    def next_shot(self) -> int:
        return self.start if self.kind == "cut" else self.end + 1


class Splitter(Protocol):
    """Finds boundaries in one film, fed with every frame in presentation order."""

    @property
    def wants(self) -> Sampling: ...

    def push(self, index: int, image: Image) -> list[Boundary]:
        """Boundaries that became certain with this frame, in film order."""

    def flush(self) -> list[Boundary]:
        """Boundaries that were still undecided at the end of the film."""

    @property
    def settled(self) -> int:
        """No boundary will be reported any more that touches a frame before this one."""


@runtime_checkable
class Signal(Protocol):
    """Measures clips; never decides, never decodes, never knows where it runs.

    A signal is a frozen dataclass. It returns one list per column of its `schema`, one value per clip; a value that
    could not be measured is None. A column named `<name>_error` may say why. Costly signals are handed several clips
    at once, so that models run in batches.
    """

    @property
    def wants(self) -> Sampling: ...

    @property
    def schema(self) -> pa.Schema: ...

    def __call__(self, clips: Sequence[Clip], frames: Sequence[Frames]) -> Mapping[str, Sequence[Any]]: ...


@runtime_checkable
class Derived(Protocol):
    """Columns computed from other columns when clips are judged, such as tags from signals: no pixel is looked at.

    A frozen dataclass, like a signal. It is handed clips, always all of a video, with the columns that it `reads`; one
    that is missing in a recipe or null in a row makes its own value None. `early` says that columns of the walk are all
    it needs; then rules on it spare clips the costly signals.
    """

    @property
    def early(self) -> bool: ...

    @property
    def reads(self) -> Collection[str]: ...

    @property
    def schema(self) -> pa.Schema: ...

    def __call__(self, clips: pa.Table) -> Mapping[str, Sequence[Any]]: ...

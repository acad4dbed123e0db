"""Pushes: the next picture shoves the last one out of the frame.

At every moment the frame is made of a part of the last picture and a part of the next one, both displaced by the same
way. For each of four directions and every displacement that picture is put together; a push is there when the frames
of a window are close to such pictures, at displacements that only grow.

Source: ours.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]

_STEP = 0.35  # of the way that may lie between two of nine probes
_BACKWARD = 0.1  # of the way that noise may take a displacement back
_BESIDE = 0.27
_SEAM = 0.1  # by which the edge between the pictures exceeds twice what is beside; a fast pan has no such edge
_TURNS = (0, 1, 2, 3)  # quarter turns that make it a push to the left


@dataclass(frozen=True, slots=True)
class Push:
    """turns: quarter turns after which it goes to the left; beside: what no displacement explains, as a share of the
    change; seam: difference where the pictures meet, as a share of it; moved: share of the way at each frame, 0..1."""

    turns: int
    beside: float
    seam: float
    moved: npt.NDArray[np.float64]

    @property
    def holds(self) -> bool:
        steps = np.diff(self.moved, prepend=0.0, append=1.0)
        return bool(
            self.beside <= _BESIDE
            and self.seam >= _SEAM + 2 * self.beside
            and steps.max() <= _STEP
            and steps.min() >= -_BACKWARD
        )


def find_push(last: Array, following: Array, between: Array, turns: tuple[int, ...] = _TURNS) -> Push:
    """The push that explains `between` (n, H, W, 3), some of its frames, best; `last` and `following` are (H, W, 3)."""
    found = [_leftward(*(_turned(v, t) for v in (last, following, between)), turns=t) for t in turns]
    return min(found, key=lambda p: p.beside)


def _turned(pictures: Array, turns: int) -> Array:
    return np.rot90(pictures, turns, (-3, -2))


def _leftward(last: Array, following: Array, between: Array, *, turns: int) -> Push:
    width = last.shape[1]
    both = np.concatenate([last, following], 1)
    made = np.stack([both[:, s : s + width] for s in range(width + 1)]).reshape(width + 1, -1)
    seen = between.reshape(len(between), -1)
    # |seen - made|^2, multiplied out
    error = (seen * seen).sum(1)[:, None] - 2 * seen @ made.T + (made * made).sum(1)[None]
    change = max(float(((last - following) ** 2).mean()), 1e-3)
    moved = error.argmin(1) / width
    beside = np.sqrt(np.maximum(0, error.min(1)).mean() / (last.size * change))
    seam = np.sqrt(((last[:, -1] - following[:, 0]) ** 2).mean() / change)
    return Push(turns, float(beside), float(seam), moved)

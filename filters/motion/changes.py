"""What changes from frame to frame, measured once for every signal that asks: VMAF motion and stillness.

Luma is smoothed with libvmaf's separable 5-tap Gaussian, and the mean absolute difference of adjacent smoothed frames
is the VMAF motion of that frame.

Source: Netflix/vmaf `float_motion.c`; FFmpeg `vf_vmafmotion.c`, which computes the same in fixed point.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from manifests.types import EVERY_FRAME, Frames, Sampling

LUMA = Sampling(EVERY_FRAME, 180)
"""Every frame's luma at the analysis size, shared by all that measure change."""

_GAUSSIAN = np.array([0.054488685, 0.244201342, 0.402619947, 0.244201342, 0.054488685], np.float32)
_PAUSE = 0.25
"""Seconds between the frames of which every other two are compared for slow changes."""

_BLOCKS = 9
"""Blocks along the short side, for finding motion that is confined to a small part of the picture."""


@dataclass(frozen=True, slots=True, eq=False)
class Changes:
    """For each frame after the first: `mean` absolute difference to the frame before, in 8-bit grey levels, and the
    same for the block that changed most (`peak`). For spans of about half a second that overlap by half, from frame
    `first` to frame `last`: the same for the block that changed most between the two (`drift`)."""

    mean: npt.NDArray[np.float32]
    peak: npt.NDArray[np.float32]
    first: npt.NDArray[np.intp]
    last: npt.NDArray[np.intp]
    drift: npt.NDArray[np.float32]


def changes(frames: Frames) -> Changes:
    """Differences of adjacent frames (N frames give N-1 values), and of frames half a second apart."""
    count = max(0, len(frames) - 1)
    mean, peak = np.zeros(count, np.float32), np.zeros(count, np.float32)
    spans: list[tuple[int, int, float]] = []
    kept: list[tuple[int, npt.NDArray[np.float32]]] = []
    before = None
    for k, image in enumerate(frames.images):
        smooth = np.asarray(
            cv2.sepFilter2D(image, cv2.CV_32F, _GAUSSIAN, _GAUSSIAN, borderType=cv2.BORDER_REFLECT_101), np.float32
        )
        if before is not None:
            difference = np.asarray(cv2.absdiff(smooth, before), np.float32)
            mean[k - 1], peak[k - 1] = cv2.mean(difference)[0], strongest_block(difference)
        before = smooth
        if not kept or frames.times[k] - frames.times[kept[-1][0]] >= _PAUSE * 1e6:
            kept = [*kept[-2:], (k, smooth)]
            if len(kept) == 3:
                difference = np.asarray(cv2.absdiff(smooth, kept[0][1]), np.float32)
                spans.append((kept[0][0], k, strongest_block(difference)))
    first, last = (np.array([span[side] for span in spans], np.intp) for side in (0, 1))
    return Changes(mean, peak, first, last, np.array([span[2] for span in spans], np.float32))


def strongest_block(difference: npt.NDArray[np.float32]) -> float:
    """Largest mean over blocks of a ninth of the short side; by halves first, which OpenCV vectorises."""
    height, width = difference.shape
    side = max(1.0, min(height, width) / _BLOCKS)
    grid = (max(1, round(width / side)), max(1, round(height / side)))
    while difference.shape[0] >= 4 * grid[1] and difference.shape[1] >= 4 * grid[0]:
        even = difference[: difference.shape[0] & ~1, : difference.shape[1] & ~1]
        half = (even.shape[1] // 2, even.shape[0] // 2)
        difference = np.asarray(cv2.resize(even, half, interpolation=cv2.INTER_AREA), np.float32)
    return float(cv2.resize(difference, grid, interpolation=cv2.INTER_AREA).max())

"""What the photographic signals share: the frames they look at, and their luma at a common size.

Luma is computed from BGR with the weights of ITU-R BT.601, so that limited and full range films compare.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from manifests.types import Frames, Image, Sampling

LOOKS = Sampling(fps=4.0, short=360, cap=8, color=True)
"""Up to eight colour frames of a clip; the frame packs hold the same ones."""

NATIVE = Sampling(fps=4.0, short=0, cap=4, crop=384)
"""Up to four central squares at the film's own pixels, for what scaling would hide: noise and coding blocks."""


def grays(frames: Frames) -> list[Image]:
    """Luma (H, W), 0..255, of every frame."""
    return [np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), np.uint8) for image in frames.images]


def levels(frames: Frames) -> npt.NDArray[np.float64]:
    """Histograms (N, 256) of luma, each with sum 1."""
    counts = [cv2.calcHist([gray], [0], None, [256], [0, 256]).ravel() / gray.size for gray in frames.share(grays)]
    return np.asarray(counts, np.float64).reshape(-1, 256)


def percentiles(histograms: npt.NDArray[np.float64], *shares: float) -> list[npt.NDArray[np.intp]]:
    """For each share, the grey level (N,) below or at which that share of the pixels lies."""
    below = np.cumsum(histograms, axis=1)
    return [(below >= share - 1e-9).argmax(axis=1) for share in shares]

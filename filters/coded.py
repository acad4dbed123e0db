"""What signals over the encoder's choices share."""

from __future__ import annotations

import numpy as np

from manifests.types import Frames


def mean(frames: Frames) -> float | None:
    """Over all frames that tell a value (see `Sampling.coded`); None where none does."""
    told = np.concatenate([np.zeros(0, np.float32), *map(np.ravel, frames.images)])
    return float(told.mean()) if len(told) else None

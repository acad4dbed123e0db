"""Embeddings of frames by a learned image encoder: pictures in, unit vectors out, each frame encoded once.

Several signals may ask for embeddings of the same frames by the same model (an aesthetic score, consistency, tags);
what one of them had computed, the others find. All frames of all clips at hand go through the model together.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from manifests.types import Frames, Image

Vectors = npt.NDArray[np.float32]

PICKS = ("middle", "uniform", "ends", "all")


class Embedder(Hashable, Protocol):
    """A model by its settings: equal ones share embeddings."""

    def encode(self, images: Sequence[Image]) -> Sequence[Vectors]:
        """One unit vector (D,) per BGR picture."""


@dataclass(frozen=True, slots=True)
class _Known:
    """Finds, among what a clip's signals share, the embeddings that one model made so far, by frame."""

    model: Embedder

    def __call__(self, frames: Frames) -> dict[int, Vectors]:
        return {}


def embed(model: Embedder, frames: Sequence[Frames], chosen: Sequence[Sequence[int]]) -> list[Vectors]:
    """For each clip the embeddings (n, D) of its chosen frames; only those not known yet are computed."""
    known = [f.share(_Known(model)) for f in frames]
    missing = [(k, i) for k, picks in enumerate(chosen) for i in dict.fromkeys(picks) if i not in known[k]]
    made = model.encode([frames[k].images[i] for k, i in missing]) if missing else []
    for (k, i), vector in zip(missing, made, strict=True):
        known[k][i] = vector
    none = np.zeros((0, 0), np.float32)
    return [np.stack([known[k][i] for i in picks]) if picks else none for k, picks in enumerate(chosen)]


def pick(frames: Frames, how: str, count: int = 4) -> list[int]:
    """Positions of the middle frame; of `count` frames evenly spread ("uniform"); of the first, middle and last
    ("ends"); or of all frames."""
    n = len(frames)
    if not n or how == "all":
        return list(range(n))
    if how == "middle":
        return [n // 2]
    if how == "ends":
        return sorted({0, n // 2, n - 1})
    return sorted({int((k + 0.5) * n / count) for k in range(count)})


def check_pick(how: str, count: int) -> None:
    """Raises ValueError when `pick` knows no such choice."""
    if how not in PICKS or count < 1:
        raise ValueError(f"frames {how!r} ({count}): choose {', '.join(PICKS)}, and a count of at least 1.")


@dataclass(frozen=True, slots=True)
class Preparation:
    """From pictures to what a network takes.

    size: (height, width) of its input
    mode: "shortest": the picture covers the input and its centre is taken; "longest": all of it fits in and the rest
          is `fill`; "squash": both sides are scaled to fit
    """

    size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    mode: str = "shortest"
    interpolation: str = "bicubic"
    fill: int = 0

    def __call__(self, images: Sequence[Image], device: Any) -> Any:
        """BGR pictures of any sizes -> tensor (N, 3, height, width), RGB, float32 on `device`.

        Follows Pillow's resampling, with which models are trained: rows, then columns, rounded after each. That is
        exact to one grey level but where a newer Pillow (13) finds columns first quicker; then to a few.
        """
        import torch

        alike: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for k, image in enumerate(images):
            alike[image.shape].append(k)
        pixels = torch.empty((len(images), 3, *self.size), device=device)
        for chosen in alike.values():
            stack = torch.from_numpy(np.stack([images[k] for k in chosen])).to(device)
            pixels[chosen] = self._fit(stack.flip(-1).permute(0, 3, 1, 2).float())
        mean, std = (torch.tensor(values, device=device).view(1, -1, 1, 1) for values in (self.mean, self.std))
        return (pixels / 255 - mean) / std

    def _fit(self, pictures: Any) -> Any:
        from torch.nn import functional as tf

        scaled = self._scaled(*pictures.shape[-2:])
        for step in ((pictures.shape[-2], scaled[1]), scaled):
            if step != tuple(pictures.shape[-2:]):
                pictures = tf.interpolate(pictures, step, mode=self.interpolation, antialias=True, align_corners=False)
                pictures = (pictures + 0.5).floor().clamp(0, 255)
        for axis, (is_, want) in enumerate(zip(scaled, self.size, strict=True)):
            if is_ < want:
                around = [(want - is_) // 2, (want - is_ + 1) // 2]
                pictures = tf.pad(pictures, [0, 0, *around] if axis == 0 else around, value=self.fill)
            elif is_ > want:
                pictures = pictures.narrow(2 + axis, round((is_ - want) / 2), want)
        return pictures

    def _scaled(self, height: int, width: int) -> tuple[int, int]:
        """Size to which a picture is scaled, rounded as open_clip and torchvision do."""
        tall, wide = self.size
        if self.mode == "squash":
            return self.size
        if self.mode == "shortest" and tall == wide:
            short, long = sorted((height, width))
            long = tall * long // short
            return (tall, long) if height <= width else (long, tall)
        ratios = (height / tall, width / wide)
        ratio = min(ratios) if self.mode == "shortest" else max(ratios)
        return round(height / ratio), round(width / ratio)

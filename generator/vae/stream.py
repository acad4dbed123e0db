"""What a layer has to know of the rest of a video, and the few operations on frames that the VAEs share."""

# mypy: disable-error-code="no-any-return, no-untyped-call"

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

Video: TypeAlias = Tensor
"""(B, C, F, H, W)"""


class Stream:
    """One video in chunks: whether this is its first chunk, and of each layer, the last frames that it saw.

    It is made for one video and passed along, so a model has no state and two videos cannot meet in it.
    """

    def __init__(self) -> None:
        self.first = True
        self._tails: dict[nn.Module, Tensor] = {}

    def extended(self, layer: nn.Module, x: Video, repeat: int, keep: int) -> Video:
        """x with earlier frames in front: at the beginning its first frame `repeat` times, later the last `keep`."""
        before = x[:, :, :1].expand(-1, -1, repeat, -1, -1) if self.first else self._tails[layer]
        x = torch.cat([before, x], dim=2)
        self._tails[layer] = x[:, :, x.shape[2] - keep :].clone()
        return x

    def normed(self, norm: nn.GroupNorm, x: Video) -> Video:
        """A new tensor; the norm pools over all frames of the chunk."""
        return norm(x)


def chunks(x: Video, size: int) -> list[Video]:
    """Pieces of `size` frames; the first one holds the remainder as well."""
    first = x.shape[2] - max(x.shape[2] // size - 1, 0) * size
    return [x[:, :, :first], *(x[:, :, k : k + size] for k in range(first, x.shape[2], size))]


def per_frame(layer: nn.Conv2d, x: Video) -> Video:
    """A 2D convolution of every frame, without moving frames into the batch."""
    assert isinstance(layer.padding, tuple)
    return F.conv3d(x, layer.weight.unsqueeze(2), layer.bias, (1, *layer.stride), (0, *layer.padding))


def doubled(x: Video) -> Video:
    """Every pixel becomes 2 x 2."""
    spread = x[:, :, :, :, None, :, None].expand(-1, -1, -1, -1, 2, -1, 2)
    return spread.reshape(*x.shape[:3], 2 * x.shape[3], 2 * x.shape[4])


def activated(norm: Callable[..., Tensor], x: Tensor, *more: Tensor) -> Tensor:
    """SiLU of `norm(x, *more)`, which must be a new tensor.

    For a backward pass only x is kept, and the rest is computed again: it is cheap, and as large as x.
    """
    if not torch.is_grad_enabled():
        return F.silu(norm(x, *more), inplace=True)
    return checkpoint(lambda *given: F.silu(norm(*given)), x, *more, use_reentrant=False, preserve_rng_state=False)


def added(x: Tensor, y: Tensor) -> Tensor:
    """x + y, in x where no gradient will ask for it."""
    return x + y if torch.is_grad_enabled() else x.add_(y)

"""What the transformers share: attention, time embedding, modulation, and latents cut into patches and put together."""

# mypy: disable-error-code="no-any-return, no-untyped-call"

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from generator.dit.positions import Rotation, rotate, timestep_features
from generator.dit.sequence import Parts

TIME_SCALE = 1000.0  # a flow's time 0 .. 1 in the units that sinusoidal features are made for


class TimestepEmbedding(nn.Module):
    """Sinusoidal features of a number, then two linear maps with SiLU between them."""

    def __init__(self, dim: int, out_dim: int) -> None:
        super().__init__()
        self.dim = dim
        self.linear_1 = nn.Linear(dim, out_dim)
        self.linear_2 = nn.Linear(out_dim, out_dim)

    def forward(self, t: Tensor) -> Tensor:
        """(B,) -> (B, out_dim)."""
        return self.linear_2(F.silu(self.linear_1(timestep_features(t, self.dim).to(self.linear_1.weight.dtype))))


class Attention(nn.Module):
    """Multi-head attention of x to itself or to a context, everything to everything.

    context_width: of the context, x's if not given. qk_norm: RMS norm of each head's queries and keys.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        context_width: int | None = None,
        bias: bool = True,
        out_bias: bool = True,
        qk_norm: bool = False,
    ) -> None:
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(width, width, bias=bias)
        self.to_k = nn.Linear(context_width or width, width, bias=bias)
        self.to_v = nn.Linear(context_width or width, width, bias=bias)
        self.to_out = nn.ModuleList([nn.Linear(width, width, bias=out_bias)])
        self.norm_q = nn.RMSNorm(width // heads, eps=1e-6) if qk_norm else None
        self.norm_k = nn.RMSNorm(width // heads, eps=1e-6) if qk_norm else None

    def forward(
        self,
        x: Tensor,
        context: Tensor | None = None,
        mask: Tensor | None = None,
        by: Rotation | None = None,
        parts: Parts | None = None,
    ) -> Tensor:
        """x: (B, N, width). context: (B, L, context_width). mask: (B, L), true where the context may be seen.

        parts: of whose tokens x are some, all of which are seen."""
        context = x if context is None else context
        q, k, v = (
            to(y).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for to, y in ((self.to_q, x), (self.to_k, context), (self.to_v, context))
        )
        if self.norm_q is not None and self.norm_k is not None:
            q, k = self.norm_q(q), self.norm_k(k)
        if by is not None:
            q, k = rotate(q, by), rotate(k, by)
        if parts is not None:
            k, v = parts.keys(k, v)
        seen = None if mask is None else mask.bool()[:, None, None]
        return self.to_out[0](self.attended(q, k, v, seen).transpose(1, 2).flatten(2))

    def attended(self, q: Tensor, k: Tensor, v: Tensor, seen: Tensor | None) -> Tensor:
        """All (B, heads, N, head_dim); seen: (B, 1, 1, L)."""
        return F.scaled_dot_product_attention(q, k, v, seen)


class Projection(nn.Module):
    """A linear map and GELU (tanh), apart because the published names put them one level down."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.proj = nn.Linear(width, out)

    def forward(self, x: Tensor) -> Tensor:
        return self.activated(self.proj(x))

    @staticmethod
    def activated(h: Tensor) -> Tensor:
        """Of what the linear map returned; in it where no gradient will ask for it."""
        if torch.is_grad_enabled():
            return F.gelu(h, approximate="tanh")
        return torch.ops.aten.gelu_(h, approximate="tanh")


class GatedProjection(nn.Module):
    """GEGLU (arXiv 2002.05202): half of a linear map, times GELU of the other half."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.proj = nn.Linear(width, 2 * out)

    def forward(self, x: Tensor) -> Tensor:
        return self.activated(self.proj(x))

    @staticmethod
    def activated(h: Tensor) -> Tensor:
        values, gate = h.chunk(2, dim=-1)
        return values * F.gelu(gate)


class FeedForward(nn.Module):
    """Four times the width in between; `first` is `Projection` or `GatedProjection`.

    For a backward pass only what goes into the activation is kept, and what comes out is computed again: both are the
    widest tensors of a block, and the activation is cheap. No linear map is computed again.
    """

    def __init__(self, width: int, first: type[Projection] | type[GatedProjection] = Projection, dropout: float = 0.0):
        super().__init__()
        self.drops = dropout > 0
        self.net = nn.Sequential(
            first(width, 4 * width), nn.Dropout(dropout), nn.Linear(4 * width, width), nn.Dropout(dropout)
        )

    def forward(self, x: Tensor) -> Tensor:
        first: Any = self.net[0]
        h = first.proj(x)
        if not torch.is_grad_enabled():
            return self._after_first(h)
        return checkpoint(self._after_first, h, use_reentrant=False, preserve_rng_state=self.drops)

    def _after_first(self, h: Tensor) -> Tensor:
        first: Any = self.net[0]
        return self.net[1:](first.activated(h))


class SwiGlu(nn.Module):
    """LLaMa's feed-forward (arXiv 2002.05202): down(SiLU(gate x) * up x), no biases."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.gate, self.up = nn.Linear(width, inner, bias=False), nn.Linear(width, inner, bias=False)
        self.down = nn.Linear(inner, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.silu(self.gate(x)) * self.up(x))


def modulated(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """x (1 + scale) + shift."""
    return torch.addcmul(shift, x, 1 + scale)


def plain_norm(x: Tensor) -> Tensor:
    """Layer norm without weights."""
    return F.layer_norm(x, x.shape[-1:], eps=1e-6)


def with_condition(x: Tensor, condition: Tensor | None, channels: int) -> Tensor:
    """x and the condition as one latent. Raises ValueError unless the condition has `channels` and x's size."""
    given = None if condition is None else tuple(condition.shape)
    if given != ((x.shape[0], channels, *x.shape[2:]) if channels else None):
        raise ValueError(f"the condition must be (B, {channels}, F, H, W) as large as the latents, got {given}.")
    return x if condition is None else torch.cat([x, condition], dim=1)


def zeroed(*layers: nn.Linear) -> None:
    for layer in layers:
        nn.init.zeros_(layer.weight)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)


def patches_of(x: Tensor, patch: Sequence[int], channels: int, text: str, text_fits: bool) -> tuple[int, int, int]:
    """How many patches (time, rows, columns) the latents x are cut into.

    text: what the text should be and is, for the sentence; text_fits: whether it is.
    Raises ValueError for another shape, naming the nearest size that is whole patches.
    """
    if x.ndim != 5 or x.shape[1] != channels or not text_fits:
        raise ValueError(f"this model takes latents (B, {channels}, F, H, W) and {text}; got latents {tuple(x.shape)}.")
    size = tuple(x.shape[2:])
    if any(n % p or not n for n, p in zip(size, patch, strict=True)):
        nearest = tuple(max(round(n / p), 1) * p for n, p in zip(size, patch, strict=True))
        raise ValueError(
            f"latents of {size} frames, rows and columns are not whole patches of {tuple(patch)}; the nearest size is "
            f"{nearest}."
        )
    frames, rows, columns = (n // p for n, p in zip(size, patch, strict=True))
    return frames, rows, columns


def joined(tokens: Tensor, count: Sequence[int], patch: Sequence[int], channels_last: bool = False) -> Tensor:
    """Tokens (B, N, patch elements) -> latents (B, C, F, H, W).

    channels_last: whether an element of a token is (time, row, column, channel) or (channel, time, row, column).
    """
    elements = (*patch, -1) if channels_last else (-1, *patch)
    x = tokens.unflatten(-1, elements)
    x = x.movedim(-1, 2) if channels_last else x  # (B, N, C, pt, ph, pw)
    x = x.unflatten(1, tuple(count)).permute(0, 4, 1, 5, 2, 6, 3, 7)  # (B, C, T, pt, H, ph, W, pw)
    return x.flatten(6, 7).flatten(4, 5).flatten(2, 3)

"""The backbone of Movie Gen Video (arXiv 2410.13720, section 3.1.3): a LLaMa3-like transformer that sees both ways.

RMS norms and SwiGLU without biases, full bidirectional self-attention with as many key as query heads, cross-attention
to the text between it and the feed-forward, the flow's time through adaptive layer norm, and learned positions, one
table per axis, whose sum is added before every layer.

What the paper leaves open follows a public reimplementation (mindone): one modulation shared by all layers plus a table
of offsets in each (PixArt, arXiv 2310.00426), shared position tables, no norm before cross-attention, zero-initialised
output. How the tables grow is ours: linear interpolation.
"""

# mypy: disable-error-code="no-any-return, no-untyped-call"

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from generator.dit.layers import (
    TIME_SCALE,
    Attention,
    Projection,
    SwiGlu,
    TimestepEmbedding,
    joined,
    modulated,
    patches_of,
    with_condition,
    zeroed,
)
from generator.dit.positions import stretched
from generator.dit.sequence import Divide, Parts, together, whole


@dataclass(frozen=True, slots=True)
class MovieGenConfig:
    """in_channels: of the noisy latent; condition_channels: of a second latent joined to it (the upsampler's video).

    patch: latents per token in time, rows, columns. max_size: tokens that the position tables reach, likewise.
    text_widths: of the embeddings of each text encoder (UL2, MetaCLIP, ByT5).
    plain: the "DiT" of the paper's ablation: layer norms, a GELU feed-forward of the same inner width, and biases.

    Raises ValueError where the heads do not divide the width.
    """

    num_layers: int = 48
    width: int = 6144
    inner: int = 16384
    num_heads: int = 48
    in_channels: int = 16
    out_channels: int = 16
    condition_channels: int = 0
    patch: tuple[int, int, int] = (1, 2, 2)
    max_size: tuple[int, int, int] = (128, 64, 64)
    text_widths: tuple[int, ...] = (4096, 1280, 1472)
    norm_eps: float = 1e-5
    plain: bool = False

    def __post_init__(self) -> None:
        if self.width % self.num_heads:
            raise ValueError(f"width {self.width} must be a multiple of num_heads {self.num_heads}.")


def norm(config: MovieGenConfig) -> nn.Module:
    kind = nn.LayerNorm if config.plain else nn.RMSNorm
    return kind(config.width, eps=config.norm_eps)


class PlainFeedForward(nn.Module):
    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.up, self.down = Projection(width, inner), nn.Linear(inner, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(self.up(x))


class Block(nn.Module):
    def __init__(self, config: MovieGenConfig) -> None:
        super().__init__()
        width, bias = config.width, config.plain
        self.norm1, self.norm2 = norm(config), norm(config)
        self.attention = Attention(width, config.num_heads, bias=bias, out_bias=bias)
        self.cross_attention = Attention(width, config.num_heads, bias=bias, out_bias=bias)
        self.feed_forward = (PlainFeedForward if config.plain else SwiGlu)(width, config.inner)
        self.scale_shift_table = nn.Parameter(torch.randn(6, width) / width**0.5)

    def forward(
        self,
        x: Tensor,
        positions: Tensor,
        modulation: Tensor,
        text: Tensor,
        mask: Tensor | None = None,
        parts: Parts | None = None,
    ) -> Tensor:
        """x: (B, N, width). positions: (N, width). modulation: (B, 6, width). text: (B, L, width)."""
        shift1, scale1, gate1, shift2, scale2, gate2 = (self.scale_shift_table + modulation).split(1, dim=1)
        x = x + positions
        normed = together(modulated(self.norm1(x), shift1, scale1), parts)
        x = torch.addcmul(x, gate1, self.attention(normed, parts=parts))
        x = x + self.cross_attention(together(x, parts), text if parts is None else parts.shared(text), mask)
        normed = together(modulated(self.norm2(x), shift2, scale2), parts)
        return torch.addcmul(x, gate2, self.feed_forward(normed))


class TextProjection(nn.Module):
    """Each encoder's embeddings through a linear map and a norm of their own, then one sequence."""

    def __init__(self, config: MovieGenConfig) -> None:
        super().__init__()
        self.maps = nn.ModuleList([nn.Linear(width, config.width, bias=False) for width in config.text_widths])
        self.norms = nn.ModuleList([norm(config) for _ in config.text_widths])

    def forward(self, texts: Sequence[Tensor]) -> Tensor:
        each = zip(self.maps, self.norms, texts, strict=True)
        return torch.cat([normed(to(text)) for to, normed, text in each], dim=1)


class MovieGenTransformer(nn.Module):
    """Predicts the velocity of `generator.objectives.FlowMatching` from a noisy latent, its time and the text."""

    divide: Divide | None

    def __init__(self, config: MovieGenConfig) -> None:
        super().__init__()
        self.config, self.divide = config, None
        width = config.width
        self.patch_embed = nn.Conv3d(config.in_channels + config.condition_channels, width, config.patch, config.patch)
        self.positions = nn.ParameterList([nn.Parameter(torch.randn(n, width) * 0.02) for n in config.max_size])
        self.time_embedding = TimestepEmbedding(256, width)
        self.modulation = nn.Linear(width, 6 * width, bias=False)
        self.text_projection = TextProjection(config)
        self.blocks = nn.ModuleList([Block(config) for _ in range(config.num_layers)])
        self.norm_out = norm(config)
        self.scale_shift_table = nn.Parameter(torch.randn(2, width) / width**0.5)
        elements = config.patch[0] * config.patch[1] * config.patch[2]
        self.proj_out = nn.Linear(width, elements * config.out_channels, bias=False)
        zeroed(self.modulation, self.proj_out)

    def forward(
        self,
        x: Tensor,
        t: Tensor,
        text: Tensor | Sequence[Tensor],
        mask: Tensor | None = None,
        condition: Tensor | None = None,
    ) -> Tensor:
        """x: (B, in_channels, F, H, W) scaled latents; t: (B,) in 0..1, 1 is clean.

        text: one (B, L, text_width) per encoder, in the order of `text_widths`; the tensor itself if there is only one.
        mask: (B, sum of L), true where a text token counts. condition: (B, condition_channels, F, H, W).
        Returns (B, out_channels, F, H, W). Raises ValueError for other shapes, for sizes that the patches do not divide
        or the position tables do not reach.
        """
        config = self.config
        texts = [text] if isinstance(text, Tensor) else list(text)
        fits = [(y.ndim, y.shape[-1]) for y in texts] == [(3, width) for width in config.text_widths]
        wanted = f"{len(config.text_widths)} texts (B, L, {config.text_widths}), got {[tuple(y.shape) for y in texts]}"
        size = patches_of(x, config.patch, config.in_channels, wanted, fits)
        if any(n > known for n, known in zip(size, config.max_size, strict=True)):
            raise ValueError(
                f"{size} tokens in time, rows and columns are more than the position tables reach ({config.max_size}); "
                "generator.dit.moviegen.grown makes them larger."
            )
        x = with_condition(x, condition, config.condition_channels)
        emb = self.time_embedding(t * TIME_SCALE)
        modulation = self.modulation(F.silu(emb)).unflatten(1, (6, -1))
        words, positions = self.text_projection(texts), self.position_table(size)
        tokens = self.patch_embed(x).flatten(2).transpose(1, 2)
        parts = None if self.divide is None else self.divide(tokens.shape[1], 0)
        if parts is not None:
            tokens, positions = parts.mine(tokens, 1), parts.mine(positions, 0)
        for block in self.blocks:
            tokens = block(tokens, positions, modulation, words, mask, parts)
        shift, scale = (self.scale_shift_table + emb[:, None]).split(1, dim=1)
        out = self.proj_out(modulated(self.norm_out(tokens), shift, scale))
        return joined(whole(out, 1, parts), size, config.patch)

    def position_table(self, size: Sequence[int]) -> Tensor:
        """(N, width), the sum of the tables of time, rows and columns."""
        time, rows, columns = (table[:n] for table, n in zip(self.positions, size, strict=True))
        return (time[:, None, None] + rows[:, None] + columns).flatten(0, 2)


@torch.no_grad()
def grown(model: MovieGenTransformer, max_size: tuple[int, int, int], how: str = "interpolate") -> MovieGenTransformer:
    """A model whose position tables reach `max_size`, all else the same.

    Movie Gen grows the tables of space by 2 and starts one of 32 latents in time when it goes from images to videos,
    and those of space by 3 when it goes to 768 pixels. how: "interpolate" stretches a table over the new length, as for
    a higher resolution (a table of one row is repeated); "append" keeps the rows and adds small random ones, as for
    wider pictures: sizes that were known give the same output as before.
    Raises ValueError for tables smaller than now.
    """
    if any(new < old for new, old in zip(max_size, model.config.max_size, strict=True)):
        raise ValueError(f"position tables of {model.config.max_size} cannot shrink to {max_size}.")
    if how not in ("interpolate", "append"):
        raise ValueError(f"position tables grow by 'interpolate' or 'append', not by {how!r}.")
    other = _like(model, replace(model.config, max_size=max_size))
    for new, old in zip(other.positions, model.positions, strict=True):
        if len(new) > len(old) and how == "interpolate":
            new.copy_(stretched(old, len(new)))
        else:
            new.normal_(std=0.02)[: len(old)] = old
    return other


@torch.no_grad()
def conditioned(model: MovieGenTransformer, channels: int) -> MovieGenTransformer:
    """A model that takes `channels` more, with zero weights: until it is trained it answers as `model` does.

    This is how the spatial upsampler starts from a text-to-image model (section 3.1.5).
    """
    other = _like(model, replace(model.config, condition_channels=model.config.condition_channels + channels))
    other.patch_embed.weight.zero_()
    other.patch_embed.weight[:, : model.patch_embed.weight.shape[1]] = model.patch_embed.weight
    return other


def _like(model: MovieGenTransformer, config: MovieGenConfig) -> MovieGenTransformer:
    with torch.device("meta"):
        other = MovieGenTransformer(config)
    first = next(model.parameters())
    other = other.to_empty(device=first.device).to(first.dtype).train(model.training)
    here = model.state_dict()
    same = {name: tensor for name, tensor in here.items() if tensor.shape == other.get_parameter(name).shape}
    other.load_state_dict(same, strict=False)
    return other

"""The transformer of STIV (arXiv 2412.07730, section 2): PixArt-alpha made a video model, in one file.

Attention is factorised: to the tokens of the same frame (2D rotary positions), to the same place at all times (1D
rotary positions), to the text. Queries and keys are RMS-normalised; every sub-layer stands between two layer norms that
have no weights ("sandwich"); one adaptive-norm module, fed with the time, the pooled text and six numbers about the
clip, serves all layers. With MaskDiT half of each frame's tokens skip the blocks, and two more run on all of them.

What the paper leaves open: halves of a head turn with rows and columns, rotary base 10000, one mask for all frames of a
sample, no bias in the patch embedding. Temporal attention and cross-attention carry no scale, shift or gate.
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
    FeedForward,
    TimestepEmbedding,
    joined,
    modulated,
    patches_of,
    plain_norm,
    zeroed,
)
from generator.dit.positions import Rotation, axial_angles, integer_grid, interpolated_grid, rotation
from generator.dit.sequence import Divide, Parts, together, whole

MICRO = ("original height", "original width", "crop top", "crop left", "sampling stride", "frames")


@dataclass(frozen=True, slots=True)
class StivConfig:
    """num_layers: blocks that MaskDiT's dropped tokens skip; post_layers: blocks after them, on all tokens.

    in_channels: of the latent, and of the prediction. patch: latents per token in time, rows, columns. text_width: of
    the text encoder's sequence and of its pooled embedding. trained_size: tokens (time, rows, columns) at which
    positions are the integers; at other sizes they are interpolated. None: integers at every size.
    plus_one: modulation is (1 + scale) x + shift, as in PixArt; without it scale x + shift, as STIV prints it.
    temporal: whether blocks attend over time; the text-to-image models do not.

    Raises ValueError where heads do not divide the width, or a head is not four times a whole number.
    """

    num_layers: int = 28
    post_layers: int = 2
    width: int = 1152
    num_heads: int = 18
    in_channels: int = 8
    patch: tuple[int, int, int] = (2, 2, 2)
    text_width: int = 1280
    trained_size: tuple[int, int, int] | None = None
    plus_one: bool = True
    temporal: bool = True

    def __post_init__(self) -> None:
        if self.width % self.num_heads or self.width // self.num_heads % 4:
            raise ValueError(
                f"width {self.width} over {self.num_heads} heads must be a multiple of 4, to be split over rows and "
                "columns as pairs."
            )

    @property
    def head_dim(self) -> int:
        return self.width // self.num_heads


class Block(nn.Module):
    own = slice(None)
    """Which modulations are this block's."""

    def __init__(self, config: StivConfig) -> None:
        super().__init__()
        self.plus_one = config.plus_one
        self.spatial = Attention(config.width, config.num_heads, qk_norm=True)
        self.temporal = Attention(config.width, config.num_heads, qk_norm=True) if config.temporal else None
        self.cross = Attention(config.width, config.num_heads, qk_norm=True)
        self.feed_forward = FeedForward(config.width)

    def forward(
        self,
        x: Tensor,
        modulation: Sequence[Tensor],
        text: Tensor,
        mask: Tensor | None,
        space: Rotation,
        time: Rotation,
        parts: Parts | None = None,
    ) -> Tensor:
        """x: (B, T, S, width), in which S may be divided. modulation: of (B, 1, 1, width) each; `own` are scale, shift
        and gate for attention and for the feed-forward, and those of a variant's `_along_time`.

        text: (B, L, width). space: of S places, per sample if they differ. time: of T frames.
        """
        scale1, shift1, gate1, scale2, shift2, gate2, *of_time = modulation[self.own]
        frames = x.shape[1]
        normed = together(self._modulated(x, scale1, shift1).flatten(0, 1), parts)
        seen = self.spatial(normed, by=space, parts=parts)
        x = torch.addcmul(x, gate1, self._after(seen).unflatten(0, (-1, frames)))
        if self.temporal is not None:
            x = self._along_time(x, self.temporal, time, of_time)
        x = x + self._after(self.cross(plain_norm(x).flatten(1, 2), text, mask)).view_as(x)
        normed = together(self._modulated(x, scale2, shift2), parts)
        return torch.addcmul(x, gate2, self._after(self.feed_forward(normed)))

    def _along_time(self, x: Tensor, attention: Attention, time: Rotation, modulation: Sequence[Tensor]) -> Tensor:
        return x + self._seen_in_time(plain_norm(x), attention, time)

    def _seen_in_time(self, normed: Tensor, attention: Attention, time: Rotation) -> Tensor:
        seen = self._after(attention(normed.transpose(1, 2).flatten(0, 1), by=time))
        return seen.unflatten(0, (-1, normed.shape[2])).transpose(1, 2)

    def _after(self, x: Tensor) -> Tensor:
        """What is done to the result of every sub-layer."""
        return plain_norm(x)

    def _modulated(self, x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        return modulated(plain_norm(x), shift, scale if self.plus_one else scale - 1)


class Singleton(nn.Module):
    """The condition that is one vector per clip: the sum of its normalised parts."""

    def __init__(self, config: StivConfig) -> None:
        super().__init__()
        self.time = TimestepEmbedding(256, config.width)
        self.pooled = nn.Linear(config.text_width, config.width)
        self.micro = nn.ModuleList([TimestepEmbedding(256, config.width) for _ in MICRO])

    def forward(self, t: Tensor, pooled: Tensor, micro: Tensor) -> Tensor:
        """t: (B,) in 0..1. pooled: (B, text_width). micro: (B, 6), see `MICRO`. Returns (B, width)."""
        parts = [self.time(t * TIME_SCALE), self.pooled(pooled)]
        parts += [embed(number) for embed, number in zip(self.micro, micro.unbind(1), strict=True)]
        return torch.stack([plain_norm(part) for part in parts]).sum(dim=0)


class StivTransformer(nn.Module):
    """Predicts the velocity of `generator.objectives.FlowMatching` (sigma_min 0) from a noisy latent."""

    divide: Divide | None

    def __init__(self, config: StivConfig) -> None:
        super().__init__()
        self.config, self.divide = config, None
        width = config.width
        self.patch_embed = nn.Conv3d(config.in_channels, width, config.patch, config.patch, bias=False)
        self.text_projection = nn.Linear(config.text_width, width)
        self.singleton = Singleton(config)
        self.modulation = nn.Linear(width, 6 * width)
        self.blocks = nn.ModuleList([Block(config) for _ in range(config.num_layers)])
        self.mask_token = nn.Parameter(torch.randn(width) * 0.02)
        self.post_blocks = nn.ModuleList([Block(config) for _ in range(config.post_layers)])
        self.modulation_out = nn.Linear(width, 2 * width)
        elements = config.patch[0] * config.patch[1] * config.patch[2]
        self.proj_out = nn.Linear(width, elements * config.in_channels)
        zeroed(self.modulation, self.modulation_out, self.proj_out)

    def forward(
        self,
        x: Tensor,
        t: Tensor,
        text: Tensor,
        pooled: Tensor,
        micro: Tensor,
        mask: Tensor | None = None,
        keep: Tensor | None = None,
        trained_size: tuple[int, int, int] | None = None,
    ) -> Tensor:
        """x: (B, in_channels, F, H, W) scaled latents, known frames already in place; t: (B,) in 0..1, 1 is clean.

        text: (B, L, text_width); mask: (B, L), true where a token counts. pooled: (B, text_width). micro: (B, 6), the
        numbers of `MICRO`. keep: (B, K) places of a frame that go through the main blocks, all if not given
        (`conditions.random_keep`). trained_size: of the positions, instead of the configuration's.
        Returns (B, in_channels, F, H, W). Raises ValueError for other shapes and sizes that are not whole patches.
        """
        config = self.config
        batch, width = x.shape[0], config.text_width
        fits = text.ndim == 3 and text.shape[2] == width and pooled.shape == (batch, width)
        fits = fits and micro.shape == (batch, len(MICRO))
        wanted = (
            f"text (B, L, {width}), pooled (B, {width}) and micro (B, {len(MICRO)}), got {tuple(text.shape)}, "
            f"{tuple(pooled.shape)} and {tuple(micro.shape)}"
        )
        size = patches_of(x, config.patch, config.in_channels, wanted, fits)
        places, moments = self._positions(size, trained_size or config.trained_size, x.device)

        single = F.silu(self.singleton(t, pooled, micro))
        modulation = self._modulations(single)
        words = self.text_projection(text)
        tokens = self.patch_embed(x).flatten(3).permute(0, 2, 3, 1)  # (B, T, S, width)
        if keep is None:
            tokens = self._run(self.blocks, tokens, modulation, words, mask, places, moments)
        else:
            index = keep[:, None, :, None].expand(-1, size[0], -1, config.width)
            kept = self._run(self.blocks, tokens.gather(2, index), modulation, words, mask, places[keep], moments)
            tokens = self.mask_token.to(kept.dtype).expand_as(tokens).scatter(2, index, kept)
        tokens = self._run(self.post_blocks, tokens, modulation, words, mask, places, moments)

        scale, shift = self.modulation_out(single)[:, None].chunk(2, dim=-1)
        out = self.proj_out(modulated(plain_norm(tokens.flatten(1, 2)), shift, scale))
        return joined(out, size, config.patch)

    def _modulations(self, single: Tensor) -> Sequence[Tensor]:
        """Six of (B, 1, 1, width), for every block."""
        return self.modulation(single)[:, None, None].chunk(6, dim=-1)

    def _run(
        self,
        blocks: nn.ModuleList,
        tokens: Tensor,
        modulation: Sequence[Tensor],
        words: Tensor,
        mask: Tensor | None,
        places: Tensor,
        moments: Tensor,
    ) -> Tensor:
        """places: (S, 2), or (B, S, 2) where they differ. moments: (T, 1)."""
        half = self.config.head_dim // 2
        angles = axial_angles(places, (half, half))
        if angles.ndim == 3:  # places of their own per sample: the same for all frames and heads
            angles = angles.repeat_interleave(tokens.shape[1], dim=0)[:, None]
        parts = None if self.divide is None else self.divide(tokens.shape[2], 0)
        if parts is not None:
            tokens, angles = parts.mine(tokens, 2), parts.queried(angles, angles.ndim - 2)
        space, time = rotation(angles), rotation(axial_angles(moments, (self.config.head_dim,)))
        for block in blocks:
            tokens = block(tokens, modulation, words, mask, space, time, parts)
        return whole(tokens, 2, parts)

    @staticmethod
    def _positions(
        size: tuple[int, int, int], trained: tuple[int, int, int] | None, device: torch.device
    ) -> tuple[Tensor, Tensor]:
        """(S, 2) rows and columns of a frame's tokens, and (T, 1) times."""
        if trained is None:
            return integer_grid(*size[1:], device=device), integer_grid(size[0], device=device)
        return (
            interpolated_grid(size[1:], trained[1:], device=device),
            interpolated_grid(size[:1], trained[:1], device=device),
        )


@torch.no_grad()
def inflated(image: StivTransformer, config: StivConfig) -> StivTransformer:
    """A video model that starts from an image model: everything but temporal attention, which starts anew.

    The patch embedding is spread evenly over `config.patch[0]` latents in time and the prediction is repeated for each,
    so that the tokens of a still film are those of its image.

    Source: STIV, section 2.5. Raises ValueError unless only `patch` in time, `trained_size` and `temporal` differ.
    """
    same = replace(config, patch=image.config.patch, trained_size=image.config.trained_size, temporal=False)
    if same != replace(image.config, temporal=False):
        raise ValueError("an image and a video model may differ in patch, trained_size and temporal only.")
    if image.config.patch[0] != 1 or config.patch[1:] != image.config.patch[1:]:
        raise ValueError(f"an image model of patch {image.config.patch} cannot become one of patch {config.patch}.")
    video, time = StivTransformer(config), config.patch[0]
    state = {name: tensor for name, tensor in image.state_dict().items() if ".temporal." not in name}
    state["patch_embed.weight"] = state["patch_embed.weight"].expand(-1, -1, time, -1, -1) / time
    for name in ("proj_out.weight", "proj_out.bias"):  # elements of a token are (channel, time, row, column)
        parts = state[name].unflatten(0, (config.in_channels, 1, -1))
        state[name] = parts.repeat_interleave(time, dim=1).flatten(0, 2)
    video.load_state_dict(state, strict=False)
    return video.to(image.mask_token).train(image.training)

"""The transformer of EasyAnimate's third version (arXiv 2405.18991, section 3): PixArt-alpha with motion modules.

Each block is PixArt's (arXiv 2310.00426): attention within a frame, cross-attention to the text, a feed-forward, and
one adaptive norm for all layers; between the first two stands a motion module (`generator.dit.motion`). Long skips join
early to late blocks as in U-ViT (arXiv 2209.12152), through linear maps that start at zero, so that a trained model can
be given them. An image guides twice: as tokens made of its CLIP embedding, which start at zero, and as latents of a
mask and of the masked video beside the noisy ones.

Parameter names are those of the released `Transformer3DModel`; without motion modules, skips and guidance those of
diffusers' `PixArtTransformer2DModel`, which this model then equals frame by frame.
"""

# mypy: disable-error-code="no-any-return, no-untyped-call"

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from generator.dit.layers import (
    Attention,
    FeedForward,
    Projection,
    TimestepEmbedding,
    joined,
    modulated,
    patches_of,
    plain_norm,
    with_condition,
    zeroed,
)
from generator.dit.motion import MotionModule
from generator.dit.positions import sinusoid
from generator.dit.sequence import Divide, Parts, whole

CLIP_TOKENS = 8


@dataclass(frozen=True, slots=True)
class EasyAnimateConfig:
    """latent_channels: of the noisy latent. condition_channels: of the mask's and the masked video's latents together.

    out_channels: of the prediction: noise, then what its variance is interpolated by. caption_width: of the text
    embedding. clip_width: of the image's CLIP embedding, 0 for none. sample_size: of the latents trained on (short
    side); it sets the scale of the positions, and at 128 the resolution and aspect ratio are conditions too.
    motion_even, motion_odd: what the motion modules of even and odd blocks attend to; empty for an image model.
    motion_groups: of their group norms. skips: long skips on.

    Raises ValueError where parts do not fit together.
    """

    num_layers: int = 28
    num_attention_heads: int = 16
    attention_head_dim: int = 72
    latent_channels: int = 4
    condition_channels: int = 8
    out_channels: int = 8
    patch_size: int = 2
    caption_width: int = 4096
    clip_width: int = 768
    sample_size: int = 64
    motion_even: tuple[str, ...] = ("temporal", "temporal")
    motion_odd: tuple[str, ...] = ("temporal", "global")
    motion_heads: int = 16
    motion_blocks: int = 1
    motion_groups: int = 32
    skips: bool = True

    def __post_init__(self) -> None:
        if self.width % 4 or self.width % self.motion_heads or self.width % self.motion_groups:
            raise ValueError(
                f"width {self.width} must be a multiple of 4, of motion_heads {self.motion_heads} and of motion_groups "
                f"{self.motion_groups}."
            )

    @property
    def width(self) -> int:
        return self.num_attention_heads * self.attention_head_dim

    @property
    def skip_count(self) -> int:
        """Blocks 0 .. n - 1 are joined to the last n, the first to the last; the two in the middle to none."""
        return max(self.num_layers // 2 - 1, 0) if self.skips else 0

    @property
    def sizes_are_conditions(self) -> bool:
        return self.sample_size == 128


class PatchEmbed(nn.Module):
    def __init__(self, config: EasyAnimateConfig) -> None:
        super().__init__()
        channels, patch = config.latent_channels + config.condition_channels, config.patch_size
        self.proj = nn.Conv2d(channels, config.width, patch, stride=patch)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, F, H, W) -> (B, F, S, width)."""
        tokens = self.proj(x.transpose(1, 2).flatten(0, 1)).flatten(2).transpose(1, 2)
        return tokens.unflatten(0, (x.shape[0], x.shape[2]))


class ConditionEmbedding(nn.Module):
    """The time and, for models of 1024 pixels, resolution and aspect ratio; a third of the width for each number."""

    def __init__(self, config: EasyAnimateConfig) -> None:
        super().__init__()
        self.timestep_embedder = TimestepEmbedding(256, config.width)
        if config.sizes_are_conditions:
            self.resolution_embedder = TimestepEmbedding(256, config.width // 3)
            self.aspect_ratio_embedder = TimestepEmbedding(256, config.width // 3)
            zeroed(self.resolution_embedder.linear_2, self.aspect_ratio_embedder.linear_2)

    def forward(self, t: Tensor, resolution: Tensor | None, aspect: Tensor | None) -> Tensor:
        emb = self.timestep_embedder(t)
        if resolution is None or aspect is None:
            return emb
        height_width = self.resolution_embedder(resolution.flatten()).view(len(t), -1)
        return emb + torch.cat([height_width, self.aspect_ratio_embedder(aspect.flatten()).view(len(t), -1)], dim=1)


class AdaptiveNorm(nn.Module):
    """adaLN-single: one linear map from the condition to the six modulations, for all layers."""

    def __init__(self, config: EasyAnimateConfig) -> None:
        super().__init__()
        self.emb = ConditionEmbedding(config)
        self.linear = nn.Linear(config.width, 6 * config.width)


class TextProjection(nn.Module):
    def __init__(self, width: int, inner: int, out: int) -> None:
        super().__init__()
        self.linear_1, self.linear_2 = nn.Linear(width, inner), nn.Linear(inner, out)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear_2(F.gelu(self.linear_1(x), approximate="tanh"))


class Block(nn.Module):
    def __init__(self, config: EasyAnimateConfig, motion: tuple[str, ...]) -> None:
        super().__init__()
        width, heads = config.width, config.num_attention_heads
        self.attn1, self.attn2 = Attention(width, heads), Attention(width, heads)
        self.attn_temporal = (
            MotionModule(width, config.motion_heads, motion, config.motion_blocks, config.motion_groups)
            if motion
            else None
        )
        self.ff = FeedForward(width, Projection)
        self.scale_shift_table = nn.Parameter(torch.randn(6, width) / width**0.5)

    def forward(
        self, x: Tensor, modulation: Tensor, text: Tensor, mask: Tensor | None, parts: Parts | None = None
    ) -> Tensor:
        """x: (B, F, S, width), in which F may be divided. modulation: (B, 6, width). text: (B, L, width). mask:
        (B, L)."""
        sets = (self.scale_shift_table + modulation)[:, :, None, None].unbind(1)
        shift1, scale1, gate1, shift2, scale2, gate2 = sets
        seen = self.attn1(modulated(plain_norm(x), shift1, scale1).flatten(0, 1)).view_as(x)
        x = torch.addcmul(x, gate1, seen)
        if self.attn_temporal is not None:
            x = self.attn_temporal(x, parts)
        x = x + self.attn2(x.flatten(1, 2), text, mask).view_as(x)  # no norm before it, as in PixArt
        return torch.addcmul(x, gate2, self.ff(modulated(plain_norm(x), shift2, scale2)))


class EasyAnimateTransformer(nn.Module):
    """Predicts noise and its variance (`generator.objectives.LearnedVariance`) from a noisy latent."""

    divide: Divide | None

    def __init__(self, config: EasyAnimateConfig) -> None:
        super().__init__()
        self.config, self.divide = config, None
        width = config.width
        self.pos_embed = PatchEmbed(config)
        self.adaln_single = AdaptiveNorm(config)
        self.caption_projection = TextProjection(config.caption_width, width, width)
        if config.clip_width:
            self.clip_projection = TextProjection(config.clip_width, CLIP_TOKENS * width, CLIP_TOKENS * width)
            zeroed(self.clip_projection.linear_2)
        self.transformer_blocks = nn.ModuleList(
            [Block(config, config.motion_odd if k % 2 else config.motion_even) for k in range(config.num_layers)]
        )
        self.long_connect_fc = nn.ModuleList([nn.Linear(width, width) for _ in range(config.skip_count)])
        zeroed(*self.long_connect_fc)
        self.scale_shift_table = nn.Parameter(torch.randn(2, width) / width**0.5)
        self.proj_out = nn.Linear(width, config.patch_size**2 * config.out_channels)

    def forward(
        self,
        x: Tensor,
        t: Tensor,
        text: Tensor,
        mask: Tensor | None = None,
        condition: Tensor | None = None,
        image: Tensor | None = None,
        image_mask: Tensor | None = None,
        resolution: Tensor | None = None,
        aspect: Tensor | None = None,
    ) -> Tensor:
        """x: (B, latent_channels, F, H, W) scaled latents; t: (B,) in 0..999; text: (B, L, caption_width).

        mask: (B, L), true where a token counts. condition: (B, condition_channels, F, H, W), the latents of the mask
        and of the masked video; zeros if not given, which is text-to-video. image: (B, clip_width) CLIP embedding;
        image_mask: (B,), false drops an image's tokens. resolution: (B, 2) height and width in pixels, aspect: (B, 1);
        exactly for models of sample_size 128.
        Returns (B, out_channels, F, H, W). Raises ValueError for other shapes and sizes that the patches do not divide.
        """
        config = self.config
        patch = (1, config.patch_size, config.patch_size)
        fits = text.ndim == 3 and text.shape[2] == config.caption_width
        wanted = f"text (B, L, {config.caption_width}), got {tuple(text.shape)}"
        size = patches_of(x, patch, config.latent_channels, wanted, fits)
        if config.sizes_are_conditions != (resolution is not None) or (resolution is None) != (aspect is None):
            raise ValueError("resolution and aspect must be given exactly for models of sample_size 128.")
        if condition is None and config.condition_channels:
            condition = x.new_zeros(x.shape[0], config.condition_channels, *x.shape[2:])

        x = with_condition(x, condition, config.condition_channels)
        tokens = self.pos_embed(x)
        tokens = tokens + self.positions(*size[1:], device=x.device).to(tokens.dtype)
        emb = self.adaln_single.emb(t, resolution, aspect)
        modulation = self.adaln_single.linear(F.silu(emb)).unflatten(1, (6, -1))
        words, mask = self._words(text, mask, image, image_mask)
        parts = None if self.divide is None else self.divide(tokens.shape[1], 0)
        tokens = tokens if parts is None else parts.mine(tokens, 1)
        early: list[Tensor] = []
        for number, block in enumerate(self.transformer_blocks):
            if number >= config.num_layers - config.skip_count:
                later = number - (config.num_layers - config.skip_count)
                tokens = tokens + self.long_connect_fc[later](early.pop())
            tokens = block(tokens, modulation, words, mask, parts)
            if number < config.skip_count:
                early.append(tokens)
        shift, scale = (self.scale_shift_table + emb[:, None]).split(1, dim=1)
        out = self.proj_out(modulated(plain_norm(tokens), shift[:, None], scale[:, None]))
        return joined(whole(out, 1, parts).flatten(1, 2), size, patch, channels_last=True)

    def positions(self, rows: int, columns: int, device: torch.device | None = None) -> Tensor:
        """(rows * columns, width): sinusoids of coordinates scaled to those of the training size, columns first."""
        config = self.config
        base, scale = config.sample_size // config.patch_size, max(config.sample_size // 64, 1)
        row, column = (
            sinusoid(torch.arange(n, dtype=torch.float32, device=device) / (n / base) / scale, config.width // 2)
            for n in (rows, columns)
        )
        return torch.cat([column.expand(rows, -1, -1), row[:, None].expand(-1, columns, -1)], dim=-1).flatten(0, 1)

    def _words(
        self, text: Tensor, mask: Tensor | None, image: Tensor | None, image_mask: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        words = self.caption_projection(text)
        if image is None:
            return words, mask
        if not self.config.clip_width:
            raise ValueError("this model takes no image: its clip_width is 0.")
        tokens = self.clip_projection(image).unflatten(1, (CLIP_TOKENS, -1))
        if mask is not None or image_mask is not None:
            full = torch.ones(len(text), text.shape[1], dtype=torch.bool, device=text.device)
            seen = full.new_ones(len(text)) if image_mask is None else image_mask.bool()
            mask = torch.cat([full if mask is None else mask.bool(), seen[:, None].expand(-1, CLIP_TOKENS)], dim=1)
        return torch.cat([words, tokens], dim=1), mask


@torch.no_grad()
def upgraded(model: EasyAnimateTransformer, config: EasyAnimateConfig) -> EasyAnimateTransformer:
    """A model of `config` with all weights that `model` has; what is new starts so that the output stays the same.

    New motion modules, skips and condition channels contribute nothing until they are trained; new image tokens are
    zeros, which cross-attention sees only where an image is given.
    Raises ValueError where anything but these differs.
    """
    motion = ("motion_even", "motion_odd", "motion_heads", "motion_blocks", "motion_groups")
    new = ("condition_channels", "clip_width", *motion, "skips")
    same = replace(config, **{name: getattr(model.config, name) for name in new})
    if same != model.config:
        raise ValueError(f"an upgrade may change {', '.join(new)}; everything else must stay as it is.")
    other, here = EasyAnimateTransformer(config), model.state_dict()
    patches = torch.zeros_like(other.pos_embed.proj.weight)
    known = min(patches.shape[1], here["pos_embed.proj.weight"].shape[1])
    patches[:, :known] = here["pos_embed.proj.weight"][:, :known]
    wanted = other.state_dict()
    kept = {name: tensor for name, tensor in here.items() if name in wanted and tensor.shape == wanted[name].shape}
    other.load_state_dict({**kept, "pos_embed.proj.weight": patches}, strict=False)
    return other.to(model.proj_out.weight).train(model.training)

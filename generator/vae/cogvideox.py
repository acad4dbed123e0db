"""The 3D causal VAE of CogVideoX (arXiv 2408.06072, section 2.1), in one file.

Compression is 8 x 8 in space and 4 in time at the published size. Parameter names and configuration are those of
diffusers' `AutoencoderKLCogVideoX`, one to one, so weights travel both ways. Two facts to know:

- The convolutions are causal, the group norms are not: they pool over all frames of a chunk. Chunked and unchunked
  results therefore differ, and the released weights are meant for the chunks used here (8 frames, 2 latents).
- F = 4k + 1 frames are k + 1 latents, for every k. diffusers decodes an even number T of latents to 4T frames
  instead, because it tells the first chunk by its odd length; we tell it by being first. Odd T give equal results.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_BLOCKS = 4
FRAMES_PER_CHUNK = 8
LATENTS_PER_CHUNK = 2


@dataclass(frozen=True, slots=True)
class VaeConfig:
    """Fields and defaults of diffusers' config.json (those of CogVideoX-2B).

    block_out_channels: width of each level; all but the last halve height and width, the first
    log2(temporal_compression_ratio) halve time too. layers_per_block: residual blocks per encoder level (the decoder
    has one more). scaling_factor: latents times this have about unit variance; the diffusion model sees those.
    sample_height, sample_width: pixels the weights were trained on, for information.

    Raises ValueError for a value that no released checkpoint uses and this class does not implement.
    """

    in_channels: int = 3
    out_channels: int = 3
    down_block_types: tuple[str, ...] = ("CogVideoXDownBlock3D",) * _BLOCKS
    up_block_types: tuple[str, ...] = ("CogVideoXUpBlock3D",) * _BLOCKS
    block_out_channels: tuple[int, ...] = (128, 256, 256, 512)
    latent_channels: int = 16
    layers_per_block: int = 3
    act_fn: str = "silu"
    norm_eps: float = 1e-6
    norm_num_groups: int = 32
    temporal_compression_ratio: int = 4
    sample_height: int = 480
    sample_width: int = 720
    scaling_factor: float = 1.15258426
    shift_factor: float | None = None
    latents_mean: tuple[float, ...] | None = None
    latents_std: tuple[float, ...] | None = None
    force_upcast: bool = True
    use_quant_conv: bool = False
    use_post_quant_conv: bool = False
    invert_scale_latents: bool = False

    def __post_init__(self) -> None:
        levels = len(self.block_out_channels)
        if self.down_block_types != ("CogVideoXDownBlock3D",) * levels:
            raise ValueError(f"down_block_types must be {levels} times CogVideoXDownBlock3D, got {self.down_block_types}.")
        if self.up_block_types != ("CogVideoXUpBlock3D",) * levels:
            raise ValueError(f"up_block_types must be {levels} times CogVideoXUpBlock3D, got {self.up_block_types}.")
        if self.act_fn not in ("silu", "swish"):
            raise ValueError(f"act_fn {self.act_fn!r} is not supported; the CogVideoX VAE uses silu.")
        if self.use_quant_conv or self.use_post_quant_conv:
            raise ValueError("use_quant_conv and use_post_quant_conv are not supported; CogVideoX checkpoints have neither.")
        if 2**self.temporal_levels != self.temporal_compression_ratio or self.temporal_levels >= levels:
            raise ValueError(
                f"temporal_compression_ratio {self.temporal_compression_ratio} must be a power of two of at most "
                f"2^{levels - 1}, the number of downsampling levels."
            )

    @property
    def temporal_levels(self) -> int:
        return int(math.log2(self.temporal_compression_ratio))

    @property
    def spatial_compression_ratio(self) -> int:
        return int(2 ** (len(self.block_out_channels) - 1))


@dataclass(slots=True)
class Stream:
    """What a causal network remembers between the chunks of one video: the last input frames of each convolution."""

    first: bool = True
    tails: dict[nn.Module, Tensor] = field(default_factory=dict)


Video: TypeAlias = Tensor
"""(B, C, F, H, W)"""


def _per_frame(layer: nn.Conv2d, x: Video) -> Video:
    batch, _, frames, _, _ = x.shape
    y = layer(x.transpose(1, 2).flatten(0, 1))
    return y.unflatten(0, (batch, frames)).transpose(1, 2)


class CausalConv3d(nn.Module):
    """Convolution that sees this frame and the k - 1 before it; before the first frame, the first frame repeated."""

    def __init__(self, channels: int, out_channels: int, kernel: int) -> None:
        super().__init__()
        self.before = kernel - 1
        self.conv = nn.Conv3d(channels, out_channels, kernel, padding=(0, kernel // 2, kernel // 2))

    def forward(self, x: Video, stream: Stream) -> Video:
        if self.before:
            tail = x[:, :, :1].expand(-1, -1, self.before, -1, -1) if stream.first else stream.tails[self]
            x = torch.cat([tail, x], dim=2)
            stream.tails[self] = x[:, :, -self.before :]
        return self.conv(x)


class GroupNorm(nn.GroupNorm):
    """Pools over all frames of the chunk. Takes the latent that `SpatialNorm` needs, and ignores it."""

    def forward(self, x: Video, latent: Tensor | None = None, first: bool = True) -> Video:
        return super().forward(x)


class SpatialNorm(nn.Module):
    """Group norm whose scale and shift are read from the latent at each place (MoVQ, arXiv 2209.09002)."""

    def __init__(self, channels: int, latent_channels: int, groups: int) -> None:
        super().__init__()
        self.norm_layer = nn.GroupNorm(groups, channels, eps=1e-6)
        self.conv_y = _pointwise(latent_channels, channels)
        self.conv_b = _pointwise(latent_channels, channels)

    def forward(self, x: Video, latent: Tensor | None = None, first: bool = True) -> Video:
        assert latent is not None, "the decoder passes its input to every norm"
        if first and x.shape[2] > 1:
            latent = torch.cat([_resize(latent[:, :, :1], x[:, :, :1]), _resize(latent[:, :, 1:], x[:, :, 1:])], dim=2)
        else:
            latent = _resize(latent, x)
        return self.norm_layer(x) * self.conv_y["conv"](latent) + self.conv_b["conv"](latent)


def _pointwise(channels: int, out_channels: int) -> nn.ModuleDict:
    # The extra level only gives the parameters their published names (`conv_y.conv.weight`).
    return nn.ModuleDict({"conv": nn.Conv3d(channels, out_channels, 1)})


def _resize(latent: Video, like: Video) -> Video:
    return F.interpolate(latent, size=like.shape[-3:], mode="nearest")


class ResBlock(nn.Module):
    """Norm, swish, convolution, twice, plus the input. Conditioned on the latent where `latent_channels` is given."""

    def __init__(self, channels: int, out_channels: int, groups: int, eps: float, latent_channels: int = 0) -> None:
        super().__init__()
        self.norm1: nn.Module
        self.norm2: nn.Module
        if latent_channels:
            self.norm1 = SpatialNorm(channels, latent_channels, groups)
            self.norm2 = SpatialNorm(out_channels, latent_channels, groups)
        else:
            self.norm1 = GroupNorm(groups, channels, eps=eps)
            self.norm2 = GroupNorm(groups, out_channels, eps=eps)
        self.conv1 = CausalConv3d(channels, out_channels, 3)
        self.conv2 = CausalConv3d(out_channels, out_channels, 3)
        self.conv_shortcut = nn.Conv3d(channels, out_channels, 1) if channels != out_channels else nn.Identity()

    def forward(self, x: Video, stream: Stream, latent: Tensor | None = None) -> Video:
        h = self.conv1(F.silu(self.norm1(x, latent, stream.first)), stream)
        h = self.conv2(F.silu(self.norm2(h, latent, stream.first)), stream)
        return h + self.conv_shortcut(x)


class Downsample(nn.Module):
    """Halves height and width; with `time`, averages pairs of frames too, the very first frame kept by itself."""

    def __init__(self, channels: int, time: bool) -> None:
        super().__init__()
        self.time = time
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Video, first: bool) -> Video:
        if self.time and x.shape[2] > 1:
            alone, pairs = (x[:, :, :1], x[:, :, 1:]) if first else (x[:, :, :0], x)
            x = torch.cat([alone, F.avg_pool3d(pairs, (2, 1, 1))], dim=2)
        return _per_frame(self.conv, F.pad(x, (0, 1, 0, 1)))


class Upsample(nn.Module):
    """Doubles height and width; with `time`, doubles every frame but the very first too."""

    def __init__(self, channels: int, time: bool) -> None:
        super().__init__()
        self.time = time
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Video, first: bool) -> Video:
        x = x.repeat_interleave(2, dim=3).repeat_interleave(2, dim=4)
        if self.time:
            alone, rest = (x[:, :, :1], x[:, :, 1:]) if first else (x[:, :, :0], x)
            x = torch.cat([alone, rest.repeat_interleave(2, dim=2)], dim=2)
        return _per_frame(self.conv, x)


class Level(nn.Module):
    """Residual blocks of one width, then at most one change of size; also the two blocks in the middle."""

    def __init__(self, resnets: list[ResBlock], down: Downsample | None = None, up: Upsample | None = None) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(resnets)
        if down is not None:
            self.downsamplers = nn.ModuleList([down])
        if up is not None:
            self.upsamplers = nn.ModuleList([up])
        self.resize = down or up

    def forward(self, x: Video, stream: Stream, latent: Tensor | None = None) -> Video:
        for resnet in self.resnets:
            x = resnet(x, stream, latent)
        return x if self.resize is None else self.resize(x, stream.first)

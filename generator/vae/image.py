"""A VAE of images, used frame by frame: STIV's (arXiv 2412.07730), and that of Movie Gen's upsampler.

Parameter names and configuration are those of diffusers' `AutoencoderKL`, one to one, so Stable Diffusion's VAEs
(`sd-vae-ft-ema`, SD 3.5) are read as they are. Every frame is coded alone, `frames` at a time, so memory does not grow
with the film, and a chunk more or less changes nothing.

Encoder and decoder are put together from `Parts`; those here keep to one frame, those of `tae` look along time too.
Those here see frames as samples (`frames_of`) and give back views, so between them no frame is moved in memory.
"""

# mypy: disable-error-code="no-any-return, no-untyped-call"

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from generator.vae.shapes import check_channels, check_video
from generator.vae.stream import Video, activated, added
from generator.vae.tiles import Place, Tiling

FRAMES_PER_CHUNK = 4


@dataclass(frozen=True, slots=True)
class ImageVaeConfig:
    """Fields of diffusers' config.json, with the values of Stable Diffusion's VAE.

    block_out_channels: width of each level; all but the last halve height and width. scaling_factor, shift_factor:
    (latent - shift) * scale has about unit variance. sample_size: pixels of a side trained on, also of a tile.

    Raises ValueError for values that this class does not implement.
    """

    in_channels: int = 3
    out_channels: int = 3
    down_block_types: tuple[str, ...] = ("DownEncoderBlock2D",) * 4
    up_block_types: tuple[str, ...] = ("UpDecoderBlock2D",) * 4
    block_out_channels: tuple[int, ...] = (128, 256, 512, 512)
    layers_per_block: int = 2
    act_fn: str = "silu"
    latent_channels: int = 4
    norm_num_groups: int = 32
    sample_size: int = 512
    scaling_factor: float = 0.18215
    shift_factor: float | None = None
    latents_mean: tuple[float, ...] | None = None
    latents_std: tuple[float, ...] | None = None
    force_upcast: bool = True
    use_quant_conv: bool = True
    use_post_quant_conv: bool = True
    mid_block_add_attention: bool = True

    def __post_init__(self) -> None:
        levels = len(self.block_out_channels)
        if self.down_block_types != ("DownEncoderBlock2D",) * levels:
            raise ValueError(f"down_block_types {self.down_block_types} must be {levels} DownEncoderBlock2D.")
        if self.up_block_types != ("UpDecoderBlock2D",) * levels:
            raise ValueError(f"up_block_types {self.up_block_types} must be {levels} UpDecoderBlock2D.")
        if self.act_fn != "silu":
            raise ValueError(f"act_fn {self.act_fn!r} is not supported; this VAE uses silu.")

    @property
    def spatial_compression_ratio(self) -> int:
        return int(2 ** (len(self.block_out_channels) - 1))


class Parts(NamedTuple):
    """What an encoder and a decoder are made of."""

    conv: Callable[[int, int, int], nn.Module]
    """(channels, out_channels, kernel)"""
    norm: Callable[[int, int], nn.Module]
    """(groups, channels)"""
    attention: Callable[[int, int], nn.Module]
    """(channels, groups)"""
    down: Callable[[int, int], nn.Module]
    """(channels, level)"""
    up: Callable[[int, int], nn.Module]
    """(channels, level), counted from the widest picture as for `down`"""


def frames_of(x: Video) -> Tensor:
    """(B, C, F, H, W) -> (B * F, C, H, W)."""
    return x.transpose(1, 2).flatten(0, 1)


def video_of(frames: Tensor, batch: int) -> Video:
    """The reverse of `frames_of`, a view."""
    return frames.unflatten(0, (batch, -1)).transpose(1, 2)


class FrameConv(nn.Conv2d):
    """Of every frame."""

    def __init__(self, channels: int, out_channels: int, kernel: int) -> None:
        super().__init__(channels, out_channels, kernel, padding=kernel // 2)

    def forward(self, x: Video) -> Video:
        return video_of(super().forward(frames_of(x)), len(x))


class FrameNorm(nn.GroupNorm):
    """Of every frame by itself."""

    def __init__(self, groups: int, channels: int) -> None:
        super().__init__(groups, channels, eps=1e-6)

    def forward(self, x: Video) -> Video:
        return video_of(super().forward(frames_of(x)), len(x))


class Down(nn.Module):
    """Halves height and width."""

    def __init__(self, channels: int, level: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Video) -> Video:
        return video_of(self.conv(F.pad(frames_of(x), (0, 1, 0, 1))), len(x))


class Up(nn.Module):
    """Doubles height and width."""

    def __init__(self, channels: int, level: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Video) -> Video:
        return video_of(self.conv(F.interpolate(frames_of(x), scale_factor=2.0)), len(x))


class FrameAttention(nn.Module):
    """Self-attention among the places of each frame, one head, plus the input."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.group_norm = nn.GroupNorm(groups, channels, eps=1e-6)
        self.to_q, self.to_k, self.to_v = (nn.Linear(channels, channels) for _ in range(3))
        self.to_out = nn.ModuleList([nn.Linear(channels, channels)])

    def forward(self, x: Video) -> Video:
        tokens = self.group_norm(frames_of(x).flatten(2)).transpose(1, 2)
        q, k, v = (to(tokens).unsqueeze(1) for to in (self.to_q, self.to_k, self.to_v))
        seen = self.to_out[0](F.scaled_dot_product_attention(q, k, v).squeeze(1)).transpose(1, 2)
        # In this order the sum has the layout of the first, channels last, for which convolutions need least memory.
        return video_of(seen.unflatten(-1, x.shape[-2:]), len(x)) + x


class ResBlock(nn.Module):
    """Norm, SiLU, convolution, twice, plus the input."""

    def __init__(self, channels: int, out_channels: int, groups: int, parts: Parts) -> None:
        super().__init__()
        self.norm1 = parts.norm(groups, channels)
        self.conv1 = parts.conv(channels, out_channels, 3)
        self.norm2 = parts.norm(groups, out_channels)
        self.conv2 = parts.conv(out_channels, out_channels, 3)
        self.conv_shortcut = parts.conv(channels, out_channels, 1) if channels != out_channels else nn.Identity()

    def forward(self, x: Video) -> Video:
        h = activated(self.norm1, x)
        h = self.conv1(h)
        h = activated(self.norm2, h)
        h = self.conv2(h)
        return added(h, self.conv_shortcut(x))


class Level(nn.Module):
    """Residual blocks of one width, then at most one change of size."""

    def __init__(self, resnets: list[ResBlock], down: nn.Module | None = None, up: nn.Module | None = None) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(resnets)
        self.downsamplers = nn.ModuleList([down] if down else [])
        self.upsamplers = nn.ModuleList([up] if up else [])

    def forward(self, x: Video) -> Video:
        for layer in (*self.resnets, *self.downsamplers, *self.upsamplers):
            x = layer(x)
        return x


class Middle(nn.Module):
    """A residual block, attention, another residual block."""

    def __init__(self, width: int, groups: int, attends: bool, parts: Parts) -> None:
        super().__init__()
        self.attentions = nn.ModuleList([parts.attention(width, groups)] if attends else [])
        self.resnets = nn.ModuleList([ResBlock(width, width, groups, parts) for _ in range(2)])

    def forward(self, x: Video) -> Video:
        for layer in (self.resnets[0], *self.attentions, self.resnets[1]):
            x = layer(x)
        return x


class Encoder(nn.Module):
    def __init__(self, config: ImageVaeConfig, parts: Parts) -> None:
        super().__init__()
        widths, groups = config.block_out_channels, config.norm_num_groups
        self.conv_in = parts.conv(config.in_channels, widths[0], 3)
        self.down_blocks = nn.ModuleList()
        width = widths[0]
        for level, after in enumerate(widths):
            resnets = [ResBlock(after if k else width, after, groups, parts) for k in range(config.layers_per_block)]
            self.down_blocks.append(Level(resnets, parts.down(after, level) if level < len(widths) - 1 else None))
            width = after
        self.mid_block = Middle(width, groups, config.mid_block_add_attention, parts)
        self.conv_norm_out = parts.norm(groups, width)
        self.conv_out = parts.conv(width, 2 * config.latent_channels, 3)

    def forward(self, x: Video) -> Tensor:
        """-> (B, 2 * latent_channels, T, h, w), mean and log variance."""
        x = self.conv_in(x)
        for level in (*self.down_blocks, self.mid_block):
            x = level(x)
        return self.conv_out(activated(self.conv_norm_out, x))


class Decoder(nn.Module):
    def __init__(self, config: ImageVaeConfig, parts: Parts) -> None:
        super().__init__()
        widths, groups = config.block_out_channels, config.norm_num_groups
        width = widths[-1]
        self.conv_in = parts.conv(config.latent_channels, width, 3)
        self.mid_block = Middle(width, groups, config.mid_block_add_attention, parts)
        self.up_blocks = nn.ModuleList()
        for level in reversed(range(len(widths))):
            after, count = widths[level], config.layers_per_block + 1
            resnets = [ResBlock(after if k else width, after, groups, parts) for k in range(count)]
            self.up_blocks.append(Level(resnets, up=parts.up(after, level) if level else None))
            width = after
        self.conv_norm_out = parts.norm(groups, width)
        self.conv_out = parts.conv(width, config.out_channels, 3)

    def forward(self, z: Tensor) -> Video:
        x = self.conv_in(z)
        for level in (self.mid_block, *self.up_blocks):
            x = level(x)
        return self.conv_out(activated(self.conv_norm_out, x))


class ImageVae(nn.Module):
    """Encoder and decoder of single frames. Latents are unscaled; see `config`."""

    # Names in older files -> names now.
    RENAMED: ClassVar[dict[str, str]] = {
        ".query.": ".to_q.",
        ".key.": ".to_k.",
        ".value.": ".to_v.",
        ".proj_attn.": ".to_out.0.",
    }

    def __init__(self, config: ImageVaeConfig) -> None:
        super().__init__()
        self.config = config
        latent, parts = config.latent_channels, Parts(FrameConv, FrameNorm, FrameAttention, Down, Up)
        self.encoder = Encoder(config, parts)
        self.decoder = Decoder(config, parts)
        self.quant_conv = FrameConv(2 * latent, 2 * latent, 1) if config.use_quant_conv else None
        self.post_quant_conv = FrameConv(latent, latent, 1) if config.use_post_quant_conv else None

    @property
    def tiling(self) -> Tiling:
        """The published tiles: of the size trained on, a quarter of them shared."""
        return Tiling(self.config.sample_size, self.config.sample_size, 0.25, 0.25)

    def latent_shape(self, frames: int, height: int, width: int) -> tuple[int, int, int]:
        """(T, h, w) of a video's latent. Raises ValueError, naming the nearest that fits, where there is none."""
        space = self.config.spatial_compression_ratio
        check_video((frames, height, width), space)
        return frames, height // space, width // space

    def encode_moments(
        self, x: Video, tiling: Tiling | None = None, chunk: int = FRAMES_PER_CHUNK
    ) -> tuple[Tensor, Tensor]:
        """x: (B, 3, F, H, W) in [-1, 1], H and W multiples of 8 (at the published size); an image is F = 1.

        tiling: tile by tile, so that memory grows with the tile; see `tiles`. chunk: frames at a time.
        Returns mean and log variance (clamped to [-30, 20]), each (B, latent_channels, F, H / 8, W / 8).
        Raises ValueError for other shapes.
        """
        check_channels("a video", x, self.config.in_channels)
        self.latent_shape(*x.shape[-3:])

        def coded(part: Video, place: Place) -> Tensor:
            moments = torch.cat([self.encoder(frames) for frames in part.split(chunk, dim=2)], dim=2)
            return self.quant_conv(moments) if self.quant_conv else moments

        space = self.config.spatial_compression_ratio
        moments = tiling.code(coded, x, space, decode=False) if tiling else coded(x, (0, 0))
        mean, logvar = moments.chunk(2, dim=1)
        return mean, logvar.clamp(-30.0, 20.0)

    def decode(self, z: Tensor, tiling: Tiling | None = None, chunk: int = FRAMES_PER_CHUNK) -> Video:
        """z: (B, latent_channels, F, h, w), unscaled. Returns (B, 3, F, 8 h, 8 w), about [-1, 1].

        tiling, chunk: as for `encode_moments`. Raises ValueError for other shapes.
        """
        check_channels("a latent", z, self.config.latent_channels)

        def coded(part: Tensor, place: Place) -> Video:
            part = self.post_quant_conv(part) if self.post_quant_conv else part
            return torch.cat([self.decoder(frames) for frames in part.split(chunk, dim=2)], dim=2)

        return tiling.code(coded, z, self.config.spatial_compression_ratio, decode=True) if tiling else coded(z, (0, 0))

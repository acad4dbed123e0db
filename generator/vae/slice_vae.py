"""EasyAnimate's Slice VAE (arXiv 2405.18991, section 3.2; V3 of the released code): slices in time that share features.

A video is coded in slices of 8 frames, 2 latents, and inside a slice nothing is causal: convolutions see zeros beyond
both ends. Each slice of frames is encoded alone; each slice of latents is decoded together with the one before and the
one after it, up to the block in the middle, and cropped to itself there. Images take a path of their own: a first
frame (of an odd number of frames) is coded as an image, without any doubling of time.

Parameter names and configuration are those of the released `AutoencoderKLMagvit` of EasyAnimate V3 (not diffusers'
class of that name), one to one. Its frame rule: F = 8k frames are 2k latents, F = 8k + 1 frames 2k + 1 latents.
"""

# mypy: disable-error-code="no-any-return, no-untyped-call"

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from generator.vae.magvit import Blocks, Decoder, Encoder, Level, MagvitStream, ResBlock, check_blocks, longer
from generator.vae.shapes import check_channels, check_video
from generator.vae.stream import Stream, Video
from generator.vae.tiles import Place, Tiling

_DOWN = ("SpatialDownBlock3D", *("SpatialTemporalDownBlock3D",) * 3)
_UP = ("SpatialUpBlock3D", *("SpatialTemporalUpBlock3D",) * 3)


@dataclass(frozen=True, slots=True)
class SliceVaeConfig:
    """Fields of EasyAnimate V3's config.json, with the values of its released VAE.

    ch, ch_mult: widths of the levels. mid_block_attention_type: "3d" (over a slice) or "spatial" (over a frame).
    mini_batch_encoder, mini_batch_decoder: frames and latents in a slice.

    Raises ValueError for values that this class does not implement.
    """

    in_channels: int = 3
    out_channels: int = 3
    ch: int = 128
    ch_mult: tuple[int, ...] = (1, 2, 4, 4)
    use_gc_blocks: tuple[bool, ...] | None = None
    down_block_types: tuple[str, ...] = _DOWN
    up_block_types: tuple[str, ...] = _UP
    mid_block_type: str = "MidBlock3D"
    mid_block_use_attention: bool = True
    mid_block_attention_type: str = "3d"
    mid_block_num_attention_heads: int = 1
    layers_per_block: int = 2
    act_fn: str = "silu"
    num_attention_heads: int = 1
    latent_channels: int = 4
    norm_num_groups: int = 32
    scaling_factor: float = 0.18215
    slice_compression_vae: bool = True
    use_tiling: bool = False
    mini_batch_encoder: int = 8
    mini_batch_decoder: int = 2
    slice_mag_vae: bool = False
    cache_compression_vae: bool = False
    spatial_group_norm: bool = False

    def __post_init__(self) -> None:
        check_blocks(self.down_block_types, self.up_block_types, len(self.ch_mult))
        others = self.slice_mag_vae or self.cache_compression_vae or self.spatial_group_norm
        if not self.slice_compression_vae or others:
            raise ValueError(
                "slice_compression_vae must be true; slice_mag_vae, cache_compression_vae and spatial_group_norm "
                "false: of EasyAnimate's own VAEs only V3's is supported."
            )
        if self.mid_block_type != "MidBlock3D" or self.act_fn != "silu" or any(self.use_gc_blocks or ()):
            raise ValueError("mid_block_type must be MidBlock3D, act_fn silu, and use_gc_blocks must be none.")
        if self.mid_block_attention_type not in ("3d", "spatial"):
            raise ValueError(f"mid_block_attention_type {self.mid_block_attention_type!r} must be 3d or spatial.")
        if self.mini_batch_encoder != self.mini_batch_decoder * self.temporal_compression_ratio:
            raise ValueError(
                f"mini_batch_encoder {self.mini_batch_encoder} must be {self.temporal_compression_ratio} times "
                f"mini_batch_decoder {self.mini_batch_decoder}."
            )

    @property
    def widths(self) -> tuple[int, ...]:
        return tuple(self.ch * factor for factor in self.ch_mult)

    @property
    def temporal_compression_ratio(self) -> int:
        return 2 ** sum("Temporal" in kind for kind in self.down_block_types[:-1])

    @property
    def spatial_compression_ratio(self) -> int:
        return int(2 ** (len(self.ch_mult) - 1))


class Slice(MagvitStream):
    """Frames that stand alone: a slice of a video, or (`image`) one picture, whose time is never doubled."""

    def __init__(self, image: bool) -> None:
        super().__init__(smooth=True)
        self.image = image

    def extended(self, layer: nn.Module, x: Video, repeat: int, keep: int) -> Video:
        return F.pad(x, (0, 0, 0, 0, 1, 1))

    def longer(self, x: Video) -> Video:
        return x if self.image else longer(x, self.smooth)


class Attention(nn.Module):
    """Self-attention among the places of a slice, or with `each` of a frame, plus the input."""

    def __init__(self, channels: int, heads: int, groups: int, each: bool) -> None:
        super().__init__()
        self.heads, self.each = heads, each
        self.group_norm = nn.GroupNorm(groups, channels, eps=1e-6)
        self.to_q, self.to_k, self.to_v, self.to_out = (nn.Linear(channels, channels) for _ in range(4))

    def forward(self, x: Video) -> Video:
        places = x.transpose(1, 2).flatten(0, 1).flatten(2) if self.each else x.flatten(2)
        tokens = self.group_norm(places).transpose(1, 2)
        q, k, v = (
            to(tokens).unflatten(-1, (self.heads, -1)).transpose(1, 2) for to in (self.to_q, self.to_k, self.to_v)
        )
        seen = self.to_out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)).transpose(1, 2)
        if self.each:
            return x + seen.unflatten(0, (x.shape[0], -1)).transpose(1, 2).unflatten(-1, x.shape[-2:])
        return x + seen.unflatten(-1, x.shape[-3:])


class Middle(Level):
    """Residual blocks with attention between them."""

    def __init__(self, config: SliceVaeConfig) -> None:
        width, groups, layers = config.widths[-1], config.norm_num_groups, config.layers_per_block
        super().__init__([ResBlock(width, width, groups, each=False) for _ in range(layers)])
        heads, each = config.mid_block_num_attention_heads, config.mid_block_attention_type == "spatial"
        count = layers - 1 if config.mid_block_use_attention else 0
        self.attentions = nn.ModuleList([Attention(width, heads, groups, each) for _ in range(count)])

    def forward(self, x: Video, stream: Stream) -> Video:
        for number, conv in enumerate(self.convs):
            if 0 < number <= len(self.attentions):
                x = self.attentions[number - 1](x)
            x = conv(x, stream)
        return x


class SliceVae(nn.Module):
    """Encoder and decoder, slice by slice. Latents are unscaled; see `config.scaling_factor`."""

    def __init__(self, config: SliceVaeConfig) -> None:
        super().__init__()
        self.config = config
        latent = config.latent_channels
        blocks = Blocks(config.widths, config.layers_per_block, config.norm_num_groups, each=False)
        self.encoder = Encoder(config.in_channels, latent, blocks, config.down_block_types, Middle(config))
        self.decoder = Decoder(latent, config.out_channels, blocks, config.up_block_types, Middle(config))
        self.quant_conv = nn.Conv3d(2 * latent, 2 * latent, 1)
        self.post_quant_conv = nn.Conv3d(latent, latent, 1)

    @property
    def tiling(self) -> Tiling:
        """The released tiles: 384 pixels, a quarter of them shared."""
        return Tiling(384, 384, 0.25, 0.25)

    def latent_shape(self, frames: int, height: int, width: int) -> tuple[int, int, int]:
        """(T, h, w) of a video's latent. Raises ValueError, naming the nearest that fits, where there is none."""
        size, space = self.config.mini_batch_encoder, self.config.spatial_compression_ratio
        check_video((frames, height, width), space, [(size, 0), (size, 1)], f"{size}k or {size}k + 1")
        latents = frames // size * self.config.mini_batch_decoder + frames % size
        return latents, height // space, width // space

    def encode_moments(self, x: Video, tiling: Tiling | None = None) -> tuple[Tensor, Tensor]:
        """x: (B, 3, F, H, W) in [-1, 1], F = 8k or 8k + 1, H and W multiples of 8 (at the published compression).

        tiling: tile by tile, so that memory grows with the tile; see `tiles`.
        Returns mean and log variance (clamped to [-30, 20]), each (B, latent_channels, T, H / 8, W / 8), T as in the
        head of this file. Raises ValueError for other shapes.
        """
        check_channels("a video", x, self.config.in_channels)
        self.latent_shape(*x.shape[-3:])

        def coded(part: Video, place: Place) -> Tensor:
            image, slices = _slices(part, self.config.mini_batch_encoder)
            coded = [self.encoder(alone, Slice(image=True)) for alone in image]
            return torch.cat([*coded, *(self.encoder(piece, Slice(image=False)) for piece in slices)], dim=2)

        space = self.config.spatial_compression_ratio
        whole = tiling.code(coded, x, space, decode=False) if tiling else coded(x, (0, 0))
        mean, logvar = self.quant_conv(whole).chunk(2, dim=1)
        return mean, logvar.clamp(-30.0, 20.0)

    def decode(self, z: Tensor, tiling: Tiling | None = None) -> Video:
        """z: (B, latent_channels, T, h, w), unscaled. Returns (B, 3, F, 8 h, 8 w), about [-1, 1].

        tiling: as for `encode_moments`. Raises ValueError for other shapes.
        """
        check_channels("a latent", z, self.config.latent_channels)
        size = self.config.mini_batch_decoder
        if z.shape[2] % size > 1:
            raise ValueError(f"{z.shape[2]} latents are not slices of {size}, with or without one image before them.")

        def coded(part: Tensor, place: Place) -> Video:
            return torch.cat(list(self.decode_stream(part)), dim=2)

        return tiling.code(coded, z, self.config.spatial_compression_ratio, decode=True) if tiling else coded(z, (0, 0))

    def decode_stream(self, z: Tensor) -> Iterator[Video]:
        """The frames of `decode`, slice by slice, as they are done; memory is bounded by three slices of latents."""
        image, slices = _slices(self.post_quant_conv(z), self.config.mini_batch_decoder)
        for alone in image:
            yield self.decoder(alone, Slice(image=True))
        for number, piece in enumerate(slices):
            before, after = slices[max(number - 1, 0) : number], slices[number + 1 : number + 2]
            start = sum(neighbour.shape[2] for neighbour in before)
            stream = Slice(image=False)
            h = self.decoder.begin(torch.cat([*before, piece, *after], dim=2), stream)
            yield self.decoder.finish(h[:, :, start : start + piece.shape[2]], stream)


def _slices(x: Video, size: int) -> tuple[list[Video], list[Video]]:
    """The frame that is left over, which is an image and comes first, if there is one; slices of `size` frames."""
    alone = x.shape[2] % size
    return [x[:, :, :1]] * alone, [x[:, :, k : k + size] for k in range(alone, x.shape[2], size)]

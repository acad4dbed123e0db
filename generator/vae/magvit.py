"""EasyAnimate's MagViT VAE (arXiv 2405.18991) as of V5: causal convolutions, group norms that see one frame each.

Compression is 8 x 8 in space and 4 in time at the published size. Parameter names and configuration are those of
diffusers' `AutoencoderKLMagvit`, one to one. F = 4k + 1 frames are k + 1 latents. Norms do not pool over time, so a
video coded in chunks of any size equals the video coded whole.

The blocks are also those of the earlier Slice VAE (`slice_vae`), which passes another kind of `Stream` through them.
"""

# mypy: disable-error-code="no-any-return, no-untyped-call"

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from generator.vae.shapes import check_channels, check_chunk, check_piece, check_video
from generator.vae.stream import Stream, Video, activated, added, doubled
from generator.vae.tiles import Place, Tiling

_SPACE, _BOTH = ("SpatialDownBlock3D", "SpatialUpBlock3D"), ("SpatialTemporalDownBlock3D", "SpatialTemporalUpBlock3D")


@dataclass(frozen=True, slots=True)
class MagvitConfig:
    """Fields and defaults of diffusers' config.json (those of EasyAnimate V5).

    Each block but the last halves (or doubles) height and width, a spatio-temporal one the frames too.
    layers_per_block: residual blocks per encoder level (the decoder has one more). spatial_group_norm: norms see one
    frame each; otherwise they pool over the frames of a chunk. scaling_factor: latents times this have about unit
    variance.

    Raises ValueError for values that this class does not implement.
    """

    in_channels: int = 3
    latent_channels: int = 16
    out_channels: int = 3
    block_out_channels: tuple[int, ...] = (128, 256, 512, 512)
    down_block_types: tuple[str, ...] = (_SPACE[0], *(_BOTH[0],) * 3)
    up_block_types: tuple[str, ...] = (_SPACE[1], *(_BOTH[1],) * 3)
    layers_per_block: int = 2
    act_fn: str = "silu"
    norm_num_groups: int = 32
    scaling_factor: float = 0.7125
    spatial_group_norm: bool = True

    def __post_init__(self) -> None:
        check_blocks(self.down_block_types, self.up_block_types, len(self.block_out_channels))
        if self.act_fn != "silu":
            raise ValueError(f"act_fn {self.act_fn!r} is not supported; this VAE uses silu.")

    @property
    def temporal_compression_ratio(self) -> int:
        return 2 ** sum(kind in _BOTH for kind in self.down_block_types[:-1])

    @property
    def spatial_compression_ratio(self) -> int:
        return int(2 ** (len(self.block_out_channels) - 1))


def check_blocks(down: tuple[str, ...], up: tuple[str, ...], count: int) -> None:
    """Raises ValueError unless there are `count` known blocks each way that halve and double time equally often."""
    for what, kinds, place in (("down_block_types", down, 0), ("up_block_types", up, 1)):
        known = (_SPACE[place], _BOTH[place])
        if len(kinds) != count or not set(kinds) <= set(known):
            raise ValueError(f"{what} {kinds} must be {count} of {' and '.join(known)}.")
    if sum(kind in _BOTH for kind in down[:-1]) != sum(kind in _BOTH for kind in up[:-1]):
        raise ValueError(f"up_block_types {up} must double the frames as often as down_block_types {down} halve them.")


class MagvitStream(Stream):
    """A video from its first frame on; that frame has a latent of its own. smooth: doubled frames are interpolated."""

    def __init__(self, smooth: bool = False) -> None:
        super().__init__()
        self.smooth = smooth

    def longer(self, x: Video) -> Video:
        """Twice the frames, but for the first of the video."""
        alone, rest = (x[:, :, :1], x[:, :, 1:]) if self.first else (x[:, :, :0], x)
        return torch.cat([alone, longer(rest, self.smooth)], dim=2) if rest.shape[2] else x


def longer(x: Video, smooth: bool) -> Video:
    """Twice the frames, repeated or interpolated linearly."""
    return F.interpolate(x, scale_factor=(2, 1, 1), mode="trilinear") if smooth else x.repeat_interleave(2, dim=2)


class Conv(nn.Conv3d):
    """What lies before (or around) the frames it is given, the stream decides."""

    def __init__(self, channels: int, out_channels: int, stride: tuple[int, int, int] = (1, 1, 1), padding: int = 1):
        super().__init__(channels, out_channels, 3, stride=stride, padding=(0, padding, padding))

    def forward(self, x: Video, stream: Stream | None = None) -> Video:
        return super().forward(x if stream is None else self.extended(x, stream))

    def extended(self, x: Video, stream: Stream) -> Video:
        return stream.extended(self, x, repeat=2, keep=3 - self.stride[0])


class Norm(nn.GroupNorm):
    """each: see one frame at a time instead of all of a chunk."""

    def __init__(self, groups: int, channels: int, each: bool) -> None:
        super().__init__(groups, channels, eps=1e-6)
        self.each = each

    def forward(self, x: Video) -> Video:
        if not self.each:
            return super().forward(x)
        return super().forward(x.transpose(1, 2).flatten(0, 1)).unflatten(0, (x.shape[0], -1)).transpose(1, 2)


def swished(norm: Norm, x: Video, stream: Stream) -> Video:
    """SiLU of the norm of x."""
    return activated(lambda x: stream.normed(norm, x), x)


class ResBlock(nn.Module):
    """Norm, SiLU, convolution, twice, plus the input."""

    def __init__(self, channels: int, out_channels: int, groups: int, each: bool) -> None:
        super().__init__()
        self.norm1 = Norm(groups, channels, each)
        self.conv1 = Conv(channels, out_channels)
        self.norm2 = Norm(groups, out_channels, each)
        self.conv2 = Conv(out_channels, out_channels)
        self.shortcut = nn.Conv3d(channels, out_channels, 1) if channels != out_channels else nn.Identity()

    def forward(self, x: Video, stream: Stream) -> Video:
        h = swished(self.norm1, x, stream)  # one name: each large tensor is let go as soon as the next is there
        h = self.conv1.extended(h, stream)
        h = self.conv1(h)
        h = swished(self.norm2, h, stream)
        h = self.conv2.extended(h, stream)
        h = self.conv2(h)
        return added(h, self.shortcut(x))


class Downsampler(nn.Module):
    """Halves height and width; with `time`, the frames too."""

    def __init__(self, channels: int, time: bool) -> None:
        super().__init__()
        self.conv = Conv(channels, channels, (2 if time else 1, 2, 2), padding=0)

    def forward(self, x: Video, stream: Stream) -> Video:
        return self.conv(F.pad(x, (0, 1, 0, 1)), stream)


class Upsampler(nn.Module):
    """Doubles height and width; with `time`, lets the stream double the frames."""

    def __init__(self, channels: int, time: bool) -> None:
        super().__init__()
        self.time = time
        self.conv = Conv(channels, channels)

    def forward(self, x: Video, stream: MagvitStream) -> Video:
        x = self.conv(doubled(x), stream)
        return stream.longer(x) if self.time else x


class Level(nn.Module):
    """Residual blocks of one width, then at most one change of size."""

    def __init__(self, convs: list[ResBlock], down: Downsampler | None = None, up: Upsampler | None = None) -> None:
        super().__init__()
        self.convs = nn.ModuleList(convs)
        self.downsampler = down
        self.upsampler = up

    def forward(self, x: Video, stream: Stream) -> Video:
        for conv in self.convs:
            x = conv(x, stream)
        for resize in (self.downsampler, self.upsampler):
            x = x if resize is None else resize(x, stream)
        return x


class Blocks(NamedTuple):
    """Widths of the levels, residual blocks in each, groups of a norm, and whether it sees each frame by itself."""

    widths: tuple[int, ...]
    layers: int
    groups: int
    each: bool


class Encoder(nn.Module):
    """kinds: of the levels, as in `MagvitConfig`. mid: the block in the middle."""

    def __init__(
        self, channels: int, latent_channels: int, blocks: Blocks, kinds: tuple[str, ...], mid: nn.Module
    ) -> None:
        super().__init__()
        widths, layers, groups, each = blocks
        self.conv_in = Conv(channels, widths[0])
        self.down_blocks = nn.ModuleList()
        width = widths[0]
        for number, (after, kind) in enumerate(zip(widths, kinds, strict=True)):
            convs = [ResBlock(after if k else width, after, groups, each) for k in range(layers)]
            last = number == len(widths) - 1
            self.down_blocks.append(Level(convs, down=None if last else Downsampler(after, kind in _BOTH)))
            width = after
        self.mid_block = mid
        self.conv_norm_out = Norm(groups, width, each)
        self.conv_out = Conv(width, 2 * latent_channels)

    def forward(self, x: Video, stream: Stream) -> Tensor:
        """One chunk of frames -> (B, 2 * latent_channels, T, h, w)."""
        x = self.conv_in(x, stream)
        for level in (*self.down_blocks, self.mid_block):
            x = level(x, stream)
        return self.conv_out(swished(self.conv_norm_out, x, stream), stream)


class Decoder(nn.Module):
    """As `Encoder`, back."""

    def __init__(
        self, latent_channels: int, channels: int, blocks: Blocks, kinds: tuple[str, ...], mid: nn.Module
    ) -> None:
        super().__init__()
        widths, layers, groups, each = blocks
        self.conv_in = Conv(latent_channels, widths[-1])
        self.mid_block = mid
        self.up_blocks = nn.ModuleList()
        width = widths[-1]
        for number, (after, kind) in enumerate(zip(reversed(widths), kinds, strict=True)):
            convs = [ResBlock(after if k else width, after, groups, each) for k in range(layers + 1)]
            last = number == len(widths) - 1
            self.up_blocks.append(Level(convs, up=None if last else Upsampler(after, kind in _BOTH)))
            width = after
        self.conv_norm_out = Norm(groups, width, each)
        self.conv_out = Conv(width, channels)

    def forward(self, z: Tensor, stream: Stream) -> Video:
        """One chunk of latents -> frames."""
        return self.finish(self.begin(z, stream), stream)

    def begin(self, z: Tensor, stream: Stream) -> Video:
        """Up to the block in the middle: still one frame per latent."""
        return self.mid_block(self.conv_in(z, stream), stream)

    def finish(self, x: Video, stream: Stream) -> Video:
        for level in self.up_blocks:
            x = level(x, stream)
        return self.conv_out(swished(self.conv_norm_out, x, stream), stream)


class MagvitVae(nn.Module):
    """Encoder and decoder, a few frames at a time. Latents are unscaled; see `config.scaling_factor`."""

    def __init__(self, config: MagvitConfig) -> None:
        super().__init__()
        self.config = config
        latent, width, groups = config.latent_channels, config.block_out_channels[-1], config.norm_num_groups
        blocks = Blocks(config.block_out_channels, config.layers_per_block, groups, config.spatial_group_norm)
        # The published decoder's middle sees one frame at a time whatever spatial_group_norm says.
        mids = [
            Level([ResBlock(width, width, groups, each) for _ in range(blocks.layers)]) for each in (blocks.each, True)
        ]
        self.encoder = Encoder(config.in_channels, latent, blocks, config.down_block_types, mids[0])
        self.decoder = Decoder(latent, config.out_channels, blocks, config.up_block_types, mids[1])
        self.quant_conv = nn.Conv3d(2 * latent, 2 * latent, 1)
        self.post_quant_conv = nn.Conv3d(latent, latent, 1)

    @property
    def tiling(self) -> Tiling:
        """The published tiles: 512 pixels, every 448."""
        return Tiling(512, 512, 1 / 8, 1 / 8)

    def latent_shape(self, frames: int, height: int, width: int) -> tuple[int, int, int]:
        """(T, h, w) of a video's latent. Raises ValueError, naming the nearest that fits, where there is none."""
        ratio, space = self.config.temporal_compression_ratio, self.config.spatial_compression_ratio
        check_video((frames, height, width), space, [(ratio, 1 % ratio)], f"{ratio}k + 1")
        return (frames - 1) // ratio + 1, height // space, width // space

    def encode_moments(self, x: Video, tiling: Tiling | None = None, chunk: int | None = None) -> tuple[Tensor, Tensor]:
        """x: (B, 3, F, H, W) in [-1, 1], F = 4k + 1, H and W multiples of 8 (at the published compression).

        tiling: tile by tile, so that memory grows with the tile; see `tiles`. chunk: frames at a time after the first
        one, a multiple of 4, which it is if not given; without `spatial_group_norm` the weights are meant for that.
        Returns mean and log variance (clamped to [-30, 20]), each (B, latent_channels, k + 1, H / 8, W / 8).
        Raises ValueError for other shapes.
        """
        check_channels("a video", x, self.config.in_channels)
        self.latent_shape(*x.shape[-3:])
        ratio = self.config.temporal_compression_ratio
        size = check_chunk(ratio if chunk is None else chunk, ratio)

        def coded(part: Video, place: Place) -> Tensor:
            return torch.cat(list(self.encode_stream(_pieces(part, size))), dim=2)

        mean, logvar = self._by_tile(coded, x, tiling, decode=False).chunk(2, dim=1)
        return mean, logvar.clamp(-30.0, 20.0)

    def decode(self, z: Tensor, tiling: Tiling | None = None, chunk: int = 1) -> Video:
        """z: (B, latent_channels, T, h, w), unscaled. Returns (B, 3, 4 (T - 1) + 1, 8 h, 8 w), about [-1, 1].

        tiling, chunk: as for `encode_moments`, the chunk in latents. Raises ValueError for other shapes.
        """
        check_channels("a latent", z, self.config.latent_channels)

        def coded(part: Tensor, place: Place) -> Video:
            return torch.cat(list(self.decode_stream(_pieces(part, chunk))), dim=2)

        return self._by_tile(coded, z, tiling, decode=True)

    def encode_stream(self, pieces: Iterable[Video], tiling: Tiling | None = None) -> Iterator[Tensor]:
        """Moments of one video that arrives in pieces: the first of 4k + 1 frames, every other of a multiple of 4.

        Memory is bounded by the piece, and with `tiling` what is computed at a time by the tile.
        Raises ValueError for a piece of another shape.
        """
        streams = self._streams()
        for number, piece in enumerate(pieces):
            check_piece(
                piece, not number, self.config.temporal_compression_ratio, self.config.spatial_compression_ratio
            )
            yield self._by_tile(lambda x, at: self.quant_conv(self.encoder(x, streams[at])), piece, tiling, False)
            _go_on(streams)

    def decode_stream(self, pieces: Iterable[Tensor], tiling: Tiling | None = None) -> Iterator[Video]:
        """Frames of one video whose latents arrive in pieces; memory is bounded as in `encode_stream`."""
        streams = self._streams()
        for piece in pieces:
            yield self._by_tile(lambda z, at: self.decoder(self.post_quant_conv(z), streams[at]), piece, tiling, True)
            _go_on(streams)

    def _streams(self) -> defaultdict[Place, MagvitStream]:
        return defaultdict(lambda: MagvitStream(smooth=not self.config.spatial_group_norm))

    def _by_tile(
        self, code: Callable[[Tensor, Place], Tensor], x: Tensor, tiling: Tiling | None, decode: bool
    ) -> Tensor:
        return (
            code(x, (0, 0)) if tiling is None else tiling.code(code, x, self.config.spatial_compression_ratio, decode)
        )


def _go_on(streams: defaultdict[Place, MagvitStream]) -> None:
    for stream in streams.values():
        stream.first = False


def _pieces(x: Video, size: int) -> list[Video]:
    """The first frame, then `size` at a time."""
    return [x[:, :, :1], *(x[:, :, k : k + size] for k in range(1, x.shape[2], size))]

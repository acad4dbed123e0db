"""The 3D causal VAE of CogVideoX (arXiv 2408.06072, section 2.1), in one file.

Compression is 8 x 8 in space and 4 in time at the published size. Parameter names and configuration are those of
diffusers' `AutoencoderKLCogVideoX`, one to one, so weights travel both ways. Two facts to know:

- The convolutions are causal, the group norms are not: they pool over all frames of a chunk. Chunked and unchunked
  results therefore differ, and the released weights are meant for the chunks used here (8 frames, 2 latents).
- F = 4k + 1 frames are k + 1 latents, for every k. diffusers decodes an even number T of latents to 4T frames
  instead, because it tells the first chunk by its odd length; we tell it by being first. Odd T give equal results.
"""

# mypy: disable-error-code="no-any-return, no-untyped-call"

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from generator.vae.shapes import check_channels, check_chunk, check_piece, check_video
from generator.vae.stream import Stream, Video, activated, added, chunks, doubled, per_frame
from generator.vae.tiles import Place, Tiling

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
            raise ValueError(f"down_block_types {self.down_block_types} must be {levels} CogVideoXDownBlock3D.")
        if self.up_block_types != ("CogVideoXUpBlock3D",) * levels:
            raise ValueError(f"up_block_types {self.up_block_types} must be {levels} CogVideoXUpBlock3D.")
        if self.act_fn not in ("silu", "swish"):
            raise ValueError(f"act_fn {self.act_fn!r} is not supported; the CogVideoX VAE uses silu.")
        if self.use_quant_conv or self.use_post_quant_conv:
            raise ValueError("use_quant_conv and use_post_quant_conv are not supported; no checkpoint has them.")
        if 2**self.temporal_levels != self.temporal_compression_ratio or self.temporal_levels >= levels:
            raise ValueError(
                f"temporal_compression_ratio {self.temporal_compression_ratio} must be a power of two of at most "
                f"2^{levels - 1}, the number of downsampling levels."
            )
        if self.temporal_compression_ratio > FRAMES_PER_CHUNK:
            raise ValueError(
                f"temporal_compression_ratio {self.temporal_compression_ratio} must be at most {FRAMES_PER_CHUNK}, the "
                "frames encoded at a time."
            )

    @property
    def temporal_levels(self) -> int:
        return int(math.log2(self.temporal_compression_ratio))

    @property
    def spatial_compression_ratio(self) -> int:
        return int(2 ** (len(self.block_out_channels) - 1))


class Conv3d(nn.Conv3d):
    """Where there are fewer frames than the kernel sees, all of them are the one frame of an image."""

    def forward(self, x: Video) -> Video:
        if x.shape[2] >= self.kernel_size[0]:
            return super().forward(x)
        return F.conv3d(x, self.weight.sum(2, keepdim=True), self.bias, padding=self.padding)


class CausalConv3d(nn.Module):
    """Convolution that sees this frame and the k - 1 before it; before the first frame, the first frame repeated."""

    def __init__(self, channels: int, out_channels: int, kernel: int) -> None:
        super().__init__()
        self.before = kernel - 1
        self.conv = Conv3d(channels, out_channels, kernel, padding=(0, kernel // 2, kernel // 2))

    def forward(self, x: Video, stream: Stream) -> Video:
        return self.conv(self.extended(x, stream))

    def extended(self, x: Video, stream: Stream) -> Video:
        """x and the frames before it that `conv` sees too; an image stays one frame."""
        if not self.before:
            return x
        longer = stream.extended(self, x, self.before, self.before)
        return x if stream.first and x.shape[2] == 1 else longer


class GroupNorm(nn.GroupNorm):
    """Followed by swish, as every norm here. Takes the latent that `SpatialNorm` needs, and ignores it."""

    def swished(self, x: Video, stream: Stream, latent: Tensor | None = None) -> Video:
        return activated(lambda x: stream.normed(self, x), x)


class SpatialNorm(nn.Module):
    """Group norm whose scale and shift are read from the latent at each place (MoVQ, arXiv 2209.09002)."""

    def __init__(self, channels: int, latent_channels: int, groups: int) -> None:
        super().__init__()
        self.norm_layer = nn.GroupNorm(groups, channels, eps=1e-6)
        self.conv_y = CausalConv3d(latent_channels, channels, 1)
        self.conv_b = CausalConv3d(latent_channels, channels, 1)

    def swished(self, x: Video, stream: Stream, latent: Tensor | None = None) -> Video:
        assert latent is not None, "the decoder passes its input to every norm"
        rows = latent.shape[3]
        # Pointwise convolutions commute with nearest resizing, and the latent is the smaller of the two; rows need
        # not even be repeated.
        scale, shift = (_spread(conv(latent, stream), x, stream.first) for conv in (self.conv_y, self.conv_b))

        def norm(x: Video, scale: Tensor, shift: Tensor) -> Video:
            normed = stream.normed(self.norm_layer, x).unflatten(3, (rows, -1))
            if torch.is_grad_enabled():
                return torch.addcmul(shift, normed, scale).flatten(3, 4)
            return normed.mul_(scale).add_(shift).flatten(3, 4)

        return activated(norm, x, scale, shift)


def _spread(latent: Video, like: Video, first: bool) -> Tensor:
    """Nearest neighbour in time and columns, (B, C, F, h, 1, W); the very first frame has the first latent alone."""
    count, frames = latent.shape[2], like.shape[2]
    if frames != count:
        alone = 1 if first else 0
        later = torch.arange(frames - alone, device=latent.device) * (count - alone) // (frames - alone) + alone
        latent = latent.index_select(2, F.pad(later, (alone, 0)))
    return latent.repeat_interleave(like.shape[4] // latent.shape[4], dim=4).unsqueeze(4)


class ResBlock(nn.Module):
    """Norm, swish, convolution, twice, plus the input. Conditioned on the latent where `latent_channels` is given."""

    def __init__(self, channels: int, out_channels: int, groups: int, eps: float, latent_channels: int = 0) -> None:
        super().__init__()
        self.norm1: GroupNorm | SpatialNorm
        self.norm2: GroupNorm | SpatialNorm
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
        # One name, step by step: of the largest tensors there are, each is let go as soon as the next is there.
        h = self.norm1.swished(x, stream, latent)
        h = self.conv1.extended(h, stream)
        h = self.conv1.conv(h)
        h = self.norm2.swished(h, stream, latent)
        h = self.conv2.extended(h, stream)
        h = self.conv2.conv(h)
        return added(h, self.conv_shortcut(x))


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
        return per_frame(self.conv, F.pad(x, (0, 1, 0, 1)))


class Upsample(nn.Module):
    """Doubles height and width; with `time`, doubles every frame but the very first too."""

    def __init__(self, channels: int, time: bool) -> None:
        super().__init__()
        self.time = time
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Video, first: bool) -> Video:
        if self.time:
            alone, rest = (x[:, :, :1], x[:, :, 1:]) if first else (x[:, :, :0], x)
            x = torch.cat([alone, rest.repeat_interleave(2, dim=2)], dim=2)
        return per_frame(self.conv, doubled(x))


class Level(nn.Module):
    """Residual blocks of one width, then at most one change of size; also the two blocks in the middle."""

    def __init__(self, resnets: list[ResBlock], down: Downsample | None = None, up: Upsample | None = None) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(resnets)
        self.downsamplers = nn.ModuleList([down] if down else [])
        self.upsamplers = nn.ModuleList([up] if up else [])

    def forward(self, x: Video, stream: Stream, latent: Tensor | None = None) -> Video:
        for resnet in self.resnets:
            x = resnet(x, stream, latent)
        for resize in (*self.downsamplers, *self.upsamplers):
            x = resize(x, stream.first)
        return x


class Encoder(nn.Module):
    def __init__(self, config: VaeConfig) -> None:
        super().__init__()
        widths, groups, eps = config.block_out_channels, config.norm_num_groups, config.norm_eps
        self.conv_in = CausalConv3d(config.in_channels, widths[0], 3)
        self.down_blocks = nn.ModuleList()
        width = widths[0]
        for number, after in enumerate(widths):
            blocks = [ResBlock(after if k else width, after, groups, eps) for k in range(config.layers_per_block)]
            last = number == len(widths) - 1
            down = None if last else Downsample(after, time=number < config.temporal_levels)
            self.down_blocks.append(Level(blocks, down=down))
            width = after
        self.mid_block = Level([ResBlock(width, width, groups, eps) for _ in range(2)])
        self.norm_out = GroupNorm(groups, width, eps=1e-6)
        self.conv_out = CausalConv3d(width, 2 * config.latent_channels, 3)

    def forward(self, x: Video, stream: Stream) -> Tensor:
        """One chunk of frames -> (B, 2 * latent_channels, T, h, w), mean and log variance."""
        x = self.conv_in(x, stream)
        for level in (*self.down_blocks, self.mid_block):
            x = level(x, stream)
        x = self.conv_out(self.norm_out.swished(x, stream), stream)
        stream.first = False
        return x


class Decoder(nn.Module):
    def __init__(self, config: VaeConfig) -> None:
        super().__init__()
        groups, eps, latent = config.norm_num_groups, config.norm_eps, config.latent_channels
        widths = config.block_out_channels[::-1]
        width = widths[0]
        self.conv_in = CausalConv3d(latent, width, 3)
        self.mid_block = Level([ResBlock(width, width, groups, eps, latent) for _ in range(2)])
        self.up_blocks = nn.ModuleList()
        for number, after in enumerate(widths):
            count = config.layers_per_block + 1
            blocks = [ResBlock(after if k else width, after, groups, eps, latent) for k in range(count)]
            last = number == len(widths) - 1
            up = None if last else Upsample(after, time=number < config.temporal_levels)
            self.up_blocks.append(Level(blocks, up=up))
            width = after
        self.norm_out = SpatialNorm(width, latent, groups)
        self.conv_out = CausalConv3d(width, config.out_channels, 3)

    def forward(self, z: Tensor, stream: Stream) -> Video:
        """One chunk of latents (B, latent_channels, T, h, w) -> frames."""
        x = self.conv_in(z, stream)
        for level in (self.mid_block, *self.up_blocks):
            x = level(x, stream, z)
        x = self.conv_out(self.norm_out.swished(x, stream, z), stream)
        stream.first = False
        return x


class CogVideoXVae(nn.Module):
    """Encoder and decoder, chunked as the released weights expect.

    Latents here are unscaled; multiply by `config.scaling_factor` for the diffusion model.
    """

    def __init__(self, config: VaeConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)

    @property
    def tiling(self) -> Tiling:
        """The published tiles: half of the size trained on, a sixth of the height and a fifth of the width shared."""
        return Tiling(self.config.sample_height // 2, self.config.sample_width // 2, 1 / 6, 1 / 5)

    def latent_shape(self, frames: int, height: int, width: int) -> tuple[int, int, int]:
        """(T, h, w) of a video's latent. Raises ValueError, naming the nearest that fits, where there is none."""
        ratio, space = self.config.temporal_compression_ratio, self.config.spatial_compression_ratio
        check_video((frames, height, width), space, [(ratio, 1 % ratio)], f"{ratio}k + 1")
        return (frames - 1) // ratio + 1, height // space, width // space

    def encode_moments(
        self, x: Video, tiling: Tiling | None = None, chunk: int = FRAMES_PER_CHUNK
    ) -> tuple[Tensor, Tensor]:
        """x: (B, 3, F, H, W) in [-1, 1], F = 4k + 1, H and W multiples of 8 (at the published compression).

        tiling: tile by tile, so that memory grows with the tile; see `tiles`. chunk: frames at a time, a multiple of 4.
        Returns mean and log variance (clamped to [-30, 20]), each (B, latent_channels, k + 1, H / 8, W / 8).
        Raises ValueError for other shapes.
        """
        check_channels("a video", x, self.config.in_channels)
        self.latent_shape(*x.shape[-3:])
        check_chunk(chunk, self.config.temporal_compression_ratio)

        def coded(part: Video, place: Place) -> Tensor:
            return torch.cat(list(self.encode_stream(chunks(part, chunk))), dim=2)

        mean, logvar = self._by_tile(coded, x, tiling, decode=False).chunk(2, dim=1)
        return mean, logvar.clamp(-30.0, 20.0)

    def decode(self, z: Tensor, tiling: Tiling | None = None, chunk: int = LATENTS_PER_CHUNK) -> Video:
        """z: (B, latent_channels, T, h, w), unscaled. Returns (B, 3, 4 (T - 1) + 1, 8 h, 8 w), about [-1, 1].

        tiling, chunk: as for `encode_moments`, the chunk in latents. Raises ValueError for other shapes.
        """
        check_channels("a latent", z, self.config.latent_channels)

        def coded(part: Tensor, place: Place) -> Video:
            return torch.cat(list(self.decode_stream(chunks(part, chunk))), dim=2)

        return self._by_tile(coded, z, tiling, decode=True)

    def encode_stream(self, pieces: Iterable[Video], tiling: Tiling | None = None) -> Iterator[Tensor]:
        """Moments of one video that arrives in pieces: the first of 4k + 1 frames, every other of a multiple of 4.

        Memory is bounded by the piece, and with `tiling` what is computed at a time by the tile.
        Raises ValueError for a piece of another shape.
        """
        streams: defaultdict[Place, Stream] = defaultdict(Stream)
        for number, piece in enumerate(pieces):
            check_piece(
                piece, not number, self.config.temporal_compression_ratio, self.config.spatial_compression_ratio
            )
            yield self._by_tile(lambda x, place: self.encoder(x, streams[place]), piece, tiling, decode=False)

    def decode_stream(self, pieces: Iterable[Tensor], tiling: Tiling | None = None) -> Iterator[Video]:
        """Frames of one video whose latents arrive in pieces; memory is bounded as in `encode_stream`."""
        streams: defaultdict[Place, Stream] = defaultdict(Stream)
        for piece in pieces:
            yield self._by_tile(lambda z, place: self.decoder(z, streams[place]), piece, tiling, decode=True)

    def _by_tile(
        self, code: Callable[[Tensor, Place], Tensor], x: Tensor, tiling: Tiling | None, decode: bool
    ) -> Tensor:
        return (
            code(x, (0, 0)) if tiling is None else tiling.code(code, x, self.config.spatial_compression_ratio, decode)
        )

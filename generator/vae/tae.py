"""Movie Gen's temporal autoencoder (TAE, arXiv 2410.13720, section 3.1.1): an image VAE that learns to look along time.

"2.5D": every 2D convolution is followed by a 1D one over time, spatial attention by temporal attention. Time is padded
on both sides by repeating the ends; nothing is causal. Compression is 8 x 8 x 8: F frames are ceil(F / 8) latents, and
decoding makes 8 frames of each, of which the spurious ones at the end are dropped.

What the paper leaves open (widths, which levels are temporal, whether norms pool over time) is configuration; the
defaults are those of the public re-implementation in mindone, built on the VAE of Stable Diffusion 3.5. Parameter
names are those of the image VAE plus `time`, and a new model computes, for an image, what its image VAE computes.
"""

# mypy: disable-error-code="no-any-return, no-untyped-call"

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from generator.vae.image import (
    Decoder,
    Down,
    Encoder,
    FrameAttention,
    FrameConv,
    FrameNorm,
    ImageVae,
    ImageVaeConfig,
    Parts,
    Up,
)
from generator.vae.shapes import check_channels, check_video
from generator.vae.stream import Video, per_frame
from generator.vae.tiles import Place, Tiling, crossfade

FRAMES_PER_TILE, LATENTS_PER_TILE, SHARED_LATENTS = 32, 4, 2


@dataclass(frozen=True, slots=True)
class TaeConfig(ImageVaeConfig):
    """`ImageVaeConfig` and: temporal_levels, the levels that halve (and double) time, 0 being the widest picture;
    norm_over_time, whether group norms pool over all frames of a tile or see each frame by itself; full_3d, whether
    convolutions are 3D in place of 2D and then 1D (2.5D), the paper's ablation; those cannot start from an image VAE.
    """

    latent_channels: int = 16
    sample_size: int = 768
    scaling_factor: float = 1.5305
    shift_factor: float | None = 0.0609
    use_quant_conv: bool = False
    use_post_quant_conv: bool = False
    temporal_levels: tuple[int, ...] = (0, 1, 2)
    norm_over_time: bool = True
    full_3d: bool = False

    def __post_init__(self) -> None:
        ImageVaeConfig.__post_init__(self)
        if not set(self.temporal_levels) <= set(range(len(self.block_out_channels) - 1)):
            raise ValueError(
                f"temporal_levels {self.temporal_levels} must be among 0 .. {len(self.block_out_channels) - 2}, the "
                "levels that change the size."
            )

    @property
    def temporal_compression_ratio(self) -> int:
        return int(2 ** len(set(self.temporal_levels)))


def _along_time(channels: int, kernel: int, stride: int = 1) -> nn.Conv3d:
    """A 1D convolution over time that at first hands the frame in its centre through."""
    conv = nn.Conv3d(channels, channels, (kernel, 1, 1), stride=(stride, 1, 1))
    with torch.no_grad():
        nn.init.zeros_(conv.weight)
        conv.weight[:, :, kernel // 2, 0, 0] = torch.eye(channels)
    nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
    return conv


def _over_time(conv: nn.Conv3d, x: Video) -> Video:
    """With the first and the last frame repeated, so that an image sees itself on both sides."""
    return conv(F.pad(x, (0, 0, 0, 0, 1, 1), mode="replicate") if conv.kernel_size[0] == 3 else x)


class Conv25d(FrameConv):
    """2D over the picture, then 1D over time."""

    def __init__(self, channels: int, out_channels: int, kernel: int) -> None:
        super().__init__(channels, out_channels, kernel)
        self.time = _along_time(out_channels, kernel)

    def forward(self, x: Video) -> Video:
        return _over_time(self.time, per_frame(self, x))


class FullConv(nn.Conv3d):
    """3D at once."""

    def __init__(self, channels: int, out_channels: int, kernel: int) -> None:
        super().__init__(channels, out_channels, kernel, padding=(0, kernel // 2, kernel // 2))

    def forward(self, x: Video) -> Video:
        return super().forward(F.pad(x, (0, 0, 0, 0, 1, 1), mode="replicate") if self.kernel_size[0] == 3 else x)


class DownInTime(Down):
    """Halves frames as well: ceil(F / 2) of F."""

    def __init__(self, channels: int, level: int) -> None:
        super().__init__(channels, level)
        self.time = _along_time(channels, 3, stride=2)

    def forward(self, x: Video) -> Video:
        return _over_time(self.time, super().forward(x))


class UpInTime(Up):
    """Doubles frames as well: nearest, then a convolution."""

    def __init__(self, channels: int, level: int) -> None:
        super().__init__(channels, level)
        self.time = _along_time(channels, 3)

    def forward(self, x: Video) -> Video:
        return _over_time(self.time, super().forward(x).repeat_interleave(2, dim=2))


class VideoNorm(nn.GroupNorm):
    """Pools over all frames."""

    def __init__(self, groups: int, channels: int) -> None:
        super().__init__(groups, channels, eps=1e-6)


class TimeAttention(nn.Module):
    """Self-attention along time at each place, one head, plus the input; at first it adds nothing."""

    def __init__(self, channels: int, norm: nn.Module) -> None:
        super().__init__()
        self.group_norm = norm
        self.to_q, self.to_k, self.to_v, self.to_out = (nn.Linear(channels, channels) for _ in range(4))
        nn.init.zeros_(self.to_out.weight)
        nn.init.zeros_(self.to_out.bias)

    def forward(self, x: Video) -> Video:
        tokens = self.group_norm(x).permute(0, 3, 4, 2, 1)  # (B, h, w, T, C)
        q, k, v = (to(tokens) for to in (self.to_q, self.to_k, self.to_v))
        return x + self.to_out(F.scaled_dot_product_attention(q, k, v)).permute(0, 4, 3, 1, 2)


class SpaceTimeAttention(FrameAttention):
    """Within each frame, then along time."""

    def __init__(self, channels: int, groups: int, over_time: bool) -> None:
        super().__init__(channels, groups)
        self.time = TimeAttention(channels, (VideoNorm if over_time else FrameNorm)(groups, channels))

    def forward(self, x: Video) -> Video:
        return self.time(super().forward(x))


class Tae(nn.Module):
    """Encoder and decoder of whole videos, in tiles of 32 frames. Latents are unscaled; see `config`."""

    def __init__(self, config: TaeConfig) -> None:
        super().__init__()
        self.config = config
        latent, over_time = config.latent_channels, config.norm_over_time

        def down(channels: int, level: int) -> nn.Module:
            return (DownInTime if level in config.temporal_levels else Down)(channels, level)

        def up(channels: int, level: int) -> nn.Module:
            # The step up out of level l undoes the step down into it, which is that of level l - 1.
            return (UpInTime if level - 1 in config.temporal_levels else Up)(channels, level)

        def attention(channels: int, groups: int) -> nn.Module:
            return SpaceTimeAttention(channels, groups, over_time)

        conv = FullConv if config.full_3d else Conv25d
        parts = Parts(conv, VideoNorm if over_time else FrameNorm, attention, down, up)
        self.encoder = Encoder(config, parts)
        self.decoder = Decoder(config, parts)
        self.quant_conv = conv(2 * latent, 2 * latent, 1) if config.use_quant_conv else None
        self.post_quant_conv = conv(latent, latent, 1) if config.use_post_quant_conv else None

    @property
    def tiling(self) -> Tiling:
        """Of the picture: of the size trained on, a quarter of them shared (the paper tiles time alone)."""
        return Tiling(self.config.sample_size, self.config.sample_size, 0.25, 0.25)

    def latent_shape(self, frames: int, height: int, width: int) -> tuple[int, int, int]:
        """(T, h, w) of a video's latent. Raises ValueError, naming the nearest that fits, where there is none."""
        ratio, space = self.config.temporal_compression_ratio, self.config.spatial_compression_ratio
        check_video((frames, height, width), space)
        return -(-frames // ratio), height // space, width // space

    def encode_moments(
        self, x: Video, tiling: Tiling | None = None, tile: int | None = FRAMES_PER_TILE
    ) -> tuple[Tensor, Tensor]:
        """x: (B, 3, F, H, W) in [-1, 1], any F, H and W multiples of 8 (at the default size); an image is F = 1.

        tiling: of the picture; see `tiles`. tile: frames at a time, a multiple of 8, without overlap as in the paper;
        None for all at once. Returns mean and log variance (clamped to [-30, 20]), each
        (B, latent_channels, ceil(F / 8), H / 8, W / 8). Raises ValueError for other shapes.
        """
        check_channels("a video", x, self.config.in_channels)
        self.latent_shape(*x.shape[-3:])
        ratio = self.config.temporal_compression_ratio
        if tile is not None and (tile < 1 or tile % ratio):
            raise ValueError(f"tiles of {tile} frames must be multiples of {ratio}.")

        def coded(part: Video, place: Place) -> Tensor:
            moments = torch.cat([self.encoder(frames) for frames in part.split(tile or part.shape[2], dim=2)], dim=2)
            return self.quant_conv(moments) if self.quant_conv else moments

        space = self.config.spatial_compression_ratio
        moments = tiling.code(coded, x, space, decode=False) if tiling else coded(x, (0, 0))
        mean, logvar = moments.chunk(2, dim=1)
        return mean, logvar.clamp(-30.0, 20.0)

    def decode(
        self,
        z: Tensor,
        frames: int | None = None,
        tiling: Tiling | None = None,
        tile: int | None = LATENTS_PER_TILE,
        shared: int = SHARED_LATENTS,
    ) -> Video:
        """z: (B, latent_channels, T, h, w), unscaled. Returns (B, 3, F, 8 h, 8 w), about [-1, 1].

        frames: F, at most 8 T, which is what it is if not given; the rest is spurious and dropped. tiling: of the
        picture; see `tiles`. tile, shared: latents at a time, None for all at once, and how many the next tile
        repeats; their frames are blended linearly. Raises ValueError for other shapes.
        """
        check_channels("a latent", z, self.config.latent_channels)
        ratio = self.config.temporal_compression_ratio
        most = z.shape[2] * ratio
        if frames is not None and not most - ratio < frames <= most:
            raise ValueError(f"{z.shape[2]} latents are {most - ratio + 1} to {most} frames, not {frames}.")

        def coded(part: Tensor, place: Place) -> Video:
            return torch.cat(list(self.decode_stream(part, tile, shared)), dim=2)[:, :, :frames]

        return tiling.code(coded, z, self.config.spatial_compression_ratio, decode=True) if tiling else coded(z, (0, 0))

    def decode_stream(
        self, z: Tensor, tile: int | None = LATENTS_PER_TILE, shared: int = SHARED_LATENTS
    ) -> Iterator[Video]:
        """The frames of `decode`, 8 T of them, as they are done; memory is bounded by the tile."""
        count = z.shape[2]
        if tile is None:
            tile, shared = count, 0
        if not 0 <= shared < tile:
            raise ValueError(f"tiles of {tile} latents cannot share {shared} of them.")
        z = self.post_quant_conv(z) if self.post_quant_conv else z
        overlap = shared * self.config.temporal_compression_ratio
        tail: Video | None = None
        for start in range(0, max(count - shared, 1), tile - shared):
            done = self.decoder(z[:, :, start : start + tile])
            if tail is not None:
                faded = crossfade(tail, done[:, :, : tail.shape[2]], dim=2)
                done = torch.cat([faded, done[:, :, tail.shape[2] :]], dim=2)
            last = start + tile >= count
            kept = done.shape[2] - (0 if last else overlap)
            tail = done[:, :, kept:].clone()
            yield done[:, :, :kept]


def inflate(image: ImageVae, temporal_levels: tuple[int, ...] = (0, 1, 2), norm_over_time: bool = True) -> Tae:
    """A TAE with the weights of an image VAE: of an image it computes the same, before any training."""
    fields = {field.name: getattr(image.config, field.name) for field in dataclasses.fields(ImageVaeConfig)}
    tae = Tae(TaeConfig(**fields, temporal_levels=temporal_levels, norm_over_time=norm_over_time))
    lacking, unknown = tae.load_state_dict(image.state_dict(), strict=False)
    assert not unknown and all(".time." in name for name in lacking), "only what looks along time is new"
    return tae.to(next(image.parameters()))

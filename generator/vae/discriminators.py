"""Networks that tell videos from reconstructions, for training VAEs.

`Patches` looks at single frames (PatchGAN, arXiv 1611.07004), `Clips` at frames in time (EasyAnimate's code), `Films`
at a whole video of 4k + 1 frames at once (CogVideoX's code, after MAGVIT-2). All take (B, C, F, H, W) and return
logits, positive for a real one, whose shape nobody but the loss has to know.
"""

# mypy: disable-error-code="no-any-return, no-untyped-call"

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from generator.vae.cogvideox import CausalConv3d
from generator.vae.stream import Stream, Video, per_frame


class Patches(nn.Module):
    """Of every frame, whether each patch of it is real: three strided layers, so a logit sees 70 x 70 pixels."""

    def __init__(self, channels: int = 3, width: int = 64, layers: int = 3) -> None:
        super().__init__()
        net: list[nn.Module] = [nn.Conv2d(channels, width, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        before = width
        for layer in range(1, layers + 1):
            after, stride = width * min(2**layer, 8), 2 if layer < layers else 1
            net += [
                nn.Conv2d(before, after, 4, stride=stride, padding=1, bias=False),
                nn.BatchNorm2d(after),
                nn.LeakyReLU(0.2),
            ]
            before = after
        self.net = nn.Sequential(*net, nn.Conv2d(before, 1, 4, padding=1))
        self.apply(_drawn_small)

    def forward(self, video: Video) -> Tensor:
        return self.net(video.transpose(1, 2).flatten(0, 1))


class Clips(nn.Module):
    """Residual blocks of 3D convolutions; space and time are halved with a blur before."""

    def __init__(self, channels: int = 3, widths: tuple[int, ...] = (64, 128, 256), groups: int = 32) -> None:
        super().__init__()
        self.conv_in = nn.Conv3d(channels, widths[0], 3, stride=2, padding=1)
        last = len(widths) - 1
        befores = (widths[0], *widths[:-1])
        self.blocks = nn.ModuleList([_ClipBlock(befores[k], after, groups, k < last) for k, after in enumerate(widths)])
        self.conv_out = nn.Conv3d(widths[-1], 1, 3, padding=1)
        self.apply(_drawn_small)

    def forward(self, video: Video) -> Tensor:
        x = self.conv_in(video)
        for block in self.blocks:
            x = block(x)
        return self.conv_out(x)


class _ClipBlock(nn.Module):
    def __init__(self, channels: int, out_channels: int, groups: int, halves: bool) -> None:
        super().__init__()
        self.halves = halves
        self.norm1 = nn.GroupNorm(groups, channels)
        self.conv1 = nn.Conv3d(channels, out_channels, 3, padding=1)
        self.norm2 = nn.GroupNorm(groups, out_channels)
        self.conv2 = nn.Conv3d(out_channels, out_channels, 3, padding=1)
        self.shortcut = nn.Conv3d(channels, out_channels, 1)

    def forward(self, x: Video) -> Video:
        h = self.conv1(F.leaky_relu(self.norm1(x), 0.2))
        h = F.leaky_relu(self.norm2(h), 0.2)
        if self.halves:
            h, x = (blurred(v, axes=3, stride=2) for v in (h, x))
        return (self.conv2(h) + self.shortcut(x)) / math.sqrt(2)


class Films(nn.Module):
    """Of videos of one size: the first log2(frames) blocks halve time as well (causally, the first frame kept apart),
    the others look at the mean over what is left of it and have linear attention among its places.

    dim: a quarter of the first block's width; widths double up to 512. frames, height, width: of the videos.
    Raises ValueError for sides below 8 pixels.
    """

    def __init__(self, dim: int, frames: int, height: int, width: int, channels: int = 3) -> None:
        super().__init__()
        if min(height, width) < 8:
            raise ValueError(f"this discriminator needs pictures of at least 8 x 8, not {height} x {width}.")
        self.size = frames, height, width
        halvings, self.temporal = int(math.log2(min(height, width))) - 2, int(math.log2(frames))
        widths = [channels, *(min(4 * dim * 2**k, 512) for k in range(halvings + 1))]
        self.blocks = nn.ModuleList()
        self.attentions = nn.ModuleList()
        for number, (before, after) in enumerate(zip(widths, widths[1:], strict=False)):  # noqa: RUF007
            in_time, halves = number < self.temporal, number < halvings
            self.blocks.append(_FilmBlock(before, after, in_time, halves))
            self.attentions.append(nn.Identity() if in_time else _LinearAttention(after))
            height, width = (height // 2, width // 2) if halves else (height, width)
        self.conv_out = nn.Conv2d(widths[-1], widths[-1], 3, padding=1)
        self.to_logit = nn.Linear(widths[-1] * height * width, 1)

    def forward(self, video: Video) -> Tensor:
        """Raises ValueError for videos of another size."""
        if tuple(video.shape[-3:]) != self.size:
            raise ValueError(f"this discriminator is for videos of {self.size}, got {tuple(video.shape[-3:])}.")
        x = video
        for number, (block, attention) in enumerate(zip(self.blocks, self.attentions, strict=True)):
            x = attention(block(x))
            if number + 1 == min(self.temporal, len(self.blocks)):
                x = x.mean(dim=2, keepdim=True)
        x = F.leaky_relu(per_frame(self.conv_out, x), 0.1)
        return self.to_logit(x.mean(dim=2).flatten(1)).squeeze(1)


class _FilmBlock(nn.Module):
    """Two convolutions beside a shortcut; both halve height and width, and with `time` the frames after the first."""

    def __init__(self, channels: int, out_channels: int, time: bool, halves: bool) -> None:
        super().__init__()
        self.time, self.halves = time, halves
        kernel = 3 if time else 1
        self.conv1 = (
            CausalConv3d(channels, out_channels, 3) if time else nn.Conv2d(channels, out_channels, 3, padding=1)
        )
        self.conv2 = (
            CausalConv3d(out_channels, out_channels, 3) if time else nn.Conv2d(out_channels, out_channels, 3, padding=1)
        )
        self.down = nn.Conv2d(out_channels, out_channels, 3, stride=2 if halves else 1, padding=1)
        self.shortcut = nn.Conv2d(channels, out_channels, kernel, stride=2 if halves else 1, padding=kernel // 2)

    def forward(self, x: Video) -> Video:
        h = F.leaky_relu(self._conv(self.conv1, x), 0.1)
        h = F.leaky_relu(self._conv(self.conv2, h), 0.1)
        h = blurred(h, axes=2, stride=1) if self.halves else h
        h, x = (_half_as_long(v) if self.time else v for v in (h, x))
        return (per_frame(self.down, h) + per_frame(self.shortcut, x)) / math.sqrt(2)

    def _conv(self, conv: nn.Module, x: Video) -> Video:
        return conv(x, Stream()) if isinstance(conv, CausalConv3d) else per_frame(conv, x)  # type: ignore[arg-type]


def _half_as_long(x: Video) -> Video:
    """Means of pairs of frames, the first frame by itself; a last one without a partner likewise."""
    return (
        torch.cat([x[:, :, :1], F.avg_pool3d(x[:, :, 1:], (2, 1, 1), ceil_mode=True)], dim=2) if x.shape[2] > 1 else x
    )


class _LinearAttention(nn.Module):
    """Among the places of a picture, in time linear in their number (arXiv 1812.01243), then a feed-forward network."""

    def __init__(self, channels: int, heads: int = 16, head_dim: int = 8) -> None:
        super().__init__()
        self.heads, inner = heads, heads * head_dim
        self.norm1, self.norm2 = nn.GroupNorm(1, channels), nn.GroupNorm(1, channels)
        self.to_qkv = nn.Conv2d(channels, 3 * inner, 1, bias=False)
        self.to_out = nn.Conv2d(inner, channels, 1)
        self.feed = nn.Conv2d(channels, 4 * channels, 1)
        self.forth = nn.Conv2d(4 * channels, channels, 1)

    def forward(self, x: Video) -> Video:
        heads = per_frame(self.to_qkv, self.norm1(x)).flatten(2).unflatten(1, (3, self.heads, -1))  # (B, 3, h, d, N)
        q, k, v = heads[:, 0].softmax(dim=-2), heads[:, 1].softmax(dim=-1), heads[:, 2]
        seen = (v @ k.transpose(-1, -2)) @ q
        x = x + per_frame(self.to_out, seen.flatten(1, 2).unflatten(-1, x.shape[2:]))
        return x + per_frame(self.forth, F.gelu(per_frame(self.feed, self.norm2(x))))


def blurred(x: Video, axes: int, stride: int) -> Video:
    """Smoothed by [1, 2, 1] / 4 along the last `axes` axes, then every `stride`-th place of them (arXiv 1904.11486)."""
    line = torch.tensor([0.25, 0.5, 0.25], dtype=x.dtype, device=x.device)
    for axis in range(5 - axes, 5):
        shape, steps, ends = [1, 1, 1], [1, 1, 1], [0, 0, 0]
        shape[axis - 2], steps[axis - 2], ends[axis - 2] = 3, stride, 1
        kernel = line.view(1, 1, *shape).expand(x.shape[1], -1, -1, -1, -1)
        x = F.conv3d(x, kernel, None, tuple(steps), tuple(ends), groups=x.shape[1])
    return x


def _drawn_small(module: nn.Module) -> None:
    """Weights of standard deviation 0.02, as these two networks are published."""
    if isinstance(module, nn.Conv2d | nn.Conv3d):
        nn.init.normal_(module.weight, 0.0, 0.02)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)

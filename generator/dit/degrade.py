"""Second-order degradation (Real-ESRGAN, arXiv 2107.10833): what a sharp video loses before an upsampler restores it.

Twice blur, resize, noise and JPEG, then a sinc filter; the kinds and ranges are those of Real-ESRGAN's released x2
training. Movie Gen's own are not public. One set of parameters is drawn per clip, so that a film does not flicker in
strength; the noise itself is new in every frame.
"""

# mypy: disable-error-code="no-any-return"

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

Range = tuple[float, float]
_SHAPES = (0.45, 0.25, 0.12, 0.03, 0.12, 0.03)  # Gaussian, generalised, plateau; the second of each is anisotropic
_MODES = ("area", "bilinear", "bicubic")
_LARGEST = 21  # kernel side


@dataclass(frozen=True, slots=True)
class Stage:
    """blur: how often. sigma: of the blur, pixels. resize: chances of up, down and no scaling, and its range.

    gaussian: range of the noise's sigma (of 255), otherwise Poisson noise of that scale.
    """

    blur: float
    sigma: Range
    resize: tuple[float, float, float]
    scale: Range
    gaussian: Range
    poisson: Range
    sinc: float = 0.1
    generalised: Range = (0.5, 4.0)
    plateau: Range = (1.0, 2.0)
    gaussian_share: float = 0.5
    grey: float = 0.4
    jpeg: Range = (30.0, 95.0)


FIRST = Stage(1.0, (0.2, 3.0), (0.2, 0.7, 0.1), (0.15, 1.5), (1.0, 30.0), (0.05, 3.0))
SECOND = Stage(0.8, (0.2, 1.5), (0.3, 0.4, 0.3), (0.3, 1.2), (1.0, 25.0), (0.05, 2.5))
LAST_SINC = 0.8


class _Chance:
    """Random numbers of one clip."""

    def __init__(self, generator: torch.Generator | None) -> None:
        self.generator = generator

    def between(self, low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand((), generator=self.generator, dtype=torch.float64))

    def happens(self, share: float) -> bool:
        return self.between(0, 1) < share

    def choice(self, shares: tuple[float, ...]) -> int:
        return int(torch.multinomial(torch.tensor(shares, dtype=torch.float32), 1, generator=self.generator))


def degraded(video: Tensor, scale: int = 2, generator: torch.Generator | None = None) -> Tensor:
    """video (3, F, H, W) in [-1, 1] -> a worse one of H / scale x W / scale, values in [-1, 1] in steps of 1/127.5.

    generator: on the CPU. Raises ValueError where scale does not divide the size.
    """
    height, width = video.shape[2:]
    if height % scale or width % scale:
        raise ValueError(f"a video of {height} x {width} cannot be made {scale} times smaller; crop it first.")
    size = (height // scale, width // scale)
    chance = _Chance(generator)
    x = (video.transpose(0, 1).float() + 1) / 2  # (F, 3, H, W) in 0..1
    x = _jpeg(_noise(_resize(_blur(x, FIRST, chance), (height, width), FIRST, chance), FIRST, chance), FIRST, chance)
    x = _noise(_resize(_blur(x, SECOND, chance), size, SECOND, chance), SECOND, chance)

    def back(x: Tensor) -> Tensor:
        x = _scaled(x, size, _MODES[chance.choice((1, 1, 1))])
        return _filtered(x, sinc_kernel(*_lowpass(chance))) if chance.happens(LAST_SINC) else x

    x = _jpeg(back(x), SECOND, chance) if chance.happens(0.5) else back(_jpeg(x, SECOND, chance))
    x = (x.clamp(0, 1) * 255).round() / 255
    return (x * 2 - 1).transpose(0, 1).to(video)


def low_resolution(
    video: Tensor,
    reconstruct: Callable[[Tensor], Tensor],
    share: float,
    scale: int = 2,
    generator: torch.Generator | None = None,
) -> Tensor:
    """The upsampler's training input: degraded, or in a `share` of cases only scaled down and passed through a VAE.

    reconstruct: what the video VAE makes of a video (3, F, h, w), so that its artefacts are known too (Movie Gen,
    section 3.1.5; the share is not public).
    """
    if not _Chance(generator).happens(share):
        return degraded(video, scale, generator)
    size = (video.shape[2] // scale, video.shape[3] // scale)
    return reconstruct(_scaled(video.transpose(0, 1), size, "area").transpose(0, 1))


def gaussian_kernel(side: int, sigma: tuple[float, float], angle: float, kind: str, beta: float) -> Tensor:
    """(side, side), sums to 1. sigma: along the kernel's axes, which are turned by `angle`. kind: of the fall-off with
    the squared distance d: "gaussian" exp(-d / 2), "generalised" exp(-d^beta / 2), "plateau" 1 / (1 + d^beta).
    """
    axis = torch.arange(side, dtype=torch.float64) - (side - 1) / 2
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    along = (x * math.cos(angle) + y * math.sin(angle)) / sigma[0]
    across = (y * math.cos(angle) - x * math.sin(angle)) / sigma[1]
    distance = along**2 + across**2
    kernel = {
        "gaussian": torch.exp(-0.5 * distance),
        "generalised": torch.exp(-0.5 * distance**beta),
        "plateau": 1 / (1 + distance**beta),
    }[kind]
    return (kernel / kernel.sum()).float()


def sinc_kernel(side: int, cutoff: float) -> Tensor:
    """(side, side), sums to 1: the circular low-pass filter of `cutoff` radians per pixel; it rings as codecs do."""
    axis = torch.arange(side, dtype=torch.float64) - (side - 1) / 2
    radius = torch.hypot(axis[:, None], axis).clamp(min=1e-9)
    kernel = cutoff * torch.special.bessel_j1(cutoff * radius) / (2 * math.pi * radius)
    return (kernel / kernel.sum()).float()


def _lowpass(chance: _Chance) -> tuple[int, float]:
    side = _side(chance)
    return side, chance.between(math.pi / 3 if side < 13 else math.pi / 5, math.pi)


def _side(chance: _Chance) -> int:
    return 7 + 2 * chance.choice((1,) * ((_LARGEST - 7) // 2 + 1))


def _blur(x: Tensor, stage: Stage, chance: _Chance) -> Tensor:
    if not chance.happens(stage.blur):
        return x
    if chance.happens(stage.sinc):
        return _filtered(x, sinc_kernel(*_lowpass(chance)))
    which = chance.choice(_SHAPES)
    kind = ("gaussian", "generalised", "plateau")[which // 2]
    low, high = stage.plateau if kind == "plateau" else stage.generalised
    beta = chance.between(low, 1.0) if chance.happens(0.5) else chance.between(1.0, high)
    first = chance.between(*stage.sigma)
    sigma = (first, chance.between(*stage.sigma) if which % 2 else first)
    return _filtered(x, gaussian_kernel(_side(chance), sigma, chance.between(-math.pi, math.pi), kind, beta))


def _filtered(x: Tensor, kernel: Tensor) -> Tensor:
    """Every channel of every frame with the same kernel; the border is mirrored, or repeated where it is too short."""
    reach = kernel.shape[0] // 2
    padded = F.pad(x, (reach,) * 4, mode="reflect" if reach < min(x.shape[2:]) else "replicate")
    return F.conv2d(padded.flatten(0, 1)[:, None], kernel.to(x)[None, None]).view_as(x)


def _resize(x: Tensor, size: tuple[int, int], stage: Stage, chance: _Chance) -> Tensor:
    """To a random share of `size`."""
    share = (
        lambda: chance.between(1.0, stage.scale[1]),
        lambda: chance.between(stage.scale[0], 1.0),
        lambda: 1.0,
    )[chance.choice(stage.resize)]()
    wanted = (max(int(size[0] * share), 1), max(int(size[1] * share), 1))
    return _scaled(x, wanted, _MODES[chance.choice((1, 1, 1))])


def _scaled(x: Tensor, size: tuple[int, int], mode: str) -> Tensor:
    return F.interpolate(x, size, mode=mode)


def _noise(x: Tensor, stage: Stage, chance: _Chance) -> Tensor:
    """Gaussian or Poisson, in colour or the same in all three channels."""
    grey = chance.happens(stage.grey)
    if chance.happens(stage.gaussian_share):
        sigma = chance.between(*stage.gaussian) / 255
        shape = (len(x), 1, *x.shape[2:]) if grey else x.shape
        noise = torch.randn(shape, generator=chance.generator).to(x) * sigma
    else:
        seen = (x.clamp(0, 1) * 255).round() / 255
        seen = _luma(seen) if grey else seen
        levels = 2.0 ** math.ceil(math.log2(max(len(torch.unique(seen)), 2)))
        noise = torch.poisson((seen * levels).cpu(), generator=chance.generator).to(x) / levels - seen
        noise = noise * chance.between(*stage.poisson)
    return (x + noise).clamp(0, 1)


def _luma(x: Tensor) -> Tensor:
    return (x * x.new_tensor([0.2989, 0.587, 0.114]).view(3, 1, 1)).sum(dim=1, keepdim=True)


def _jpeg(x: Tensor, stage: Stage, chance: _Chance) -> Tensor:
    quality = [cv2.IMWRITE_JPEG_QUALITY, round(chance.between(*stage.jpeg))]
    pixels = (x.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    coded = [cv2.imdecode(cv2.imencode(".jpg", image, quality)[1], cv2.IMREAD_COLOR) for image in pixels]
    return torch.from_numpy(np.stack(coded)).permute(0, 3, 1, 2).to(x) / 255

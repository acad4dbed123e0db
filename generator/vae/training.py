"""What a VAE learns from a clip: to give it back, from few numbers."""

# mypy: disable-error-code="no-any-return, no-untyped-call"

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from generator.draws import Draws
from generator.loop import Learn, Learnt
from generator.objectives import kl_divergence
from generator.recipes import VaeLoss
from generator.vae.perceptual import Edges

_STILLS = 4  # frames per clip


def vae_loss(vae: Any, weights: VaeLoss) -> Learn:
    """Of videos (B, 3, F, H, W) in [-1, 1]; see `recipes.VaeLoss`. Tokens are places of the latent."""
    edges = Edges(scales=1)

    def learn(video: Tensor, draws: Draws, step: int) -> Learnt:
        x = _stills(video, draws) if step < weights.stills else _crop(video, weights.crop, draws)
        mean, logvar = vae.encode_moments(x)
        noise = torch.cat([torch.randn(part.shape, generator=g) for part, g in _parts(mean, draws)]).to(mean)
        y = vae.decode(mean + (0.5 * logvar).exp() * noise)[:, :, : x.shape[2]]
        l1 = (y - x).abs().mean()
        gradient = edges(y.flatten(1, 2), x.flatten(1, 2)).mean()
        square, kl = F.mse_loss(y, x), kl_divergence(mean, logvar)
        parts = {"l1": l1.item(), "square": square.item(), "gradient": gradient.item(), "kl": kl.item()}
        total = l1 + weights.square * square + weights.gradient * gradient + weights.kl * kl
        return Learnt(total, mean[:, 0].numel(), parts)

    return learn


def _parts(x: Tensor, draws: Draws) -> list[tuple[Tensor, torch.Generator]]:
    """What of x (B, ...) belongs to each clip, be it one row or several."""
    return list(zip(x.chunk(len(draws)), draws.generators, strict=True))


def _stills(video: Tensor, draws: Draws) -> Tensor:
    """A few random frames of each clip as videos of their own, (4 B, 3, 1, H, W)."""
    frames = [clip[:, :, torch.randperm(clip.shape[2], generator=g)[:_STILLS]] for clip, g in _parts(video, draws)]
    return torch.cat(frames).transpose(1, 2).flatten(0, 1).unsqueeze(2)


def _crop(video: Tensor, size: int, draws: Draws) -> Tensor:
    """A square of so many pixels of each clip."""

    def cropped(clip: Tensor, generator: torch.Generator) -> Tensor:
        top, left = (int(torch.randint(side - size + 1, (), generator=generator)) for side in clip.shape[-2:])
        return clip[..., top : top + size, left : left + size]

    return torch.cat([cropped(clip, generator) for clip, generator in _parts(video, draws)])

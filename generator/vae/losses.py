"""What a VAE is trained on: reconstruction, how it looks, how far latents are from normal, outliers, and a GAN.

    objective = VaeObjective(easyanimate_slice(), perceptual("edges"), [Patches(), Clips()])
    mean, logvar = vae.encode_moments(x)
    y = vae.decode(mean + (0.5 * logvar).exp() * torch.randn_like(mean))
    loss, parts = objective.generator(x, y, mean, logvar, step, vae.decoder.conv_out.weight)
    loss, parts = objective.discriminator(x, y, step)       # for the discriminators' own optimiser

Steps count from 0. The discriminators join at `gan_from`, for both players; before it neither is computed.
"""

# mypy: disable-error-code="no-any-return, no-untyped-call"

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from generator.objectives import kl_divergence
from generator.vae.stream import Video

Distance = Callable[[Tensor, Tensor], Tensor]
"""Pictures (N, 3, H, W), twice -> (N,)"""
Terms = dict[str, Tensor]


@dataclass(frozen=True, slots=True)
class LossConfig:
    """Weights of the terms; a term of weight 0 is not computed.

    l1, l2, perceptual: of a pixel's absolute and squared error, and of the perceptual distance of its frame.
    perceptual_frames: random frames per video that are compared, None for all. summed: these are summed over the
    pixels of a frame, not averaged, and weighted by a learned variance (as in latent diffusion). kl: summed over a
    video's latent. outliers, outlier_reach, outlier_per_channel: see `outlier_penalty`. gan, gan_from: weight of the
    adversarial loss and the first step with it. adaptive: it is scaled to the gradient of the rest. gradient_penalty:
    of the discriminators, at real videos.
    """

    l1: float = 1.0
    l2: float = 0.0
    perceptual: float = 1.0
    perceptual_frames: int | None = None
    summed: bool = False
    kl: float = 1e-6
    outliers: float = 0.0
    outlier_reach: float = 3.0
    outlier_per_channel: bool = False
    gan: float = 0.0
    gan_from: int = 0
    adaptive: bool = False
    gradient_penalty: float = 0.0


def cogvideox() -> LossConfig:
    """L1, LPIPS on one frame, KL, and after "a few thousand steps" a GAN with a 3D discriminator (`Films`).

    The paper gives no weights: they are ours. The released code has a squared error (l2=1, l1=0), and a switch by
    which the GAN would end instead of begin at its step; here it begins.
    """
    return LossConfig(perceptual_frames=1, gan=0.1, gan_from=5_000)


def moviegen() -> LossConfig:
    """Reconstruction, perceptual, GAN and KL terms. The paper gives no weights: they are mindone's, the GAN's ours."""
    return LossConfig(summed=True, gan=0.5, gan_from=50_001, adaptive=True)


def moviegen_outliers() -> LossConfig:
    """With the outlier penalty, r = 3 and weight 1e5: the paper's second, shorter stage."""
    return LossConfig(summed=True, gan=0.5, gan_from=0, adaptive=True, outliers=1e5)


def easyanimate_magvit() -> LossConfig:
    """`Patches` and `Clips` from step 50,001; a tenth of the squared error."""
    return LossConfig(l2=0.1, summed=True, gan=0.5, gan_from=50_001, adaptive=True)


def easyanimate_slice() -> LossConfig:
    """The Slice VAE's 200 k steps."""
    return LossConfig(summed=True, gan=0.5, gan_from=50_001, adaptive=True)


def easyanimate_decoder() -> LossConfig:
    """The Slice VAE's last 100 k steps, of the decoder alone: the squared error in place of the absolute."""
    return LossConfig(l1=0.0, l2=1.0, summed=True, gan=0.5, gan_from=50_001, adaptive=True)


def outlier_penalty(z: Tensor, reach: float = 3.0, per_channel: bool = False) -> Tensor:
    """How far latents stray beyond `reach` standard deviations of their frame, averaged over places (Movie Gen, 3.1.1).

    z: (B, C, T, h, w); mean and deviation are over the places of a frame. What is measured is the length of the vector
    of channels, as the paper has it; with `per_channel`, each channel by itself, as public code does.
    """
    if z.shape[-1] * z.shape[-2] == 1:
        return z.sum() * 0
    off = z - z.mean(dim=(-2, -1), keepdim=True)
    spread = z.std(dim=(-2, -1), keepdim=True)
    if not per_channel:
        off, spread = (torch.linalg.vector_norm(part, dim=1) for part in (off, spread))
    return F.relu(off.abs() - reach * spread).mean()


def hinge(judged: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """The discriminators' loss of their logits (real, reconstructed), summed over discriminators."""
    losses = [(F.relu(1 - real).mean() + F.relu(1 + made).mean()) for real, made in judged]
    return torch.stack(losses).sum()


def fooled(logits: Sequence[Tensor]) -> Tensor:
    """The VAE's loss of the discriminators' logits of its reconstructions."""
    return -torch.stack([made.mean() for made in logits]).sum()


def gradient_penalty(x: Video, logits: Sequence[Tensor]) -> Tensor:
    """(length of the gradient at a real video - 1)^2, averaged; x must require a gradient (arXiv 1704.00028)."""
    total = torch.stack([real.sum() for real in logits]).sum()
    (gradient,) = torch.autograd.grad(total, x, create_graph=True)
    return ((gradient.flatten(1).norm(dim=1) - 1) ** 2).mean()


class VaeObjective(nn.Module):
    """All terms of `config`. distance: perceptual; see `perceptual`. discriminators: see `discriminators`.

    Its parameters are the discriminators' and, with `summed`, `log_variance`, which is trained with the VAE (or left
    at 0, as latent diffusion's code does). Raises ValueError where a term lacks what it needs.
    """

    def __init__(
        self, config: LossConfig, distance: Distance | None = None, discriminators: Sequence[nn.Module] = ()
    ) -> None:
        super().__init__()
        if config.perceptual and distance is None:
            raise ValueError("a perceptual weight needs a distance; see generator.vae.perceptual.")
        if config.gan and not discriminators:
            raise ValueError("a GAN weight needs discriminators; see generator.vae.discriminators.")
        self.config = config
        self.distance = distance
        self.discriminators = nn.ModuleList(discriminators)
        self.log_variance = nn.Parameter(torch.zeros(())) if config.summed else None

    def has_gan(self, step: int) -> bool:
        """Whether the discriminators play at this step."""
        return self.config.gan > 0 and step >= self.config.gan_from

    def generator(
        self, x: Video, y: Video, mean: Tensor, logvar: Tensor, step: int, last: Tensor | None = None
    ) -> tuple[Tensor, Terms]:
        """The VAE's loss, and its terms unweighted. x, y: a video and its reconstruction. last: the weight at which
        `adaptive` compares gradients, the decoder's last. Gives the discriminators no gradient.
        """
        config, terms = self.config, self._reconstruction(x, y)
        weights = {"l1": config.l1, "l2": config.l2, "perceptual": config.perceptual}
        rest = torch.stack([y.new_zeros(()), *(weights[name] * term for name, term in terms.items())]).sum()
        if self.log_variance is not None:
            rest = (rest / self.log_variance.exp() + self.log_variance) * x[0, :, 0].numel()
        total = rest
        if config.kl:
            terms["kl"] = kl_divergence(mean, logvar) * mean[0].numel()
            total = total + config.kl * terms["kl"]
        if config.outliers:
            terms["outliers"] = outlier_penalty(mean, config.outlier_reach, config.outlier_per_channel)
            total = total + config.outliers * terms["outliers"]
        if self.has_gan(step):
            terms["gan"] = fooled([_judged(judge, y) for judge in self.discriminators])
            scale = _scale(rest, terms["gan"], last) if config.adaptive else 1.0
            total = total + config.gan * scale * terms["gan"]
        return total, terms

    def discriminator(self, x: Video, y: Video, step: int) -> tuple[Tensor, Terms]:
        """The discriminators' loss, and its terms; 0 before they play. Gives the VAE no gradient."""
        if not self.has_gan(step):
            return x.new_zeros(()), {}
        penalty = self.config.gradient_penalty
        x, y = x.detach().requires_grad_(penalty > 0), y.detach()
        judged = [(judge(x), judge(y)) for judge in self.discriminators]
        terms = {"hinge": hinge(judged)}
        total = terms["hinge"]
        if penalty:
            terms["gradient"] = gradient_penalty(x, [real for real, _ in judged])
            total = total + penalty * terms["gradient"]
        return total, terms

    def _reconstruction(self, x: Video, y: Video) -> Terms:
        """Means over all pixels, and over the frames compared."""
        config, terms = self.config, {}
        if config.l1:
            terms["l1"] = (y - x).abs().mean()
        if config.l2:
            terms["l2"] = F.mse_loss(y, x)
        if config.perceptual:
            assert self.distance is not None, "checked at the beginning"
            terms["perceptual"] = self.distance(*_pictures(x, y, config.perceptual_frames)).mean()
        return terms


def _pictures(x: Video, y: Video, count: int | None) -> list[Tensor]:
    """Frames of both, (N, 3, H, W): all, or `count` random ones of each video, the same of both."""
    both = [video.transpose(1, 2) for video in (x, y)]
    if count is not None:
        which = torch.rand(both[0].shape[:2], device=x.device).argsort(dim=1)[:, :count]
        rows = torch.arange(len(x), device=x.device).unsqueeze(1)
        both = [video[rows, which] for video in both]
    return [video.flatten(0, 1) for video in both]


def _judged(judge: nn.Module, y: Video) -> Tensor:
    return functional_call(judge, {name: weight.detach() for name, weight in judge.named_parameters()}, (y,))


def _scale(rest: Tensor, gan: Tensor, last: Tensor | None) -> Tensor:
    """Length of the gradient of the rest over that of the GAN (VQGAN, arXiv 2012.09841)."""
    if last is None:
        raise ValueError("an adaptive GAN weight needs the decoder's last weight.")
    ours, theirs = (torch.autograd.grad(term, last, retain_graph=True)[0].norm() for term in (rest, gan))
    return (ours / (theirs + 1e-4)).clamp(max=1e4).detach()

"""What the diffusion models learn: how noise and signal are mixed at a time, and what is predicted from the mixture.

`Schedule`         v-prediction under a schedule that ends in pure noise (CogVideoX); times are the integers 0 .. 999.
`FlowMatching`     velocity along a straight line from noise (time 0) to the clean latent (time 1) (Movie Gen, STIV).
`LearnedVariance`  the noise and the variance of the step back (EasyAnimate's first three versions); integers 0 .. 999.

Each has `noised(x0, noise, t)`, `target(x0, noise, t)`, `clean(x, prediction, t)` and `loss(prediction, x0, noise, t)`,
and a way to draw times. `Schedule` and `LearnedVariance` have `signal`, which the samplers need.

Sources: CogVideoX (arXiv 2408.06072, section 3) and its released discretizer; v-prediction: arXiv 2202.00512; zero
terminal SNR: arXiv 2305.08891; flow matching: arXiv 2210.02747, Movie Gen (arXiv 2410.13720, section 3.1.2), STIV
(arXiv 2412.07730, section 2.3); learned variance: arXiv 2102.09672, as in DiT and PixArt-alpha.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor


def shaped(values: Tensor, like: Tensor) -> Tensor:
    """(B,) as (B, 1, 1, ...) in the type and place of `like` (B, ...)."""
    return values.to(like).view(-1, *(1,) * (like.ndim - 1))


@dataclass(frozen=True)
class Schedule:
    """x_t = a_t x_0 + sqrt(1 - a_t^2) e, with a_999 = 0 exactly.

    snr_shift: divides the signal-to-noise ratio at every step (3.0 for CogVideoX-2B, 1.0 for 5B). The betas are those
    of latent diffusion, linear in their square root from 0.00085 to 0.012.
    """

    snr_shift: float = 1.0
    steps: int = 1000

    @cached_property
    def signal(self) -> Tensor:
        """a_t for t = 0 .. steps - 1, float64."""
        betas = torch.linspace(0.00085**0.5, 0.012**0.5, self.steps, dtype=torch.float64) ** 2
        alpha_bar = torch.cumprod(1 - betas, dim=0)
        alpha_bar = alpha_bar / (self.snr_shift + (1 - self.snr_shift) * alpha_bar)
        a = alpha_bar.sqrt()
        return (a - a[-1]) * a[0] / (a[0] - a[-1])

    def at(self, t: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """a_t and sqrt(1 - a_t^2) for timesteps (B,), shaped to multiply `like` (B, ...)."""
        a = self.signal[t.cpu()]
        return shaped(a, like), shaped((1 - a**2).sqrt(), like)

    def noised(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        a, s = self.at(t, x0)
        return a * x0 + s * noise

    def velocity(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """The target: v = a e - sqrt(1 - a^2) x_0."""
        a, s = self.at(t, x0)
        return a * noise - s * x0

    target = velocity

    def clean(self, x: Tensor, v: Tensor, t: Tensor) -> Tensor:
        """The x_0 that a prediction v at x_t means: a x_t - sqrt(1 - a^2) v."""
        a, s = self.at(t, x)
        return a * x - s * v

    def loss(self, prediction: Tensor, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """Squared error on v, elementwise: that on x_0 divided by 1 - a^2."""
        return (prediction - self.velocity(x0, noise, t)) ** 2


@dataclass(frozen=True)
class FlowMatching:
    """x_t = t x_0 + (1 - (1 - sigma_min) t) e: pure noise at t = 0, so the terminal signal-to-noise ratio is zero.

    x_0 is the clean latent here too (the papers call it x_1). sigma_min: 1e-5 for Movie Gen, 0 for STIV. uniform: times
    are uniform in 0..1 instead of logit-normal, the sigmoid of a normal number of that mean and std.
    """

    sigma_min: float = 1e-5
    mean: float = 0.0
    std: float = 1.0
    uniform: bool = False

    def times(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """(count,) float32 in 0..1."""
        if self.uniform:
            return torch.rand(count, generator=generator)
        return torch.sigmoid(torch.randn(count, generator=generator) * self.std + self.mean)

    def noised(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        t = shaped(t, x0)
        return t * x0 + (1 - (1 - self.sigma_min) * t) * noise

    def target(self, x0: Tensor, noise: Tensor, t: Tensor | None = None) -> Tensor:
        """The velocity dx_t/dt = x_0 - (1 - sigma_min) e, the same at all times."""
        return x0 - (1 - self.sigma_min) * noise

    def clean(self, x: Tensor, v: Tensor, t: Tensor) -> Tensor:
        """The x_0 that a velocity v at x_t means: (1 - sigma_min) x_t + (1 - (1 - sigma_min) t) v."""
        keep = 1 - self.sigma_min
        return keep * x + (1 - keep * shaped(t, x)) * v

    def loss(self, prediction: Tensor, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """Squared error on the velocity, elementwise."""
        return (prediction - self.target(x0, noise)) ** 2

    def score(self, x: Tensor, v: Tensor, t: Tensor) -> Tensor:
        """The gradient of log p(x_t) that a velocity means, for sigma_min 0: (t v - x_t) / (1 - t)."""
        t = shaped(t, x)
        return (t * v - x) / (1 - t)


@dataclass(frozen=True)
class LearnedVariance:
    """DDPM with betas linear from 1e-4 to 0.02; the model predicts the noise and, in as many channels more, where the
    log variance of the step back lies between its bounds (-1: the posterior's, 1: beta).
    """

    steps: int = 1000
    beta_start: float = 1e-4
    beta_end: float = 0.02

    @cached_property
    def betas(self) -> Tensor:
        """float64, for t = 0 .. steps - 1."""
        return torch.linspace(self.beta_start, self.beta_end, self.steps, dtype=torch.float64)

    @cached_property
    def signal(self) -> Tensor:
        """a_t = sqrt(prod(1 - beta)), float64."""
        return torch.cumprod(1 - self.betas, dim=0).sqrt()

    def at(self, t: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """a_t and sqrt(1 - a_t^2) for timesteps (B,), shaped to multiply `like` (B, ...)."""
        a = self.signal[t.cpu()]
        return shaped(a, like), shaped((1 - a**2).sqrt(), like)

    def noised(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        a, s = self.at(t, x0)
        return a * x0 + s * noise

    def target(self, x0: Tensor, noise: Tensor, t: Tensor | None = None) -> Tensor:
        return noise

    def clean(self, x: Tensor, prediction: Tensor, t: Tensor) -> Tensor:
        """The x_0 that predicted noise means; the variance is not used. prediction: (B, 2 C, ...) or (B, C, ...)."""
        a, s = self.at(t, x)
        return (x - s * prediction[:, : x.shape[1]]) / a

    def loss(self, prediction: Tensor, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """Elementwise: squared error on the noise plus the variational bound in bits, which trains the variance alone.

        At t = 0 the bound is the likelihood of x_0 in bins of 1/127.5, as the released code has it for pixels.
        """
        said, variance = prediction.chunk(2, dim=1)
        x = self.noised(x0, noise, t)
        mean, logvar = self.step_back(x, torch.cat([said.detach(), variance], dim=1), t)
        true_mean, true_logvar = self.posterior(x0, x, t)
        ratio = true_logvar - logvar
        divergence = 0.5 * (-1.0 - ratio + ratio.exp() + (true_mean - mean) ** 2 * (-logvar).exp())
        bound = torch.where(shaped(t == 0, x).bool(), -_log_bin(x0, mean, 0.5 * logvar), divergence)
        return (said - noise) ** 2 + bound / math.log(2.0)

    def posterior(self, x0: Tensor, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance of x_{t-1} given x_t and x_0; at t = 0 the log variance is that of t = 1."""
        beta, before, now = self._steps(t)
        mean = shaped(beta * before.sqrt() / (1 - now), x) * x0
        mean = mean + shaped((1 - before) * (1 - beta).sqrt() / (1 - now), x) * x
        return mean, shaped(self._floor(t), x).expand_as(x)

    def step_back(self, x: Tensor, prediction: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance of x_{t-1} as the model sees them. prediction: (B, 2 C, ...)."""
        share = (prediction[:, x.shape[1] :] + 1) / 2
        logvar = share * shaped(self.betas[t.cpu()].log(), x) + (1 - share) * shaped(self._floor(t), x)
        return self.posterior(self.clean(x, prediction, t), x, t)[0], logvar

    def _steps(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """beta_t, a_{t-1}^2 (1 for t = 0) and a_t^2."""
        t = t.cpu()
        now = self.signal**2
        return self.betas[t], torch.where(t > 0, now[(t - 1).clamp(min=0)], 1.0), now[t]

    def _floor(self, t: Tensor) -> Tensor:
        beta, before, now = self._steps(t.cpu().clamp(min=1))
        return (beta * (1 - before) / (1 - now)).log()


def _log_bin(x: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    """Log probability of the bin of width 2/255 around x under a normal law; the outermost bins are open."""
    scale = (-log_std).exp()
    upper, lower = (x - mean + 1 / 255) * scale, (x - mean - 1 / 255) * scale
    inside = (torch.special.ndtr(upper) - torch.special.ndtr(lower)).clamp(min=1e-12).log()
    tails = torch.where(x < -0.999, torch.special.log_ndtr(upper), torch.special.log_ndtr(-lower))
    return torch.where(x.abs() > 0.999, tails, inside)


def uniform_timesteps(slots: Tensor, world: int, groups: int, steps: int, generator: torch.Generator) -> Tensor:
    """Explicit uniform sampling: samples draw inside intervals of their own, so a batch covers all noise levels.

    slots: which of the `world` samples of the global batch these are, (B,), 0 <= slot < world. The slots are split
    evenly over `groups` equal intervals of 0 .. steps - 1. Returns (B,) int64.

    Raises ValueError where `groups` does not divide `world`. Source: CogVideoX, section 3.
    """
    if world % groups:
        raise ValueError(f"a global batch of {world} cannot be split evenly over {groups} intervals of timesteps.")
    group = slots * groups // world
    low, high = group * steps // groups, (group + 1) * steps // groups
    uniform = torch.rand(len(slots), generator=generator, dtype=torch.float64)
    return low + (uniform * (high - low)).long()


def kl_divergence(mean: Tensor, logvar: Tensor) -> Tensor:
    """From the standard normal, averaged over all elements of the latent (nats)."""
    return 0.5 * (mean**2 + logvar.exp() - 1 - logvar).mean()

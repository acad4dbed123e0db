"""What the diffusion model learns: v-prediction under a schedule that ends in pure noise.

Sources: CogVideoX (arXiv 2408.06072, section 3) and its released discretizer; v-prediction: arXiv 2202.00512; zero
terminal SNR: arXiv 2305.08891.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor


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
        shape = (-1, *(1,) * (like.ndim - 1))
        return a.to(like).view(shape), (1 - a**2).sqrt().to(like).view(shape)

    def noised(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        a, s = self.at(t, x0)
        return a * x0 + s * noise

    def velocity(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """The target: v = a e - sqrt(1 - a^2) x_0."""
        a, s = self.at(t, x0)
        return a * noise - s * x0

    def clean(self, x: Tensor, v: Tensor, t: Tensor) -> Tensor:
        """The x_0 that a prediction v at x_t means: a x_t - sqrt(1 - a^2) v."""
        a, s = self.at(t, x)
        return a * x - s * v


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

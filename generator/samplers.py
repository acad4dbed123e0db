"""From noise to latents: DDIM and DPM-Solver++ (2M, SDE) under a zero-terminal-SNR schedule, with guidance.

A sampler calls `denoise(x, t, step)`, which returns the clean latent that the model sees in x at timestep t; guidance
is part of it. Timesteps are spaced trailing (999, 979, ..., 19 for 50 steps), so that the first is pure noise.
Formulas: CogVideoX's released samplers; DDIM arXiv 2010.02502; DPM-Solver++ arXiv 2211.01095.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from generator.objectives import Schedule

Denoise = Callable[[Tensor, int, int], Tensor]


def trailing_timesteps(steps: int, total: int) -> list[int]:
    """`steps` timesteps from total - 1 down, evenly spaced. Raises ValueError unless 1 <= steps <= total."""
    if not 1 <= steps <= total:
        raise ValueError(f"the number of sampling steps must be between 1 and {total}, got {steps}.")
    return [round(total * (1 - k / steps)) - 1 for k in range(steps)]


def dynamic_guidance(step: int, steps: int, scale: float) -> float:
    """Weight that grows from 1 to 1 + scale over the sampling: 1 + scale (1 - cos(pi (i / N)^5)) / 2.

    i is the index of the step, as the formula intends; the released code passes the training timestep.
    """
    return 1 + scale * (1 - math.cos(math.pi * (step / steps) ** 5)) / 2


def guided(
    velocity: Callable[[Tensor, Tensor, Tensor], Tensor],
    schedule: Schedule,
    text: Tensor,
    null: Tensor,
    steps: int,
    scale: float,
    dynamic: bool = False,
) -> Denoise:
    """Classifier-free guidance u + w (c - u) around `velocity(x, t, text) -> v`.

    text, null: (B, L, D). scale: w, or the end of its growth with `dynamic`; 1 means no guidance without `dynamic`.
    """

    def denoise(x: Tensor, t: int, step: int) -> Tensor:
        times = torch.full((len(x),), t, dtype=torch.long, device=x.device)
        weight = dynamic_guidance(step, steps, scale) if dynamic else scale
        without, with_text = velocity(
            x.repeat(2, *(1,) * (x.ndim - 1)), times.repeat(2), torch.cat([null, text])
        ).chunk(2)
        return schedule.clean(x, without + weight * (with_text - without), times)

    return denoise


def ddim(denoise: Denoise, noise: Tensor, schedule: Schedule, steps: int) -> Tensor:
    """noise: x at the last timestep, standard normal. Returns the clean latent."""
    x = noise
    times = trailing_timesteps(steps, schedule.steps)
    signal = [float(schedule.signal[t]) for t in times] + [1.0]
    for k, t in enumerate(times):
        clean = denoise(x, t, k)
        a, after = signal[k], signal[k + 1]
        keep = math.sqrt((1 - after**2) / (1 - a**2))
        x = keep * x + (after - a * keep) * clean
    return x


def dpm_solver_sde(
    denoise: Denoise, noise: Tensor, schedule: Schedule, steps: int, generator: torch.Generator | None = None
) -> Tensor:
    """Second order, two steps, stochastic: the default of CogVideoX's own code. generator: of the noise, on the CPU."""
    x, before = noise, None
    times = trailing_timesteps(steps, schedule.steps)
    signal = [float(schedule.signal[t]) for t in times] + [1.0]
    last_gap = math.inf
    for k, t in enumerate(times):
        clean = denoise(x, t, k)
        if k == steps - 1:
            return clean
        a, after = signal[k], signal[k + 1]
        gap = _log_snr(after) - _log_snr(a)  # infinite where a = 0
        shrink = math.exp(-gap)
        # 1 / (2 r) with r = last gap / gap; 0 when the last gap was infinite, and there is no last gap at first.
        correction = 0.0 if before is None else gap / (2 * last_gap)
        target = clean if before is None else (1 + correction) * clean - correction * before
        drift = math.sqrt((1 - after**2) / (1 - a**2)) * shrink * x - after * math.expm1(-2 * gap) * target
        fresh = torch.randn(x.shape, generator=generator).to(x)
        x = drift + math.sqrt(1 - after**2) * math.sqrt(-math.expm1(-2 * gap)) * fresh
        before, last_gap = clean, gap
    raise AssertionError("the last step returns")


def _log_snr(a: float) -> float:
    """log(a / sqrt(1 - a^2)), the half log signal-to-noise ratio."""
    return math.log(a / math.sqrt(1 - a**2)) if a > 0 else -math.inf

"""From noise to latents: DDIM, DPM-Solver++ (2M) and ancestral steps under a noise schedule, Euler along a flow.

Under a schedule a sampler calls `denoise(x, t, step)`, which returns the clean latent that the model sees in x at
timestep t; guidance is part of it. Timesteps are spaced trailing (999, 979, ..., 19 for 50 steps), so that the first is
pure noise under zero terminal SNR. Along a flow, `euler` calls a branch of `generator.guidance`.

The same mathematics as these schedulers of diffusers, and compared with them in the tests: `ddim` is
CogVideoXDDIMScheduler, DDIMScheduler and EulerDiscreteScheduler, `dpm_solver_sde` CogVideoXDPMScheduler, `dpm_solver`
DPMSolverMultistepScheduler, `ancestral` DDPMScheduler with learned range, `euler` FlowMatchEulerDiscreteScheduler,
`linear_quadratic_times` that of Mochi's pipeline. They are written out here because each is a few lines, and diffusers
stays optional. diffusers has none for windows (`generator.dit.upsampler`), for joint guidance of image and text, and
for the index form of the linear-quadratic times.

Formulas: CogVideoX's released samplers; DDIM arXiv 2010.02502; DPM-Solver++ arXiv 2211.01095; learned variance arXiv
2102.09672; linear-quadratic times Movie Gen (arXiv 2410.13720, section 3.4.2).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from generator.guidance import Branch, dynamic_weight
from generator.objectives import LearnedVariance, Schedule

Denoise = Callable[[Tensor, int, int], Tensor]


def trailing_timesteps(steps: int, total: int) -> list[int]:
    """`steps` timesteps from total - 1 down, evenly spaced. Raises ValueError unless 1 <= steps <= total."""
    if not 1 <= steps <= total:
        raise ValueError(f"the number of sampling steps must be between 1 and {total}, got {steps}.")
    return [round(total * (1 - k / steps)) - 1 for k in range(steps)]


def guided(
    velocity: Callable[[Tensor, Tensor, Tensor], Tensor],
    schedule: Schedule | LearnedVariance,
    text: Tensor,
    null: Tensor,
    steps: int,
    scale: float,
    dynamic: bool = False,
) -> Denoise:
    """Classifier-free guidance u + w (c - u) around `velocity(x, t, text) -> prediction`, both in one pass.

    text, null: (B, L, D). scale: w, or the end of its growth with `dynamic`; 1 means no guidance without `dynamic`.
    """

    def denoise(x: Tensor, t: int, step: int) -> Tensor:
        times = torch.full((len(x),), t, dtype=torch.long, device=x.device)
        weight = dynamic_weight(step, steps, scale) if dynamic else scale
        without, with_text = velocity(
            x.repeat(2, *(1,) * (x.ndim - 1)), times.repeat(2), torch.cat([null, text])
        ).chunk(2)
        return schedule.clean(x, without + weight * (with_text - without), times)

    return denoise


def denoiser(branch: Branch, schedule: Schedule | LearnedVariance) -> Denoise:
    """What a sampler calls, around any branch of `generator.guidance`."""

    def denoise(x: Tensor, t: int, step: int) -> Tensor:
        times = torch.full((len(x),), t, dtype=torch.long, device=x.device)
        return schedule.clean(x, branch(x, times), times)

    return denoise


def ddim(denoise: Denoise, noise: Tensor, schedule: Schedule | LearnedVariance, steps: int) -> Tensor:
    """noise: x at the last timestep, standard normal. Returns the clean latent. Under any schedule this is also Euler's
    method for the probability flow, in the coordinates x / a and sqrt(1 - a^2) / a.
    """
    x = noise
    times, signal = _spaced(schedule, steps)
    for k, t in enumerate(times):
        clean = denoise(x, t, k)
        a, after = signal[k], signal[k + 1]
        keep = math.sqrt((1 - after**2) / (1 - a**2))
        x = keep * x + (after - a * keep) * clean
    return x


def dpm_solver(denoise: Denoise, noise: Tensor, schedule: Schedule | LearnedVariance, steps: int) -> Tensor:
    """Second order, two steps, deterministic: the default of EasyAnimate's first two versions."""
    x, before, last_gap = noise, None, math.inf
    times, signal = _spaced(schedule, steps)
    for k, t in enumerate(times):
        clean = denoise(x, t, k)
        if k == steps - 1:
            return clean
        gap, target = _extrapolated(clean, before, signal[k], signal[k + 1], last_gap)
        a, after = signal[k], signal[k + 1]
        x = math.sqrt((1 - after**2) / (1 - a**2)) * x - after * math.expm1(-gap) * target
        before, last_gap = clean, gap
    raise AssertionError("the last step returns")


def dpm_solver_sde(
    denoise: Denoise,
    noise: Tensor,
    schedule: Schedule | LearnedVariance,
    steps: int,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Second order, two steps, stochastic: the default of CogVideoX's own code. generator: of the noise, on the CPU."""
    x, before, last_gap = noise, None, math.inf
    times, signal = _spaced(schedule, steps)
    for k, t in enumerate(times):
        clean = denoise(x, t, k)
        if k == steps - 1:
            return clean
        gap, target = _extrapolated(clean, before, signal[k], signal[k + 1], last_gap)
        a, after = signal[k], signal[k + 1]
        shrink = math.exp(-gap)
        drift = math.sqrt((1 - after**2) / (1 - a**2)) * shrink * x - after * math.expm1(-2 * gap) * target
        fresh = torch.randn(x.shape, generator=generator).to(x)
        x = drift + math.sqrt(1 - after**2) * math.sqrt(-math.expm1(-2 * gap)) * fresh
        before, last_gap = clean, gap
    raise AssertionError("the last step returns")


def _extrapolated(
    clean: Tensor, before: Tensor | None, a: float, after: float, last_gap: float
) -> tuple[float, Tensor]:
    """The step in half log SNR, infinite from pure noise, and the clean latent extrapolated over it.

    1 / (2 r) with r = last gap / gap is 0 when the last gap was infinite, and there is no last gap at first.
    """
    gap = _log_snr(after) - _log_snr(a)
    if before is None:
        return gap, clean
    correction = gap / (2 * last_gap)
    return gap, (1 + correction) * clean - correction * before


def ancestral(
    branch: Branch, noise: Tensor, schedule: LearnedVariance, generator: torch.Generator | None = None
) -> Tensor:
    """DDPM's own sampling through all `schedule.steps`, with the variance that the model learned.

    branch: returns noise and variance, (B, 2 C, ...). generator: of the noise, on the CPU.
    """
    x = noise
    for t in reversed(range(schedule.steps)):
        times = torch.full((len(x),), t, dtype=torch.long, device=x.device)
        mean, logvar = schedule.step_back(x, branch(x, times), times)
        x = mean + (0.5 * logvar).exp() * torch.randn(x.shape, generator=generator).to(x) if t else mean
    return x


def euler(velocity: Branch, noise: Tensor, times: Sequence[float]) -> Tensor:
    """First order, from times[0] to times[-1], which is from 0 (noise) to 1 (clean).

    velocity: a branch that predicts dx/dt. Models whose flow runs from sigma = 1 to 0 and that predict noise minus
    clean, as EasyAnimate 5.1, are this one with t = 1 - sigma and the sign turned.
    """
    x = noise
    for now, after in itertools.pairwise(times):
        x = x + (after - now) * velocity(x, torch.full((len(x),), now, device=x.device))
    return x


def euler_sde(
    velocity: Branch,
    noise: Tensor,
    times: Sequence[float],
    strength: float = 1.0,
    generator: torch.Generator | None = None,
) -> Tensor:
    """As `euler`, with noise taken away and put back on the way: the reverse-time SDE of the same flow (STIV).

    Adds strength (1 - t) times the score to the velocity, and normal noise of variance 2 strength (1 - t) per unit of
    time; strength 0 is `euler`. The flow has sigma_min 0. generator: of the noise, on the CPU.
    """
    x = noise
    for now, after in itertools.pairwise(times):
        step, v = after - now, velocity(x, torch.full((len(x),), now, device=x.device))
        fresh = torch.randn(x.shape, generator=generator).to(x)
        x = x + step * (v + strength * (now * v - x)) + math.sqrt(2 * strength * (1 - now) * step) * fresh
    return x


def linear_times(steps: int) -> list[float]:
    """steps + 1 evenly spaced times from 0 to 1. Raises ValueError for less than one step."""
    if steps < 1:
        raise ValueError(f"the number of sampling steps must be at least 1, got {steps}.")
    return [k / steps for k in range(steps + 1)]


def linear_quadratic_times(steps: int = 50, emulated: int = 250, form: str = "smooth") -> list[float]:
    """steps + 1 times from 0 to 1 that stand for `emulated` even steps: the first half of them are its first steps, the
    others grow quadratically to 1.

    form: "smooth" continues without a kink (diffusers, Mochi); "index" squares the index alone, so that its first
    quadratic step is shorter than the linear ones (SAGA-SR). The paper gives no formula.
    Raises ValueError unless 2 <= steps <= emulated, or for another form.
    """
    if not 2 <= steps <= emulated:
        raise ValueError(f"the number of sampling steps must be between 2 and {emulated}, got {steps}.")
    linear, rest = steps // 2, steps - steps // 2
    first = [k / emulated for k in range(linear)]
    if form == "index":
        return first + [(linear + (emulated - linear) * (j / rest) ** 2) / emulated for j in range(rest + 1)]
    if form != "smooth":
        raise ValueError(f"linear-quadratic times are 'smooth' or 'index', not {form!r}.")
    reached = linear / emulated
    excess = linear - reached * steps  # of steps, over where the linear part should be by now
    a = excess / (linear * rest**2)
    b = reached / linear - 2 * excess / rest**2
    c = a * linear**2
    return first + [a * k**2 + b * k + c for k in range(linear, steps)] + [1.0]


def _spaced(schedule: Schedule | LearnedVariance, steps: int) -> tuple[list[int], list[float]]:
    """Timesteps, and the signal at them and at the end, where it is all."""
    times = trailing_timesteps(steps, schedule.steps)
    return times, [float(schedule.signal[t]) for t in times] + [1.0]


def _log_snr(a: float) -> float:
    """log(a / sqrt(1 - a^2)), the half log signal-to-noise ratio."""
    return math.log(a / math.sqrt(1 - a**2)) if a > 0 else -math.inf

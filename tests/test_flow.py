"""Flow matching, learned variance and their samplers: published numbers, and diffusers' own steps."""

from __future__ import annotations

import math
from itertools import pairwise

import diffusers
import pytest
import torch
from diffusers.pipelines.mochi.pipeline_mochi import linear_quadratic_schedule
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from generator.guidance import joint
from generator.objectives import FlowMatching, LearnedVariance, Schedule
from generator.samplers import (
    ancestral,
    ddim,
    denoiser,
    dpm_solver,
    euler,
    euler_sde,
    linear_quadratic_times,
    linear_times,
    trailing_timesteps,
)
from tests.drawn import random

LINEAR = {"beta_start": 1e-4, "beta_end": 0.02, "beta_schedule": "linear", "clip_sample": False}


def said(x: Tensor, t: Tensor) -> Tensor:
    """A model that nobody trained, smooth in all it is given."""
    return torch.tanh(x.roll(1, -1) - t.float().view(-1, *(1,) * (x.ndim - 1)) / 1000)


def test_times_are_logit_normal_or_uniform() -> None:
    generator = torch.Generator().manual_seed(0)
    t = FlowMatching().times(200_000, generator)
    assert float(t.min()) > 0 and float(t.max()) < 1
    assert float(t.mean()) == pytest.approx(0.5, abs=2e-3) and float(t.std()) == pytest.approx(0.208, abs=2e-3)
    assert float((t < 0.1).float().mean()) == pytest.approx(0.014, abs=1e-3)
    shifted = FlowMatching(mean=1.0, std=0.5).times(50_000, generator)
    assert float(shifted.median()) == pytest.approx(1 / (1 + math.exp(-1)), abs=5e-3)
    uniform = FlowMatching(uniform=True).times(50_000, generator)
    assert float(uniform.mean()) == pytest.approx(0.5, abs=5e-3) and float(uniform.std()) == pytest.approx(
        0.289, abs=5e-3
    )


@pytest.mark.parametrize("sigma", [1e-5, 0.0, 0.1])
def test_a_flow_is_a_straight_line_from_noise(sigma: float) -> None:
    flow, x0, noise = FlowMatching(sigma_min=sigma), random(3, 2, 4), random(3, 2, 4, seed=1)
    zero, half, one = (torch.full((3,), t) for t in (0.0, 0.5, 1.0))
    assert torch.equal(flow.noised(x0, noise, zero), noise), "no signal at all at time 0"
    assert torch.allclose(flow.noised(x0, noise, one), x0 + sigma * noise, atol=1e-6)
    v = flow.target(x0, noise)
    assert torch.allclose(v, x0 - (1 - sigma) * noise)
    middle = flow.noised(x0, noise, half)
    assert torch.allclose(flow.noised(x0, noise, half + 0.25), middle + 0.25 * v, atol=1e-6)
    assert torch.allclose(flow.clean(middle, v, half), x0, atol=1e-5)
    assert not flow.loss(v, x0, noise, half).any() and flow.loss(v + 2, x0, noise, half).mean() == pytest.approx(4)


def test_a_velocity_is_a_score() -> None:
    flow, noise, t = FlowMatching(sigma_min=0), random(3, 2, 4, seed=1), torch.tensor([0.1, 0.5, 0.9])
    x0 = random(3, 2, 4)
    score = flow.score(flow.noised(x0, noise, t), flow.target(x0, noise), t)
    assert torch.allclose(score, -noise / (1 - t.view(3, 1, 1)), atol=1e-4)


def test_flows_mix_as_diffusers_does() -> None:
    theirs = diffusers.FlowMatchEulerDiscreteScheduler()
    flow, x0, noise = FlowMatching(sigma_min=0), random(2, 3), random(2, 3, seed=1)
    sigma = theirs.sigmas[[100, 700]]
    mixed = theirs.scale_noise(x0, theirs.timesteps[[100, 700]], noise)
    assert torch.allclose(flow.noised(x0, noise, 1 - sigma), mixed, atol=1e-6)


@pytest.mark.parametrize("times", [linear_times(1), linear_times(20), linear_quadratic_times()], ids=["1", "20", "lq"])
def test_euler_equals_diffusers(times: list[float]) -> None:
    noise = random(2, 3, 4)
    mine = euler(lambda x, t: said(x, 1000 * (1 - t)), noise, times)
    theirs = diffusers.FlowMatchEulerDiscreteScheduler()
    theirs.set_timesteps(sigmas=[1 - t for t in times[:-1]])
    x = noise
    for t in theirs.timesteps:
        # Their flow runs from noise to data against ours, so it predicts noise minus clean.
        x = theirs.step(-said(x, t.repeat(2)), t, x).prev_sample
    assert torch.allclose(mine, x, atol=2e-5)


def test_euler_follows_a_straight_flow_to_its_end_in_one_step() -> None:
    flow, x0, noise = FlowMatching(sigma_min=0), random(2, 3), random(2, 3, seed=1)
    for times in (linear_times(1), linear_times(7), linear_quadratic_times(10, 20)):
        assert torch.allclose(euler(lambda x, t: flow.target(x0, noise), noise, times), x0, atol=1e-6)


@pytest.mark.parametrize("strength", [0.0, 0.5, 2.0])
def test_ordinary_and_stochastic_sampling_reach_the_same_law(strength: float) -> None:
    """Of data N(1, 0.5^2) the velocity is known; samples must have its mean and spread."""
    mean, spread = 1.0, 0.5

    def velocity(x: Tensor, t: Tensor) -> Tensor:
        t = t[:, None]
        both = t**2 * spread**2 + (1 - t) ** 2
        clean = mean + t * spread**2 / both * (x - t * mean)
        rest = (1 - t) / both * (x - t * mean)
        return clean - rest

    noise, times = random(8000, 1), linear_times(200)
    out = euler_sde(velocity, noise, times, strength, torch.Generator().manual_seed(1))
    assert float(out.mean()) == pytest.approx(mean, abs=0.03) and float(out.std()) == pytest.approx(spread, rel=0.05)
    plain = euler(velocity, noise, times)
    assert torch.allclose(out, plain, atol=1e-5) == (strength == 0)


def test_linear_quadratic_times_of_the_specified_fixture() -> None:
    t = linear_quadratic_times(50, 250)
    assert len(t) == 51 and t[0] == 0 and t[-1] == 1 and all(b > a for a, b in pairwise(t))
    assert t[:26] == pytest.approx([k / 250 for k in range(26)]), "the first half is the 250 steps' own"
    published = {25: 0.1, 26: 0.10528, 27: 0.11312, 30: 0.152, 35: 0.268, 40: 0.448, 45: 0.692, 49: 0.93328}
    assert {k: t[k] for k in published} == pytest.approx(published)
    theirs = linear_quadratic_schedule(50, 25 / 250)
    assert [1 - sigma for sigma in theirs] == pytest.approx(t[:-1])
    # What diffusers takes by default stands for a thousand steps.
    assert [1 - s for s in linear_quadratic_schedule(50, 0.025)] == pytest.approx(linear_quadratic_times(50, 1000)[:-1])


def test_linear_quadratic_times_by_the_index_alone() -> None:
    t = linear_quadratic_times(50, 250, form="index")
    assert len(t) == 51 and t[25] == pytest.approx(0.1) and t[-1] == 1
    assert t[26:29] == pytest.approx([0.10144, 0.10576, 0.11296]) and t[49] == pytest.approx(0.92944)
    assert t[26] - t[25] < t[25] - t[24], "its first quadratic step is shorter than a linear one"


@pytest.mark.parametrize("steps", [2, 7, 50, 250])
def test_other_numbers_of_steps_end_at_one_too(steps: int) -> None:
    for form in ("smooth", "index"):
        t = linear_quadratic_times(steps, 250, form)
        assert len(t) == steps + 1 and t[0] == 0 and t[-1] == 1
        assert all(b > a for a, b in pairwise(t))


def test_steps_that_cannot_be_are_refused() -> None:
    for call, sentence in (
        (lambda: linear_quadratic_times(1), "between 2 and 250, got 1"),
        (lambda: linear_quadratic_times(300), "between 2 and 250"),
        (lambda: linear_quadratic_times(form="cubic"), "'smooth' or 'index', not 'cubic'"),
        (lambda: linear_times(0), "at least 1, got 0"),
    ):
        with pytest.raises(ValueError, match=sentence):
            call()


def test_the_linear_schedule_is_that_of_diffusers() -> None:
    ours, theirs = LearnedVariance(), diffusers.DDIMScheduler(**LINEAR)
    assert torch.allclose(ours.signal**2, theirs.alphas_cumprod.double(), atol=1e-6)
    x0, noise, t = random(3, 2, 4), random(3, 2, 4, seed=1), torch.tensor([0, 500, 999])
    x = ours.noised(x0, noise, t)
    assert torch.allclose(x, theirs.add_noise(x0, noise, t), atol=1e-6)
    prediction = torch.cat([noise, random(3, 2, 4, seed=2)], dim=1)
    assert torch.allclose(ours.clean(x, prediction, t)[:2], x0[:2], atol=1e-4)
    assert torch.equal(ours.target(x0, noise, t), noise)


@pytest.mark.parametrize("steps", [1, 10, 25])
def test_ddim_equals_diffusers_under_the_linear_schedule(steps: int) -> None:
    schedule, noise = LearnedVariance(), random(2, 3, 4)
    mine = ddim(denoiser(said, schedule), noise, schedule, steps)
    theirs = diffusers.DDIMScheduler(**LINEAR, timestep_spacing="trailing")
    theirs.set_timesteps(steps)
    x = noise
    for t in theirs.timesteps:
        x = theirs.step(said(x, t.repeat(2)), t, x).prev_sample
    assert torch.allclose(mine, x, atol=2e-4, rtol=1e-4)


def test_ddim_is_eulers_method_under_a_schedule() -> None:
    schedule, noise = LearnedVariance(), random(2, 3, 4)
    mine = ddim(denoiser(said, schedule), noise, schedule, 20)
    settings = {key: value for key, value in LINEAR.items() if key != "clip_sample"}
    theirs = diffusers.EulerDiscreteScheduler(**settings, timestep_spacing="trailing")
    theirs.set_timesteps(20)
    assert [round(float(t)) for t in theirs.timesteps] == trailing_timesteps(20, 1000)
    x = noise / float(schedule.signal[999])  # their coordinates are x / a
    for t in theirs.timesteps:
        shown = theirs.scale_model_input(x, t)
        x = theirs.step(said(shown, t.repeat(2).round()), t, x).prev_sample
    assert torch.allclose(mine, x, atol=5e-3, rtol=1e-3)


@pytest.mark.parametrize("steps", [2, 10, 30])
@pytest.mark.parametrize("kind", ["linear", "zero SNR"])
def test_dpm_solver_equals_diffusers(steps: int, kind: str) -> None:
    settings = {"algorithm_type": "dpmsolver++", "solver_order": 2, "timestep_spacing": "trailing"}
    if kind == "linear":
        schedule: Schedule | LearnedVariance = LearnedVariance()
        theirs = diffusers.DPMSolverMultistepScheduler(
            beta_start=1e-4, beta_end=0.02, beta_schedule="linear", **settings
        )
    else:
        schedule = Schedule()
        theirs = diffusers.DPMSolverMultistepScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            prediction_type="v_prediction",
            rescale_betas_zero_snr=True,
            **settings,
        )
    noise = random(2, 3, 4)
    mine = dpm_solver(denoiser(said, schedule), noise, schedule, steps)
    theirs.set_timesteps(steps)
    assert theirs.timesteps.tolist() == trailing_timesteps(steps, 1000)
    x = noise
    for t in theirs.timesteps:
        x = theirs.step(said(x, t.repeat(2)), t, x).prev_sample
    # With zero SNR they replace a = 0 by 2^-12, so that the first step is not exactly pure noise.
    assert torch.allclose(mine, x, atol=2e-3 if kind == "zero SNR" else 5e-4, rtol=1e-3)


def test_ancestral_steps_equal_diffusers(monkeypatch: pytest.MonkeyPatch) -> None:
    from diffusers.schedulers import scheduling_ddpm

    from generator import samplers

    fresh = random(2, 3, 4, seed=3)
    monkeypatch.setattr(scheduling_ddpm, "randn_tensor", lambda *_, **__: fresh)
    monkeypatch.setattr(samplers.torch, "randn", lambda *_, **__: fresh)
    schedule, noise = LearnedVariance(steps=20), random(2, 3, 4)

    def both(x: Tensor, t: Tensor) -> Tensor:
        return torch.cat([said(x, t), torch.tanh(x.flip(-1))], dim=1)

    mine = ancestral(both, noise, schedule)
    theirs = diffusers.DDPMScheduler(num_train_timesteps=20, variance_type="learned_range", **LINEAR)
    theirs.set_timesteps(20)
    x = noise
    for t in theirs.timesteps:
        x = theirs.step(both(x, t.repeat(2)), int(t), x).prev_sample
    assert torch.allclose(mine, x, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("t", [1, 300, 999])
def test_the_bound_is_a_divergence_of_normal_laws_in_bits(t: int) -> None:
    schedule, x0, noise = LearnedVariance(), random(1, 2, 4), random(1, 2, 4, seed=1)
    times, prediction = torch.tensor([t]), torch.cat([random(1, 2, 4, seed=2), random(1, 2, 4, seed=3).tanh()], dim=1)
    x = schedule.noised(x0, noise, times)
    true_mean, true_logvar = schedule.posterior(x0, x, times)
    mean, logvar = schedule.step_back(x, prediction, times)
    bits = kl_divergence(Normal(true_mean, (true_logvar / 2).exp()), Normal(mean, (logvar / 2).exp())) / math.log(2)
    expected = (prediction[:, :2] - noise) ** 2 + bits
    assert torch.allclose(schedule.loss(prediction, x0, noise, times), expected, rtol=1e-3, atol=1e-4)


def test_the_last_step_is_a_likelihood_in_bins() -> None:
    schedule, noise, t = LearnedVariance(), random(1, 2, 4, seed=1), torch.tensor([0])
    x0 = random(1, 2, 4).tanh() * 0.9
    x0[0, 0, :2] = torch.tensor([-1.0, 1.0])
    prediction = torch.cat([noise, torch.zeros(1, 2, 4)], dim=1)
    x = schedule.noised(x0, noise, t)
    mean, logvar = schedule.step_back(x, prediction, t)
    law = Normal(mean.double(), (logvar / 2).exp().double())
    share = law.cdf(x0.double() + 1 / 255) - law.cdf(x0.double() - 1 / 255)
    share[0, 0, 0] = law.cdf(x0.double() + 1 / 255)[0, 0, 0]
    share[0, 0, 1] = 1 - law.cdf(x0.double() - 1 / 255)[0, 0, 1]
    expected = -share.log() / math.log(2)
    assert torch.allclose(schedule.loss(prediction, x0, noise, t).double(), expected, atol=2e-3)


def test_the_variance_is_learnt_by_the_bound_alone() -> None:
    schedule, x0, noise, t = LearnedVariance(), random(2, 2, 4), random(2, 2, 4, seed=1), torch.tensor([0, 400])
    prediction = torch.cat([random(2, 2, 4, seed=2), torch.zeros(2, 2, 4)], dim=1).requires_grad_()
    schedule.loss(prediction, x0, noise, t).sum().backward()
    assert prediction.grad is not None
    assert torch.allclose(prediction.grad[:, :2], 2 * (prediction[:, :2] - noise).detach(), atol=1e-5)
    assert bool((prediction.grad[:, 2:] != 0).any(dim=(1, 2)).all()), "at every time"


def test_variance_lies_between_the_posteriors_and_beta() -> None:
    schedule, x = LearnedVariance(), random(1, 2, 4)
    for t in (1, 500, 999):
        times = torch.tensor([t])
        low, high = (
            float(schedule.step_back(x, torch.cat([x, torch.full_like(x, end)], dim=1), times)[1].mean())
            for end in (-1.0, 1.0)
        )
        assert high == pytest.approx(float(schedule.betas[t].log()), abs=1e-5)
        assert low == pytest.approx(float(schedule.posterior(x, x, times)[1].mean()), abs=1e-5) and low < high


def test_the_right_noise_samples_the_truth_through_every_sampler() -> None:
    schedule, truth, noise = LearnedVariance(), random(1, 2, 3), random(1, 2, 3, seed=1)

    def knows(x: Tensor, t: Tensor) -> Tensor:
        a, s = schedule.at(t, x)
        return (x - a * truth) / s

    for sampler in (ddim, dpm_solver):
        assert torch.allclose(sampler(denoiser(knows, schedule), noise, schedule, 12), truth, atol=1e-3)
    guided = joint(knows, lambda x, t: knows(x, t) + 1, 1.0)
    assert torch.allclose(ddim(denoiser(guided, schedule), noise, schedule, 12), truth, atol=1e-3)

"""Schedule, objective, guidance and samplers: the published numbers, and diffusers' own steps."""

from __future__ import annotations

import diffusers
import pytest
import torch
from diffusers.schedulers import scheduling_dpm_cogvideox
from torch import Tensor

from generator import samplers
from generator.guidance import dynamic_weight
from generator.objectives import Schedule, kl_divergence, uniform_timesteps
from generator.samplers import ddim, dpm_solver_sde, guided, trailing_timesteps

SETTINGS = {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("shift", "expected"),
    [
        (1.0, (0.999575, 0.808820, 0.492300, 0.182130, 0.000444, 0)),
        (3.0, (0.998726, 0.625212, 0.309790, 0.104718, 0.000250, 0)),
    ],
)
def test_schedule_has_the_published_values_and_ends_in_noise(shift: float, expected: tuple[float, ...]) -> None:
    signal = Schedule(shift).signal
    assert signal[[0, 249, 499, 749, 998, 999]].tolist() == pytest.approx(expected, abs=1e-6)
    assert signal[999] == 0 and bool((signal.diff() < 0).all())
    theirs = diffusers.CogVideoXDDIMScheduler(snr_shift_scale=shift, **SETTINGS).alphas_cumprod
    assert torch.allclose(signal**2, theirs.double(), atol=1e-6)


def test_velocity_and_clean_undo_each_other() -> None:
    schedule, x0, noise = Schedule(), random(5, 2, 3), random(5, 2, 3, seed=1)
    t = torch.tensor([0, 100, 500, 998, 999])
    x, v = schedule.noised(x0, noise, t), schedule.velocity(x0, noise, t)
    assert torch.allclose(schedule.clean(x, v, t), x0, atol=1e-5)
    assert torch.equal(x[4], noise[4]) and torch.equal(v[4], -x0[4]), "the last step is pure noise"
    theirs = diffusers.CogVideoXDDIMScheduler(snr_shift_scale=1.0, **SETTINGS)
    assert torch.allclose(theirs.get_velocity(x0, noise, t), v, atol=1e-5)
    assert torch.allclose(theirs.add_noise(x0, noise, t), x, atol=1e-5)


@pytest.mark.parametrize(("world", "groups"), [(8, 8), (16, 8), (40, 40), (12, 1)])
def test_every_interval_of_timesteps_gets_its_share(world: int, groups: int) -> None:
    generator = torch.Generator().manual_seed(0)
    drawn = torch.stack([uniform_timesteps(torch.arange(world), world, groups, 1000, generator) for _ in range(400)])
    counts = torch.stack([(drawn * groups // 1000 == k).sum(dim=1) for k in range(groups)])
    assert bool((counts == world // groups).all())
    assert drawn.min() < 10 and drawn.max() >= 990
    assert drawn.double().mean() == pytest.approx(499.5, abs=20)


def test_a_worker_that_holds_a_part_of_the_batch_draws_in_the_intervals_of_its_slots() -> None:
    drawn = uniform_timesteps(torch.tensor([4, 5]), 8, 8, 1000, torch.Generator().manual_seed(0))
    assert (drawn // 125).tolist() == [4, 5]
    with pytest.raises(ValueError, match="cannot be split evenly over 3 intervals"):
        uniform_timesteps(torch.arange(8), 8, 3, 1000, torch.Generator())


def test_divergence_is_zero_for_the_standard_normal() -> None:
    assert kl_divergence(torch.zeros(4), torch.zeros(4)) == 0
    assert float(kl_divergence(torch.tensor([2.0]), torch.tensor([0.0]))) == pytest.approx(2.0)


def velocity(x: Tensor, t: Tensor, text: Tensor) -> Tensor:
    """A model that nobody trained, smooth in all it is given."""
    return torch.tanh(x.roll(1, -1) + text.mean(dim=(1, 2))[:, None, None] - t[:, None, None] / 1000)


@pytest.mark.parametrize("steps", [1, 10, 50])  # there, other numbers end their last step elsewhere
def test_ddim_equals_diffusers(steps: int) -> None:
    schedule, noise, text = Schedule(3.0), random(2, 3, 4), random(2, 5, 6, seed=1)
    mine = ddim(guided(velocity, schedule, text, text * 0, steps, 1.0), noise, schedule, steps)
    theirs = diffusers.CogVideoXDDIMScheduler(snr_shift_scale=3.0, clip_sample=False, **SETTINGS)
    theirs.set_timesteps(steps)
    assert trailing_timesteps(steps, 1000) == theirs.timesteps.tolist()
    x = noise
    for t in theirs.timesteps:
        x = theirs.step(velocity(x, t.repeat(2), text), t, x).prev_sample
    assert torch.allclose(mine, x, atol=1e-4)


@pytest.mark.parametrize("steps", [2, 10, 50])
def test_dpm_solver_equals_diffusers(steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    schedule, noise, text, fresh = Schedule(1.0), random(2, 3, 4), random(2, 5, 6, seed=1), random(2, 3, 4, seed=3)
    # Theirs draws twice on some steps and uses one of the two; the same noise on every step compares the formulas.
    monkeypatch.setattr(scheduling_dpm_cogvideox, "randn_tensor", lambda *_, **__: fresh)
    monkeypatch.setattr(samplers.torch, "randn", lambda *_, **__: fresh)
    mine = dpm_solver_sde(guided(velocity, schedule, text, text * 0, steps, 1.0), noise, schedule, steps)
    theirs = diffusers.CogVideoXDPMScheduler(snr_shift_scale=1.0, clip_sample=False, **SETTINGS)
    theirs.set_timesteps(steps)
    x, before = noise, None
    for k, t in enumerate(theirs.timesteps):
        last = theirs.timesteps[k - 1] if k else None
        x, before = theirs.step(velocity(x, t.repeat(2), text), before, t, last, x, return_dict=False)
    assert torch.allclose(mine, x, atol=2e-4)


@pytest.mark.parametrize("sampler", [ddim, dpm_solver_sde])
def test_a_perfect_denoiser_is_believed(sampler) -> None:
    truth = random(1, 2, 3)
    assert torch.allclose(sampler(lambda x, t, step: truth, random(1, 2, 3, seed=1), Schedule(), 10), truth, atol=1e-5)


def test_guidance() -> None:
    schedule, x, text, null = Schedule(), random(1, 2, 3), random(1, 4, 5, seed=1), random(1, 4, 5, seed=2)
    t = torch.tensor([500])
    with_text, without = velocity(x, t, text), velocity(x, t, null)
    for scale in (0.0, 1.0, 6.0):
        expected = schedule.clean(x, without + scale * (with_text - without), t)
        assert torch.allclose(guided(velocity, schedule, text, null, 50, scale)(x, 500, 3), expected, atol=1e-5)
    grown = {10: 1.0000, 25: 1.0144, 35: 1.4086, 40: 2.4541, 45: 4.8414, 50: 7.0}
    # The published figures of section 3 are for an end of 1 + 6.
    for step, weight in grown.items():
        assert dynamic_weight(step, 50, 6.0) == pytest.approx(weight, abs=2e-3)
    assert guided(velocity, schedule, text, null, 50, 6.0, dynamic=True)(x, 500, 0).equal(
        guided(velocity, schedule, text, null, 50, 1.0)(x, 500, 0)
    )


@pytest.mark.parametrize("steps", [0, 1001])
def test_too_few_or_many_steps_are_refused(steps: int) -> None:
    with pytest.raises(ValueError, match="between 1 and 1000"):
        trailing_timesteps(steps, 1000)

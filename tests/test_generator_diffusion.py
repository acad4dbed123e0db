"""What test_diffusion.py leaves out: the schedule as a folder, who is called when, whose noise it is, and the loss."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
import torch
from torch import Tensor

from generator import recipes
from generator.checkpoint import export_schedule, load_schedule
from generator.draws import Draws
from generator.objectives import Schedule, uniform_timesteps
from generator.sample import sample_videos, to_pixels
from generator.samplers import ddim, dpm_solver_sde, trailing_timesteps
from generator.systems.base import Batch, Dropping
from generator.vae.cogvideox import CogVideoXVae
from tests.generator_films import one_thread  # noqa: F401  (used by being here)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def rewrite(folder: Path, **changes: Any) -> None:
    file = folder / "scheduler_config.json"
    settings = json.loads(file.read_text()) | changes
    file.write_text(json.dumps({key: value for key, value in settings.items() if value != "absent"}))


@pytest.mark.parametrize("schedule", [Schedule(1.0), Schedule(3.0), Schedule(3.0, steps=200)], ids=str)
def test_a_schedule_goes_out_and_comes_back(schedule: Schedule, tmp_path: Path) -> None:
    diffusers = pytest.importorskip("diffusers")
    folder = export_schedule(schedule, tmp_path / "scheduler")
    assert load_schedule(folder) == schedule
    theirs = diffusers.CogVideoXDDIMScheduler.from_pretrained(folder, local_files_only=True)
    assert torch.allclose(theirs.alphas_cumprod.double(), schedule.signal**2, atol=1e-6)
    theirs.save_pretrained(tmp_path / "theirs")
    assert load_schedule(tmp_path / "theirs") == schedule


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("prediction_type", "epsilon"),
        ("rescale_betas_zero_snr", False),
        ("beta_schedule", "linear"),
        ("beta_start", 0.0001),
        ("beta_end", 0.02),
        ("trained_betas", [0.1, 0.2]),
        ("snr_shift_scale", "absent"),
        ("num_train_timesteps", "absent"),
    ],
)
def test_another_kind_of_schedule_is_refused_and_the_key_named(key: str, value: Any, tmp_path: Path) -> None:
    rewrite(export_schedule(Schedule(), tmp_path / "scheduler"), **{key: value})
    with pytest.raises(ValueError, match=key):
        load_schedule(tmp_path / "scheduler")


def test_timesteps_of_the_specified_fixture() -> None:
    """World 16 in 2 groups of T = 1000: slots 0 to 7 draw in 0..499, slots 8 to 15 in 500..999."""
    generator = torch.Generator().manual_seed(0)
    drawn = torch.stack([uniform_timesteps(torch.arange(16), 16, 2, 1000, generator) for _ in range(500)])
    low, high = drawn[:, :8], drawn[:, 8:]
    assert low.min() >= 0 and low.max() <= 499 and high.min() >= 500 and high.max() <= 999
    assert low.min() < 5 and low.max() > 494 and high.min() < 505 and high.max() > 994, "all of each interval"


def test_intervals_that_do_not_divide_the_steps_leave_no_gap() -> None:
    generator = torch.Generator().manual_seed(0)
    drawn = torch.stack([uniform_timesteps(torch.arange(3), 3, 3, 10, generator) for _ in range(300)])
    assert [sorted(set(column.tolist())) for column in drawn.T] == [[0, 1, 2], [3, 4, 5], [6, 7, 8, 9]]


@pytest.mark.parametrize("sampler", [ddim, dpm_solver_sde])
@pytest.mark.parametrize("steps", [1, 7, 50])
def test_the_denoiser_is_called_once_per_step_from_pure_noise_on(sampler: Any, steps: int) -> None:
    noise, calls = random(1, 2, 3), []

    def denoise(x: Tensor, t: int, step: int) -> Tensor:
        calls.append((t, step))
        if not step:
            assert torch.equal(x, noise)
        return x * 0

    sampler(denoise, noise, Schedule(), steps)
    assert calls == list(zip(trailing_timesteps(steps, 1000), range(steps), strict=True))
    assert calls[0][0] == 999


@pytest.mark.parametrize("sampler", [ddim, dpm_solver_sde])
def test_samples_keep_the_noise_level_of_the_schedule(sampler: Any) -> None:
    """With the truth 0 at every step, what reaches step t is noise of variance 1 - a_t^2."""
    schedule, levels = Schedule(), []

    def denoise(x: Tensor, t: int, step: int) -> Tensor:
        levels.append((float(x.std()), float((1 - schedule.signal[t] ** 2).sqrt())))
        return x * 0

    torch.manual_seed(0)
    sampler(denoise, random(1, 200, 200), schedule, 20)
    assert [got for got, _ in levels] == pytest.approx([wanted for _, wanted in levels], abs=0.01)


def test_the_noise_of_the_stochastic_sampler_is_that_of_its_generator() -> None:
    def draw(seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        return dpm_solver_sde(lambda x, t, step: torch.tanh(x), random(1, 2, 3), Schedule(), 5, generator)

    assert torch.equal(draw(0), draw(0)) and not torch.equal(draw(0), draw(1))


class Spy:
    """Stands for the transformer and the text encoder: knows the truth, and remembers what it was asked."""

    def __init__(self, schedule: Schedule, truth: Tensor) -> None:
        self.schedule, self.truth = schedule, truth
        self.times: list[int] = []
        self.texts: list[str] = []

    def say(self, texts: list[str], micro: Tensor) -> dict[str, Tensor]:
        self.texts += texts
        return {"text": torch.zeros(len(texts), 16, 32)}

    def guess(self, x: Tensor, t: Tensor, *rest: object) -> tuple[Tensor, None]:
        self.times += t.tolist()
        a, s = self.schedule.at(t, x)
        return self.schedule.velocity(self.truth, (x - a * self.truth) / s, t), None


def spied(text_dropout: float, rounds: int = 40) -> tuple[Spy, list[float], int]:
    system = dataclasses.replace(
        recipes.tiny_cogvideox().system, groups=4, dropping=Dropping(text=text_dropout)
    ).build()
    mean = random(8, 4, 5, 8, 8)
    moments = torch.stack([mean, torch.full_like(mean, -60.0)], dim=1)  # the VAE is sure, so that x0 is the mean
    spy = Spy(Schedule(), 2.5 * mean)
    system.scale, system.say, system.guess = 2.5, spy.say, spy.guess
    slots = list(range(8))
    batch = Batch(moments, [f"caption {k}" for k in slots], slots, lambda: mean, torch.zeros(8, 6))
    results = [system.losses(batch, Draws.of(slots, step), world=8) for step in range(rounds)]
    return spy, [float(losses.mean) for losses in results], results[0].tokens


def test_a_model_that_knows_the_truth_has_no_loss() -> None:
    spy, losses, tokens = spied(text_dropout=0.0)
    assert max(losses) < 1e-6
    assert tokens == 8 * (5 * 4 * 4 + 16), "80 tokens of video and 16 of text"
    quarters = torch.tensor(spy.times).view(-1, 8) // 250
    assert bool((quarters == torch.tensor([0, 0, 1, 1, 2, 2, 3, 3])).all()), "each batch covers all noise levels"


@pytest.mark.parametrize("share", [0.0, 0.1, 1.0])
def test_texts_are_dropped_as_often_as_the_recipe_says(share: float) -> None:
    spy, _, _ = spied(text_dropout=share)
    assert spy.texts.count("") / len(spy.texts) == pytest.approx(share, abs=0.06 if 0 < share < 1 else 0)
    kept = [(k, text) for k, text in enumerate(spy.texts) if text]
    assert all(text == f"caption {k % 8}" for k, text in kept), "the others stay with their clips"


def test_what_the_model_knows_is_what_the_film_shows() -> None:
    """Sampling ends in the VAE's own picture of the latent: the scale of the diffusion model is taken out again."""
    recipe = recipes.tiny_cogvideox()
    torch.manual_seed(0)
    vae = CogVideoXVae(dataclasses.replace(recipe.vae, scaling_factor=2.5)).eval()
    system, latent = recipe.system.build(), random(1, 4, 2, 8, 8)
    system.use(vae)
    system.guess = Spy(Schedule(), 2.5 * latent).guess
    data = dataclasses.replace(recipe.data, frames=5)
    shown = sample_videos(vae, system, ["x"], data, 5, 6.0, 0)
    with torch.no_grad():
        expected = to_pixels(vae.decode(latent))
    assert shown.shape == expected.shape == (1, 5, 64, 64, 3)
    assert np.abs(shown.astype(int) - expected).max() <= 1 and expected.std() > 1

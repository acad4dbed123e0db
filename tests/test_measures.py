"""Measures against other implementations and by hand; the held-out loss is a function of weights and clips alone."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

pytest.importorskip("torch")
import torch
from torch import Tensor

from generator import recipes
from generator.measures import fixed_times, flicker, heldout_loss, matched_times, psnr, ssim, vae_scores
from generator.objectives import FlowMatching, LearnedVariance, Schedule
from generator.systems.base import Batch, System
from generator.vae import sizes as vaes
from tests.generator_films import one_thread  # noqa: F401  (used by being here)


def videos(count: int = 2, frames: int = 3, size: int = 32) -> Tensor:
    rng = torch.Generator().manual_seed(0)
    coarse = torch.rand(count, 3, frames, size // 8, size // 8, generator=rng)
    return torch.nn.functional.interpolate(coarse, (frames, size, size), mode="trilinear") * 2 - 1


def test_psnr_and_ssim_are_those_of_scikit_image() -> None:
    metrics = pytest.importorskip("skimage.metrics")
    x = videos()
    y = (x + 0.1 * torch.randn(x.shape, generator=torch.Generator().manual_seed(1))).clamp(-1, 1)
    for k in range(2):
        a, b = x[k].double().numpy(), y[k].double().numpy()
        assert float(psnr(y, x)[k]) == pytest.approx(metrics.peak_signal_noise_ratio(a, b, data_range=2), abs=1e-4)
        frames = [
            metrics.structural_similarity(
                a[:, f], b[:, f], data_range=2, channel_axis=0, gaussian_weights=True, use_sample_covariance=False
            )
            for f in range(3)
        ]
        assert float(ssim(y, x)[k]) == pytest.approx(np.mean(frames), abs=1e-5)
    assert torch.allclose(ssim(x, x), torch.ones(2))
    with pytest.raises(ValueError, match="at least 11 pixels"):
        ssim(x[..., :8, :8], x[..., :8, :8])


def test_flicker_is_the_mean_change_in_levels() -> None:
    still = videos(1, 1).expand(-1, -1, 4, -1, -1)
    assert float(flicker(still)) == 0 and float(flicker(still[:, :, :1])) == 0
    rising = torch.arange(4.0).view(1, 1, 4, 1, 1).expand(1, 3, 4, 8, 8) * 2 / 255 - 1
    assert float(flicker(rising)) == pytest.approx(1.0, abs=1e-4), "a level a frame"


def test_scores_of_a_vae_are_those_of_its_reconstructions() -> None:
    torch.manual_seed(0)
    vae = vaes.build(vaes.stiv_debug()).eval()
    x = videos(3, 2)
    with torch.no_grad():
        y = vae.decode(vae.encode_moments(x)[0]).clamp(-1, 1)
    scores = vae_scores(vae, x, batch=2)
    assert torch.allclose(scores["psnr"], psnr(y, x), atol=1e-3)
    assert torch.allclose(scores["flicker"], flicker(y), atol=1e-3)
    assert torch.allclose(scores["flicker_original"], flicker(x))


def test_times_are_spread_and_those_of_two_objectives_match() -> None:
    assert fixed_times(Schedule()).tolist() == [100, 300, 500, 700, 900]
    assert fixed_times(FlowMatching()).tolist() == pytest.approx([0.1, 0.3, 0.5, 0.7, 0.9])
    ones = torch.ones(5, 1)
    for objective in (Schedule(), Schedule(snr_shift=3.0), FlowMatching(), LearnedVariance()):
        t = matched_times(objective)
        a, s = (objective.noised(*pair, t)[:, 0] for pair in ((ones, ones * 0), (ones * 0, ones)))
        assert torch.allclose(a / (a + s), torch.tensor([0.1, 0.3, 0.5, 0.7, 0.9]), atol=6e-3)


def system_and_clips(name: str, count: int = 3) -> tuple[System, Batch]:
    recipe = recipes.named(name)
    torch.manual_seed(0)
    system = recipe.system.build()
    for parameter in system.transformer.parameters():  # what starts at zero says nothing
        torch.nn.init.normal_(parameter, std=0.05)
    latents = torch.randn(count, 2, recipe.vae.latent_channels, *recipe.latents)
    micro = torch.ones(count, 6)
    return system, Batch(latents, ["a", "b", "c"][:count], list(range(count)), lambda: videos(count), micro)


@pytest.mark.parametrize("name", ["tiny_cogvideox", "tiny_moviegen", "tiny_stiv", "tiny_easyanimate"])
def test_the_held_out_loss_depends_on_weights_and_clips_alone(name: str) -> None:
    system, clips = system_and_clips(name)
    system.train()
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = heldout_loss(system, clips, ["x", "y", "z"])
    assert system.training and torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    again = heldout_loss(system, clips, ["x", "y", "z"], size=2)
    assert torch.allclose(first.loss, again.loss, rtol=1e-4) and torch.allclose(first.clean, again.clean, rtol=1e-4)
    assert first.loss.shape == (3, 5) and list(first.strata) == [f"{t:g}" for t in first.times.tolist()]
    alone = dataclasses.replace(
        clips, latents=clips.latents[1:2], texts=["b"], slots=[0], video=lambda: videos(3)[1:2], micro=clips.micro[:1]
    )
    assert torch.allclose(heldout_loss(system, alone, ["y"]).loss, first.loss[1:2], rtol=1e-4)
    assert not torch.allclose(heldout_loss(system, clips, ["x", "y", "z"], seed=1).loss, first.loss, rtol=1e-2)
    for parameter in system.transformer.parameters():
        parameter.data.mul_(1.2)
    assert not torch.allclose(heldout_loss(system, clips, ["x", "y", "z"]).loss, first.loss, rtol=1e-4)


def test_a_model_that_knows_the_clean_latent_has_no_loss() -> None:
    system, clips = system_and_clips("tiny_cogvideox")
    x0 = clips.latents[:, 0] * system.scale
    objective = system.objective
    assert isinstance(objective, Schedule)

    def knowing(x: Tensor, t: Tensor, said: object, known: object, draws: object = None) -> tuple[Tensor, None]:
        a, s = objective.at(t, x)
        return (a * x - x0) / s, None

    system.guess = knowing  # type: ignore[method-assign]
    found = heldout_loss(system, clips, ["x", "y", "z"])
    assert float(found.loss.max()) < 1e-6 and float(found.clean.max()) < 1e-6

"""Movie Gen's upsampler: windows and their mean, the enlarged video as condition, and what is degraded how."""

from __future__ import annotations

import dataclasses
import math
from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from generator.dit import degrade
from generator.dit.degrade import degraded, gaussian_kernel, low_resolution, sinc_kernel
from generator.dit.moviegen import MovieGenTransformer
from generator.dit.sizes import build, moviegen_upsampler_debug
from generator.dit.upsampler import upsample, weights, windowed, windows
from generator.guidance import Branch
from generator.objectives import FlowMatching
from generator.samplers import euler, linear_times
from generator.vae.image import ImageVae
from generator.vae.sizes import stiv_debug
from tests.drawn import drawn, random

CONFIG = dataclasses.replace(moviegen_upsampler_debug(), num_layers=1, text_widths=(6,), max_size=(14, 8, 8))


def starts(frames: int, **how: int) -> list[int]:
    return [part.start for part in windows(frames, **how)]


def test_windows_of_14_overlap_by_4() -> None:
    assert starts(34) == [0, 10, 20] and starts(14) == [0] and starts(44) == [0, 10, 20, 30]
    assert windows(9) == [slice(0, 9)], "a short film is one window"
    assert starts(30) == [0, 10, 16], "the last window ends with the film"
    for frames in range(1, 80):
        parts = windows(frames)
        assert sorted({k for p in parts for k in range(p.start, p.stop)}) == list(range(frames))
        assert all(a.stop - b.start >= 4 for a, b in pairwise(parts))
    with pytest.raises(ValueError, match="windows of 4 frames cannot overlap by 4"):
        windows(9, size=4, overlap=4)


def test_weights_of_a_window() -> None:
    assert weights(4).tolist() == [1, 1, 1, 1]
    assert weights(5, "triangular").tolist() == [1, 2, 3, 2, 1] and weights(4, "triangular").tolist() == [1, 2, 2, 1]
    with pytest.raises(ValueError, match="'uniform' or 'triangular', not 'round'"):
        weights(4, "round")


@pytest.mark.parametrize("form", ["uniform", "triangular"])
def test_each_step_is_the_weighted_mean_of_the_windows_next_latents(form: str) -> None:
    """MultiDiffusion as it is defined: denoise every window, average the latents, cut the windows again."""
    noise, times = random(1, 2, 12, 3, 3), linear_times(5)

    def branch_of(part: slice) -> Branch:
        return lambda x, t: torch.tanh(x.roll(1, 2) * (part.start + 1)) - t.view(-1, 1, 1, 1, 1)

    mine = euler(windowed(branch_of, size=6, overlap=2, form=form), noise, times)
    z = noise
    for now, after in pairwise(times):
        total, count = torch.zeros_like(z), torch.zeros(12)
        for part in windows(12, 6, 2):
            each = z[:, :, part] + (after - now) * branch_of(part)(z[:, :, part], torch.tensor([now]))
            total[:, :, part] += each * weights(6, form).view(-1, 1, 1)
            count[part] += weights(6, form)
        z = total / count.view(-1, 1, 1)
    assert torch.allclose(mine, z, atol=1e-5)


def test_windows_that_agree_are_the_whole() -> None:
    noise, truth, flow = random(1, 2, 23, 3, 3), random(1, 2, 23, 3, 3, seed=1), FlowMatching(sigma_min=0)
    whole = flow.target(truth, noise)
    out = euler(windowed(lambda part: lambda x, t: whole[:, :, part]), noise, linear_times(20))
    assert torch.allclose(out, truth, atol=1e-5)


class FrameVae(nn.Module):
    """Exact on films whose every 8 x 8 block is one colour: means of blocks, into 4 channels, and back."""

    config = SimpleNamespace(scaling_factor=0.5, shift_factor=0.25)

    def encode_moments(self, x: Tensor) -> tuple[Tensor, Tensor]:
        z = F.avg_pool3d(x, (1, 8, 8))
        mean = torch.cat([z, z[:, :1]], dim=1)
        return mean, torch.full_like(mean, -30)

    def decode(self, z: Tensor) -> Tensor:
        return z[:, :3].repeat_interleave(8, -1).repeat_interleave(8, -2)


class KnowsTheLow(nn.Module):
    """Its flow ends in the condition, whatever the noise: the velocity is (condition - x) / (1 - t)."""

    config = CONFIG

    def __init__(self) -> None:
        super().__init__()
        self.frames: list[int] = []

    def forward(self, x: Tensor, t: Tensor, text: Tensor, condition: Tensor) -> Tensor:
        self.frames.append(x.shape[2])
        return (condition - x) / (1 - t).view(-1, 1, 1, 1, 1)


@pytest.mark.parametrize("frames", [5, 18])
def test_the_enlarged_film_is_what_the_model_is_shown(frames: int) -> None:
    """With a model that copies its condition the result is the bilinear enlargement, as the VAE sees it."""
    video = F.interpolate(random(1, 3, frames, 2, 3).tanh(), scale_factor=(1, 8, 8))
    model = KnowsTheLow()
    text = torch.zeros(1, 2, 6)
    out = upsample(model, FrameVae(), video, (32, 48), text, steps=4)  # type: ignore[arg-type]
    assert out.shape == (1, 3, frames, 32, 48)
    large = F.interpolate(video[0].transpose(0, 1), (32, 48), mode="bilinear").transpose(0, 1)[None]
    expected = FrameVae().decode(FrameVae().encode_moments(large)[0])
    assert torch.allclose(out, expected, atol=1e-4)
    assert set(model.frames) == {min(frames, 14)} and len(model.frames) == 4 * len(windows(frames))


def test_sizes_that_are_not_whole_patches_are_padded_and_cut() -> None:
    """1080 rows are 135 latents, which is no even number."""
    video = random(1, 3, 2, 12, 20).tanh()
    out = upsample(KnowsTheLow(), FrameVae(), video, (24, 40), torch.zeros(1, 2, 6), steps=2)  # type: ignore[arg-type]
    assert out.shape == (1, 3, 2, 24, 40) and float(out.abs().max()) <= 1


def test_the_real_model_upsamples_and_is_guided() -> None:
    model: MovieGenTransformer = drawn(build(CONFIG))
    video, text, null = random(1, 3, 3, 16, 16).tanh(), random(1, 2, 6, seed=1), torch.zeros(1, 2, 6)
    how = {"size": (32, 32), "text": text, "steps": 2}
    plain = upsample(model, FrameVae(), video, **how)
    assert torch.equal(upsample(model, FrameVae(), video, **how), plain), "the same seed"
    assert not torch.equal(upsample(model, FrameVae(), video, **how, seed=1), plain)
    assert not torch.equal(upsample(model, FrameVae(), -video, **how), plain)
    assert not torch.equal(upsample(model, FrameVae(), video, **how, null=null, guidance=3.0), plain)
    with pytest.raises(ValueError, match="guidance needs the embedding of the empty text"):
        upsample(model, FrameVae(), video, **how, guidance=3.0)
    real = ImageVae(stiv_debug()).eval()
    assert upsample(model, real, video, **how).shape == (1, 3, 3, 32, 32)
    other = drawn(build(dataclasses.replace(CONFIG, in_channels=3, condition_channels=3, out_channels=3)))
    with pytest.raises(ValueError, match="the VAE's latents have 4 channels; this upsampler takes 3 and 3"):
        upsample(other, FrameVae(), video, **how)


def film() -> Tensor:
    """A pattern that moves, (3, 5, 64, 96) in [-1, 1]."""
    y, x = torch.meshgrid(torch.linspace(-1, 1, 64), torch.linspace(-1, 1, 96), indexing="ij")
    return torch.stack([torch.sin(9 * x + k) * torch.cos(7 * y) for k in range(5)]).expand(3, -1, -1, -1)


def test_degraded_films_are_half_as_large_worse_and_never_the_same() -> None:
    video = film()
    small = F.interpolate(video.transpose(0, 1), (32, 48), mode="area").transpose(0, 1)
    found = [degraded(video, generator=torch.Generator().manual_seed(k)) for k in range(12)]
    errors = [float((one - small).square().mean()) for one in found]
    assert all(one.shape == (3, 5, 32, 48) and float(one.abs().max()) <= 1 for one in found)
    assert min(errors) > 1e-4 and max(errors) > 3 * min(errors), "strengths differ"
    assert torch.equal(degraded(video, generator=torch.Generator().manual_seed(3)), found[3])
    levels = (found[0] + 1) * 127.5
    assert torch.allclose(levels, levels.round(), atol=1e-3), "pixels"
    correlated = [float(torch.corrcoef(torch.stack([one.flatten(), small.flatten()]))[0, 1]) for one in found]
    assert sum(c > 0.3 for c in correlated) >= 10, "and it is still that film"
    with pytest.raises(ValueError, match="63 x 96 cannot be made 2 times smaller"):
        degraded(video[:, :, :63])


def test_one_strength_per_film_and_new_noise_per_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    kernels: list[Tensor] = []
    real = degrade._filtered
    monkeypatch.setattr(degrade, "_filtered", lambda x, k: kernels.append(k) or real(x, k))
    still = film()[:, :1].expand(-1, 4, -1, -1)
    out = degraded(still, generator=torch.Generator().manual_seed(1))
    assert 1 <= len(kernels) <= 3, "one per stage and one at the end, for all frames"
    noise = [out[:, k] - out[:, 0] for k in range(1, 4)]
    assert all(n.abs().max() > 0.01 for n in noise), "no frame is a copy of the first"
    spread = torch.stack([n.std() for n in noise])
    assert float(spread.max() / spread.min()) < 1.3, "but all are as noisy"


def test_order_of_the_two_stages(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    for name in ("_blur", "_resize", "_noise", "_jpeg"):
        real = getattr(degrade, name)
        monkeypatch.setattr(degrade, name, lambda *a, real=real, name=name: done.append(name) or real(*a))
    degraded(film(), generator=torch.Generator().manual_seed(0))
    assert done == ["_blur", "_resize", "_noise", "_jpeg"] * 2


def test_kernels_are_means_that_keep_the_middle() -> None:
    for kind, beta in (("gaussian", 1.0), ("generalised", 0.7), ("plateau", 1.5)):
        kernel = gaussian_kernel(9, (2.0, 0.7), 0.4, kind, beta)
        assert float(kernel.sum()) == pytest.approx(1, abs=1e-5) and float(kernel.max()) == float(kernel[4, 4])
        assert torch.allclose(kernel, kernel.flip(0, 1), atol=1e-6)
        assert not torch.allclose(kernel, kernel.T, atol=1e-4), "stretched along its axis"
        assert torch.allclose(*(gaussian_kernel(9, (1.5, 1.5), a, kind, beta) for a in (0.0, 1.0)), atol=1e-6)
    generalised = gaussian_kernel(9, (1.5, 1.5), 0, "generalised", 1.0)
    assert torch.allclose(generalised, gaussian_kernel(9, (1.5, 1.5), 0, "gaussian", 1.0), atol=1e-6)


def test_a_sinc_kernel_keeps_low_frequencies_and_drops_high_ones() -> None:
    kernel = sinc_kernel(21, math.pi / 2)
    assert float(kernel.sum()) == pytest.approx(1, abs=1e-5) and float(kernel.min()) < 0, "it rings"
    response = torch.fft.fft2(F.pad(kernel, (0, 43, 0, 43))).abs()
    assert float(response[0, :8].min()) > 0.85 and float(response[0, 26:33].max()) < 0.15


def test_some_films_are_passed_through_the_vae_instead() -> None:
    video, asked = film(), []

    def reconstruct(x: Tensor) -> Tensor:
        asked.append(x.shape)
        return x * 0.5

    low = low_resolution(video, reconstruct, share=1.0, generator=torch.Generator().manual_seed(0))
    small = F.interpolate(video.transpose(0, 1), (32, 48), mode="area").transpose(0, 1)
    assert torch.allclose(low, small * 0.5, atol=1e-6) and asked == [(3, 5, 32, 48)]
    low_resolution(video, reconstruct, share=0.0, generator=torch.Generator().manual_seed(0))
    assert len(asked) == 1

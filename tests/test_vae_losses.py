"""Losses of the VAEs: values worked out by hand, who gets a gradient, and when the GAN begins."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor

from generator.vae import losses, sizes
from generator.vae.discriminators import Clips, Films, Patches, blurred
from generator.vae.losses import LossConfig, VaeObjective, hinge, outlier_penalty
from generator.vae.perceptual import Edges, perceptual
from tests.generator_films import one_thread  # noqa: F401  (used by being here)
from tests.vae_checks import drawn, off, random

PRESETS = (
    losses.cogvideox,
    losses.moviegen,
    losses.moviegen_outliers,
    losses.easyanimate_magvit,
    losses.easyanimate_slice,
    losses.easyanimate_decoder,
)


def small_judges() -> list[torch.nn.Module]:
    return [Patches(width=4, layers=1), Clips(widths=(4, 8), groups=2)]


def film(seed: int = 0, frames: int = 5) -> Tensor:
    return random(2, 3, frames, 16, 16, seed=seed).clamp(-1, 1)


@pytest.mark.parametrize("per_channel", [False, True])
def test_the_outlier_penalty_of_one_outlier(per_channel: bool) -> None:
    z = torch.zeros(1, 1, 1, 4, 4)
    z[0, 0, 0, 1, 2] = 10
    assert float(outlier_penalty(z, 3.0, per_channel)) == pytest.approx(0.1171875)


def test_the_outlier_penalty_measures_vectors_of_each_frame() -> None:
    z = torch.zeros(1, 2, 3, 4, 4)
    z[0, 0, 1, 0, 0], z[0, 1, 1, 0, 0] = 30, 40  # a vector of length 50 in one of three frames
    assert float(outlier_penalty(z)) == pytest.approx(5 * 0.1171875 / 3)
    assert float(outlier_penalty(z, per_channel=True)) == pytest.approx((3 + 4) * 0.1171875 / 2 / 3)
    assert float(outlier_penalty(random(2, 4, 3, 8, 8))) < 1e-3, "noise has no outliers"
    assert float(outlier_penalty(torch.ones(1, 2, 3, 1, 1))) == 0
    still = torch.ones(1, 2, 1, 4, 4, requires_grad=True)
    outlier_penalty(still).backward()
    assert still.grad is not None and bool(still.grad.isfinite().all())


def test_kl_is_summed_over_the_latent_and_averaged_over_videos() -> None:
    mean, logvar = torch.full((2, 1, 1, 2, 2), 3.0), torch.zeros(2, 1, 1, 2, 2)
    total, terms = VaeObjective(LossConfig(perceptual=0, kl=0.5)).generator(film(), film(), mean, logvar, 0)
    assert float(terms["kl"]) == pytest.approx(4 * 4.5) and float(total) == pytest.approx(9.0)


def test_hinge() -> None:
    real, made = torch.tensor([2.0, 0.0]), torch.tensor([-3.0, 1.0])
    assert float(hinge([(real, made)])) == pytest.approx(0.5 + 1.0)
    assert float(hinge([(real, made), (real, made)])) == pytest.approx(3.0)


def test_a_latent_diffusion_loss_sums_pixels_of_a_frame() -> None:
    config = LossConfig(l1=1.0, l2=0.5, perceptual=2.0, summed=True, kl=0.25)
    x, y = film(0), film(1)
    mean, logvar = random(2, 4, 2, 2, 2), random(2, 4, 2, 2, 2, seed=3)
    objective = VaeObjective(config, Edges())
    assert objective.log_variance is not None
    with torch.no_grad():
        objective.log_variance.fill_(0.3)
        total, terms = objective.generator(x, y, mean, logvar, 0)
        frames = [video.transpose(1, 2).flatten(0, 1) for video in (x, y)]
        # Written as the public code does it, the distance of a frame being added at each of its pixels.
        pixels = (frames[0] - frames[1]).abs() + 0.5 * (frames[0] - frames[1]) ** 2
        pixels = pixels + 2.0 * Edges()(*frames).view(-1, 1, 1, 1)
        likelihood = (pixels / torch.tensor(0.3).exp() + 0.3).sum() / len(frames[0])
        kl = 0.5 * (mean**2 + logvar.exp() - 1 - logvar).sum() / len(mean)
    assert float(total) == pytest.approx(float(likelihood + 0.25 * kl), rel=1e-5)
    assert terms.keys() == {"l1", "l2", "perceptual", "kl"}


@pytest.mark.parametrize("preset", PRESETS, ids=lambda preset: preset.__name__)
def test_the_gan_begins_at_its_step_and_not_before(preset: Any) -> None:
    config, x = preset(), film()
    vae = drawn(sizes.build(sizes.cogvideox_debug()))
    objective = VaeObjective(config, Edges(), small_judges())
    last = vae.decoder.conv_out.conv.weight
    mean, logvar = vae.encode_moments(x)
    y = vae.decode(mean)
    for step in {0, config.gan_from - 1, config.gan_from, config.gan_from + 100_000} - {-1}:
        total, terms = objective.generator(x, y, mean, logvar, step, last)
        judged, judged_terms = objective.discriminator(x, y, step)
        plays = step >= config.gan_from
        assert ("gan" in terms) == ("hinge" in judged_terms) == (judged.item() > 0) == plays
        assert bool(total.isfinite())
    assert preset is losses.moviegen_outliers or config.gan_from > 1000
    assert ("outliers" in terms) == (preset is losses.moviegen_outliers)


def test_each_player_has_gradients_of_its_own() -> None:
    vae = drawn(sizes.build(sizes.cogvideox_debug()))
    config = dataclasses.replace(losses.easyanimate_magvit(), gan_from=0, gradient_penalty=1.0)
    objective, x = VaeObjective(config, Edges(), small_judges()), film()
    mean, logvar = vae.encode_moments(x)
    y = vae.decode(mean)
    total, _ = objective.generator(x, y, mean, logvar, 0, vae.decoder.conv_out.conv.weight)
    total.backward(retain_graph=True)
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in vae.parameters())
    assert all(p.grad is None for p in objective.discriminators.parameters())
    before = [p.grad.clone() for p in vae.parameters()]
    loss, terms = objective.discriminator(x, y, 0)
    loss.backward()
    assert terms.keys() == {"hinge", "gradient"}
    assert all(p.grad is not None for p in objective.discriminators.parameters())
    assert all(torch.equal(a, p.grad) for a, p in zip(before, vae.parameters(), strict=True))


def test_the_adaptive_weight_makes_the_gradients_equal() -> None:
    vae, x = drawn(sizes.build(sizes.cogvideox_debug())), film()
    mean, logvar = vae.encode_moments(x)
    y, last = vae.decode(mean), vae.decoder.conv_out.conv.weight

    def gradient(loss: Tensor) -> Tensor:
        return torch.autograd.grad(loss, last, retain_graph=True)[0]

    judges = small_judges()
    both = VaeObjective(LossConfig(kl=0, gan=1.0, adaptive=True), Edges(), judges)
    alone = VaeObjective(LossConfig(kl=0), Edges())
    rest, _ = alone.generator(x, y, mean, logvar, 0)
    total, terms = both.generator(x, y, mean, logvar, 0, last)
    share = gradient(total - rest).norm() / gradient(rest).norm()
    assert float(share) == pytest.approx(1.0, rel=0.05)
    with pytest.raises(ValueError, match="needs the decoder's last weight"):
        both.generator(x, y, mean, logvar, 0)
    assert terms["gan"].item() != 0


def test_a_gan_step_makes_both_players_better() -> None:
    """Each against a standstill of the other: the discriminators tell more, then the decoder is told from less."""
    torch.manual_seed(0)
    vae = drawn(sizes.build(sizes.cogvideox_debug()))
    config = LossConfig(l1=0, perceptual=0, kl=0, gan=1.0)
    objective, x = VaeObjective(config, None, small_judges()), film()
    mean, logvar = vae.encode_moments(x)

    def play(who: Any, loss_of: Any, rate: float) -> list[float]:
        optimizer, seen = torch.optim.Adam(who.parameters(), rate, (0.5, 0.9)), []
        for _ in range(12):
            loss = loss_of()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            seen.append(float(loss.detach()))
        return seen

    y = vae.decode(mean).detach()
    told = play(objective.discriminators, lambda: objective.discriminator(x, y, 0)[0], 2e-3)
    assert told[-1] < 0.95 * told[0]
    made = play(
        vae.decoder, lambda: objective.generator(x, vae.decode(mean.detach()), mean.detach(), logvar, 0)[0], 1e-3
    )
    assert made[-1] < made[0] - 0.05


@pytest.mark.parametrize("frames", [1, 5, 9, 17])
@pytest.mark.parametrize(
    "judge", [Patches(width=4), Clips(widths=(4, 8, 8), groups=2), None], ids=["patches", "clips", "films"]
)
def test_discriminators_take_videos_and_images(judge: Any, frames: int) -> None:
    judge = judge or Films(1, frames, 32, 48)
    x = random(2, 3, frames, 32, 48).requires_grad_()
    logits = judge(x)
    assert logits.shape[0] in (2, 2 * frames) and bool(logits.isfinite().all())
    logits.mean().backward()
    assert x.grad is not None and bool((x.grad.flatten(3).abs().sum(dim=(0, 1, 3)) > 0).all()), "every frame is seen"


def test_published_discriminators() -> None:
    """PatchGAN sees 70 x 70 pixels and has 2.77 M weights; the widths of the other two."""
    patches = Patches()
    assert sum(p.numel() for p in patches.parameters()) == 2_765_633
    with torch.device("meta"):
        films = Films(32, 17, 256, 256)
    assert [block.conv1.conv.out_channels for block in films.blocks[:4]] == [128, 256, 512, 512]
    assert len(films.blocks) == 7 and films.temporal == 4
    with pytest.raises(ValueError, match="at least 8 x 8, not 4 x 32"):
        Films(1, 5, 4, 32)
    with pytest.raises(ValueError, match=r"videos of \(5, 16, 16\), got \(1, 16, 16\)"):
        Films(1, 5, 16, 16)(torch.zeros(1, 3, 1, 16, 16))


def test_a_blur_keeps_what_is_flat() -> None:
    x = torch.ones(1, 2, 4, 6, 6)
    assert torch.allclose(blurred(x, axes=2, stride=1)[..., 1:-1, 1:-1], x[..., 1:-1, 1:-1])
    assert blurred(x, axes=3, stride=2).shape == (1, 2, 2, 3, 3)


def test_edges_see_blur_and_not_brightness() -> None:
    x = random(3, 3, 16, 16)
    distance = perceptual("edges")
    assert torch.allclose(distance(x, x + 0.5), torch.zeros(3), atol=1e-6)
    assert float(distance(x, x.mean(dim=(2, 3), keepdim=True).expand_as(x)).min()) > 0.3
    assert distance(x[..., :1, :1], x[..., :1, :1] + 1).tolist() == [0, 0, 0]


@pytest.fixture(scope="module")
def vgg(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any, list[Tensor]]:
    """A folder with the two files as published, random numbers in them, and what is in them."""
    torch.manual_seed(0)
    network = torchvision.models.vgg16(weights=None).eval()
    heads = [torch.rand(1, width, 1, 1) for width in (64, 128, 256, 512, 512)]
    folder = tmp_path_factory.mktemp("lpips")
    torch.save(network.features.state_dict(prefix="features."), folder / "vgg16-0.pth")
    torch.save({f"lin{k}.model.1.weight": head for k, head in enumerate(heads)}, folder / "vgg.pth")
    return folder, network, heads


def test_lpips_is_what_its_paper_says(vgg: tuple[Path, Any, list[Tensor]]) -> None:
    """Worked out with torchvision's network: normalised features of five layers, squared differences, weighted."""
    folder, network, heads = vgg
    x, y = (random(2, 3, 40, 32, seed=k).clamp(-1, 1) for k in (0, 1))
    kept: list[Tensor] = []
    hooks = [network.features[k].register_forward_hook(lambda *a: kept.append(a[2])) for k in (3, 8, 15, 22, 29)]
    means, deviations = ((torch.tensor(v).view(3, 1, 1)) for v in ((-0.03, -0.088, -0.188), (0.458, 0.448, 0.45)))
    with torch.no_grad():
        for picture in (x, y):
            network.features((picture - means) / deviations)
        parts = []
        for one, other, head in zip(kept[:5], kept[5:], heads, strict=True):
            apart = [f / f.square().sum(1, keepdim=True).sqrt() for f in (one, other)]
            parts.append((head * (apart[0] - apart[1]) ** 2).sum(1).mean((1, 2)))
        for hook in hooks:
            hook.remove()
        assert off(perceptual(folder)(x, y), torch.stack(parts).sum(0)) < 1e-5


def test_lpips_comes_from_a_file_and_trains_nothing(vgg: tuple[Path, Any, list[Tensor]], tmp_path: Path) -> None:
    model = perceptual(vgg[0])
    save_file(model.state_dict(), tmp_path / "lpips.safetensors")
    again = perceptual(tmp_path / "lpips.safetensors")
    x, y = random(1, 3, 32, 32), random(1, 3, 32, 32, seed=1).requires_grad_()
    distance = again.train()(x, y)
    assert torch.equal(distance, model(x, y)) and not again.training
    distance.sum().backward()
    assert y.grad is not None and bool(y.grad.any()) and not any(p.requires_grad for p in again.parameters())
    assert float(again(x, x)) == 0
    with pytest.raises(ValueError, match="at least 16 x 16, got 8 x 32"):
        again(x[..., :8, :], x[..., :8, :])


def test_lpips_that_cannot_be_had(vgg: tuple[Path, Any, list[Tensor]], tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("VIDCURATE_OFFLINE", "1")
    with pytest.raises(ValueError, match="downloads are forbidden; name a file, or 'edges', the stand-in"):
        perceptual("lpips")
    with pytest.raises(ValueError, match="neither safetensors nor the published"):
        perceptual(tmp_path)
    with pytest.raises(ValueError, match=r"none\.safetensors: there is no such file"):
        perceptual(tmp_path / "none.safetensors")
    (tmp_path / "vgg.pth").write_bytes(b"not a file of weights")
    with pytest.raises(ValueError, match=r"vgg\.pth: this is not a file of weights"):
        perceptual(tmp_path)
    (tmp_path / "vgg.pth").write_bytes((vgg[0] / "vgg.pth").read_bytes())
    with pytest.raises(ValueError, match=r"LPIPS misses features\.0\.bias, features\.0\.weight"):
        perceptual(tmp_path)


def test_terms_without_what_they_need_are_refused() -> None:
    with pytest.raises(ValueError, match="a perceptual weight needs a distance"):
        VaeObjective(LossConfig())
    with pytest.raises(ValueError, match="a GAN weight needs discriminators"):
        VaeObjective(LossConfig(gan=1.0), Edges())


def test_one_random_frame_is_the_same_of_both() -> None:
    x = film()
    seen: list[Tensor] = []

    def distance(a: Tensor, b: Tensor) -> Tensor:
        seen.append(a)
        assert torch.equal(a, b)
        return a.new_zeros(len(a))

    objective = VaeObjective(losses.cogvideox(), distance, small_judges())
    for _ in range(20):
        objective.generator(x, x, random(2, 4, 2, 2, 2), random(2, 4, 2, 2, 2), 0)
    frames = x.transpose(1, 2)
    found = {int((frames[0] == pictures[0]).flatten(1).all(1).nonzero()) for pictures in seen}
    assert all(len(pictures) == 2 for pictures in seen) and len(found) > 2

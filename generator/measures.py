"""How good a VAE and a diffusion model are on clips they were not trained on, measured the same way each time.

PSNR and SSIM (Wang et al. 2004) compare a video with its reconstruction; flicker is that of CogVideoX (arXiv
2408.06072, table 1), the mean change between neighbouring frames. The held-out loss of a diffusion model takes the same
noise and the same times at every call, so that two numbers differ by the models alone.
"""

# mypy: disable-error-code="no-any-return, no-untyped-call"

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from generator import torch_needed  # noqa: F401  (raises the sentence that names the extra)

# isort: split
import torch
import torch.nn.functional as F
from torch import Tensor

from generator.draws import Draws, seed_of
from generator.objectives import FlowMatching
from generator.systems.base import Batch, Objective, System

STRATA = 5
_RADIUS, _SIGMA = 5, 1.5  # of the window of SSIM


def psnr(video: Tensor, reference: Tensor) -> Tensor:
    """Peak signal to noise ratio of videos (B, C, F, H, W) in [-1, 1], (B,): 10 log10(4 / MSE), dB."""
    return 10 * torch.log10(4 / (video - reference).square().flatten(1).mean(1))


def ssim(video: Tensor, reference: Tensor) -> Tensor:
    """Structural similarity of videos (B, C, F, H, W) in [-1, 1], (B,): 1 for equal ones.

    The mean over frames and channels, with a Gaussian window of 11 x 11, sigma 1.5; pixels nearer to the border than
    half of it do not count. Raises ValueError for frames smaller than the window.
    """
    if min(video.shape[-2:]) <= 2 * _RADIUS:
        raise ValueError(f"SSIM needs frames of at least {2 * _RADIUS + 1} pixels, got {tuple(video.shape[-2:])}.")
    x, y = (v.transpose(1, 2).flatten(0, 2)[:, None].double() for v in (video, reference))
    places = torch.arange(-_RADIUS, _RADIUS + 1, dtype=x.dtype, device=x.device)
    window = torch.exp(-(places**2) / (2 * _SIGMA**2))
    window = window / window.sum()

    def blurred(z: Tensor) -> Tensor:
        return F.conv2d(F.conv2d(z, window.view(1, 1, -1, 1)), window.view(1, 1, 1, -1))

    mean_x, mean_y = blurred(x), blurred(y)
    var_x, var_y = blurred(x * x) - mean_x**2, blurred(y * y) - mean_y**2
    both = blurred(x * y) - mean_x * mean_y
    c1, c2 = (0.01 * 2) ** 2, (0.03 * 2) ** 2  # the range is 2
    map_ = (2 * mean_x * mean_y + c1) * (2 * both + c2) / ((mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2))
    return map_.view(video.shape[0], -1).mean(1).to(video.dtype)


def flicker(video: Tensor) -> Tensor:
    """Mean change from frame to frame of videos (B, C, F, H, W) in [-1, 1], in 8-bit levels, (B,); 0 for one frame.

    To be compared with that of the original: less is smoother, and less than the original's is too smooth.
    """
    if video.shape[2] < 2:
        return video.new_zeros(video.shape[0])
    return video.diff(dim=2).abs().flatten(1).mean(1) * 127.5


@torch.no_grad()
def vae_scores(vae: Any, videos: Tensor, batch: int = 8) -> dict[str, Tensor]:
    """PSNR, SSIM and flicker of the reconstruction of each video (B, 3, F, H, W), and the flicker of the original."""
    made: dict[str, list[Tensor]] = {"psnr": [], "ssim": [], "flicker": [], "flicker_original": []}
    device = next(vae.parameters()).device
    for part in videos.split(batch):
        x = part.to(device)
        y = vae.decode(vae.encode_moments(x)[0]).clamp(-1, 1)[:, :, : x.shape[2]]
        for name, value in (
            ("psnr", psnr(y, x)),
            ("ssim", ssim(y, x)),
            ("flicker", flicker(y)),
            ("flicker_original", flicker(x)),
        ):
            made[name].append(value.cpu())
    return {name: torch.cat(values) for name, values in made.items()}


@dataclass(frozen=True, slots=True, eq=False)
class HeldOut:
    """loss: what the objective counts. clean: squared error of the clean latent that the prediction means. Both
    (clips, times). times: in the objective's own units, (times,)."""

    loss: Tensor
    clean: Tensor
    times: Tensor

    @property
    def mean(self) -> float:
        return float(self.loss.mean())

    @property
    def strata(self) -> dict[str, float]:
        """The mean loss at each time, named by it."""
        return {f"{time:g}": float(value) for time, value in zip(self.times.tolist(), self.loss.mean(0), strict=True)}


def fixed_times(objective: Objective, strata: int = STRATA) -> Tensor:
    """The middles of so many equal intervals of an objective's times, (strata,). Five of a thousand steps are 100, 300,
    500, 700 and 900, where CogVideoX's table 9 has its validation losses."""
    middles = (torch.arange(strata) + 0.5) / strata
    return middles if isinstance(objective, FlowMatching) else (middles * objective.steps).long()


def matched_times(objective: Objective, strata: int = STRATA) -> Tensor:
    """Times at which every objective's signal and noise stand in the same ratio, (strata,): those where the share of
    the signal, a / (a + s) in a x_0 + s e, is nearest to the middle of each of so many equal intervals of 0..1.

    With them, and `HeldOut.clean`, models of different objectives can be compared.
    """
    shares = (torch.arange(strata, dtype=torch.float64) + 0.5) / strata
    if isinstance(objective, FlowMatching):
        return (shares / (1 - shares * objective.sigma_min)).float()
    a = objective.signal
    share = a / (a + (1 - a**2).clamp(min=0).sqrt())
    return (share[None] - shares[:, None]).abs().argmin(1)


@torch.no_grad()
def heldout_loss(
    system: System, batch: Batch, keys: Sequence[str], times: Tensor | None = None, seed: int = 0, size: int = 16
) -> HeldOut:
    """The loss of clips at fixed noise and fixed times: a pure function of the weights and the clips.

    keys: the clips' ids; what is drawn for a clip depends on its key, the time and the seed alone, so other clips in
    the batch change nothing. times: `fixed_times` unless given. size: clips at a time. Latents are the means of the
    VAE's, all texts are told, and what else a clip is shown is drawn as it is in training. The system's mode, and the
    random numbers of others, are left as they were.
    """
    times = fixed_times(system.objective) if times is None else times
    mode, losses, cleans = system.training, [], []
    system.eval()
    try:
        for start in range(0, len(keys), size):
            part = _part(batch, slice(start, start + size))
            at = [_at(system, part, keys[start : start + size], time, seed) for time in times]
            losses.append(torch.stack([loss for loss, _ in at], dim=1))
            cleans.append(torch.stack([clean for _, clean in at], dim=1))
    finally:
        system.train(mode)
    return HeldOut(torch.cat(losses).cpu(), torch.cat(cleans).cpu(), times)


def _part(batch: Batch, some: slice) -> Batch:
    return replace(
        batch,
        latents=batch.latents[some],
        texts=batch.texts[some],
        slots=batch.slots[some],
        video=lambda: batch.video()[some],
        micro=batch.micro[some],
    )


def _at(system: System, batch: Batch, keys: Sequence[str], time: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Loss and squared error of the clean latent of every clip, (B,) each."""
    draws = Draws([seed_of(seed, "held out", key, time.item()) for key in keys])
    x0 = batch.latents[:, 0] * system.scale
    t = time.expand(len(keys)).to(x0.device)
    noise = draws.normal(*x0.shape[1:]).to(x0)
    said, known = system.say(batch.texts, batch.micro), system.known(batch, x0, draws)
    x = system.objective.noised(x0, noise, t)
    prediction, counted = system.guess(x, t, said, known)
    error = system.objective.loss(prediction, x0, noise, t)
    clean = (system.objective.clean(x, prediction, t) - x0).square()
    weight = torch.ones_like(error) if counted is None else counted.to(error).expand_as(error)
    total = weight.flatten(1).sum(1).clamp(min=1)
    return (error * weight).flatten(1).sum(1) / total, (clean * weight).flatten(1).sum(1) / total

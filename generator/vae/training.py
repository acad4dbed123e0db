"""What a VAE learns from a clip: to give it back, from few numbers."""

# mypy: disable-error-code="no-any-return, no-untyped-call"

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from generator.draws import Draws
from generator.feed import of_images
from generator.loop import Learnt
from generator.recipe import VaeStage
from generator.vae.discriminators import Clips, Patches
from generator.vae.losses import VaeObjective
from generator.vae.perceptual import perceptual

JUDGES: dict[str, Callable[[], nn.Module]] = {"patches": Patches, "clips": Clips}


class VaeLearner(nn.Module):
    """A VAE and what it is trained on in a stage, the discriminators among it.

    The two sides of a GAN share a step and an optimiser: neither's loss has a gradient for the other.
    Raises ValueError for an unknown discriminator.
    """

    def __init__(self, vae: Any, stage: VaeStage) -> None:
        super().__init__()
        unknown = [name for name in stage.judges if name not in JUDGES]
        if unknown:
            raise ValueError(f"discriminators are {', '.join(JUDGES)}; {', '.join(unknown)} is not one of them.")
        distance = perceptual(stage.perceptual) if stage.loss.perceptual else None
        self.vae, self._stage, self._shared = vae, stage, None
        self.objective = VaeObjective(stage.loss, distance, [JUDGES[name]() for name in stage.judges])

    @property
    def adversarial(self) -> bool:
        return bool(self._stage.judges)

    def share(self, shared: Any) -> None:
        """From now on this codes: the VAE together with other processes."""
        self._shared = shared

    def learn(self, video: Tensor, draws: Draws, step: int) -> Learnt:
        """video: (B, 3, F, H, W) in [-1, 1]. Tokens are places of the latent."""
        frames = 1 if of_images(step, self._stage.images) else min(self._stage.frames or video.shape[2], video.shape[2])
        clips = zip(video.split(1), draws.generators, strict=True)
        x = torch.cat([self._piece(clip, frames, generator) for clip, generator in clips])
        vae: Any = self._shared or self.vae
        mean, logvar = vae.encode_moments(x)
        noise = draws.normal(*mean.shape[1:]).to(mean)
        y = vae.decode(mean + (0.5 * logvar).exp() * noise)[:, :, : x.shape[2]]
        loss, terms = self.objective.generator(x, y, mean, logvar, step, self._last)
        against, judged = self.objective.discriminator(x, y, step)
        parts = {name: term.item() for name, term in (terms | judged).items()}
        return Learnt(loss + against, mean[:, 0].numel(), parts)

    @property
    def _last(self) -> Tensor:
        return [weight for weight in self.vae.decoder.parameters() if weight.ndim >= 4][-1]

    def _piece(self, clip: Tensor, frames: int, generator: torch.Generator) -> Tensor:
        """So many frames and a square of a clip (1, 3, F, H, W)."""

        def window(length: int, wanted: int) -> slice:
            start = int(torch.randint(length - wanted + 1, (), generator=generator))
            return slice(start, start + wanted)

        crop = self._stage.crop
        time = window(clip.shape[2], frames)
        rows, columns = (window(side, crop or side) for side in clip.shape[-2:])
        return clip[:, :, time, rows, columns]

"""Movie Gen's spatial upsampler (arXiv 2410.13720, section 3.1.5) as a system, trained on videos that were made worse.

The latents of the enlarged video stand beside the noisy ones; see `dit.upsampler` and `dit.degrade`.
"""

# mypy: disable-error-code="no-any-return, no-untyped-call"

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from generator.dit.degrade import degraded
from generator.dit.upsampler import WINDOW, windowed
from generator.draws import Draws
from generator.guidance import Branch
from generator.systems.base import Batch, Known, Said, Shown
from generator.systems.moviegen import MovieGen, MovieGenSystem


@dataclass(frozen=True, slots=True)
class MovieGenUpsampler(MovieGen):
    """factor: how many times higher and wider videos become. The VAE is one of single frames. Steps are even ones, 20
    of them in the paper."""

    quadratic: bool = False
    factor: int = 2

    def build(self) -> UpsamplerSystem:
        return UpsamplerSystem(self)

    def problems(self, latents: tuple[int, int, int], channels: int, batch: int) -> dict[str, object]:
        found = MovieGen.problems(self, latents, channels, batch)
        del found["dit.condition_channels must be 0"]
        return found | {"dit.condition_channels must be vae.latent_channels": self.dit.condition_channels != channels}


class UpsamplerSystem(MovieGenSystem):
    config: MovieGenUpsampler

    @property
    def tasks(self) -> dict[str, int]:
        return {"enlarging": 0}

    @torch.no_grad()
    def enlarge(self, small: Tensor, height: int, width: int) -> Shown:
        """What the model is shown of videos (B, 3, F, h, w) in [-1, 1] that are to be as high and wide as that."""
        large = F.interpolate(small.transpose(1, 2).flatten(0, 1), (height, width), mode="bilinear")
        beside = self.encode(large.unflatten(0, (len(small), -1)).transpose(1, 2))
        return Shown(beside, torch.zeros(beside.shape[0], beside.shape[2], dtype=torch.bool), beside)

    def known(self, batch: Batch, x0: Tensor, draws: Draws) -> Known | None:
        video, factor = batch.video(), self.config.factor
        pairs = zip(video, draws.generators, strict=True)
        small = torch.stack([degraded(one, factor, generator).to(one) for one, generator in pairs])
        return self.enlarge(small, *video.shape[-2:])

    def without(self, known: Known | None, x: Tensor, t: Tensor) -> Known | None:
        return known  # guidance is about the text alone

    def guess(
        self, x: Tensor, t: Tensor, said: Said, known: Known | None, draws: Draws | None = None
    ) -> tuple[Tensor, Tensor | None]:
        assert isinstance(known, Shown), "there is a small video"

        def branch_of(part: slice) -> Branch:
            return lambda x, t: self.transformer(x, t, **said, condition=known.beside[:, :, part])

        window = min(WINDOW, self.config.dit.max_size[0])
        return windowed(branch_of, window, min(4, window - 1))(x, t), None

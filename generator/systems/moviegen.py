"""Movie Gen Video (arXiv 2410.13720): flow matching at logit-normal times, three text encoders, Euler steps on the
linear-quadratic times."""

# mypy: disable-error-code="no-any-return, no-untyped-call"

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from generator.dit.moviegen import MovieGenConfig, MovieGenTransformer
from generator.draws import Draws
from generator.objectives import FlowMatching
from generator.samplers import euler, linear_quadratic_times, linear_times
from generator.systems.base import Dropping, Guided, Known, Said, System
from generator.texts import Text, tower

_EMULATED = 5
"""Even steps that one of the linear-quadratic steps stands for: 250 by 50 in the paper."""

_DROPPING, _FLOW = Dropping(text=0.2), FlowMatching(sigma_min=1e-5)


@dataclass(frozen=True, slots=True)
class MovieGen:
    """texts: one encoder for each of `dit.text_widths`. quadratic: linear-quadratic times, else even ones. The share of
    dropped texts is a reimplementation's (mindone); the paper gives none."""

    dit: MovieGenConfig
    texts: tuple[Text, ...]
    flow: FlowMatching = _FLOW
    dropping: Dropping = _DROPPING
    quadratic: bool = True

    def build(self) -> MovieGenSystem:
        return MovieGenSystem(self)

    def problems(self, latents: tuple[int, int, int], channels: int, batch: int) -> dict[str, object]:
        """Sentences about what does not fit to latents (T, h, w) of so many channels, each true where it is broken."""
        dit = self.dit
        sizes = list(zip(latents, dit.patch, dit.max_size, strict=True))
        return {
            "dit.in_channels and out_channels must be vae.latent_channels": not (
                dit.in_channels == dit.out_channels == channels
            ),
            "dit.text_widths must be the widths of texts": dit.text_widths != tuple(text.width for text in self.texts),
            f"the latents, {latents}, must be whole patches of dit.patch": any(n % p for n, p, _ in sizes),
            f"dit.max_size must reach the latents, {latents}": any(n // p > most for n, p, most in sizes),
            "dit.condition_channels must be 0": dit.condition_channels != 0,
        }


class MovieGenSystem(System):
    def __init__(self, config: MovieGen) -> None:
        towers = [tower(text) for text in config.texts]
        super().__init__(MovieGenTransformer(config.dit), towers, config.dropping)
        self.config = config
        self.objective: FlowMatching = config.flow

    def times(self, draws: Draws, slots: Sequence[int], world: int) -> Tensor:
        return draws.each(lambda g: self.objective.times(1, g))

    def say(self, texts: Sequence[str], micro: Tensor) -> Said:
        return {"text": [encoder(texts) for encoder in self.towers]}

    def integrate(self, guided: Guided, noise: Tensor, steps: int, scale: float, known: Known | None) -> Tensor:
        curved = self.config.quadratic and steps > 1
        times = linear_quadratic_times(steps, _EMULATED * steps) if curved else linear_times(steps)
        return euler(guided(scale), noise, times)

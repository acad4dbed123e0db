"""STIV (arXiv 2412.07730): flow matching; known frames stand in place of noisy ones and their error does not count;
half of each frame's tokens skip the main blocks while it trains; one guidance for text and image."""

# mypy: disable-error-code="no-any-return, no-untyped-call"

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from generator.dit.conditions import kept_places, random_keep, replaced
from generator.dit.sizes import build
from generator.dit.stiv import StivConfig
from generator.draws import Draws
from generator.objectives import FlowMatching
from generator.samplers import euler, linear_times
from generator.systems.base import Batch, Dropping, Guided, Known, Said, System
from generator.systems.given import draw_given, learnt
from generator.texts import Text, tower

_DROPPING, _FLOW = Dropping(text=0.1, image=0.08), FlowMatching(sigma_min=0.0, uniform=True)


@dataclass(frozen=True, slots=True)
class Stiv:
    """masked: share of a frame's tokens that skip the main blocks, 0 in the unmasked mode. tasks: shares of what is
    given, see `systems.given`. renormalise: the guided prediction keeps the norm of the conditional one. count_given:
    the error of given frames counts too (the paper's "FFL", which it compares and does not use). How times are drawn is
    not published; uniform is ours."""

    dit: StivConfig
    text: Text
    flow: FlowMatching = _FLOW
    dropping: Dropping = _DROPPING
    masked: float = 0.5
    tasks: Mapping[str, float] = field(default_factory=lambda: {"text": 1.0})
    renormalise: bool = False
    count_given: bool = False

    def build(self) -> StivSystem:
        return StivSystem(self)

    def problems(self, latents: tuple[int, int, int], channels: int, batch: int) -> dict[str, object]:
        """Sentences about what does not fit to latents (T, h, w) of so many channels, each true where it is broken."""
        dit = self.dit
        return {
            "dit.in_channels must be vae.latent_channels": dit.in_channels != channels,
            "dit.text_width must be text.width": dit.text_width != self.text.width,
            "text must be an encoder that pools, as CLIP does": getattr(self.text, "kind", "clip") == "t5",
            f"the latents, {latents}, must be whole patches of dit.patch in rows and columns": any(
                n % p for n, p in zip(latents[1:], dit.patch[1:], strict=True)
            ),
            "masked must be at least 0 and below 1": not 0 <= self.masked < 1,
        }


class StivSystem(System):
    def __init__(self, config: Stiv) -> None:
        super().__init__(build(config.dit), [tower(config.text)], config.dropping)
        self.config = config
        self.objective: FlowMatching = config.flow
        self.renormalise = config.renormalise

    def times(self, draws: Draws, slots: Sequence[int], world: int) -> Tensor:
        return draws.each(lambda g: self.objective.times(1, g))

    def say(self, texts: Sequence[str], micro: Tensor) -> Said:
        heard = self.towers[0].embed(texts)  # type: ignore[operator]
        return {"text": heard.sequence, "mask": heard.mask, "pooled": heard.pooled, "micro": micro}

    @property
    def tasks(self) -> dict[str, int]:
        return learnt(self.config.tasks, self.dropping.image)

    def known(self, batch: Batch, x0: Tensor, draws: Draws) -> Known | None:
        given = draws.each(lambda g: draw_given(self.config.tasks, x0.shape[2], g, batch.repeated))
        dropped = draws.uniform() < self.dropping.image
        return Known(x0, (given & ~dropped[:, None]).to(x0.device))

    def guess(
        self, x: Tensor, t: Tensor, said: Said, known: Known | None, draws: Draws | None = None
    ) -> tuple[Tensor, Tensor | None]:
        counted = None
        if known is not None:
            x = replaced(x, known.clean, known.given)
            counted = None if self.config.count_given else ~known.given[:, None, :, None, None]
        if draws is None or not self.config.masked:
            return self.transformer(x, t, **said), counted
        patch = self.config.dit.patch
        rows, columns = x.shape[3] // patch[1], x.shape[4] // patch[2]
        keep = draws.each(lambda g: random_keep(1, rows * columns, self.config.masked, g)).to(x.device)
        places = kept_places(keep, rows, columns, patch[1])
        counted = places if counted is None else counted & places
        return self.transformer(x, t, **said, keep=keep), counted

    def without(self, known: Known | None, x: Tensor, t: Tensor) -> Known | None:
        return None  # x has the known frames noised to the time of the others

    def integrate(self, guided: Guided, noise: Tensor, steps: int, scale: float, known: Known | None) -> Tensor:
        branch = guided(scale)
        if known is None:
            return euler(branch, noise, linear_times(steps))

        def velocity(x: Tensor, t: Tensor) -> Tensor:
            return branch(replaced(x, self.objective.noised(known.clean, noise, t), known.given), t)

        return replaced(euler(velocity, noise, linear_times(steps)), known.clean, known.given)

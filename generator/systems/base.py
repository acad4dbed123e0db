"""What the four systems have in common: a transformer, the texts it is told, an objective, and a way to sample.

A system's own file says the rest: how times are drawn, what the transformer is given besides noise, and how frames that
are known go in.
"""

# mypy: disable-error-code="no-any-return, no-untyped-call"

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from generator.dit.costs import patch_of
from generator.draws import Draws
from generator.guidance import Branch, joint
from generator.objectives import FlowMatching, LearnedVariance, Schedule
from generator.systems.given import held, latents_given

Objective = Schedule | FlowMatching | LearnedVariance
Guided = Callable[[float], Branch]
Said = dict[str, Any]
"""Arguments of a transformer that come from the texts: tensors (B, ...), or lists of them, one for each encoder."""
Encode = Callable[[Tensor], Tensor]
"""Videos (B, 3, F, H, W) -> scaled latents (B, C, T, h, w)"""


@dataclass(frozen=True, slots=True, eq=False)
class Known:
    """What of a video is given: the latents `clean` (B, C, T, h, w), scaled, of the frames `given` (B, T) bool."""

    clean: Tensor
    given: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Shown(Known):
    """beside: (B, C', T, h, w), what stands beside the noisy latents."""

    beside: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """latents: (B, 2, C, T, h, w), mean and log variance, unscaled. texts: B captions. slots: the samples' places in
    the global batch. video: the pixels (B, 3, F, H, W) in [-1, 1], read when called. micro: (B, 6), the numbers of
    `generator.dit.stiv.MICRO`. world: samples of the global batch, 0 where it is not said. repeated: latents in front
    that repeat the first one, to make whole patches."""

    latents: Tensor
    texts: list[str]
    slots: list[int]
    video: Callable[[], Tensor]
    micro: Tensor
    world: int = 0
    repeated: int = 0

    def clean(self, scale: float, draws: Draws) -> Tensor:
        """A sample of each latent, scaled, (B, C, T, h, w)."""
        mean, logvar = self.latents.unbind(1)
        noise = draws.normal(*mean.shape[1:]).to(mean)
        return (mean + (0.5 * logvar).exp() * noise) * scale


@dataclass(frozen=True, slots=True, eq=False)
class Packed:
    """A frame pack: `clips` of different shapes, as batches of one each. rows: the clips of each sequence, by number.
    world: clips of the global batch."""

    clips: list[Batch]
    rows: list[list[int]]
    world: int


@dataclass(frozen=True, slots=True)
class Dropping:
    """How often conditions are left out while training: texts, and where frames are given these. The two are drawn
    independently of each other."""

    text: float = 0.1
    image: float = 0.08


@dataclass(frozen=True, slots=True, eq=False)
class Losses:
    """each: mean squared error of every sample, (B,). times: at which, (B,). tokens: in the batch, text and video."""

    each: Tensor
    times: Tensor
    tokens: int

    @property
    def mean(self) -> Tensor:
        return self.each.mean()


class System(nn.Module):
    """Base of the four. `scale`: factor of the VAE's latents. `typical`: the numbers of `generator.dit.stiv.MICRO` that
    the clips it was trained on have, where that is known.

    A subclass sets `objective`, and has `times`, `say` and `integrate`; where frames can be given also `tasks`,
    `known`, `guess` and `without`.
    """

    objective: Objective
    renormalise = False
    """Whether what is guided keeps the norm of the conditional prediction; see `guidance.joint`."""

    def __init__(self, transformer: nn.Module, towers: Sequence[nn.Module], dropping: Dropping) -> None:
        super().__init__()
        self.transformer, self.towers, self.dropping = transformer, nn.ModuleList(towers), dropping
        self.scale = 1.0
        self.typical: list[float] | None = None

    def use(self, vae: Any) -> None:
        """From now on latents are those of this VAE."""
        self.scale = vae.config.scaling_factor

        def encode(video: Tensor) -> Tensor:
            return vae.encode_moments(video)[0] * self.scale

        self.encode: Encode = encode

    @property
    def tasks(self) -> dict[str, int]:
        """What it was trained to make, of `given.TASKS`, with the count that each always had, 0 for any."""
        return {"text": 0}

    @property
    def sees_frames(self) -> bool:
        """Whether it is shown the given frames themselves, not only whole latents of them."""
        return False

    @torch.no_grad()
    def see(self, video: Tensor, given: Tensor) -> Known:
        """What the model is shown of a video (3, F, H, W) in [-1, 1] whose frames `given` (F,) are known. What a latent
        lacks, because it holds several frames, repeats the nearest that is given."""
        clean = self.encode(held(video, given)[None])
        return Known(clean, latents_given(given, clean.shape[2])[None])

    @property
    def text_length(self) -> int:
        """Tokens of a text, of all encoders together."""
        return sum(tower.config.length for tower in self.towers)  # type: ignore[union-attr, misc]

    def times(self, draws: Draws, slots: Sequence[int], world: int) -> Tensor:
        """Of the samples in these places of a global batch, (B,)."""
        raise NotImplementedError

    def say(self, texts: Sequence[str], micro: Tensor) -> Said:
        """What the transformer is told. micro: (B, 6), see `Batch`."""
        raise NotImplementedError

    def integrate(self, guided: Guided, noise: Tensor, steps: int, scale: float, known: Known | None) -> Tensor:
        """From noise (B, C, T, h, w) to latents. guided: gives the branch for a weight of guidance."""
        raise NotImplementedError

    def known(self, batch: Batch, x0: Tensor, draws: Draws) -> Known | None:
        """What of the batch is shown to the model while it trains: nothing, unless a system says otherwise."""
        return None

    def without(self, known: Known | None, x: Tensor, t: Tensor) -> Known | None:
        """What the unconditional pass of guidance is shown."""
        return None

    def guess(
        self, x: Tensor, t: Tensor, said: Said, known: Known | None, draws: Draws | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """The prediction for noisy latents x at times t, and where its error counts, to be expanded to (B, C, T, h, w);
        None is everywhere. draws: given while training."""
        return self.transformer(x, t, **said), None

    def losses(self, batch: Batch, draws: Draws, world: int) -> Losses:
        """Of predictions at random times. world: samples of the global batch."""
        x0 = batch.clean(self.scale, draws)
        t = self.times(draws, batch.slots, world).to(x0.device)
        noise = draws.normal(*x0.shape[1:]).to(x0)
        dropped = (draws.uniform() < self.dropping.text).tolist()
        texts = ["" if drop else text for drop, text in zip(dropped, batch.texts, strict=True)]
        said, known = self.say(texts, batch.micro), self.known(batch, x0, draws)
        prediction, counted = self.guess(self.objective.noised(x0, noise, t), t, said, known, draws)
        error = self.objective.loss(prediction, x0, noise, t)
        weight = torch.ones_like(error) if counted is None else counted.to(error).expand_as(error)
        each = (error * weight).flatten(1).sum(1) / weight.flatten(1).sum(1).clamp(min=1)
        return Losses(each, t, self.tokens(x0, said))

    def tokens(self, x0: Tensor, said: Said) -> int:
        """Of video and text in latents (B, C, T, h, w) and what is said of them."""
        texts = said["text"] if isinstance(said["text"], list) else [said["text"]]
        return x0[:, 0].numel() // math.prod(patch_of(self.transformer.config)) + sum(t[..., 0].numel() for t in texts)

    @torch.no_grad()
    def sample(
        self, noise: Tensor, texts: Sequence[str], micro: Tensor, steps: int, scale: float, known: Known | None = None
    ) -> Tensor:
        """Latents for the texts, scaled. noise: (B, C, T, h, w). scale: weight of text and known frames against none
        of them; 1 is no guidance. The transformer's mode is left as it is."""
        said, null = self.say(texts, micro), self.say([""] * len(texts), micro)

        def conditional(x: Tensor, t: Tensor) -> Tensor:
            return self.guess(x, t, said, known)[0]

        def unconditional(x: Tensor, t: Tensor) -> Tensor:
            return self.guess(x, t, null, self.without(known, x, t))[0]

        def guided(weight: float) -> Branch:
            return joint(conditional, unconditional, weight, self.renormalise) if weight != 1 else conditional

        return self.integrate(guided, noise, steps, scale, known)

"""CogVideoX (arXiv 2408.06072): v-prediction under zero terminal SNR, times spread evenly over the global batch, the
text in front of the video in one sequence; an image beside the noisy latents, along the channels."""

# mypy: disable-error-code="no-any-return, no-untyped-call"

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from generator.dit.cogvideox import DitConfig
from generator.dit.layers import TIME_SCALE
from generator.dit.sizes import build
from generator.draws import Draws
from generator.guidance import dynamic_weight
from generator.objectives import FlowMatching, Schedule, uniform_timesteps
from generator.samplers import Denoise, ddim, euler, linear_times
from generator.systems.base import Batch, Dropping, Guided, Known, Losses, Packed, Said, System
from generator.systems.given import draw_given, learnt
from generator.texts import Text, tower

_DROPPING = Dropping()
_FINE = 1 << 20  # steps that the times of a flow are drawn on


@dataclass(frozen=True, slots=True)
class CogVideoX:
    """A `dit.patch_size_t` that does not divide the latent frames makes the first stand several times (CogVideoX 1.5).

    snr_shift: see `objectives.Schedule`. groups: intervals of explicit uniform sampling, 1 for none. tasks: shares
    of what is given, for models that take an image (in_channels twice out_channels). dynamic: guidance grows over the
    sampling. flex: frame packs are attended to by FlexAttention, on a GPU, instead of under a mask of all pairs.
    objective: "v", or "flow" (with the times uniform in 0..1), which is not the paper's: to compare the two."""

    dit: DitConfig
    text: Text
    snr_shift: float = 1.0
    groups: int = 1
    dropping: Dropping = _DROPPING
    tasks: Mapping[str, float] = field(default_factory=lambda: {"image": 1.0})
    dynamic: bool = False
    flex: bool = False
    objective: str = "v"

    def build(self) -> CogVideoXSystem:
        return CogVideoXSystem(self)

    def problems(self, latents: tuple[int, int, int], channels: int, batch: int) -> dict[str, object]:
        """Sentences about what does not fit to latents (T, h, w) of so many channels, each true where it is broken."""
        dit, (_, rows, columns) = self.dit, latents
        return {
            "dit.in_channels and out_channels must be vae.latent_channels": not (
                dit.in_channels in (channels, 2 * channels) and dit.out_channels == channels
            ),
            "dit.text_embed_dim must be text.width": dit.text_embed_dim != self.text.width,
            "dit.max_text_seq_length must be text.length": dit.max_text_seq_length != self.text.length,
            f"dit.sample_height and sample_width must be {rows} and {columns}": (
                (dit.sample_height, dit.sample_width) != (rows, columns)
            ),
            f"the latents, {rows} x {columns}, must be whole patches of dit.patch_size": (
                rows % dit.patch_size or columns % dit.patch_size
            ),
            "dit.ofs_embed_dim must be None": dit.ofs_embed_dim is not None,
            "objective must be v or flow": self.objective not in ("v", "flow"),
            "the batch must be a multiple of groups": self.groups < 1 or batch % self.groups,
        }


class CogVideoXSystem(System):
    def __init__(self, config: CogVideoX) -> None:
        super().__init__(build(config.dit), [tower(config.text)], config.dropping)
        self.config = config
        flow = config.objective == "flow"
        self.objective: Schedule | FlowMatching = (
            FlowMatching(0.0, uniform=True) if flow else Schedule(config.snr_shift)
        )

    def losses(self, batch: Batch | Packed, draws: Draws, world: int) -> Losses:
        """Of a frame pack, those of its clips as if each were alone."""
        if isinstance(batch, Packed):
            return self._packed(batch, draws)
        return super().losses(batch, draws, world)

    def _packed(self, pack: Packed, draws: Draws) -> Losses:
        noisy: list[Tensor] = []
        targets: list[tuple[Tensor, Tensor, Tensor]] = []
        texts: list[str] = []
        for clip, own in zip(pack.clips, draws.apart(), strict=True):  # in the order in which a batch draws
            x0 = clip.clean(self.scale, own)
            t = self.times(own, clip.slots, pack.world).to(x0.device)
            noise = own.normal(*x0.shape[1:]).to(x0)
            texts.append("" if bool(own.uniform() < self.dropping.text) else clip.texts[0])
            x = self.objective.noised(x0, noise, t)
            noisy.append((torch.cat([x, self._beside(x, self.known(clip, x0, own))], 1) if self.takes_images else x)[0])
            targets.append((x0, noise, t))
        times = torch.cat([t for _, _, t in targets])
        text = self.towers[0](texts)
        said = self.transformer(noisy, self._clock(times), text, rows=pack.rows, flex=self.config.flex)
        errors = [self.objective.loss(v[None], *target) for v, target in zip(said, targets, strict=True)]
        tokens = sum(self.tokens(x0, {"text": text[:1]}) for x0, _, _ in targets)
        return Losses(torch.stack([error.mean() for error in errors]), times, tokens)

    @property
    def takes_images(self) -> bool:
        return self.config.dit.in_channels > self.config.dit.out_channels

    def times(self, draws: Draws, slots: Sequence[int], world: int) -> Tensor:
        # Where batches vary in size, as those of buckets and packs do, every sample has an interval of its own.
        groups = world if world % self.config.groups else self.config.groups
        flow, places = isinstance(self.objective, FlowMatching), iter(slots)
        steps = _FINE if isinstance(self.objective, FlowMatching) else self.objective.steps
        drawn = draws.each(lambda g: uniform_timesteps(torch.tensor([next(places)]), world, groups, steps, g))
        return (drawn + 0.5) / steps if flow else drawn

    def _clock(self, t: Tensor) -> Tensor:
        """Times as the transformer reads them: 0 is clean, 999 is noise."""
        return (1 - t) * (TIME_SCALE - 1) if isinstance(self.objective, FlowMatching) else t

    def say(self, texts: Sequence[str], micro: Tensor) -> Said:
        return {"text": self.towers[0](texts)}

    @property
    def tasks(self) -> dict[str, int]:
        return learnt(self.config.tasks, self.dropping.image) if self.takes_images else {"text": 0}

    def known(self, batch: Batch, x0: Tensor, draws: Draws) -> Known | None:
        if not self.takes_images:
            return None
        given = draws.each(lambda g: draw_given(self.config.tasks, x0.shape[2], g, batch.repeated))
        dropped = draws.uniform() < self.dropping.image
        return Known(x0, (given & ~dropped[:, None]).to(x0.device))

    def guess(
        self, x: Tensor, t: Tensor, said: Said, known: Known | None, draws: Draws | None = None
    ) -> tuple[Tensor, Tensor | None]:
        if not self.takes_images:
            return self.transformer(x, self._clock(t), **said), None
        return self.transformer(torch.cat([x, self._beside(x, known)], dim=1), self._clock(t), **said), None

    def _beside(self, x: Tensor, known: Known | None) -> Tensor:
        return torch.zeros_like(x) if known is None else known.clean * known.given[:, None, :, None, None]

    def without(self, known: Known | None, x: Tensor, t: Tensor) -> Known | None:
        return known  # guidance is about the text alone

    def integrate(self, guided: Guided, noise: Tensor, steps: int, scale: float, known: Known | None) -> Tensor:
        schedule = self.objective
        if isinstance(schedule, FlowMatching):
            return euler(guided(scale), noise, linear_times(steps))

        def denoise(x: Tensor, t: int, step: int) -> Tensor:
            times = torch.full((len(x),), t, dtype=torch.long, device=x.device)
            weight = dynamic_weight(step, steps, scale) if self.config.dynamic else scale
            return schedule.clean(x, guided(weight)(x, times), times)

        run: Denoise = denoise
        return ddim(run, noise, schedule, steps)

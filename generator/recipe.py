"""What a training run is described with: its data, its VAE, its system, and the stages that train them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from generator import torch_needed  # noqa: F401  (raises the sentence that names the extra)

# isort: split
import torch

from generator.data import DataConfig
from generator.feed import Loading
from generator.lora import Lora
from generator.optimising import Training
from generator.systems import Config
from generator.systems.cogvideox import CogVideoX
from generator.vae import sizes as vae_sizes
from generator.vae.losses import LossConfig
from generator.vae.starting import inflate


@dataclass(frozen=True, slots=True)
class VaeStage:
    """One stage of training the VAE; the next goes on from its weights.

    frames: of each clip, from a random one on; 1 is a still, 0 is all. images: share of the batches that are images, as
    videos of one frame: those of `data`, where it has images among the clips, else a random frame of each clip. crop:
    side of the random square that is seen of them, in pixels, 0 for all. perceptual: LPIPS weights, see
    `vae.perceptual`; "edges" stands in for them. judges: discriminators, of `vae.training.JUDGES`, where the loss has a
    GAN. only: as in `Stage`; ("decoder", "objective") trains the decoder alone. inflate: the stages before saw single
    frames alone; see `vae.starting`.
    """

    training: Training
    loss: LossConfig
    name: str = "vae"
    frames: int = 0
    images: float = 0.0
    crop: int = 0
    perceptual: str = "edges"
    judges: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    inflate: bool = False


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage of training the transformer and the text encoders that go with it; the next goes on from its weights.

    name: in the log and of the checkpoints. only: train the parameters whose names contain one of these words, all if
    there is none; EasyAnimate's second stage is ("attn_temporal",). data: what it trains on, system: its model, where
    they are not the recipe's. start: name of the earlier stage whose weights it goes on from, where that is not the one
    before. temporal: name of the earlier stage whose temporal attention it takes (STIV's dual initialisation). grow:
    how learned position tables grow, "interpolate" or "append". lora: train that in place of the weights.
    """

    training: Training
    name: str = "dit"
    only: tuple[str, ...] = ()
    data: DataConfig | None = None
    system: Config | None = None
    start: str = ""
    temporal: str = ""
    grow: str = "interpolate"
    lora: Lora | None = None


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything that decides what a training run computes.

    stages: none trains a VAE alone. samples: videos drawn at the end, with the captions of that many clips. threads: of
    the CPU. Small models gain little from more than one, lose half where another process holds a core, and compute
    other last digits. loading: how clips are read, which changes no result. held_out: share of the clips to validate on
    and never to train on; see `generator.heldout`. goes_on: it is for a system that is trained already.
    Raises ValueError where the parts do not fit together.
    """

    name: str
    seed: int
    data: DataConfig
    vae: Any
    vae_stages: tuple[VaeStage, ...]
    system: Config
    stages: tuple[Stage, ...]
    samples: int = 2
    sample_steps: int = 50
    guidance: float = 6.0
    threads: int = 1
    loading: Loading = field(default=Loading(), compare=False)
    held_out: float = 0.0
    goes_on: bool = False

    def __post_init__(self) -> None:
        space, names = (
            self.vae.spatial_compression_ratio,
            [s.name for s in self.vae_stages] + [s.name for s in self.stages],
        )
        crops, frames = [stage.crop for stage in self.vae_stages], [stage.frames for stage in self.vae_stages]
        problems: dict[str, object] = {
            f"data.size and the crop of VAE stages must be multiples of {space}": any(
                side % space for side in (self.data.size, *crops)
            ),
            "the crop of VAE stages must be between 0 and data.size": not all(
                0 <= side <= self.data.size for side in crops
            ),
            "the frames of VAE stages must be between 0 and data.frames": not all(
                0 <= count <= self.data.frames for count in frames
            ),
            "the images of VAE stages must be a share from 0 to below 1": not all(
                0 <= stage.images < 1 for stage in self.vae_stages
            ),
            "stages must have names of their own": len(set(names)) < len(names),
            "sample_steps must be between 1 and 1000": not 1 <= self.sample_steps <= 1000,
            "held_out must be at least 0 and below 1": not 0 <= self.held_out < 1,
            "stages that validate need held_out above 0": not self.held_out
            and any(
                how.validate_every for how in [s.training for s in self.vae_stages] + [s.training for s in self.stages]
            ),
        }
        wrong = [sentence for sentence, broken in problems.items() if broken]
        if not wrong:
            wrong = self._misfits()
        if wrong:
            raise ValueError(f"recipe {self.name}: {'; '.join(wrong)}.")

    @property
    def latents(self) -> tuple[int, int, int]:
        """(T, h, w) of what `data` shows. Raises ValueError where the VAE does not take such clips."""
        with torch.device("meta"):
            vae, shape = vae_sizes.build(self.vae), self.data.shown
            return vae.latent_shape(shape.frames, shape.height, shape.width)  # type: ignore[no-any-return]

    @property
    def shown(self) -> DataConfig:
        """What samples look like: the last stage's clips."""
        return (self.stages and self.stages[-1].data) or self.data

    @property
    def started_from(self) -> set[str]:
        """Names of the stages whose weights are kept for later ones."""
        return {name for stage in self.stages for name in (stage.start, stage.temporal) if name}

    def _misfits(self) -> list[str]:
        with torch.device("meta"):
            vae = vae_sizes.build(self.vae)
        if any(stage.inflate for stage in self.vae_stages):
            try:
                inflate(vae)
            except ValueError as error:
                return [str(error).rstrip(".")]
        found: dict[str, object] = {}
        for number, stage in enumerate(self.stages):
            data, system = stage.data or self.data, stage.system or self.system
            try:
                latents = vae.latent_shape(data.frames, data.shown.height, data.shown.width)
            except ValueError as error:
                return [f"data: {str(error).rstrip('.')}"]
            # Where there is a budget of tokens, batches have any number of clips, and 0 is a multiple of all.
            found |= system.problems(latents, self.vae.latent_channels, 0 if data.tokens else stage.training.batch)
            found["frame packs are for CogVideoX alone"] = data.pack and not isinstance(system, CogVideoX)
            earlier = {other.name for other in self.stages[:number]}
            found[f"stage {stage.name} must start from earlier stages"] = {stage.start, stage.temporal} - earlier - {""}
            found[f"stage {stage.name} must have a system of the recipe's kind"] = not isinstance(
                system, type(self.system)
            )
            broken = [sentence for sentence, wrong in found.items() if wrong]
            if broken:
                return broken
        return []

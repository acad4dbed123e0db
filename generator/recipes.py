"""Recipes: a function returns the frozen, complete description of a training run; its docstring says what it costs.

Change a field with `dataclasses.replace(recipes.tiny_cogvideox(), seed=1)`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from generator import torch_needed  # noqa: F401  (raises the sentence that names the extra)

# isort: split
from generator.data import DataConfig
from generator.dit import sizes as dit_sizes
from generator.dit.cogvideox import DitConfig
from generator.text import TextConfig
from generator.vae import sizes as vae_sizes
from generator.vae.cogvideox import VaeConfig


@dataclass(frozen=True, slots=True)
class Training:
    """One model's optimisation: AdamW, linear warm-up, cosine decay to a twentieth, clipped gradients.

    ema: decay of the averaged weights that are exported, 0 for none. log_every, checkpoint_every: steps.
    """

    steps: int
    batch: int
    lr: float
    warmup: int = 10
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = 1e-8
    weight_decay: float = 1e-4
    clip: float = 1.0
    ema: float = 0.0
    log_every: int = 1
    checkpoint_every: int = 100

    def __post_init__(self) -> None:
        if min(self.steps, self.batch, self.log_every, self.checkpoint_every) < 1:
            raise ValueError("steps, batch, log_every and checkpoint_every must be at least 1.")


@dataclass(frozen=True, slots=True)
class VaeLoss:
    """L1 + square * MSE + gradient * (L1 between neighbouring-pixel differences) + kl * (KL, mean over the latent).

    stills: the first so many steps train on single whole frames, four of each clip: most of what a VAE has to learn is
    in a still, at a small part of the price. crop: after them, it trains on random squares of this many pixels of whole
    clips; it has no attention, so it works at any size.
    The paper adds LPIPS and, later, a GAN; LPIPS weights are a download, so the gradient term stands in for it here.
    """

    crop: int
    stills: int = 0
    square: float = 0.0
    gradient: float = 0.5
    kl: float = 1e-4


@dataclass(frozen=True, slots=True)
class DiffusionLoss:
    """Mean squared error on v. groups: intervals of explicit uniform sampling; text_dropout: share of null texts."""

    snr_shift: float = 1.0
    groups: int = 1
    text_dropout: float = 0.1


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything that decides what a training run computes.

    samples: videos drawn at the end, with the captions of that many clips. threads: of the CPU. Small models gain
    little from more than one, lose half where another process holds a core, and compute other last digits.
    Raises ValueError where the parts do not fit together.
    """

    name: str
    seed: int
    data: DataConfig
    vae: VaeConfig
    vae_loss: VaeLoss
    vae_training: Training
    text: TextConfig
    dit: DitConfig
    dit_loss: DiffusionLoss
    dit_training: Training
    samples: int = 2
    sample_steps: int = 50
    guidance: float = 6.0
    threads: int = 1

    def __post_init__(self) -> None:
        time, space = self.vae.temporal_compression_ratio, self.vae.spatial_compression_ratio
        side = self.data.size // space
        latents = (self.data.frames - 1) // time + 1
        problems = {
            f"data.frames must be {time}k + 1": self.data.frames < 1 or (self.data.frames - 1) % time,
            f"data.size and vae_loss.crop must be multiples of {space}": self.data.size % space
            or self.vae_loss.crop % space,
            "vae_loss.crop must be between 1 and data.size": not 0 < self.vae_loss.crop <= self.data.size,
            "dit.in_channels and out_channels must be vae.latent_channels": not (
                self.dit.in_channels == self.dit.out_channels == self.vae.latent_channels
            ),
            "dit.text_embed_dim must be text.width": self.dit.text_embed_dim != self.text.width,
            "dit.max_text_seq_length must be text.length": self.dit.max_text_seq_length != self.text.length,
            f"dit.sample_height, sample_width and sample_frames must be {side}, {side} and {self.data.frames}": (
                (self.dit.sample_height, self.dit.sample_width, self.dit.sample_frames)
                != (side, side, self.data.frames)
            ),
            f"the latents, {latents} of {side} x {side}, must be whole patches of dit.patch_size_t and patch_size": (
                latents % (self.dit.patch_size_t or 1) or side % self.dit.patch_size
            ),
            "dit.ofs_embed_dim must be None": self.dit.ofs_embed_dim is not None,
            "dit_training.batch must be a multiple of dit_loss.groups": self.dit_loss.groups < 1
            or self.dit_training.batch % self.dit_loss.groups,
            "sample_steps must be between 1 and 1000": not 1 <= self.sample_steps <= 1000,
        }
        wrong = [sentence for sentence, broken in problems.items() if broken]
        if wrong:
            raise ValueError(f"recipe {self.name}: {'; '.join(wrong)}.")


def tiny_cogvideox() -> Recipe:
    """CogVideoX at debug size: the whole pair, VAE (510,547 weights) then text encoder and DiT, on a CPU.

    Command:   vidcurate train DIR --recipe tiny_cogvideox --out CKPT
    Cost:      nothing. Time: about two minutes on 2 CPU cores, for any number of clips. Memory: under 1 GB.
    Expect:    VAE loss down to less than a half, DiT loss to a fifth; samples show the colours, the rough layout and
               the drift of the clips, no detail. It proves that the data and the loop work, nothing more.
    """
    data = DataConfig(frames=17, size=64, fps=8.0)
    vae = vae_sizes.cogvideox_debug()
    text = TextConfig(length=16, width=32)
    dit = dit_sizes.cogvideox_debug()
    return Recipe(
        name="tiny_cogvideox",
        seed=0,
        data=data,
        vae=vae,
        vae_loss=VaeLoss(crop=32, stills=160, square=4.0),
        vae_training=Training(steps=260, batch=4, lr=4e-3, warmup=10, log_every=5, checkpoint_every=65),
        text=text,
        dit=dit,
        dit_loss=DiffusionLoss(snr_shift=1.0, groups=8, text_dropout=0.1),
        dit_training=Training(steps=600, batch=16, lr=2e-3, warmup=20, ema=0.99, log_every=10, checkpoint_every=100),
        guidance=3.0,
    )


def smoke() -> Recipe:
    """The same models for a few steps: seconds, for tests of everything around the training.

    Command: vidcurate train DIR --recipe smoke --out CKPT. Expect: files of the right shape, pictures of nothing.
    """
    tiny = tiny_cogvideox()
    return replace(
        tiny,
        name="smoke",
        vae_loss=replace(tiny.vae_loss, stills=4),
        vae_training=replace(tiny.vae_training, steps=8, batch=2, warmup=2, log_every=1, checkpoint_every=4),
        dit_training=replace(tiny.dit_training, steps=8, batch=8, warmup=2, log_every=1, checkpoint_every=4),
        samples=1,
        sample_steps=4,
    )


RECIPES: dict[str, Callable[[], Recipe]] = {"tiny_cogvideox": tiny_cogvideox, "smoke": smoke}


def named(name: str) -> Recipe:
    """The recipe of that name. Raises ValueError listing the known ones."""
    if name not in RECIPES:
        raise ValueError(f"there is no training recipe {name!r}; choose one of {', '.join(RECIPES)}.")
    return RECIPES[name]()

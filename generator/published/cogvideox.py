"""CogVideoX (arXiv 2408.06072), tables 5 and 6."""

from __future__ import annotations

from dataclasses import replace

from generator.data import DataConfig
from generator.dit import sizes
from generator.dit.cogvideox import DitConfig
from generator.encoders import t5_xxl
from generator.optimising import Training
from generator.recipe import Recipe, Stage
from generator.systems.base import Dropping
from generator.systems.cogvideox import CogVideoX
from generator.vae import sizes as vae_sizes
from generator.vae.cogvideox import VaeConfig
from manifests.buckets import Buckets, Length

LENGTHS = (
    Length("6s", 49, 49 / 8, crop=49 / 8),
    Length("4-6s", 33, 33 / 8, 49 / 8, crop=33 / 8),
    Length("2-4s", 17, 17 / 8, 33 / 8, crop=17 / 8),
)
"""49 frames at 8 a second are published; the shorter ones, 4k + 1 frames at the same rate, are ours."""

LONG = (Length("10s", 161, 161 / 16, crop=161 / 16), Length("5-10s", 81, 81 / 16, 161 / 16, crop=81 / 16), *LENGTHS)
"""10 s at 16 frames a second are published; 81 frames are the released 1.5's."""

ASPECTS = ("16:9", "3:2", "4:3", "1:1", "3:4", "2:3", "9:16")
"""Ours; the paper keeps the aspect ratio and names no buckets."""

TEN_SECONDS = DataConfig(frames=161, size=768, width=1360, fps=16.0)
"""The longest and largest samples: 10 s at 16 frames a second, 768 x 1360. 41 latents of 96 x 170: 167,280 tokens where
a token is one latent in time (2B, 5B), 85,680 where it is two (1.5), the first latent standing twice."""


def cogvideox_2b() -> Recipe:
    """CogVideoX-2B: fixed sinusoids, signal-to-noise shifted by 3.

    Command:   torchrun ... -m curation train DIR --recipe cogvideox_2b --vae-from VAE --out CKPT
    Data:      curated with the recipe cogvideox: 35 M clips of 6 s and a subset `high_quality`, the best 20 %.
    Stages:    256 x 384 (400 k steps of 2000), 480 x 720 (220 k of 1000), 768 x 1360 and 10 s (120 k of 250), and the
               same on the subset (10 k of 100). A sample of a step is a frame pack.
    Tokens:    of a clip 4,992, 17,550 and 167,280. The sequence length that table 5 prints for the last two, "700k",
               fits no reading; packs of 168 k hold one longest clip with its text.
    Published: steps, batches, sizes, packs of 25 k and 75 k, betas, epsilon, decay, clipping, cosine, BF16.
    Ours:      learning rate, warm-up, average of weights, share of images, the buckets' aspects, groups of the uniform
               sampling (those of the released 1.5).
    Cost:      about 1.13 M GPU hours on H100s, an estimate. Hardware: not published; the last stages need FSDP and
               sequences split over GPUs.
    """
    return _cogvideox("cogvideox_2b", sizes.cogvideox_2b(), vae_sizes.cogvideox_2b(), snr_shift=3.0, lr=2e-4)


def cogvideox_5b() -> Recipe:
    """CogVideoX-5B: rotary positions, no shift of the signal-to-noise ratio; else as `cogvideox_2b`.

    Command:   torchrun ... -m curation train DIR --recipe cogvideox_5b --vae-from VAE --out CKPT
    Cost:      about 2.96 M GPU hours on H100s, an estimate.
    """
    return _cogvideox("cogvideox_5b", sizes.cogvideox_5b(), vae_sizes.cogvideox_5b(), snr_shift=1.0, lr=1e-4)


def _cogvideox(name: str, dit: DitConfig, vae: VaeConfig, snr_shift: float, lr: float) -> Recipe:
    def system(rows: int, columns: int, frames: int) -> CogVideoX:
        here = replace(dit, sample_height=rows, sample_width=columns, sample_frames=frames)
        return CogVideoX(here, t5_xxl(), snr_shift, groups=40, dropping=Dropping(text=0.1), flex=True)

    how = Training(
        400_000,
        2000,
        lr,
        warmup=1000,
        betas=(0.9, 0.95),
        eps=1e-8,
        weight_decay=1e-4,
        clip=1.0,
        ema=0.9999,
        log_every=100,
        checkpoint_every=1000,
        precision="bfloat16",
        recompute="all",
    )
    small = DataConfig(49, 256, 8.0, width=384, buckets=Buckets(ASPECTS, LENGTHS), tokens=25_000, pack=True, images=0.2)
    middle = replace(small, size=480, width=720, tokens=75_000)
    large = replace(TEN_SECONDS, buckets=Buckets(ASPECTS, LONG), tokens=168_000, pack=True, images=0.2)
    at_last = system(96, 170, 161)
    return Recipe(
        name=name,
        seed=0,
        data=small,
        vae=vae,
        vae_stages=(),
        system=at_last,
        stages=(
            Stage(how, "256", data=small, system=system(32, 48, 49)),
            Stage(replace(how, steps=220_000, batch=1000), "480", data=middle, system=system(60, 90, 49)),
            Stage(replace(how, steps=120_000, batch=250), "768", data=large, system=at_last),
            Stage(
                replace(how, steps=10_000, batch=100, lr=lr / 10),
                "high_quality",
                data=replace(large, subset="high_quality"),
                system=at_last,
            ),
        ),
        guidance=6.0,
    )

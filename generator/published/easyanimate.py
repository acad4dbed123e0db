"""EasyAnimate's third version (arXiv 2405.18991, section 3), with the token stages of the fourth's report."""

from __future__ import annotations

from dataclasses import replace

from generator.data import DataConfig
from generator.dit import sizes
from generator.encoders import t5_xxl_masked
from generator.optimising import Training
from generator.recipe import Recipe, Stage
from generator.systems.easyanimate import EasyAnimate
from generator.vae import sizes as vae_sizes
from manifests.buckets import TokenBuckets


def easyanimate_v3() -> Recipe:
    """EasyAnimate V3: align on images, train the motion modules, train everything, from coarse to fine.

    Command:   torchrun ... -m curation train DIR --recipe easyanimate_v3 --vae-from VAE --out CKPT
    Data:      curated with the recipe easyanimate: 12 M images (SAM, JourneyDB), 12 M videos; 40 aspects, up to 144
               frames.
    Stages:    images alone, to learn the latents of the Slice VAE; motion modules alone on videos of 256 pixels;
               everything at 256, 512 and 768 pixels.
    Tokens:    of a sample 256, 9,216, 36,864 and 82,944.
    Published: the three stages; images 30 k steps, and batches and steps of 9,216 tokens (1024, 60 k), 36,864 (192,
               16 k) and 82,944 (192, 5 k), which are V4's, as the table of V3 is not published; the optimiser's flags.
    Ours:      batch of the images; half of the 60 k steps each for motion modules and for everything; share of images.
    Cost:      about 9.0 k GPU hours on H100s, an estimate. Hardware: not published.
    """
    how = Training(
        30_000,
        1024,
        1e-5,
        warmup=100,
        betas=(0.9, 0.999),
        eps=1e-10,
        weight_decay=3e-2,
        clip=0.05,
        ema=0.9999,
        log_every=100,
        checkpoint_every=500,
        schedule="constant",
        precision="bfloat16",
        recompute="all",
    )

    def data(side: int) -> DataConfig:
        sized = TokenBuckets(side=side, frames=144, interval=8, fps=24.0, least=9)
        return DataConfig(144, side, 24.0, buckets=sized, images=0.2)

    model = EasyAnimate(sizes.easyanimate_v3(), t5_xxl_masked())
    shown = replace(model, masks=True)
    fine = replace(how, batch=192)
    return Recipe(
        name="easyanimate_v3",
        seed=0,
        data=data(256),
        vae=vae_sizes.easyanimate_v3(),
        vae_stages=(),
        system=shown,
        stages=(
            Stage(how, "align", data=DataConfig(frames=1, size=256), system=model),
            Stage(how, "motion", only=("attn_temporal",), data=data(256)),
            Stage(how, "256", data=data(256)),
            Stage(replace(fine, steps=16_000), "512", data=data(512)),
            Stage(replace(fine, steps=5_000), "768", data=data(768)),
        ),
        guidance=6.0,
    )

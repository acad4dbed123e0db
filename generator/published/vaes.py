"""Recipes that train a VAE and nothing else: EasyAnimate's (arXiv 2405.18991, section 3.2), and Movie Gen's."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from generator.data import DataConfig
from generator.dit import sizes
from generator.encoders import t5_xxl_masked
from generator.optimising import Training
from generator.published.moviegen import moviegen_tae
from generator.recipe import Recipe, VaeStage
from generator.systems.easyanimate import EasyAnimate
from generator.vae import losses
from generator.vae import sizes as vae_sizes

_HOW = Training(
    350_000,
    128,
    1e-4,
    betas=(0.5, 0.9),
    weight_decay=0.0,
    log_every=100,
    checkpoint_every=1000,
    schedule="constant",
    precision="bfloat16",
)


def easyanimate_magvit() -> Recipe:
    """MagViT: 350 k steps of 128.

    Command:   torchrun ... -m curation train DIR --recipe easyanimate_magvit --out VAE
    Data:      curated with the recipe easyanimate; 9 frames, squares of 256 pixels, as the scripts have them.
    Published: steps, batch, rate, betas of Adam, weights of the losses, a GAN from step 50,001.
    Ours:      the VAE is the one of V5, whose norms are per frame.
    """
    stage = VaeStage(_HOW, losses.easyanimate_magvit(), perceptual="lpips", judges=("patches", "clips"))
    return _recipe("easyanimate_magvit", 9, vae_sizes.easyanimate_v5(), stage)


def easyanimate_slice_vae() -> Recipe:
    """The Slice VAE: 200 k steps of 96, then 100 k of the decoder alone.

    Command:   torchrun ... -m curation train DIR --recipe easyanimate_slice_vae --out VAE
    Data:      curated with the recipe easyanimate; 25 frames, squares of 256 pixels, as the scripts have them.
    Published: steps, batch, rate, betas of Adam, weights of the losses, a GAN from step 50,001.
    Ours:      it starts anew, where the paper starts from MagViT; the second stage counts its steps, and so the GAN's
               first, anew.
    """
    whole = VaeStage(
        replace(_HOW, steps=200_000, batch=96),
        losses.easyanimate_slice(),
        perceptual="lpips",
        judges=("patches", "clips"),
    )
    decoder = replace(
        whole,
        training=replace(whole.training, steps=100_000),
        loss=losses.easyanimate_decoder(),
        name="decoder",
        only=("decoder", "objective"),
    )
    return _recipe("easyanimate_slice_vae", 25, vae_sizes.easyanimate_v3(), whole, decoder)


def _recipe(name: str, frames: int, vae: Any, *stages: VaeStage) -> Recipe:
    return Recipe(
        name=name,
        seed=0,
        data=DataConfig(frames=frames, size=256, fps=24.0),
        vae=vae,
        vae_stages=stages,
        system=EasyAnimate(sizes.easyanimate_v3(), t5_xxl_masked()),
        stages=(),
        samples=0,
    )


VAES = {recipe.__name__: recipe for recipe in (easyanimate_magvit, easyanimate_slice_vae, moviegen_tae)}

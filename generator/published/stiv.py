"""STIV (arXiv 2412.07730), section 2.5 and table 1."""

from __future__ import annotations

from dataclasses import replace

from generator.data import DataConfig
from generator.dit import sizes
from generator.dit.stiv import StivConfig
from generator.encoders import clip_big_g
from generator.optimising import Training
from generator.recipe import Recipe, Stage
from generator.systems.stiv import Stiv
from generator.vae import sizes as vae_sizes

HOW = Training(
    400_000,
    4096,
    2e-4,
    warmup=1000,
    betas=(0.9, 0.999),
    weight_decay=0.0,
    clip=1.0,
    ema=0.9999,
    log_every=100,
    checkpoint_every=1000,
    optimizer="adafactor",
    schedule="constant",
    precision="bfloat16",
    recompute="all but attention",
)
VIDEO = DataConfig(frames=20, size=256, fps=8.0)
"""Every third frame of 24 a second."""


def stiv_xl() -> Recipe:
    """STIV-XL at 256 pixels and 20 frames: text to image, text to video, then text and image to video.

    Command:   torchrun ... -m curation train DIR --recipe stiv_xl --vae-from VAE --out CKPT
    Data:      curated with the recipe stiv. 20 frames, every third.
    Stages:    images (400 k steps of 4096, half of the tokens masked, then 50 k of all), videos (400 k of 1024, then
               100 k of all), and the same with the first frame given; each from the weights of the one before, the
               image model's patches and time inflated.
    Tokens:    of a sample 256 and 2,560.
    Published: steps, batches, AdaFactor, rate, warm-up, clipping, average, masks, dropping of text and image.
    Ours:      steps of the last stage; times drawn uniformly; the text encoder, an open CLIP of the same shape, and the
               VAE, Stable Diffusion's with 8 channels, stand for internal ones.
    Cost:      about 11.4 k GPU hours on H100s, an estimate, less what masking saves. Hardware: TPUs, number not
               published.
    """
    return of_stages("stiv_xl", sizes.stiv_xl(), low(sizes.stiv_xl()))


def stiv_m() -> Recipe:
    """STIV-M at 512 pixels: as `stiv_xl`, then images and videos of 512 pixels, and 20,000 chosen videos.

    Command:   torchrun ... -m curation train DIR --recipe stiv_m --vae-from VAE --out CKPT
    Stages:    those of `stiv_xl`; then images of 512 pixels from those of 256; videos of 512 pixels from these and the
               temporal attention of videos of 256 (the dual initialisation); the first frame given; fine-tuning on the
               subset `dynamic` without masks. Rotary positions are interpolated.
    Tokens:    of a sample 256, 2,560, 1,024 and 10,240.
    Ours:      besides those of `stiv_xl`, steps at 512 pixels and of fine-tuning, and its rate.
    Cost:      about 237 k GPU hours on H100s, an estimate, less what masking saves.
    """
    dit = sizes.stiv_m()
    large = replace(VIDEO, size=512)
    picture, video = systems_of(dit)
    fine = replace(HOW, steps=10_000, batch=256, lr=5e-5)
    high = (
        Stage(
            replace(HOW, steps=50_000), "hr_t2i", data=replace(large, frames=1), system=picture, start="t2i_unmasked"
        ),
        Stage(
            replace(HOW, steps=100_000, batch=1024),
            "hr_t2v",
            data=large,
            system=video,
            start="hr_t2i",
            temporal="t2v_unmasked",
        ),
        Stage(
            replace(HOW, steps=100_000, batch=1024), "hr_stiv", data=large, system=replace(video, tasks={"image": 1.0})
        ),
        Stage(fine, "sft", data=replace(large, subset="dynamic"), system=_unmasked(video)),
    )
    return of_stages("stiv_m", dit, (*low(dit), *high))


def systems_of(dit: StivConfig) -> tuple[Stiv, Stiv]:
    """Of images and of videos."""
    video = Stiv(replace(dit, trained_size=(10, 16, 16)), clip_big_g())
    picture = replace(video, dit=replace(dit, patch=(1, 2, 2), temporal=False, trained_size=(1, 16, 16)))
    return picture, video


def _unmasked(system: Stiv) -> Stiv:
    return replace(system, masked=0.0, tasks={"image": 1.0})


def low(dit: StivConfig) -> tuple[Stage, ...]:
    picture, video = systems_of(dit)
    images, videos = replace(VIDEO, frames=1), replace(HOW, batch=1024)
    return (
        Stage(HOW, "t2i", data=images, system=picture),
        Stage(replace(HOW, steps=50_000), "t2i_unmasked", data=images, system=replace(picture, masked=0.0)),
        Stage(videos, "t2v", data=VIDEO, system=video),
        Stage(replace(videos, steps=100_000), "t2v_unmasked", data=VIDEO, system=replace(video, masked=0.0)),
        Stage(replace(videos, steps=400_000), "stiv", data=VIDEO, system=replace(video, tasks={"image": 1.0})),
    )


def of_stages(name: str, dit: StivConfig, stages: tuple[Stage, ...]) -> Recipe:
    return Recipe(
        name=name,
        seed=0,
        data=VIDEO,
        vae=vae_sizes.stiv(),
        vae_stages=(),
        system=systems_of(dit)[1],
        stages=stages,
        guidance=7.5,
    )

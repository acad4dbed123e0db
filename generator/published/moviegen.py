"""Movie Gen Video (arXiv 2410.13720), sections 3.1 to 3.3."""

from __future__ import annotations

from dataclasses import replace

from generator.data import DataConfig
from generator.dit import sizes
from generator.encoders import byt5, metaclip, ul2
from generator.optimising import Training
from generator.recipe import Recipe, Stage, VaeStage
from generator.systems.moviegen import MovieGen
from generator.vae import losses
from generator.vae import sizes as vae_sizes
from manifests.buckets import MOVIE_GEN_SFT_LENGTHS, Buckets


def moviegen_30b() -> Recipe:
    """Movie Gen Video, 30 B: text to image, images and videos together at 256 and 768 pixels, fine-tuning.

    Command:   torchrun ... -m curation train DIR --recipe moviegen_30b --vae-from TAE --out CKPT
    Data:      curated with the recipe moviegen: 100 M videos in five aspects and five durations, 1 B images; the
               subset `sft_picked` of people's choice.
    Stages:    images of 256 pixels (210 k steps of 9216 at 1e-4); images and videos of 256 pixels (185 k at 6e-5,
               batches of 1536, from 123 k on of 3072); of 768 pixels (74.5 k, 6e-5, halved at 19.6 k); fine-tuning.
               Position tables grow by 2 in space, and to 32 latents in time, then by 3 in space.
    Tokens:    of a sample 256, 8,448 and 73,728.
    Published: steps, batches, rates, images to videos as 1 to 10, tables, 16 and 24 frames a second in fine-tuning.
    Ours:      batch of the last 768-pixel stage (between the published 1536 and 512, so that samples come to 73.8 M)
               and its rate, which the paper lowers further at plateaus; steps, batch and rate of fine-tuning;
               optimiser, decay, warm-up, clipping, average and text dropping are a reimplementation's (mindone).
    Cost:      about 2.8 M GPU hours on H100s, an estimate. Hardware: up to 6,144 H100s; fine-tuning 512.
    """
    texts = (ul2(), metaclip(), byt5())
    dit = replace(sizes.moviegen_30b(), text_widths=tuple(text.width for text in texts))

    def system(*tables: int) -> MovieGen:
        time, rows, columns = tables
        return MovieGen(replace(dit, max_size=(time, rows, columns)), texts)

    how = Training(
        210_000,
        9216,
        1e-4,
        warmup=1000,
        betas=(0.9, 0.999),
        eps=1e-15,
        weight_decay=0.1,
        clip=1.0,
        ema=0.9999,
        log_every=100,
        checkpoint_every=1000,
        schedule="constant",
        precision="bfloat16",
        recompute="all",
    )
    small = DataConfig(256, 192, 16.0, width=352, buckets=Buckets(), images=1 / 11)
    large = replace(small, size=576, width=1024)
    fine = replace(large, buckets=Buckets(lengths=MOVIE_GEN_SFT_LENGTHS), images=0.0, subset="sft_picked")
    joint = replace(how, steps=123_000, batch=1536, lr=6e-5)
    at_256, at_768 = system(32, 32, 32), system(32, 96, 96)
    return Recipe(
        name="moviegen_30b",
        seed=0,
        data=small,
        vae=vae_sizes.moviegen_tae(),
        vae_stages=(),
        system=at_768,
        stages=(
            Stage(how, "t2i_256", data=DataConfig(frames=1, size=256), system=system(1, 16, 16)),
            Stage(joint, "joint_256", data=small, system=at_256),
            Stage(replace(joint, steps=62_000, batch=3072), "joint_256_doubled", data=small, system=at_256),
            Stage(replace(joint, steps=19_600), "joint_768", data=large, system=at_768),
            Stage(replace(joint, steps=54_900, batch=800, lr=3e-5), "joint_768_halved", data=large, system=at_768),
            Stage(replace(how, steps=10_000, batch=64, lr=1e-5, schedule="cosine"), "sft", data=fine, system=at_768),
        ),
        guidance=7.5,
    )


def moviegen_t2i() -> Recipe:
    """Movie Gen, text to image after the joint training: the TAE gives way to a VAE of images, at 1024 pixels.

    Command:   torchrun ... -m curation train DIR --recipe moviegen_t2i --vae-from VAE --from CKPT --out OUT
    Data:      about 1,000 images by artists, in a manifest of their own.
    Stages:    one, of all weights of `moviegen_30b` (6 k steps of 64 at 1e-5, constant after 2,000 steps of warm-up).
    Tokens:    of an image 4,096.
    Published: steps, batch, rate, schedule, warm-up, size of pictures and set.
    Ours:      the VAE, which must have the TAE's 16 channels for the weights to fit: that of Stable Diffusion 3.5;
               optimiser, decay, clipping and average as in `moviegen_30b`.
    Cost:      about 0.25 k GPU hours on H100s, an estimate.
    """
    joint = moviegen_30b()
    how = replace(joint.stages[-2].training, steps=6000, batch=64, lr=1e-5, warmup=2000)
    data = DataConfig(frames=1, size=1024)
    return replace(
        joint,
        name="moviegen_t2i",
        data=data,
        vae=vae_sizes.stable_diffusion_3(),
        stages=(Stage(how, "t2i_1024"),),
        goes_on=True,
    )


def moviegen_tae() -> Recipe:
    """Movie Gen's TAE: videos and images together, then the same with the outlier penalty. No transformer.

    Command:   torchrun ... -m curation train DIR --recipe moviegen_tae --out TAE
    Data:      curated with the recipe moviegen; images among the clips are used as such, else frames of the clips.
    Stages:    50 k steps, then 10 k with the penalty of outliers (r = 3, weight 1e5), as in the paper's ablation of it.
    Published: one batch of images to three of videos; the penalty and both counts of steps.
    Ours:      everything else: the paper starts from an image VAE (`generator.vae.tae.inflate`), and gives no weights
               of the losses, sizes, batches or rates.
    """
    joint = moviegen_30b()
    how = Training(50_000, 64, 1e-4, warmup=1000, betas=(0.5, 0.9), log_every=100, checkpoint_every=1000)
    judges = ("patches", "clips")
    plain = VaeStage(
        how, replace(losses.moviegen(), gan_from=10_000), "tae", images=0.25, perceptual="lpips", judges=judges
    )
    again = replace(plain, name="tae_outliers", training=replace(how, steps=10_000), loss=losses.moviegen_outliers())
    return replace(
        joint,
        name="moviegen_tae",
        data=DataConfig(frames=32, size=256, fps=16.0),
        vae_stages=(plain, again),
        stages=(),
    )

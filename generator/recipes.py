"""Recipes: a function returns the frozen, complete description of a training run; its docstring says what it costs.

Change a field with `dataclasses.replace(recipes.tiny_cogvideox(), seed=1)`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from generator import torch_needed  # noqa: F401  (raises the sentence that names the extra)
from generator.recipe import Recipe, Stage, VaeStage

# isort: split

from generator.data import DataConfig
from generator.dit import sizes as dit_sizes
from generator.optimising import Training
from generator.published import PUBLISHED, VAES
from generator.systems.base import Dropping
from generator.systems.cogvideox import CogVideoX
from generator.systems.easyanimate import EasyAnimate
from generator.systems.moviegen import MovieGen
from generator.systems.stiv import Stiv
from generator.systems.upsampler import MovieGenUpsampler
from generator.text import TextConfig
from generator.vae import sizes as vae_sizes
from generator.vae.losses import LossConfig


def tiny_cogvideox() -> Recipe:
    """CogVideoX at debug size: the whole pair, VAE (510,547 weights) then text encoder and DiT, on a CPU.

    Command:   vidcurate train DIR --recipe tiny_cogvideox --out CKPT
    Cost:      nothing. Time: four and a half minutes of one CPU core, for any number of clips. Memory: under 1 GB.
    Expect:    on films of one moving shape, VAE PSNR of 25 dB and more on clips not seen, and samples with the colour
               and the direction that the prompt names, four times out of five; of richer films, the colours, the
               rough layout and the drift, no detail.
    """
    text, dit = TextConfig(length=16, width=32), replace(dit_sizes.cogvideox_debug(), num_layers=3)
    return Recipe(
        name="tiny_cogvideox",
        seed=0,
        data=DataConfig(frames=17, size=64, fps=8.0),
        vae=vae_sizes.cogvideox_debug(),
        vae_stages=(
            VaeStage(_STILLS, _PLAIN, "vae_stills", frames=1),
            VaeStage(_CLIPS, _PLAIN, frames=9, inflate=True),
        ),
        system=CogVideoX(dit, text, snr_shift=1.0, groups=8, dropping=Dropping(text=0.1)),
        stages=(Stage(_DIT),),
        guidance=1.5,
    )


# The weight of the KL divergence matters most: of latents that are not pressed together at all, the smallest error
# shows in the picture, and a transformer makes such errors.
_PLAIN = LossConfig(l2=50.0, perceptual=0.0, kl=3e-5)
# Many small steps learn more from as many pixels than few large ones, and stills cost the least of all.
_STILLS = Training(steps=1000, batch=4, lr=3e-3, warmup=10, betas=(0.9, 0.99), log_every=10, checkpoint_every=200)
_CLIPS = replace(_STILLS, steps=80, batch=2, lr=1e-3)
_DIT = Training(steps=3000, batch=8, lr=2e-3, warmup=20, ema=0.99, log_every=10, checkpoint_every=200)


def tiny_moviegen() -> Recipe:
    """Movie Gen Video at debug size: TAE (340,833 weights), then three text encoders and the backbone, on a CPU.

    Command:   vidcurate train DIR --recipe tiny_moviegen --out CKPT
    Cost:      nothing. Time: some minutes on 2 CPU cores. Memory: under 1 GB. Expect: as tiny_cogvideox.
    """
    tiny = tiny_cogvideox()
    widths = (32, 24, 16)  # for UL2, MetaCLIP and ByT5
    texts = tuple(TextConfig(length=16, width=width) for width in widths)
    return replace(
        tiny,
        name="tiny_moviegen",
        data=replace(tiny.data, frames=16),
        vae=vae_sizes.moviegen_tae_debug(),
        vae_stages=(tiny.vae_stages[0], VaeStage(replace(_CLIPS, steps=200), _PLAIN, frames=8, inflate=True)),
        system=MovieGen(dit_sizes.moviegen_debug(), texts),
    )


def tiny_stiv() -> Recipe:
    """STIV at debug size: a VAE of single frames, then text encoder and transformer with half of the tokens masked.

    Command:   vidcurate train DIR --recipe tiny_stiv --out CKPT
    Cost:      nothing. Time: some minutes on 2 CPU cores. Memory: under 1 GB. Expect: as tiny_cogvideox; a first frame
               can be given to it.
    """
    tiny = tiny_cogvideox()
    text = TextConfig(length=16, width=32)
    return replace(
        tiny,
        name="tiny_stiv",
        data=replace(tiny.data, frames=8, size=32, fps=4.0),
        vae=vae_sizes.stiv_debug(),
        vae_stages=(VaeStage(_STILLS, _PLAIN, frames=1),),
        system=Stiv(dit_sizes.stiv_debug(), text, tasks={"text": 0.5, "image": 0.3, "interpolation": 0.2}),
    )


def tiny_easyanimate() -> Recipe:
    """EasyAnimate at debug size: the Slice VAE (263,359 weights), then the hybrid motion transformer in its stages:
    the motion modules alone, then everything.

    Command:   vidcurate train DIR --recipe tiny_easyanimate --out CKPT
    Cost:      nothing. Time: some minutes on 2 CPU cores. Memory: under 1 GB. Expect: as tiny_cogvideox.
    """
    tiny = tiny_cogvideox()
    return replace(
        tiny,
        name="tiny_easyanimate",
        data=replace(tiny.data, frames=9, fps=4.0),
        vae=vae_sizes.easyanimate_v3_debug(),
        vae_stages=(tiny.vae_stages[0], VaeStage(replace(_CLIPS, steps=200, lr=3e-3), _PLAIN)),
        system=EasyAnimate(dit_sizes.easyanimate_debug(), TextConfig(length=16, width=32)),
        stages=(
            Stage(replace(_DIT, steps=1500), "align"),
            Stage(replace(_DIT, steps=750), "motion", only=("attn_temporal",)),
            Stage(replace(_DIT, steps=750), "dit"),
        ),
    )


def tiny_upsampler() -> Recipe:
    """Movie Gen's spatial upsampler at debug size: a VAE of single frames, a text-to-image model, then the upsampler.

    Command:   vidcurate train DIR --recipe tiny_upsampler --out CKPT, on clips of at least half a second
    Use:       vidcurate generate CKPT --video FILM -o LARGE.mp4, or generate OTHER ... --upsampler CKPT
    Cost:      nothing. Time: some minutes on 2 CPU cores. Memory: under 1 GB. Expect: twice the size; sharper edges
               than those of the enlarged film that it starts from, no new detail.
    """
    tiny = tiny_moviegen()
    video = DataConfig(frames=14, size=64, fps=24.0)
    image = dit_sizes.moviegen_upsampler_debug()
    assert isinstance(tiny.system, MovieGen)
    system = MovieGen(replace(image, condition_channels=0), tiny.system.texts)
    upsampler = MovieGenUpsampler(image, system.texts)
    return replace(
        tiny,
        name="tiny_upsampler",
        data=video,
        vae=vae_sizes.stiv_debug(),
        vae_stages=(VaeStage(_STILLS, _PLAIN, frames=1),),
        system=system,
        stages=(
            Stage(replace(_DIT, steps=400), "t2i", data=replace(video, frames=1)),
            Stage(replace(_DIT, steps=300, batch=4), "upsampler", system=upsampler),
        ),
        samples=0,
        guidance=1.0,
    )


def smoke() -> Recipe:
    """The same models for a few steps: seconds, for tests of everything around the training.

    Command: vidcurate train DIR --recipe smoke --out CKPT. Expect: files of the right shape, pictures of nothing.
    """
    tiny = tiny_cogvideox()
    return replace(
        tiny,
        name="smoke",
        vae_stages=(VaeStage(replace(_CLIPS, steps=8, warmup=2, log_every=1, checkpoint_every=4), _PLAIN),),
        stages=(Stage(replace(_DIT, steps=8, batch=8, warmup=2, log_every=1, checkpoint_every=4)),),
        samples=1,
        sample_steps=4,
    )


RECIPES: dict[str, Callable[[], Recipe]] = {
    recipe.__name__: recipe
    for recipe in (tiny_cogvideox, tiny_moviegen, tiny_stiv, tiny_easyanimate, tiny_upsampler, smoke)
}


def named(name: str) -> Recipe:
    """The recipe of that name, here or in `generator.published`. Raises ValueError listing the known ones."""
    known = RECIPES | PUBLISHED | VAES
    if name not in known:
        raise ValueError(f"there is no training recipe {name!r}; choose one of {', '.join(known)}.")
    return known[name]()

"""What a recipe would cost: tokens of a clip, and GPU hours by counting operations.

An estimate, not a measurement: forward passes are counted on the meta device, the backward pass as twice as much, what
is computed again once more, and a GPU is taken to do 40 % of an H100's 989 TFLOP/s in bfloat16.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import torch

from generator.data import DataConfig
from generator.dit.costs import cost, patch_of
from generator.recipe import Recipe, Stage
from generator.vae import sizes as vae_sizes

_SUSTAINED = 0.4 * 989e12
_cost = functools.cache(cost)


def latents_of(recipe: Recipe, data: DataConfig, config: Any) -> tuple[int, int, int]:
    """(T, h, w) of what `data` shows, the first repeated until T is whole patches of the transformer `config`."""
    with torch.device("meta"):
        vae: Any = vae_sizes.build(recipe.vae)
    frames, rows, columns = vae.latent_shape(data.frames, data.shown.height, data.shown.width)
    time = patch_of(config)[0]
    return -(-frames // time) * time, rows, columns


def tokens(recipe: Recipe, data: DataConfig, config: Any) -> int:
    """Of a video that `data` shows, without its text."""
    return math.prod(n // p for n, p in zip(latents_of(recipe, data, config), patch_of(config), strict=True))


def texts_of(recipe: Recipe) -> tuple[int, ...]:
    """Tokens of each text encoder."""
    system: Any = recipe.system
    return tuple(text.length for text in getattr(system, "texts", None) or (system.text,))


def gpu_hours(recipe: Recipe, stage: Stage) -> float:
    """Of a stage, as if all clips were as its samples; batches of a budget of tokens hold as many of them as fit."""
    data, system = stage.data or recipe.data, stage.system or recipe.system
    texts = texts_of(recipe)
    one = _cost(system.dit, latents_of(recipe, data, system.dit), texts)
    clips = float(stage.training.batch)
    if data.tokens:
        held = data.tokens / (one.video_tokens + sum(texts))
        clips = clips * held if data.pack else held
    again = 4 / 3 if stage.training.recompute != "nothing" else 1
    return stage.training.steps * clips * one.training * again / _SUSTAINED / 3600


def hours(recipe: Recipe) -> float:
    """Of all stages of the transformer."""
    return sum(gpu_hours(recipe, stage) for stage in recipe.stages)

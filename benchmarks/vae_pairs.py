"""The VAEs that diffusers has too, for `benchmarks.models`."""

from __future__ import annotations

import dataclasses
from typing import Any

import diffusers
import torch
from torch import Tensor, nn

from benchmarks.pairs import Pair, Work, same_weights
from generator.vae import sizes
from generator.vae.cogvideox import CogVideoXVae
from generator.vae.image import ImageVae
from generator.vae.magvit import MagvitVae


def _small(config: Any) -> Any:
    """Half as wide, with two residual blocks in a level, so that a CPU is done in a minute."""
    widths = tuple(width // 2 for width in config.block_out_channels)
    return dataclasses.replace(config, block_out_channels=widths, layers_per_block=2)


def _models(published: Any, ours: type[nn.Module], theirs: Any) -> Any:
    def build(size: str) -> tuple[nn.Module, nn.Module]:
        config = published() if size == "published" else _small(published())
        return same_weights(ours(config), theirs(**dataclasses.asdict(config)))

    return build


# Frames, height, width. The small one is as narrow as can be and tall enough for torch to take the convolutions that it
# takes for pictures of any published size (it does where channels x frames x rows are more than 20480).
_SIZES = {"published": (17, 480, 720), "small": (9, 216, 32)}


def _inputs(channels: int, space: int, time: int) -> Any:
    def build(size: str) -> dict[str, Tensor]:
        frames, height, width = _SIZES[size]
        draw = torch.Generator().manual_seed(0)
        latents = (frames - 1) // time + 1
        return {
            "x": torch.randn(1, 3, frames, height, width, generator=draw),
            "z": torch.randn(1, channels, latents, height // space, width // space, generator=draw),
        }

    return build


def _there_and_back(model: Any, given: dict[str, Tensor]) -> Tensor:
    mean, logvar = model.encode_moments(given["x"])
    return model.decode(mean).square().mean() + logvar.square().mean()


def _there_and_back_theirs(model: Any, given: dict[str, Tensor]) -> Tensor:
    posterior = model.encode(given["x"]).latent_dist
    return model.decode(posterior.mean).sample.square().mean() + posterior.logvar.square().mean()


_VIDEO = (
    Work("encode", lambda m, i: m.encode_moments(i["x"]), lambda m, i: m.encode(i["x"])),
    Work("decode", lambda m, i: m.decode(i["z"]), lambda m, i: m.decode(i["z"])),
    Work("forward + backward", _there_and_back, _there_and_back_theirs, grad=True),
)


def _frames(x: Tensor) -> Tensor:
    return x.transpose(1, 2).flatten(0, 1)


_IMAGES = (
    Work("encode", lambda m, i: m.encode_moments(i["x"], chunk=99), lambda m, i: m.encode(_frames(i["x"]))),
    Work("decode", lambda m, i: m.decode(i["z"], chunk=99), lambda m, i: m.decode(_frames(i["z"]))),
)

PAIRS = (
    Pair(
        "CogVideoX VAE",
        _models(sizes.cogvideox_2b, CogVideoXVae, diffusers.AutoencoderKLCogVideoX),
        _inputs(16, 8, 4),
        _VIDEO,
    ),
    Pair(
        "EasyAnimate V5 VAE",
        _models(sizes.easyanimate_v5, MagvitVae, diffusers.AutoencoderKLMagvit),
        _inputs(16, 8, 4),
        _VIDEO,
    ),
    Pair(
        "image VAE",
        _models(sizes.stable_diffusion, ImageVae, diffusers.AutoencoderKL),
        _inputs(4, 8, 1),
        _IMAGES,
    ),
)

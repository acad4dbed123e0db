"""Published and debug sizes of the VAEs, each a function that returns a configuration, and what they cost.

Numbers are those of the papers and released configurations; where a paper gives none, the docstring says so.
"""

# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from generator.counting import Operations
from generator.vae.cogvideox import CogVideoXVae, VaeConfig
from generator.vae.image import ImageVae, ImageVaeConfig
from generator.vae.magvit import MagvitConfig, MagvitVae
from generator.vae.slice_vae import SliceVae, SliceVaeConfig
from generator.vae.tae import Tae, TaeConfig


def cogvideox_2b() -> VaeConfig:
    """8 x 8 x 4, 16 channels; 215.6 M weights."""
    return VaeConfig()


def cogvideox_5b() -> VaeConfig:
    """The same, with the scale of latents that the 5B transformers were trained on."""
    return VaeConfig(scaling_factor=0.7)


def cogvideox_debug() -> VaeConfig:
    """510,547 weights; the same compression, 4 channels."""
    return VaeConfig(
        block_out_channels=(8, 16, 16, 32),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=4,
        sample_height=64,
        sample_width=64,
    )


def moviegen_tae() -> TaeConfig:
    """8 x 8 x 8, 16 channels; 114.5 M weights. The paper gives no widths: these are a reimplementation's (mindone)."""
    return TaeConfig()


def moviegen_tae_debug() -> TaeConfig:
    """340,833 weights; the same compression, 4 channels."""
    return TaeConfig(
        block_out_channels=(8, 16, 32, 32), layers_per_block=1, latent_channels=4, norm_num_groups=2, sample_size=64
    )


def stiv() -> ImageVaeConfig:
    """Single frames, 8 x 8, 8 channels. The paper's VAE is internal: all but its channels is Stable Diffusion's."""
    return ImageVaeConfig(latent_channels=8)


def stable_diffusion() -> ImageVaeConfig:
    """`sd-vae-ft-ema`, the VAE of STIV's baseline: single frames, 8 x 8, 4 channels; 83.7 M weights."""
    return ImageVaeConfig()


def stable_diffusion_3() -> ImageVaeConfig:
    """Of Stable Diffusion 3.5: single frames, 8 x 8, 16 channels; 83.8 M weights. Movie Gen's TAE is built on it."""
    return ImageVaeConfig(
        latent_channels=16,
        sample_size=1024,
        scaling_factor=1.5305,
        shift_factor=0.0609,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )


def stiv_debug() -> ImageVaeConfig:
    """Single frames, 8 x 8, 4 channels."""
    return ImageVaeConfig(block_out_channels=(8, 8, 16, 16), layers_per_block=1, norm_num_groups=4, sample_size=32)


def easyanimate_v5() -> MagvitConfig:
    """MagViT with norms per frame: 8 x 8 x 4, 16 channels; 244.4 M weights."""
    return MagvitConfig()


def easyanimate_v3() -> SliceVaeConfig:
    """The Slice VAE: 8 x 8 x 4, 4 channels, slices of 8 frames; 246.0 M weights."""
    return SliceVaeConfig()


def easyanimate_v5_debug() -> MagvitConfig:
    """The same compression as V5, 4 channels."""
    return MagvitConfig(block_out_channels=(8, 8, 16, 16), latent_channels=4, norm_num_groups=2)


def easyanimate_v3_debug() -> SliceVaeConfig:
    """The same compression and slices as V3, attention in the middle; 263,359 weights."""
    return SliceVaeConfig(ch=8, ch_mult=(1, 1, 2, 2), norm_num_groups=2)


BUILD: dict[type, type[nn.Module]] = {
    VaeConfig: CogVideoXVae,
    TaeConfig: Tae,
    ImageVaeConfig: ImageVae,
    MagvitConfig: MagvitVae,
    SliceVaeConfig: SliceVae,
}


def build(config: Any) -> Any:
    """The VAE of a configuration."""
    return BUILD[type(config)](config)


@dataclass(frozen=True, slots=True)
class Size:
    """A named size and a video (F, H, W) that it is run on."""

    config: Callable[[], Any]
    video: tuple[int, int, int]

    @property
    def name(self) -> str:
        return self.config.__name__


SIZES: tuple[Size, ...] = (
    Size(cogvideox_2b, (49, 480, 720)),
    Size(cogvideox_5b, (49, 480, 720)),
    Size(cogvideox_debug, (17, 64, 64)),
    Size(moviegen_tae, (256, 768, 768)),
    Size(moviegen_tae_debug, (32, 64, 64)),
    Size(stiv, (20, 512, 512)),
    Size(stable_diffusion, (20, 512, 512)),
    Size(stable_diffusion_3, (1, 1024, 1024)),
    Size(stiv_debug, (8, 32, 32)),
    Size(easyanimate_v5, (49, 512, 512)),
    Size(easyanimate_v3, (144, 512, 512)),
    Size(easyanimate_v5_debug, (9, 64, 64)),
    Size(easyanimate_v3_debug, (9, 64, 64)),
)


@dataclass(frozen=True, slots=True)
class Cost:
    """parameters; latent: (C, T, h, w); encode, decode: floating-point operations for one video, an addition and a
    multiplication as two; norms and activations are not counted.
    """

    parameters: int
    latent: tuple[int, int, int, int]
    encode: int
    decode: int


def cost_of(size: Size) -> Cost:
    """Computed without memory, on the meta device."""
    config = size.config()
    with torch.device("meta"), torch.no_grad():
        vae = build(replace(config)).eval()
        with Operations() as encoding:
            mean, _ = vae.encode_moments(torch.empty(1, config.in_channels, *size.video))
        with Operations() as decoding:
            vae.decode(mean)
    parameters = sum(parameter.numel() for parameter in vae.parameters())
    _, *latent = mean.shape
    return Cost(parameters, tuple(latent), encoding.total, decoding.total)

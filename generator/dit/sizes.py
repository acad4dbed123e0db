"""Published and debug sizes of the transformers, each a function that returns a configuration.

Numbers are those of the papers and released configurations; where a paper gives none, the docstring says "ours".
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from generator.dit.cogvideox import CogVideoXTransformer, DitConfig
from generator.dit.easyanimate import EasyAnimateConfig, EasyAnimateTransformer
from generator.dit.moviegen import MovieGenConfig, MovieGenTransformer
from generator.dit.stiv import MICRO, StivConfig, StivTransformer
from generator.dit.stiv_variants import StivVariant, StivVariantConfig
from generator.dit.variants import CogVideoXVariant, VariantConfig


def cogvideox_2b() -> DitConfig:
    """Fixed sinusoids; 480 x 720, 49 frames."""
    return DitConfig()


def cogvideox_5b() -> DitConfig:
    """Rotary positions."""
    return DitConfig(num_attention_heads=48, num_layers=42, use_rotary_positional_embeddings=True)


def cogvideox_5b_i2v() -> DitConfig:
    """The image's latent beside the noisy one, and a learned table besides the rotation."""
    return replace(cogvideox_5b(), in_channels=32, use_learned_positional_embeddings=True)


def cogvideox_1_5_5b() -> DitConfig:
    """Tokens of two latents in time; 768 x 1360, 81 frames. 300 is what its position tables reach, in latents."""
    return replace(
        cogvideox_5b(),
        patch_size_t=2,
        patch_bias=False,
        max_text_seq_length=224,
        sample_width=300,
        sample_height=300,
        sample_frames=81,
    )


def cogvideox_1_5_5b_i2v() -> DitConfig:
    return replace(cogvideox_1_5_5b(), in_channels=32, ofs_embed_dim=512)


def cogvideox_debug() -> DitConfig:
    """313,424 weights for latents of 4 channels, 8 x 8."""
    return DitConfig(
        num_attention_heads=4,
        attention_head_dim=16,
        in_channels=4,
        out_channels=4,
        time_embed_dim=32,
        text_embed_dim=32,
        num_layers=4,
        sample_width=8,
        sample_height=8,
        sample_frames=17,
        max_text_seq_length=16,
        use_rotary_positional_embeddings=True,
    )


def moviegen_30b() -> MovieGenConfig:
    """Position tables of 128 latents in time and 64 tokens on a side are a reimplementation's (mindone)."""
    return MovieGenConfig()


def moviegen_5b() -> MovieGenConfig:
    """The model of the paper's ablations; its feed-forward is a reimplementation's (mindone)."""
    return MovieGenConfig(num_layers=32, width=3072, inner=8192, num_heads=24)


def moviegen_upsampler() -> MovieGenConfig:
    """About 7 B, as the paper says; layers and widths are ours. Latents of the frame-wise VAE, twice its 8 channels."""
    return MovieGenConfig(
        num_layers=26,
        width=4096,
        inner=11008,
        num_heads=32,
        in_channels=8,
        out_channels=8,
        condition_channels=8,
        max_size=(16, 128, 128),
    )


def moviegen_debug() -> MovieGenConfig:
    """323,136 weights for latents of 4 channels."""
    return MovieGenConfig(
        num_layers=4,
        width=64,
        inner=176,
        num_heads=4,
        in_channels=4,
        out_channels=4,
        max_size=(8, 16, 16),
        text_widths=(32, 24, 16),
    )


def moviegen_upsampler_debug() -> MovieGenConfig:
    """About 149 k weights; windows of 14 latents."""
    return replace(
        moviegen_debug(), num_layers=3, width=48, inner=128, num_heads=3, condition_channels=4, max_size=(14, 16, 16)
    )


def stiv_xl() -> StivConfig:
    """ "600M" in the paper, which counts the blocks of the text-to-image model."""
    return StivConfig()


def stiv_xxl() -> StivConfig:
    """ "1.5B" in the paper, likewise."""
    return StivConfig(num_layers=38, width=1536, num_heads=24)


def stiv_m() -> StivConfig:
    """ "8.7B" in the paper."""
    return StivConfig(num_layers=46, width=3072, num_heads=48)


def stiv_debug() -> StivConfig:
    """409,904 weights for latents of 4 channels."""
    return StivConfig(num_layers=4, width=48, num_heads=3, in_channels=4, text_width=32)


def easyanimate_v3() -> EasyAnimateConfig:
    """XL/2 with hybrid motion modules, skips and image guidance, trained at 512 pixels."""
    return EasyAnimateConfig()


def easyanimate_v2() -> EasyAnimateConfig:
    """As the third version, but all motion is temporal, with 8 heads."""
    both = ("temporal", "temporal")
    return EasyAnimateConfig(motion_even=both, motion_odd=both, motion_heads=8)


def pixart_alpha() -> EasyAnimateConfig:
    """The image transformer that EasyAnimate starts from: no motion modules, skips or image guidance."""
    return EasyAnimateConfig(motion_even=(), motion_odd=(), skips=False, clip_width=0, condition_channels=0)


def easyanimate_debug() -> EasyAnimateConfig:
    """333,824 weights for latents of 4 channels."""
    return EasyAnimateConfig(
        num_layers=6,
        num_attention_heads=2,
        attention_head_dim=16,
        caption_width=32,
        clip_width=16,
        motion_heads=2,
        motion_groups=8,
    )


BUILD: dict[type, type[nn.Module]] = {
    DitConfig: CogVideoXTransformer,
    VariantConfig: CogVideoXVariant,
    MovieGenConfig: MovieGenTransformer,
    StivConfig: StivTransformer,
    StivVariantConfig: StivVariant,
    EasyAnimateConfig: EasyAnimateTransformer,
}


def build(config: Any) -> nn.Module:
    """The transformer of a configuration."""
    return BUILD[type(config)](config)


@dataclass(frozen=True, slots=True)
class Size:
    """A named size and what it is run on: latents (F, H, W) for the video in words, text tokens."""

    config: Callable[[], Any]
    video: str
    latents: tuple[int, int, int]
    text: tuple[int, ...]

    @property
    def name(self) -> str:
        return self.config.__name__


_T5, _CLIP77 = (226,), (77,)
_TEXTS = (256, 256, 100)  # UL2, MetaCLIP, ByT5: the lengths of UL2 and ByT5 are ours
SIZES: tuple[Size, ...] = (
    Size(cogvideox_2b, "480 x 720, 49 frames", (13, 60, 90), _T5),
    Size(cogvideox_5b, "480 x 720, 49 frames", (13, 60, 90), _T5),
    Size(cogvideox_5b_i2v, "480 x 720, 49 frames", (13, 60, 90), _T5),
    Size(cogvideox_1_5_5b, "768 x 1360, 81 frames", (22, 96, 170), (224,)),
    Size(cogvideox_1_5_5b_i2v, "768 x 1360, 81 frames", (22, 96, 170), (224,)),
    Size(cogvideox_debug, "64 x 64, 17 frames", (5, 8, 8), (16,)),
    Size(moviegen_30b, "768 x 768, 256 frames", (32, 96, 96), _TEXTS),
    Size(moviegen_5b, "192 x 352, 128 frames", (16, 24, 44), _TEXTS),
    Size(moviegen_upsampler, "1080 x 1920, 14 frames", (14, 136, 240), _TEXTS),
    Size(moviegen_debug, "64 x 64, 32 frames", (4, 8, 8), (16, 16, 16)),
    Size(moviegen_upsampler_debug, "64 x 64, 14 frames", (14, 8, 8), (16, 16, 16)),
    Size(stiv_xl, "256 x 256, 20 frames", (20, 32, 32), _CLIP77),
    Size(stiv_xxl, "256 x 256, 20 frames", (20, 32, 32), _CLIP77),
    Size(stiv_m, "512 x 512, 20 frames", (20, 64, 64), _CLIP77),
    Size(stiv_debug, "32 x 32, 8 frames", (8, 4, 4), (16,)),
    Size(easyanimate_v3, "512 x 512, 144 frames", (36, 64, 64), (120,)),
    Size(easyanimate_v2, "384 x 672, 144 frames", (36, 48, 84), (120,)),
    Size(pixart_alpha, "512 x 512, an image", (1, 64, 64), (120,)),
    Size(easyanimate_debug, "64 x 64, 9 frames", (3, 8, 8), (16,)),
)


def inputs(config: Any, latents: tuple[int, int, int], text: tuple[int, ...], batch: int = 1) -> dict[str, Any]:
    """Arguments of a forward pass on latents (F, H, W), drawn on the default device; for measuring and tests."""
    import torch

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(batch, *shape)

    if isinstance(config, MovieGenConfig):
        said: dict[str, Any] = {
            "x": normal(config.in_channels, *latents),
            "text": [normal(n, width) for n, width in zip(text, config.text_widths, strict=True)],
        }
        if config.condition_channels:
            said["condition"] = normal(config.condition_channels, *latents)
    elif isinstance(config, StivConfig):
        said = {
            "x": normal(config.in_channels, *latents),
            "text": normal(*text, config.text_width),
            "pooled": normal(config.text_width),
            "micro": normal(len(MICRO)),
        }
    elif isinstance(config, EasyAnimateConfig):
        said = {"x": normal(config.latent_channels, *latents), "text": normal(*text, config.caption_width)}
        if config.clip_width:
            said["image"] = normal(config.clip_width)
    else:
        said = {"x": normal(config.in_channels, *latents), "text": normal(*text, config.text_embed_dim)}
        if config.ofs_embed_dim:
            said["ofs"] = torch.full((batch,), 2.0)
    # Flows take 0 .. 1, the other two a step.
    flow = isinstance(config, MovieGenConfig | StivConfig)
    return {**said, "t": torch.full((batch,), 0.5 if flow else 500.0)}

"""CogVideoX's transformer without its choices, for the paper's own ablations (arXiv 2408.06072, section 4.1): one
modulation for text and video in place of the expert norms, attention in 2D + 1D in place of 3D.

Which positions are added (rotary, sinusoids) is in `DitConfig` itself. Published checkpoints have no such variants.
"""

# mypy: disable-error-code="no-any-return, no-untyped-call"

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from generator.dit.cogvideox import CogVideoXTransformer, DitConfig, ExpertNorm, JointAttention
from generator.dit.layers import zeroed
from generator.dit.positions import Rotation


@dataclass(frozen=True, slots=True)
class VariantConfig(DitConfig):
    """expert_norm: text and video have a shift, scale and gate each, else they share one. full_attention: every block
    attends to everything (3D), else blocks take turns: within each frame (2D), and along time at each place (1D), text
    being seen by all and seeing all."""

    expert_norm: bool = True
    full_attention: bool = True

    @property
    def places(self) -> int:
        """Tokens of a frame."""
        return (self.sample_height // self.patch_size) * (self.sample_width // self.patch_size)


OWN = tuple(
    sorted({f.name for f in dataclasses.fields(VariantConfig)} - {f.name for f in dataclasses.fields(DitConfig)})
)


def as_variant(config: DitConfig) -> VariantConfig:
    """The same model, open to these choices."""
    return VariantConfig(**dataclasses.asdict(config))


class Twice(nn.Linear):
    """What it computes, for text and for video alike."""

    def forward(self, x: Tensor) -> Tensor:
        once = super().forward(x)
        return torch.cat([once, once], dim=-1)


class TurnsAttention(JointAttention):
    """Within each frame, or along time at each place. Of latents of the size in the configuration."""

    def __init__(self, config: VariantConfig, along_time: bool) -> None:
        super().__init__(config)
        self.words, self.places, self.along_time = config.max_text_seq_length, config.places, along_time

    def forward(self, x: Tensor, by: Rotation | None, attend: Any = None) -> Tensor:
        if attend is not None or (x.shape[1] - self.words) % self.places:
            raise ValueError(
                f"attention in 2D + 1D takes texts of {self.words} tokens, frames of {self.places}, and no frame packs."
            )
        return super().forward(x, by, _turn(x.shape[1], self.words, self.places, self.along_time).to(x.device))


@functools.lru_cache(maxsize=32)
def _turn(tokens: int, words: int, places: int, along_time: bool) -> Tensor:
    """Which tokens see each other, (tokens, tokens) bool."""
    number = torch.arange(tokens) - words
    group = number % places if along_time else number // places
    text = number < 0
    return (group[:, None] == group[None]) | text[:, None] | text[None]


class CogVideoXVariant(CogVideoXTransformer):
    config: VariantConfig

    def __init__(self, config: VariantConfig) -> None:
        super().__init__(config)
        if not config.full_attention:
            for number, block in enumerate(self.transformer_blocks):
                block.attn1 = TurnsAttention(config, along_time=number % 2 == 1)
        if not config.expert_norm:
            for norm in [module for module in self.modules() if isinstance(module, ExpertNorm)]:
                norm.linear = Twice(config.time_embed_dim, 3 * config.width)
                zeroed(norm.linear)


def transformer(config: DitConfig) -> CogVideoXTransformer:
    """Of either configuration."""
    return CogVideoXVariant(config) if isinstance(config, VariantConfig) else CogVideoXTransformer(config)

"""CogVideoX's transformer without its choices, for the paper's own ablations (arXiv 2408.06072, section 4.1): one
modulation for text and video in place of the expert norms, or weights of their own for the text in everything (MMDiT);
attention in 2D + 1D in place of 3D; and without the norm of queries and keys.

Which positions are added (rotary, sinusoids) is in `DitConfig` itself. Published checkpoints have no such variants.
"""

# mypy: disable-error-code="no-any-return, no-untyped-call"

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from generator.dit.cogvideox import Block, CogVideoXTransformer, DitConfig, ExpertNorm, JointAttention
from generator.dit.layers import zeroed
from generator.dit.positions import Rotation
from generator.dit.sequence import Parts


@dataclass(frozen=True, slots=True)
class VariantConfig(DitConfig):
    """expert_norm: text and video have a shift, scale and gate each, else they share one. full_attention: every block
    attends to everything (3D), else blocks take turns: within each frame (2D), and along time at each place (1D), text
    being seen by all and seeing all. separate_weights: text and video meet in attention alone, and have weights of
    their own in its projections and in the feed-forwards (MMDiT of Stable Diffusion 3, arXiv 2403.03206). qk_norm: of
    queries and keys."""

    expert_norm: bool = True
    full_attention: bool = True
    separate_weights: bool = False
    qk_norm: bool = True

    @property
    def places(self) -> int:
        """Tokens of a frame."""
        return (self.sample_height // self.patch_size) * (self.sample_width // self.patch_size)


class Twice(nn.Linear):
    """What it computes, for text and for video alike."""

    def forward(self, x: Tensor) -> Tensor:
        once = super().forward(x)
        return torch.cat([once, once], dim=-1)


class Apart(nn.Module):
    """One module for the first `words` tokens, which are the text, and one for the rest. dim: of the tokens."""

    def __init__(self, words: int, text: nn.Module, video: nn.Module, dim: int = 1) -> None:
        super().__init__()
        self.words, self.text, self.video, self.dim = words, text, video, dim

    def forward(self, x: Tensor) -> Tensor:
        text, video = x.split([self.words, x.shape[self.dim] - self.words], dim=self.dim)
        return torch.cat([self.text(text), self.video(video)], dim=self.dim)


class TurnsAttention(JointAttention):
    """Within each frame, or along time at each place. Of latents of the size in the configuration."""

    def __init__(self, config: VariantConfig, along_time: bool) -> None:
        super().__init__(config)
        self.words, self.places, self.along_time = config.max_text_seq_length, config.places, along_time

    def forward(self, x: Tensor, by: Rotation | None, attend: Any = None, parts: Parts | None = None) -> Tensor:
        tokens = x.shape[1] if parts is None else parts.words + parts.tokens
        if (tokens - self.words) % self.places:
            raise ValueError(f"attention in 2D + 1D takes frames of {self.places} tokens.")
        mask = _turn(tokens, self.words, self.places, self.along_time).to(x.device)
        return super().forward(x, by, mask if parts is None else parts.queried(mask, 0), parts)


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
        for number, module in enumerate(self.transformer_blocks):
            block: Any = module
            if not config.full_attention:
                block.attn1 = TurnsAttention(config, along_time=number % 2 == 1)
            if not config.qk_norm:
                block.attn1.norm_q, block.attn1.norm_k = nn.Identity(), nn.Identity()
            if config.separate_weights:
                _part(block, Block(config), config.max_text_seq_length)
        if not config.expert_norm:
            for norm in [module for module in self.modules() if isinstance(module, ExpertNorm)]:
                norm.linear = Twice(config.time_embed_dim, 3 * config.width)
                zeroed(norm.linear)

    def forward(self, x: Any, t: Tensor, text: Tensor, *others: Any, **by_name: Any) -> Any:
        """As the plain model's, for texts of the configured length; without frame packs where attention takes turns or
        the text has weights of its own. Raises ValueError."""
        config, words = self.config, self.config.max_text_seq_length
        if (config.separate_weights or not config.full_attention) and (by_name.get("rows") or text.shape[1] != words):
            raise ValueError(f"this variant takes texts of {words} tokens, and no frame packs.")
        return super().forward(x, t, text, *others, **by_name)


def _part(block: Any, other: Any, words: int) -> None:
    """Gives the text the weights of another block."""
    mine, its = block.attn1, other.attn1
    for name in ("to_q", "to_k", "to_v"):
        setattr(mine, name, Apart(words, getattr(its, name), getattr(mine, name)))
    if not isinstance(mine.norm_q, nn.Identity):
        mine.norm_q, mine.norm_k = Apart(words, its.norm_q, mine.norm_q, 2), Apart(words, its.norm_k, mine.norm_k, 2)
    mine.to_out[0] = Apart(words, its.to_out[0], mine.to_out[0])
    first, its_first = block.ff.net[0], other.ff.net[0]
    first.proj = Apart(words, its_first.proj, first.proj)
    block.ff.net[2] = Apart(words, other.ff.net[2], block.ff.net[2])

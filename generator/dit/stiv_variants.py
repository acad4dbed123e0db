"""STIV's transformer without its choices, for the paper's own ablations (arXiv 2412.07730, table 2 and appendix): each
norm, the conditions, the positions, and what temporal attention may see.

Published results are of the model in `generator.dit.stiv`; a plain configuration here is that model.
"""

# mypy: disable-error-code="no-any-return, no-untyped-call"

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from generator.dit.layers import TIME_SCALE, Attention, plain_norm, zeroed
from generator.dit.positions import Rotation, sinusoid
from generator.dit.stiv import Block, Singleton, StivConfig, StivTransformer


@dataclass(frozen=True, slots=True)
class StivVariantConfig(StivConfig):
    """qk_norm: of queries and keys. sandwich: a norm after every sub-layer too, not only before it. condition_norm: of
    the parts of the singleton condition. micro: the six micro-conditions are told. shared_norm: one adaptive norm for
    all layers, else each has its own. rotary: rotary positions, else sinusoids that are added to the tokens where they
    enter the blocks, and to the unmasked ones after them. causal: temporal attention sees no later frame.
    temporal_modulation: it has a shift, scale and gate."""

    qk_norm: bool = True
    sandwich: bool = True
    condition_norm: bool = True
    micro: bool = True
    shared_norm: bool = True
    rotary: bool = True
    causal: bool = False
    temporal_modulation: bool = False

    def __post_init__(self) -> None:
        StivConfig.__post_init__(self)
        if not self.rotary and self.width % 12:
            raise ValueError(f"width {self.width} must be a multiple of 12 for sinusoids of time, rows and columns.")

    @property
    def modulations(self) -> int:
        """Shifts, scales and gates of a block."""
        return 9 if self.temporal_modulation else 6


class CausalAttention(Attention):
    """Every token sees those before it and itself."""

    def attended(self, q: Tensor, k: Tensor, v: Tensor, seen: Tensor | None) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)


class VariantBlock(Block):
    def __init__(self, config: StivVariantConfig, number: int) -> None:
        super().__init__(config)
        self.own = (
            slice(None) if config.shared_norm else slice(number * config.modulations, (number + 1) * config.modulations)
        )
        self.sandwich = config.sandwich
        if config.causal and self.temporal is not None:
            self.temporal = CausalAttention(config.width, config.num_heads, qk_norm=True)
        if not config.qk_norm:
            for attention in (module for module in self.modules() if isinstance(module, Attention)):
                attention.norm_q = attention.norm_k = None

    def _along_time(self, x: Tensor, attention: Attention, time: Rotation, modulation: Sequence[Tensor]) -> Tensor:
        if not modulation:
            return super()._along_time(x, attention, time, modulation)
        scale, shift, gate = modulation
        return torch.addcmul(x, gate, self._seen_in_time(self._modulated(x, scale, shift), attention, time))

    def _after(self, x: Tensor) -> Tensor:
        return plain_norm(x) if self.sandwich else x


class VariantSingleton(Singleton):
    def __init__(self, config: StivVariantConfig) -> None:
        super().__init__(config)
        self.normed = config.condition_norm
        if not config.micro:
            self.micro = nn.ModuleList()

    def forward(self, t: Tensor, pooled: Tensor, micro: Tensor) -> Tensor:
        parts = [self.time(t * TIME_SCALE), self.pooled(pooled)]
        parts += [embed(number) for embed, number in zip(self.micro, micro.unbind(1), strict=False)]
        return torch.stack([plain_norm(part) if self.normed else part for part in parts]).sum(dim=0)


class StivVariant(StivTransformer):
    config: StivVariantConfig

    def __init__(self, config: StivVariantConfig) -> None:
        super().__init__(config)
        self.singleton = VariantSingleton(config)
        blocks = [VariantBlock(config, number) for number in range(config.num_layers + config.post_layers)]
        self.blocks = nn.ModuleList(blocks[: config.num_layers])
        self.post_blocks = nn.ModuleList(blocks[config.num_layers :])
        self.count = config.modulations * (1 if config.shared_norm else len(blocks))
        self.modulation = nn.Linear(config.width, self.count * config.width)
        zeroed(self.modulation)

    def _modulations(self, single: Tensor) -> Sequence[Tensor]:
        return self.modulation(single)[:, None, None].chunk(self.count, dim=-1)

    def _run(
        self,
        blocks: nn.ModuleList,
        tokens: Tensor,
        modulation: Sequence[Tensor],
        words: Tensor,
        mask: Tensor | None,
        places: Tensor,
        moments: Tensor,
    ) -> Tensor:
        if not self.config.rotary:
            tokens = tokens + added_positions(places, moments, self.config.width).to(tokens)
            places, moments = torch.zeros_like(places), torch.zeros_like(moments)  # nothing turns
        return super()._run(blocks, tokens, modulation, words, mask, places, moments)


def added_positions(places: Tensor, moments: Tensor, width: int) -> Tensor:
    """places: (S, 2) or (B, S, 2), moments: (T, 1) -> (T, S, width) or (B, T, S, width): a third of the channels each
    for time, rows and columns."""
    third = width // 3
    rows, columns = (sinusoid(places[..., k].flatten(), third).view(*places.shape[:-1], third) for k in (0, 1))
    space = torch.cat([rows, columns], dim=-1).unsqueeze(-3)
    time = sinusoid(moments[:, 0], third)[:, None]
    shape = (*space.shape[:-3], len(moments), space.shape[-2])
    return torch.cat([time.expand(*shape, third), space.expand(*shape, 2 * third)], dim=-1)

"""What a transformer costs: parameters, tokens, floating-point operations; computed without memory, on the meta device.

Operations are counted on one forward pass (`generator.counting`), a multiplication and an addition as two. Attention is
counted whole, every token to every token: 4 N^2 width per layer, which is 12 N width per token with the backward pass.
Adding, normalising and activations are not counted.
"""

# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from generator.counting import Operations
from generator.dit.sizes import BUILD, Size, inputs


@dataclass(frozen=True, slots=True)
class Cost:
    """parameters; video_tokens of one sample; forward: operations of one sample's forward pass.

    A step of training takes three times `forward` (the backward pass counts twice), without recomputation.
    """

    parameters: int
    video_tokens: int
    forward: int

    @property
    def training(self) -> int:
        return 3 * self.forward


def cost(config: Any, latents: tuple[int, int, int], text: tuple[int, ...]) -> Cost:
    """Of one sample. latents: (F, H, W). text: tokens of each encoder."""
    with torch.device("meta"), torch.no_grad():
        model = BUILD[type(config)](config).eval()
        arguments = inputs(config, latents, text)
        with Operations() as counter:
            model(**arguments)
    patch = patch_of(config)
    tokens = 1
    for n, p in zip(latents, patch, strict=True):
        tokens *= n // p
    return Cost(sum(p.numel() for p in model.parameters()), tokens, counter.total)


def cost_of(size: Size) -> Cost:
    return cost(size.config(), size.latents, size.text)


def patch_of(config: Any) -> tuple[int, int, int]:
    """Latents per token in time, rows and columns."""
    if hasattr(config, "patch"):
        time, rows, columns = config.patch
        return time, rows, columns
    return getattr(config, "patch_size_t", None) or 1, config.patch_size, config.patch_size

"""Less memory for more work: what a block computes is not kept for the backward pass but computed again."""

# mypy: disable-error-code="no-any-return, no-untyped-call"

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint, create_selective_checkpoint_contexts

from generator.parallel import blocks

_ATTENTION = [
    torch.ops.aten._scaled_dot_product_flash_attention.default,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default,
    torch.ops.aten._scaled_dot_product_efficient_attention.default,
    torch.ops.aten._scaled_dot_product_cudnn_attention.default,
]


def recompute(transformer: nn.Module, what: str) -> None:
    """From now on, for each block; see `optimising.Training`. Names of parameters stay."""
    for block in blocks(transformer):
        block.__dict__.pop("forward", None)
        if what == "nothing":
            continue
        settings: dict[str, Any] = {"use_reentrant": False}
        if what == "all but attention":
            settings["context_fn"] = functools.partial(create_selective_checkpoint_contexts, _ATTENTION)
        block.forward = functools.partial(checkpoint, block.forward, **settings)


def compile_blocks(transformer: nn.Module) -> None:
    """Each block by itself: they are alike, so that one compilation serves all of them."""
    for block in blocks(transformer):
        block.compile()

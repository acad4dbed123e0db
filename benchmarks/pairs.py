"""What `benchmarks.models` compares: a model of ours and diffusers' with the same weights, and what both do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn


@dataclass(frozen=True, slots=True)
class Work:
    """One thing that both models do. ours, theirs: given the model and its input. grad: with a backward pass."""

    name: str
    ours: Callable[[nn.Module, Any], Any]
    theirs: Callable[[nn.Module, Any], Any]
    grad: bool = False


@dataclass(frozen=True, slots=True)
class Pair:
    """models: (size) -> ours and theirs, with the same weights. inputs: (size) -> what all work is given."""

    name: str
    models: Callable[[str], tuple[nn.Module, nn.Module]]
    inputs: Callable[[str], Any]
    work: tuple[Work, ...]


def same_weights(ours: nn.Module, theirs: nn.Module) -> tuple[nn.Module, nn.Module]:
    """Both with small random weights that keep activations in range, in training mode's precision, without dropout."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in theirs.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, parameter[0].numel() ** -0.5)
    ours.load_state_dict(theirs.state_dict())
    return ours.eval(), theirs.eval()

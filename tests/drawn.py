"""Weights and inputs for comparing transformers: large enough that nothing a model is given goes unnoticed."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def drawn(model: Any, seed: int = 0) -> Any:
    """Every weight of the size that keeps signals at theirs, norms about 1 and biases about 0 by half, queries and keys
    twice as long so that attention chooses; evaluation mode.
    """
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1:
                scale = max(parameter[0].numel(), 1) ** -0.5
                parameter.copy_(torch.randn(parameter.shape, generator=random) * scale)
            else:
                middle = float(name.endswith("weight"))
                parameter.copy_(middle + 0.5 * torch.randn(parameter.shape, generator=random))
            if name.endswith(("norm_q.weight", "norm_k.weight")):
                parameter.mul_(2)
    return model.eval()


def difference(one: Tensor, other: Tensor) -> float:
    """Largest difference over the largest number of the other."""
    assert one.shape == other.shape, (one.shape, other.shape)
    return float((one - other).abs().max() / other.abs().max())


def moved(one: Tensor, other: Tensor) -> float:
    """How much one differs from the other as a whole, by norm."""
    assert one.shape == other.shape
    return float((one - other).norm() / other.norm())

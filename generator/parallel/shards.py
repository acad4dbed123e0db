"""Tensors of which a process has a part (DTensor): made whole, compared, clipped, written and read."""

# mypy: disable-error-code="no-any-return, no-untyped-call"

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

Some = TypeVar("Some", bound=Tensor)


def alike(tensors: Sequence[Some]) -> list[list[Some]]:
    """Those of one kind side by side: whole ones, and parts over each mesh. What works on lists takes one kind."""
    found: dict[Any, list[Some]] = {}
    for tensor in tensors:
        found.setdefault(getattr(tensor, "device_mesh", None), []).append(tensor)
    return list(found.values())


def clip(weights: Iterable[nn.Parameter], most: float) -> float:
    """Scales gradients in place so that their norm, as one vector, is at most that; returns what it was."""
    gradients = [weight.grad for weight in weights if weight.grad is not None]
    kinds = alike(gradients)
    norm = math.hypot(*(_norm(kind) for kind in kinds))
    factor = min(most / (norm + 1e-6), 1.0)
    for kind in kinds if math.isfinite(norm) else []:
        torch._foreach_mul_(kind, factor)
    return norm


def _norm(tensors: Sequence[Tensor]) -> float:
    norm: Any = nn.utils.get_total_norm(tensors)
    if not is_part(norm):
        return float(norm)
    square = norm.to_local().square()
    for axis, placement in enumerate(norm.placements):
        if placement.is_partial():
            dist.all_reduce(square, group=norm.device_mesh.get_group(axis))
    return math.sqrt(float(square))


def full(tensor: Tensor) -> Tensor:
    """All of a tensor of which this process has a part; every process must ask. Other tensors are themselves."""
    from torch.distributed.tensor import DTensor

    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def is_part(tensor: Tensor) -> bool:
    """Whether other processes have the rest of it."""
    from torch.distributed.tensor import DTensor

    return isinstance(tensor, DTensor)


def fill(target: Tensor, whole: Tensor) -> None:
    """Copies into `target` what is its part of `whole`."""
    from torch.distributed.tensor import DTensor, distribute_tensor

    if isinstance(target, DTensor):
        whole = distribute_tensor(whole.to(target.device), target.device_mesh, target.placements, src_data_rank=None)
    target.copy_(whole)


def write_shards(tensors: Mapping[str, Tensor], folder: Path, group: Any) -> Callable[[], None]:
    """Every process writes its part, as safetensors, while the training goes on. Returns what waits for all of them."""
    import torch.distributed.checkpoint as dcp
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter

    writer = HuggingFaceStorageWriter(str(folder), save_distributed=True)
    future: Any = dcp.async_save(dict(tensors), storage_writer=writer, process_group=group)

    def wait() -> None:
        future.result()

    return wait


def read_shards(tensors: Mapping[str, Tensor], folder: Path) -> None:
    """Fills tensors, whole or sharded over however many processes, from what other numbers of processes wrote."""
    import torch.distributed.checkpoint as dcp
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled")
        reader = HuggingFaceStorageReader(str(folder))
        dcp.load(dict(tensors), storage_reader=reader, no_dist=not dist.is_initialized())


def shards_in(folder: Path) -> dict[str, tuple[torch.Size, torch.dtype]]:
    """Shapes and types of the whole tensors in there."""
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader
    from torch.distributed.checkpoint.metadata import TensorStorageMetadata

    said = HuggingFaceStorageReader(str(folder)).read_metadata().state_dict_metadata
    return {
        name: (each.size, each.properties.dtype)
        for name, each in said.items()
        if isinstance(each, TensorStorageMetadata)
    }

"""Tensor parallel (arXiv 1909.08053): attention heads and the inner width of feed-forwards, divided among processes, by
torch's own styles. Between them tokens are divided (`generator.parallel.context`).
"""

# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

from typing import Any

from torch import nn

_INTO = ("to_q", "to_k", "to_v", "net.0.proj", "gate", "up", "up.proj")
_OUT_OF = ("to_out.0", "net.2", "down")
_INSIDE = {
    "CogVideoXTransformer": ("attn1", "ff"),
    "MovieGenTransformer": ("attention", "cross_attention", "feed_forward"),
    "StivTransformer": ("spatial", "feed_forward"),
}
"""Parts of a block whose tokens stand in one row, which is what is divided between them"""


def plan(transformer: nn.Module, size: int) -> dict[str, tuple[str, int]]:
    """Which linear maps are divided among so many processes: "into" or "out of" what is divided, and the axis of the
    tokens, by name.

    Raises ValueError for a transformer that cannot be divided so.
    """
    inside, found = _INSIDE.get(type(transformer).__name__), {}
    if inside is None:
        raise ValueError(f"{type(transformer).__name__} cannot be divided with --tensor; use --context or --shard.")
    for name, module in transformer.named_modules():
        if name.rpartition(".")[2] not in inside:
            continue
        if module.heads % size if hasattr(module, "heads") else False:
            raise ValueError(f"{module.heads} heads cannot be divided among {size} processes with --tensor.")
        # Where a block sees frames, the places of a frame are the third axis of its feed-forward.
        row = 2 if "spatial" in inside and not hasattr(module, "heads") else 1
        for inner, linear in module.named_modules():
            if not isinstance(linear, nn.Linear):
                continue
            assert inner in (*_INTO, *_OUT_OF), inner
            width = linear.out_features if inner in _INTO else linear.in_features
            if width % size:
                raise ValueError(f"a width of {width} cannot be divided among {size} processes with --tensor.")
            found[f"{name}.{inner}"] = ("into" if inner in _INTO else "out of", row)
    return found


def divide(transformer: nn.Module, mesh: Any) -> None:
    """In place; weights become DTensors over `mesh`. Raises ValueError as `plan`."""
    from torch.distributed.tensor import Shard
    from torch.distributed.tensor.parallel import ColwiseParallel, ParallelStyle, RowwiseParallel, parallelize_module

    styles: dict[str, ParallelStyle] = {
        name: ColwiseParallel() if way == "into" else RowwiseParallel(output_layouts=Shard(row))
        for name, (way, row) in plan(transformer, mesh.size()).items()
    }
    for name, module in transformer.named_modules():
        if hasattr(module, "heads") and f"{name}.to_q" in styles:
            module.heads //= mesh.size()
    parallelize_module(transformer, mesh, styles, src_data_rank=None)

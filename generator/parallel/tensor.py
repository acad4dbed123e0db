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


def divide(transformer: nn.Module, blocks: list[nn.Module], mesh: Any) -> None:
    """In place; weights become DTensors over `mesh`.

    Raises ValueError for a transformer without a plan, and where heads or widths cannot be divided.
    """
    from torch.distributed.tensor import Shard
    from torch.distributed.tensor.parallel import ColwiseParallel, ParallelStyle, RowwiseParallel, parallelize_module

    size, inside = mesh.size(), _INSIDE.get(type(transformer).__name__)
    if inside is None:
        raise ValueError(f"{type(transformer).__name__} cannot be divided with --tensor; use --context or --shard.")
    for block in blocks:
        plan: dict[str, ParallelStyle] = {}
        for part in inside:
            module: Any = block.get_submodule(part)
            # A frame's places are the third axis of a feed-forward that sees frames.
            row = 2 if part == "feed_forward" and hasattr(block, "spatial") else 1
            for name, linear in module.named_modules():
                if not isinstance(linear, nn.Linear):
                    continue
                if name in _INTO:
                    width, plan[f"{part}.{name}"] = linear.out_features, ColwiseParallel()
                else:
                    assert name in _OUT_OF, name
                    width, plan[f"{part}.{name}"] = linear.in_features, RowwiseParallel(output_layouts=Shard(row))
                if width % size:
                    raise ValueError(f"a width of {width} cannot be divided among {size} processes with --tensor.")
            if hasattr(module, "heads"):
                if module.heads % size:
                    raise ValueError(f"{module.heads} heads cannot be divided among {size} processes with --tensor.")
                module.heads //= size
        parallelize_module(block, mesh, plan, src_data_rank=None)

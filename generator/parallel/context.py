"""Context and sequence parallel: the tokens of a sequence, divided among processes.

Context parallel is Movie Gen's (arXiv 2410.13720, section 3.1.6): every process queries with its own video tokens, and
keys and values of all are gathered. So any number of heads, any mask and any number of tokens will do. (torch's own
`context_parallel` has no kernels for CPUs and none for masks.) Inside a context group, tensor-parallel processes hold a
part of its tokens wherever each token is computed by itself (sequence parallel, arXiv 2205.05198).

Each process computes the whole loss of its samples. What is gathered sends back the sum of everybody's gradients, so
the gradient of a weight is the sum of what the processes find, over the number of losses that they computed.
"""

# mypy: disable-error-code="no-any-return, no-untyped-call"

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor


class Divided:
    """`generator.dit.sequence.Parts` over the axes "context" and "tensor" of a mesh.

    Raises ValueError where somebody would have no token.
    """

    def __init__(self, mesh: Any, tokens: int, words: int) -> None:
        self.words, self.tokens = words, tokens
        self.context, self.tensor = mesh["context"], mesh["tensor"]
        self.span = share(tokens, self.context.size(), self.context.get_local_rank())
        self.held = words + len(self.span)
        self.own = share(self.held, self.tensor.size(), self.tensor.get_local_rank())

    def mine(self, x: Tensor, dim: int) -> Tensor:
        start, end = (max(n - self.words, 0) for n in (self.own.start, self.own.stop))
        return x.narrow(dim, self.span.start + start, end - start)

    def my_words(self, x: Tensor, dim: int) -> Tensor:
        start, end = (min(n, self.words) for n in (self.own.start, self.own.stop))
        return x.narrow(dim, start, end - start)

    def queried(self, x: Tensor, dim: int) -> Tensor:
        video = x.narrow(dim, self.words + self.span.start, len(self.span))
        return torch.cat([x.narrow(dim, 0, self.words), video], dim) if self.words else video

    def together(self, x: Tensor) -> Any:
        return x if self.tensor.size() == 1 else _gathered(x, self.tensor, x.ndim - 2, self.held)

    def shared(self, x: Tensor) -> Any:
        if self.tensor.size() == 1:
            return x
        from torch.distributed.tensor import DTensor, Partial, Replicate

        return DTensor.from_local(x, self.tensor, [Replicate()], run_check=False, grad_placements=[Partial()])

    def keys(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        if self.context.size() == 1:
            return k, v
        both = torch.stack([k, v])  # (2, B, heads, N, head_dim)
        words, video = both.narrow(3, 0, self.words), both.narrow(3, self.words, both.shape[3] - self.words)
        video = video.unflatten(3, (len(self.span), -1))  # what is divided may be frames of several tokens
        video = _local(_gathered(video, self.context, 3, self.tokens)).flatten(3, 4)
        k, v = (torch.cat([words, video], 3) if self.words else video).unbind()
        return k, v

    def whole(self, x: Tensor, dim: int) -> Tensor:
        if self.tensor.size() > 1:
            count = len(self.own) - x.shape[dim]
            shape = [count if k == dim else n for k, n in enumerate(x.shape)]
            x = _local(_gathered(torch.cat([x.new_zeros(shape), x], dim), self.tensor, dim, self.held))
            x = x.narrow(dim, self.words, len(self.span))
        return x if self.context.size() == 1 else _local(_gathered(x, self.context, dim, self.tokens))


def share(count: int, size: int, rank: int) -> range:
    """As DTensor divides: everybody the same, the last one less. Raises ValueError where it would have nothing."""
    each = math.ceil(count / size)
    if each * (size - 1) >= count:
        raise ValueError(f"a sequence of {count} tokens cannot be divided among {size} processes; use fewer for it.")
    return range(each * rank, min(each * (rank + 1), count))


def _gathered(x: Tensor, mesh: Any, dim: int, total: int) -> Any:
    """A DTensor of everybody's x, which everybody has. Back goes the sum of everybody's gradients."""
    from torch.distributed.tensor import DTensor, Replicate, Shard

    shape = torch.Size([total if k == dim else n for k, n in enumerate(x.shape)])
    stride = tuple(math.prod(shape[k + 1 :]) for k in range(len(shape)))
    part = DTensor.from_local(x.contiguous(), mesh, [Shard(dim)], run_check=False, shape=shape, stride=stride)
    return part.redistribute(placements=[Replicate()])


def _local(x: Any) -> Tensor:
    from torch.distributed.tensor import Partial

    return x.to_local(grad_placements=[Partial()])

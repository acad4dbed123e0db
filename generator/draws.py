"""Random numbers of a batch: every sample has a stream of its own, made of its place in the global batch, so that what
it is given depends neither on its neighbours nor on how a batch is dealt out to processes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def seed_of(*parts: object) -> int:
    """A number below 2^56 that depends on nothing but the parts' text."""
    digest = hashlib.blake2b("/".join(map(str, parts)).encode(), digest_size=7).digest()
    return int.from_bytes(digest, "little")


class Draws:
    """One generator per sample, on the CPU: the same numbers on every device."""

    def __init__(self, seeds: Sequence[int]) -> None:
        self.generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    @classmethod
    def of(cls, slots: Sequence[int], *parts: object) -> Draws:
        """Of the samples in these places of the global batch, at what the parts name (seed, model, step)."""
        return cls([seed_of(*parts, slot) for slot in slots])

    def apart(self) -> list[Draws]:
        """Of each sample by itself; they go on where this one is."""
        parts = [Draws([]) for _ in self.generators]
        for part, generator in zip(parts, self.generators, strict=True):
            part.generators = [generator]
        return parts

    def __len__(self) -> int:
        return len(self.generators)

    def normal(self, *shape: int) -> Tensor:
        """(B, *shape), standard normal."""
        return self.each(lambda g: torch.randn(1, *shape, generator=g))

    def uniform(self) -> Tensor:
        """(B,), 0..1."""
        return self.each(lambda g: torch.rand(1, generator=g))

    def each(self, draw: Callable[[torch.Generator], Tensor]) -> Tensor:
        """What `draw` makes of each sample's generator, (1, ...), as (B, ...)."""
        return torch.cat([draw(generator) for generator in self.generators])

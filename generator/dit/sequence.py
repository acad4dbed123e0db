"""The seam between a transformer and processes that share its tokens: a model asks, `generator.parallel` answers.

Outside the blocks every process has all tokens. Inside it has a part of them, and attention asks for the keys and
values of the others. A model by itself is never divided.
"""

# mypy: disable-error-code="no-any-return"

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from torch import Tensor


class Parts(Protocol):
    """How a sequence of `words` and then video tokens is divided. Every process's attention queries with all words and
    some of the video; between attentions it may hold a part of these alone."""

    words: int
    tokens: int

    def mine(self, x: Tensor, dim: int) -> Tensor:
        """Of something about every video token, this process's."""
        ...

    def my_words(self, x: Tensor, dim: int) -> Tensor:
        """Of something about every word, this process's."""
        ...

    def queried(self, x: Tensor, dim: int) -> Tensor:
        """Of something about every word and video token, what this process's attention queries with."""
        ...

    def together(self, x: Tensor) -> Any:
        """Own tokens (..., N, width) -> those that attention or a feed-forward takes, whose result is of own ones."""
        ...

    def shared(self, x: Tensor) -> Any:
        """A context that all processes have -> as attention takes it."""
        ...

    def keys(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Of the queries' tokens (B, heads, N, head_dim) -> of all tokens, in their order."""
        ...

    def whole(self, x: Tensor, dim: int) -> Tensor:
        """Of own video tokens -> of all."""
        ...


Divide = Callable[[int, int], Parts]
"""(video tokens, words)"""


def together(x: Tensor, parts: Parts | None) -> Any:
    return x if parts is None else parts.together(x)


def whole(x: Tensor, dim: int, parts: Parts | None) -> Tensor:
    return x if parts is None else parts.whole(x, dim)

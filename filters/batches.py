"""Work in batches on an accelerator whose memory may not hold them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TypeVar

log = logging.getLogger("vidcurate")

A = TypeVar("A")
B = TypeVar("B")


def halving(function: Callable[[Sequence[A]], Sequence[B]], items: Sequence[A], batch: int) -> list[B]:
    """`function` of all items, at most `batch` at a time, in order; it gives one result per item.

    When the accelerator's memory runs out, the batch is halved for the rest of the call and the same items are tried
    again. Raises torch.OutOfMemoryError when a single item does not fit.
    """
    import torch

    results: list[B] = []
    batch = max(1, batch)
    while len(results) < len(items):
        now = items[len(results) : len(results) + batch]
        try:
            made = function(now)
        except torch.OutOfMemoryError:
            if len(now) == 1:
                raise
            batch = len(now) // 2
            log.warning("out of accelerator memory with %d items; going on with %d at a time", len(now), batch)
        else:
            assert len(made) == len(now), "one result per item"
            results += made
            continue
        # Outside the handler, where the traceback no longer holds on to the tensors that did not fit.
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    return results

"""What a training says of itself: losses by stratum of noise, speed against what the device could do, memory, alarms.

MFU (model FLOPs utilisation, arXiv 2204.02311) counts the operations of the model as `generator.dit.costs` does,
attention whole and nothing that is computed twice, over what the device can do in the same time.
"""

# mypy: disable-error-code="no-any-return, no-untyped-call"

from __future__ import annotations

import functools
import math
import resource
import statistics
import sys
import time
import warnings
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import torch

STRATA = 4
_WINDOW, _SPIKE = 50, 6.0
PEAKS = {"H100": 989.0, "H200": 989.0, "A100": 312.0, "L40S": 362.0}
"""Dense bfloat16, TFLOP/s, as the maker says."""


@dataclass(frozen=True, slots=True)
class Told:
    """One process's news of a step. seconds: of waiting for data."""

    loss: float
    each: list[float]
    times: list[float]
    parts: dict[str, float]
    samples: int
    tokens: int
    flops: float | None
    seconds: float
    stop: bool


def together(told: Sequence[Told]) -> Told:
    """Of several passes or processes."""
    if len(told) == 1:
        return told[0]
    flops = [each.flops for each in told if each.flops is not None]
    return Told(
        mean(told),
        [loss for each in told for loss in each.each],
        [at for each in told for at in each.times],
        _weighted(told),
        sum(each.samples for each in told),
        sum(each.tokens for each in told),
        math.fsum(flops) if len(flops) == len(told) else None,
        math.fsum(each.seconds for each in told),
        any(each.stop for each in told),
    )


def mean(told: Sequence[Told]) -> float:
    """Of all samples' losses; the same however they were dealt out, where each sample has a loss of its own."""
    each = [loss for one in told for loss in one.each]
    if len(each) == sum(one.samples for one in told):
        return math.fsum(each) / len(each)
    if len(told) == 1:
        return told[0].loss
    return math.fsum(one.loss * one.samples for one in told) / sum(one.samples for one in told)


def _weighted(told: Sequence[Told]) -> dict[str, float]:
    count = sum(one.samples for one in told)
    return {key: math.fsum(one.parts[key] * one.samples for one in told) / count for key in told[0].parts}


def parts(told: Sequence[Told]) -> dict[str, float]:
    """Further numbers of the log, over all samples."""
    everybody = together(told)
    both = len(everybody.each) == len(everybody.times)
    return {**everybody.parts, **(strata(everybody.each, everybody.times) if both else {})}


def speed(
    told: Sequence[Told], seconds: float, device: str, peak: float | None, processes: int = 1
) -> dict[str, float | str]:
    """Of all processes together; data_share is that of the slowest, memory_gb of this one. peak: operations a second
    of one device."""
    everybody = together(told)
    known = everybody.flops is not None and peak
    mfu: float | str = everybody.flops / seconds / (peak * processes) if known else "n/a"  # type: ignore[operator]
    return {
        "seconds": seconds,
        "samples_per_s": everybody.samples / seconds,
        "tokens_per_s": everybody.tokens / seconds,
        "mfu": mfu,
        "data_share": max(each.seconds for each in told) / seconds,
        "memory_gb": memory_gb(device),
    }


def strata(losses: Sequence[float], times: Sequence[float]) -> dict[str, float]:
    """Mean loss in each quarter of the times, `loss_t1` .. `loss_t4`; a quarter without samples is left out.

    times: shares 0..1 of an objective's times: late is noisy where noise is added step by step, clean on a flow.
    """
    parts: dict[int, list[float]] = {}
    for loss, at in zip(losses, times, strict=True):
        parts.setdefault(min(int(at * STRATA), STRATA - 1), []).append(loss)
    return {f"loss_t{part + 1}": statistics.fmean(parts[part]) for part in sorted(parts)}


class Alarm:
    """Says when a loss stands far above those before it: early, long before it is no number any more."""

    def __init__(self, before: Sequence[float] = ()) -> None:
        self.recent = deque(before, maxlen=_WINDOW)

    def heard(self, loss: float) -> str | None:
        """A sentence where the loss is above the median of the last fifty by six times their usual distance from it."""
        said = None
        if len(self.recent) >= _WINDOW // 2:
            middle = statistics.median(self.recent)
            spread = 1.4826 * statistics.median(abs(each - middle) for each in self.recent)
            if loss > middle + _SPIKE * max(spread, 0.01 * abs(middle)):
                said = f"the loss jumped to {loss:.4g}; the last {len(self.recent)} had a median of {middle:.4g}"
        self.recent.append(loss)
        return said


def warn(name: str, step: int, said: str) -> None:
    warnings.warn(f"{name}, step {step}: {said}.", stacklevel=3)


@functools.cache
def peak_flops(device: str, bfloat16: bool) -> float | None:
    """Operations a second: of a known GPU by its name, of a CPU by a product of matrices; None where nobody knows."""
    if device.startswith("cuda"):
        known = [peak for name, peak in PEAKS.items() if name in torch.cuda.get_device_name(device)]
        return known[0] * 1e12 if known and bfloat16 else None
    side = 768
    a = torch.ones(side, side, dtype=torch.bfloat16 if bfloat16 else torch.float32)
    best = math.inf
    for _ in range(5):
        began = time.perf_counter()
        a @ a
        best = min(best, time.perf_counter() - began)
    return 2 * side**3 / best


def memory_gb(device: str) -> float:
    """The most memory this process had: on a GPU the allocator's, else resident."""
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated(device) / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**30 if sys.platform == "darwin" else 2**20)

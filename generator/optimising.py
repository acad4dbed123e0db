"""How one model is optimised: the optimiser, the learning rate over the steps, the average of the weights."""

# mypy: disable-error-code="no-any-return, no-untyped-call"

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from generator.parallel import alike

if TYPE_CHECKING:
    from collections.abc import Iterator

OPTIMIZERS = ("adamw", "adafactor")
SCHEDULES = ("cosine", "constant", "plateau")
PRECISIONS = ("float32", "bfloat16")
RECOMPUTE = ("nothing", "all but attention", "all")


@dataclass(frozen=True, slots=True)
class Training:
    """One model's optimisation, with clipped gradients and a linear warm-up.

    batch: samples of a step, over all processes. ema: decay of the averaged weights that are exported, 0 for none.
    log_every, checkpoint_every, validate_every: steps; 0 validates never.
    optimizer: "adamw" or "adafactor", which keeps one number per row and column in place of each weight's square
    (arXiv 1804.04235, with an outer learning rate and betas[0] as momentum; its second decay is 1 - t^-0.8).
    schedule: "cosine" down to a twentieth, "constant", or "plateau": halved whenever the last `patience` validations
    brought nothing better than before (Movie Gen, arXiv 2410.13720, section 3.2).
    precision: "float32", or "bfloat16" for the matrix products (autocast; weights and moments stay float32).
    recompute: what a block computes again in the backward pass in place of keeping it: "nothing", "all", or "all but
    attention" (STIV, arXiv 2412.07730, keeps the outputs of attention alone).
    Raises ValueError for anything else.
    """

    steps: int
    batch: int
    lr: float
    warmup: int = 10
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = 1e-8
    weight_decay: float = 1e-4
    clip: float = 1.0
    ema: float = 0.0
    log_every: int = 1
    checkpoint_every: int = 100
    optimizer: str = "adamw"
    schedule: str = "cosine"
    patience: int = 3
    precision: str = "float32"
    recompute: str = "nothing"
    validate_every: int = 0

    def __post_init__(self) -> None:
        if min(self.steps, self.batch, self.log_every, self.checkpoint_every, self.patience) < 1:
            raise ValueError("steps, batch, log_every, checkpoint_every and patience must be at least 1.")
        for what, known in {
            "optimizer": OPTIMIZERS,
            "schedule": SCHEDULES,
            "precision": PRECISIONS,
            "recompute": RECOMPUTE,
        }.items():
            if getattr(self, what) not in known:
                raise ValueError(f"{what} must be one of {', '.join(known)}, got {getattr(self, what)!r}.")
        if self.schedule == "plateau" and self.validate_every < 1:
            raise ValueError("the schedule plateau looks at validation losses: validate_every must be at least 1.")


def make_optimizer(how: Training, weights: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """Raises ValueError where the library of an optimiser is missing."""
    if how.optimizer == "adamw":
        groups = [{"params": kind} for kind in alike(list(weights))]
        return torch.optim.AdamW(groups, how.lr, how.betas, how.eps, how.weight_decay, fused=True)
    try:
        from transformers.optimization import Adafactor
    except (ImportError, RuntimeError) as error:
        raise ValueError("the optimiser adafactor needs transformers: pip install 'vidcurate[learned]'.") from error
    return Adafactor(
        weights,
        lr=how.lr,
        beta1=how.betas[0] or None,
        weight_decay=how.weight_decay,
        scale_parameter=False,
        relative_step=False,
    )


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate


def learning_rate(step: int, how: Training, validations: Sequence[float] = ()) -> float:
    """Share of the full rate at a step. validations: the losses found before it, in their order."""
    if step < how.warmup:
        return (step + 1) / how.warmup
    if how.schedule == "constant":
        return 1.0
    if how.schedule == "plateau":
        return 0.5 ** plateaus(validations, how.patience)
    done = (step - how.warmup) / max(how.steps - how.warmup, 1)
    return 0.05 + 0.95 * (1 + math.cos(math.pi * done)) / 2


def plateaus(losses: Sequence[float], patience: int) -> int:
    """How often `patience` losses in a row were no better than the best before them."""
    best, since, found = math.inf, 0, 0
    for loss in losses:
        since = 0 if loss < best else since + 1
        best = min(best, loss)
        if since == patience:
            found, since = found + 1, 0
    return found


def averaged(average: Mapping[str, Tensor], trained: Mapping[str, Tensor], decay: float, step: int) -> None:
    """Moves the average of the weights. The first steps count more, so that it forgets the random start."""
    if average:
        weight = 1 - min(decay, (1 + step) / (10 + step))
        now = alike([trained[key].detach() for key in average])
        for kind, own in zip(alike(list(average.values())), now, strict=True):
            torch._foreach_lerp_(kind, own, weight)


@contextmanager
def in_place(average: Mapping[str, Tensor], trained: Mapping[str, nn.Parameter]) -> Iterator[None]:
    """Inside, the model has the averaged weights, if there are any."""
    own: dict[str, Any] = {key: trained[key].detach().clone() for key in average}
    with torch.no_grad():
        for key, value in average.items():
            trained[key].copy_(value)
    try:
        yield
    finally:
        with torch.no_grad():
            for key, value in own.items():
                trained[key].copy_(value)

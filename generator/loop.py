"""The training loop, the same for VAEs and transformers.

Every step draws its random numbers from the recipe's seed, the stage, the step and each sample's place in the global
batch, so a run that was stopped goes on exactly: on a CPU, bit for bit.
"""

# mypy: disable-error-code="no-any-return, no-untyped-call"

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from generator.draws import Draws, seed_of
from generator.feed import Feed
from generator.recipes import Training
from generator.run import Run


@dataclass(frozen=True, slots=True, eq=False)
class Learnt:
    """What a model has to learn from one batch. parts: further numbers for the log. tokens: in the batch."""

    loss: Tensor
    tokens: int
    parts: Mapping[str, float] = field(default_factory=dict)


Learn = Callable[[Any, Draws, int], Learnt]
"""(batch, its random numbers, step)"""


def fit(
    name: str, model: nn.Module, learn: Learn, feed: Feed, how: Training, run: Run, only: Sequence[str] = ()
) -> None:
    """Trains `model` in place and leaves it in evaluation mode with the weights to export.

    only: parameters whose names contain one of these words are trained, all if there is none.
    Raises ValueError when the loss or its gradient is no longer finite, or where nothing is to be trained.
    """
    trained = chosen(name, model, only)
    optimizer = torch.optim.AdamW(trained.values(), how.lr, how.betas, how.eps, how.weight_decay)
    average = {key: value.detach().clone() for key, value in trained.items()} if how.ema else {}
    start = run.resume(name, model, list(trained), optimizer, average)
    parts = feed.parts(start, how.steps)
    model.train()
    for step in range(start, how.steps):
        began = time.perf_counter()
        (part,) = next(parts)
        fetched = time.perf_counter()
        torch.manual_seed(seed_of(run.recipe.seed, name, step))  # of what models draw themselves, such as dropout

        lr = how.lr * learning_rate(step, how)
        for group in optimizer.param_groups:
            group["lr"] = lr
        learnt = learn(part.batch, Draws.of(part.slots, run.recipe.seed, name, step), step)
        value = learnt.loss.item()
        optimizer.zero_grad(set_to_none=True)
        learnt.loss.backward()
        norm = nn.utils.clip_grad_norm_(trained.values(), how.clip).item()
        # Before the weights change: after a last step with such a gradient, no loss would tell.
        for what, number in {"loss": value, "gradient norm": norm}.items():
            if not math.isfinite(number):
                raise ValueError(
                    f"the {name} {what} is {number} at step {step + 1}; lower the learning rate of the recipe (now "
                    f"{lr:.2g}) and train into another folder; {run.out} keeps the last good checkpoint."
                )
        optimizer.step()
        for key in average:
            # The first steps count more, so that the average forgets the random start.
            average[key].lerp_(trained[key].detach(), 1 - min(how.ema, (1 + step) / (10 + step)))

        seconds = time.perf_counter() - began
        record = {"step": step + 1, "model": name, "loss": value, **learnt.parts, "lr": lr, "grad_norm": norm}
        record |= {"samples_per_s": part.world / seconds, "tokens_per_s": learnt.tokens / seconds}
        record |= {"data_share": (fetched - began) / seconds}
        if (step + 1) % how.log_every == 0 or step in (0, how.steps - 1):
            run.log(record)
        if (step + 1) % how.checkpoint_every == 0 or step == how.steps - 1:
            run.save(name, step + 1, model, list(trained), optimizer, average)
        run.report(name, step + 1, how.steps, record)
    model.load_state_dict(average, strict=False)
    model.requires_grad_(True).eval()


def chosen(name: str, model: nn.Module, only: Sequence[str]) -> dict[str, nn.Parameter]:
    """The parameters to train by name; the others want no gradient from now on."""
    trained = {}
    for key, parameter in model.named_parameters():
        parameter.requires_grad_(not only or any(word in key for word in only))
        if parameter.requires_grad:
            trained[key] = parameter
    if not trained:
        raise ValueError(f"stage {name} trains nothing: no parameter is named like {', '.join(only)}.")
    return trained


def learning_rate(step: int, how: Training) -> float:
    """Share of the full rate at a step: linear warm-up, then a cosine down to 0.05."""
    if step < how.warmup:
        return (step + 1) / how.warmup
    done = (step - how.warmup) / max(how.steps - how.warmup, 1)
    return 0.05 + 0.95 * (1 + math.cos(math.pi * done)) / 2

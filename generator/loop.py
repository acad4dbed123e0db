"""The training loop, the same for VAEs and transformers, one process and many.

Every step draws its random numbers from the recipe's seed, the stage, the step and each sample's place in the global
batch, so a run that was stopped goes on exactly: on a CPU, bit for bit.
"""

# mypy: disable-error-code="no-any-return, no-untyped-call"

from __future__ import annotations

import contextlib
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from generator.draws import Draws, seed_of
from generator.feed import Feed, Part
from generator.optimising import Training, averaged, in_place, learning_rate, make_optimizer, set_rate
from generator.parallel import alike, clip
from generator.run import Run
from generator.stopping import Terminated, listening
from generator.telling import Alarm, Told, mean, parts, peak_flops, speed, together, warn

_MEMORY = ("can't allocate memory", "not enough memory", "out of memory")


@dataclass(frozen=True, slots=True, eq=False)
class Learnt:
    """What a model has to learn from one batch. parts: further numbers for the log. tokens: in the batch. each: loss of
    every sample, (B,), and times: of the noise, as shares 0..1, (B,), where there are such. flops: of the step, where
    they are known."""

    loss: Tensor
    tokens: int
    parts: Mapping[str, float] = field(default_factory=dict)
    each: Tensor | None = None
    times: Tensor | None = None
    flops: float | None = None


Learn = Callable[[Any, Draws, int], Learnt]
"""(batch, its random numbers, step)"""

Judge = Callable[[], Mapping[str, float]]
"""What the model is worth on clips it does not train on: `val_loss` and perhaps more"""


def fit(
    name: str,
    model: nn.Module,
    learn: Learn,
    feed: Feed,
    how: Training,
    run: Run,
    only: Sequence[str] = (),
    judge: Judge | None = None,
    show: Callable[[int], None] | None = None,
) -> None:
    """Trains `model` in place and leaves it in evaluation mode with the weights to export.

    only: parameters whose names contain one of these words are trained, all if there is none. judge: called every
    `how.validate_every` steps, show: every `run.options.sample_every`, both with the averaged weights, if any.
    Raises ValueError when the loss or its gradient is no longer finite, where nothing is to be trained, or where the
    memory does not suffice; `Terminated` after a SIGTERM, with the step saved.
    """
    trained = chosen(name, model, only)
    optimizer = make_optimizer(how, trained.values())
    average = {key: value.detach().clone() for key, value in trained.items()} if how.ema else {}
    start = run.resume(name, model, list(trained), optimizer, average)
    past = [line for line in run.world.agree(run.lines()) if line["model"] == name]
    validations, alarm = [line["val_loss"] for line in past if "val_loss" in line], Alarm([r["loss"] for r in past])

    device, peak = run.world.device, run.options.peak and run.options.peak * 1e12

    def save(step: int) -> None:
        run.save(name, step, model, list(trained), optimizer, average)

    model.train()
    with listening() as stop, _settled(run):
        steps = feed.parts(start, how.steps, lambda units: run.world.slots(units, run.options.passes))
        for step in range(start, how.steps):
            began, done = time.perf_counter(), step + 1
            given = next(steps)
            waited = time.perf_counter() - began
            lr = how.lr * learning_rate(step, how, validations)
            set_rate(optimizer, lr)
            optimizer.zero_grad(set_to_none=True)
            with _enough_memory(name, step, how, run):
                everybody = run.world.gather(gradients(name, learn, given, how, run, step, waited, stop.asked))
                run.world.average_gradients(trained.values())
            told = run.world.of_teams(everybody)
            if peak is None and told[0].flops is not None:
                peak = peak_flops(device, how.precision == "bfloat16")
            value = mean(told)
            norm = clip(trained.values(), how.clip)
            # Before the weights change: after a last step with such a gradient, no loss would tell.
            for what, number in {"loss": value, "gradient norm": norm}.items():
                if not math.isfinite(number):
                    raise ValueError(
                        f"the {name} {what} is {number} at step {done}; lower the learning rate of the recipe (now "
                        f"{lr:.2g}) and train into another folder; {run.out} keeps the last good checkpoint."
                    )
            optimizer.step()
            averaged(average, trained, how.ema, step)

            record: dict[str, float | int | str] = {"step": done, "model": name, "loss": value, **parts(told)}
            record |= {"lr": lr, "grad_norm": norm}
            record |= speed(told, time.perf_counter() - began, device, peak, run.world.size)
            said = alarm.heard(value)
            if said is not None:
                record["warning"] = said
                warn(name, done, said)
            last, stopping = done == how.steps, any(each.stop for each in everybody)
            if judge and how.validate_every and (done % how.validate_every == 0 or last):
                with in_place(average, trained):
                    record |= judge()
                validations.append(float(record["val_loss"]))
            if done % how.log_every == 0 or step == 0 or last or said or "val_loss" in record:
                run.log(record)
            if done % how.checkpoint_every == 0 or last or stopping:
                save(done)
            if show and run.options.sample_every and done % run.options.sample_every == 0 and not last:
                with in_place(average, trained):
                    show(done)
            run.report(name, done, how.steps, record)
            if stopping:
                _leave(name, done, run)
    with torch.no_grad():
        for key, weights in average.items():
            trained[key].copy_(weights)
    model.requires_grad_(True).eval()


def gradients(
    name: str, learn: Learn, given: Sequence[Part], how: Training, run: Run, step: int, waited: float, stop: bool
) -> Told:
    """Adds the gradient of this process's part of a batch, `given` pass by pass, to that of the weights."""
    seed, world, told = run.recipe.seed, run.world, []
    kind = torch.device(world.device).type
    for part in given:
        slots = part.slots
        torch.manual_seed(seed_of(seed, name, step, slots[0]))  # of what models draw themselves, such as dropout
        with torch.autocast(kind, torch.bfloat16, enabled=how.precision == "bfloat16"):
            learnt = learn(part.batch, Draws.of(slots, seed, name, step), step)
        # Of the mean over all teams, whose tensor-parallel processes' gradients are added.
        share = len(slots) * world.teams / part.world / world.tensor
        (learnt.loss if share == 1 else learnt.loss * share).backward()
        told.append(
            Told(
                learnt.loss.item(),
                [] if learnt.each is None else learnt.each.detach().float().tolist(),
                [] if learnt.times is None else learnt.times.tolist(),
                dict(learnt.parts),
                len(slots),
                learnt.tokens,
                learnt.flops,
                waited / len(given),
                stop,
            )
        )
    return together(told)


@contextlib.contextmanager
def _enough_memory(name: str, step: int, how: Training, run: Run) -> Iterator[None]:
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and not any(word in str(error) for word in _MEMORY):
            raise
        raise ValueError(
            f"{name} step {step + 1} does not fit into the memory of {run.world.device}; go on with --passes "
            f"{2 * run.options.passes} (a batch of {how.batch} in smaller parts, to the same result) or with more "
            f"processes; the checkpoints in {run.out} are kept."
        ) from error


@contextlib.contextmanager
def _settled(run: Run) -> Iterator[None]:
    """Whatever happens inside, the last checkpoint is whole afterwards."""
    try:
        yield
    finally:
        run.settle()


def _leave(name: str, step: int, run: Run) -> None:
    run.settle()
    if run.world.first:
        print(f"stopped as asked after {name} step {step}, which is saved; the same command goes on.", file=sys.stderr)
    raise Terminated


def chosen(name: str, model: nn.Module, only: Sequence[str]) -> dict[str, nn.Parameter]:
    """The parameters to train by name, those of one kind side by side; the others want no gradient from now on."""
    trained = {}
    for key, parameter in model.named_parameters():
        parameter.requires_grad_(not only or any(word in key for word in only))
        if parameter.requires_grad:
            trained[key] = parameter
    if not trained:
        raise ValueError(f"stage {name} trains nothing: no parameter is named like {', '.join(only)}.")
    names = {parameter: key for key, parameter in trained.items()}
    return {names[parameter]: parameter for kind in alike(list(trained.values())) for parameter in kind}

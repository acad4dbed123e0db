"""On disk: the state of an unfinished training, and the noise schedule in the diffusers layout.

Everything is safetensors and JSON; nothing here can run code that a file contains. Every write is atomic: a folder or
file that exists is whole.
"""

# mypy: disable-error-code="no-any-return, no-untyped-call"

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from generator import torch_needed  # noqa: F401  (raises the sentence that names the extra)

# isort: split
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from generator import parallel
from generator.files import beside, plain, read_json, swap
from generator.objectives import Schedule
from generator.parallel import World

_STATE = "state.json"

# What `Schedule` is, in the words of a diffusers scheduler.
_NOISE = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "trained_betas": None,
    "rescale_betas_zero_snr": True,
    "prediction_type": "v_prediction",
}


def export_schedule(schedule: Schedule, folder: str | os.PathLike[str]) -> Path:
    """Writes the noise schedule as a diffusers scheduler folder (`CogVideoXDDIMScheduler`)."""
    folder = Path(folder)
    fresh = beside(folder)
    fresh.mkdir(parents=True)
    settings = {
        "_class_name": "CogVideoXDDIMScheduler",
        **_NOISE,
        "num_train_timesteps": schedule.steps,
        "snr_shift_scale": schedule.snr_shift,
        "timestep_spacing": "trailing",
        "clip_sample": False,
        "set_alpha_to_one": True,
    }
    (fresh / "scheduler_config.json").write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n")
    swap(fresh, folder)
    return folder


def load_schedule(folder: str | os.PathLike[str]) -> Schedule:
    """The schedule that `export_schedule` or a CogVideoX pipeline wrote. Raises ValueError for any other kind."""
    settings = read_json(Path(folder) / "scheduler_config.json")
    for key, value in _NOISE.items():
        if settings.get(key) != value:
            raise ValueError(f"{folder}: {key} is {settings.get(key)!r}; only {value!r} is supported.")
    lacking = [key for key in ("snr_shift_scale", "num_train_timesteps") if key not in settings]
    if lacking:
        raise ValueError(f"{folder}: scheduler_config.json lacks {' and '.join(lacking)}.")
    return Schedule(settings["snr_shift_scale"], settings["num_train_timesteps"])


@dataclasses.dataclass(frozen=True, slots=True)
class State:
    """Everything a training needs to go on exactly: which run it belongs to, how far it is, weights and moments.

    Random numbers and the order of the data are functions of the step, so there is nothing else to keep.
    """

    run: str
    step: int
    model: Mapping[str, Tensor]
    average: Mapping[str, Tensor]
    optimizer: Mapping[str, Tensor]

    @property
    def groups(self) -> dict[str, Mapping[str, Tensor]]:
        return {"model": self.model, "average": self.average, "optimizer": self.optimizer}

    @property
    def tensors(self) -> dict[str, Tensor]:
        """All of them by `group/name`."""
        return {f"{group}/{name}": tensor for group, named in self.groups.items() for name, tensor in named.items()}


def save_state(state: State, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    fresh = beside(file)
    save_file(plain(state.tensors), fresh, metadata={"run": state.run, "step": str(state.step)})
    fresh.replace(file)


def begin_save(state: State, name: Path, world: World, done: Callable[[], None]) -> Callable[[], None]:
    """Takes a copy of the state and writes it in the background: one file by the first process, or a folder of
    everybody's parts where weights are divided. done: called in the first process when it is on disk. Returns what
    waits for that and raises what went wrong."""
    if not world.parted:
        if not world.first:
            return lambda: None
        copy = State(state.run, state.step, _copied(state.model), _copied(state.average), _copied(state.optimizer))

        def write() -> None:
            save_state(copy, name.with_suffix(".safetensors"))
            done()

        return _background(write)
    fresh = Path(world.agree(str(beside(name))))
    written = parallel.write_shards(state.tensors, fresh, world.books)

    def finish() -> None:
        written()
        if world.first:
            (fresh / _STATE).write_text(json.dumps({"run": state.run, "step": state.step}) + "\n")
            fresh.replace(name.with_suffix(".shards"))
            done()

    return _background(finish)


def _copied(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in tensors.items()}


def _background(work: Callable[[], None]) -> Callable[[], None]:
    thread = ThreadPoolExecutor(1)
    future = thread.submit(work)
    thread.shutdown(wait=False)

    def wait() -> None:
        future.result()

    return wait


def remove(checkpoint: Path) -> None:
    if checkpoint.is_dir():
        shutil.rmtree(checkpoint)
    else:
        checkpoint.unlink()


def restore(
    checkpoint: Path,
    run: str,
    model: nn.Module,
    trained: Sequence[str],
    optimizer: torch.optim.Optimizer,
    average: Mapping[str, Tensor],
) -> int:
    """Puts what `begin_save` wrote, in whatever world, into these; returns its step.

    trained: names of the optimiser's parameters. Raises ValueError where it is damaged or of another run.
    """
    here = model.state_dict()
    if checkpoint.is_dir() and _sharded(here):
        said = _said(checkpoint)
        _same(checkpoint, said["run"], run)
        _prime(optimizer)
        targets = State(run, 0, here, average, optimizer_tensors(trained, optimizer)).tensors
        parallel.read_shards(targets, checkpoint)
        restore_optimizer(trained, optimizer, _group(targets, "optimizer"))
        return int(said["step"])
    state = _joined(checkpoint) if checkpoint.is_dir() else load_state(checkpoint)
    _same(checkpoint, state.run, run)
    if _sharded(here):
        _prime(optimizer)
        with torch.no_grad():
            for name, target in {**here}.items():
                parallel.fill(target, state.model[name])
            moments = optimizer_tensors(trained, optimizer)
            for name, target in moments.items():
                parallel.fill(target, state.optimizer[name])
    else:
        model.load_state_dict(state.model)
        restore_optimizer(trained, optimizer, state.optimizer)
    for key, value in average.items():
        parallel.fill(value, state.average[key])
    return state.step


def _joined(folder: Path) -> State:
    """Whole tensors of a folder of parts."""
    said = _said(folder)
    tensors = {name: torch.empty(size, dtype=kind) for name, (size, kind) in parallel.shards_in(folder).items()}
    parallel.read_shards(tensors, folder)
    return State(said["run"], int(said["step"]), *(_group(tensors, name) for name in ("model", "average", "optimizer")))


def _said(folder: Path) -> dict[str, Any]:
    try:
        return read_json(folder / _STATE)
    except ValueError as error:
        raise ValueError(f"{folder}: this checkpoint is not whole; delete it to go on from the one before.") from error


def _same(checkpoint: Path, run: str, mine: str) -> None:
    if run != mine:
        raise ValueError(f"{checkpoint} is of run {run}, this is run {mine}; give another folder.")


def _sharded(tensors: Mapping[str, Tensor]) -> bool:
    return any(parallel.is_part(tensor) for tensor in tensors.values())


def _group(tensors: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    return {key.split("/", 1)[1]: value for key, value in tensors.items() if key.startswith(f"{name}/")}


def _prime(optimizer: torch.optim.Optimizer) -> None:
    """Makes an optimiser's state, which it would make in its first step, without moving a weight."""
    rates = [group["lr"] for group in optimizer.param_groups]
    for group in optimizer.param_groups:
        group["lr"] = 0.0
        for weight in group["params"]:
            weight.grad = torch.zeros_like(weight)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate


def load_state(file: Path) -> State:
    """Raises ValueError when the file is damaged."""
    groups: dict[str, dict[str, Tensor]] = {"model": {}, "average": {}, "optimizer": {}}
    try:
        with safe_open(file, framework="pt") as opened:
            said = opened.metadata() or {}
            for key in opened.keys():  # noqa: SIM118  (safe_open is not iterable)
                group, name = key.split("/", 1)
                groups[group][name] = opened.get_tensor(key)
        return State(said["run"], int(said["step"]), **groups)
    except (SafetensorError, KeyError, OSError, ValueError) as error:
        raise ValueError(
            f"{file}: this checkpoint cannot be read ({error}); delete it to go on from the one before."
        ) from error


def optimizer_tensors(names: Sequence[str], optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimiser's state as `parameter name/quantity` -> tensor. names: of its parameters, in their order."""
    state = optimizer.state_dict()["state"]
    return {
        f"{names[k]}/{quantity}": torch.as_tensor(value)  # Adafactor counts its steps in a plain number
        for k, kept in state.items()
        for quantity, value in kept.items()
        if value is not None
    }


def restore_optimizer(names: Sequence[str], optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """The reverse of `optimizer_tensors`."""
    numbers = {name: k for k, name in enumerate(names)}
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        name, quantity = key.rsplit("/", 1)
        state.setdefault(numbers[name], {})[quantity] = tensor
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})

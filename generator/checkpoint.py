"""On disk: the state of an unfinished training, and the noise schedule in the diffusers layout.

Everything is safetensors and JSON; nothing here can run code that a file contains. Every write is atomic: a folder or
file that exists is whole.
"""

# mypy: disable-error-code="no-any-return, no-untyped-call"

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from generator import torch_needed  # noqa: F401  (raises the sentence that names the extra)

# isort: split
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from generator.files import beside, plain, read_json, swap
from generator.objectives import Schedule

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


def save_state(state: State, file: Path) -> None:
    groups = {"model": state.model, "average": state.average, "optimizer": state.optimizer}
    tensors = {f"{group}/{name}": t for group, named in groups.items() for name, t in named.items()}
    file.parent.mkdir(parents=True, exist_ok=True)
    fresh = beside(file)
    save_file(plain(tensors), fresh, metadata={"run": state.run, "step": str(state.step)})
    fresh.replace(file)


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
    return {f"{names[k]}/{quantity}": value for k, kept in state.items() for quantity, value in kept.items()}


def restore_optimizer(names: Sequence[str], optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """The reverse of `optimizer_tensors`, for an optimiser with one group of parameters."""
    numbers = {name: k for k, name in enumerate(names)}
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        name, quantity = key.rsplit("/", 1)
        state.setdefault(numbers[name], {})[quantity] = tensor
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})

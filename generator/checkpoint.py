"""Weights on disk: models in the diffusers layout, and the state of an unfinished training.

Everything is safetensors and JSON; nothing here can run code that a file contains. Every write is atomic: a folder or
file that exists is whole.
"""

# mypy: disable-error-code="no-any-return, no-untyped-call"

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from generator import torch_needed  # noqa: F401  (raises the sentence that names the extra)

# isort: split
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from generator.dit.cogvideox import CogVideoXTransformer, DitConfig
from generator.objectives import Schedule
from generator.text import HashedWordEncoder, TextConfig
from generator.vae.cogvideox import CogVideoXVae, VaeConfig

Model = CogVideoXVae | CogVideoXTransformer | HashedWordEncoder

CONFIG = "config.json"
WEIGHTS = "diffusion_pytorch_model.safetensors"
_BUILD = {
    "AutoencoderKLCogVideoX": (VaeConfig, CogVideoXVae),
    "CogVideoXTransformer3DModel": (DitConfig, CogVideoXTransformer),
    "HashedWordEncoder": (TextConfig, HashedWordEncoder),
}
# What `Schedule` is, in the words of a diffusers scheduler.
_NOISE = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "trained_betas": None,
    "rescale_betas_zero_snr": True,
    "prediction_type": "v_prediction",
}


def load(folder: str | os.PathLike[str], device: str = "cpu", dtype: torch.dtype | None = None) -> Model:
    """The model in `folder`: config.json and one or several safetensors files, as diffusers writes them.

    dtype: of the weights; float32 if not given, whatever the file holds. The model is in evaluation mode.
    Raises ValueError when something is missing, unknown or does not fit.
    """
    folder = Path(folder)
    settings = _read_json(folder / CONFIG)
    name = settings.pop("_class_name", None)
    if name not in _BUILD:
        raise ValueError(f"{folder}: the class {name!r} is unknown; this version loads {', '.join(_BUILD)}.")
    config_class, model_class = _BUILD[name]
    model = model_class(_config(config_class, settings, folder))
    _fill(model, _read_weights(folder), str(folder))
    return model.to(device=device, dtype=dtype or torch.float32).eval()


def export(model: Model, folder: str | os.PathLike[str]) -> Path:
    """Writes `model` so that `load`, and for the published classes diffusers' `from_pretrained`, read it back.

    A folder of that name is replaced as a whole. Raises ValueError for a model of another class, or where a file of
    that name is in the way.
    """
    names = [name for name, (_, model_class) in _BUILD.items() if type(model) is model_class]
    if not names:
        raise ValueError(f"{type(model).__name__} is not a class this package exports.")
    folder = Path(folder)
    if folder.is_file():
        raise ValueError(f"{folder} is a file; give a folder to export to.")
    fresh = _beside(folder)
    fresh.mkdir(parents=True)
    settings = {"_class_name": names[0], **dataclasses.asdict(model.config)}
    (fresh / CONFIG).write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n")
    save_file(_plain(model.state_dict()), fresh / WEIGHTS, metadata={"format": "pt"})
    _swap(fresh, folder)
    return folder


def export_schedule(schedule: Schedule, folder: str | os.PathLike[str]) -> Path:
    """Writes the noise schedule as a diffusers scheduler folder (`CogVideoXDDIMScheduler`)."""
    folder = Path(folder)
    fresh = _beside(folder)
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
    _swap(fresh, folder)
    return folder


def load_schedule(folder: str | os.PathLike[str]) -> Schedule:
    """The schedule that `export_schedule` or a CogVideoX pipeline wrote. Raises ValueError for any other kind."""
    settings = _read_json(Path(folder) / "scheduler_config.json")
    for key, value in _NOISE.items():
        if settings.get(key) != value:
            raise ValueError(f"{folder}: {key} is {settings.get(key)!r}; only {value!r} is supported.")
    lacking = [key for key in ("snr_shift_scale", "num_train_timesteps") if key not in settings]
    if lacking:
        raise ValueError(f"{folder}: scheduler_config.json lacks {' and '.join(lacking)}.")
    return Schedule(settings["snr_shift_scale"], settings["num_train_timesteps"])


def weights_fingerprint(model: Model) -> str:
    """Twelve hexadecimal digits of what a model computes: its weights and its shape.

    The factor that scales latents for the diffusion model is left out: it changes no latent.
    """
    settings = {k: v for k, v in dataclasses.asdict(model.config).items() if k != "scaling_factor"}
    digest = hashlib.blake2b(json.dumps(settings, sort_keys=True).encode(), digest_size=6)
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


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
    fresh = _beside(file)
    save_file(_plain(tensors), fresh, metadata={"run": state.run, "step": str(state.step)})
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


def optimizer_tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimiser's state as `parameter name/quantity` -> tensor."""
    names = [name for name, _ in model.named_parameters()]
    state = optimizer.state_dict()["state"]
    return {f"{names[k]}/{quantity}": value for k, kept in state.items() for quantity, value in kept.items()}


def restore_optimizer(model: nn.Module, optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """The reverse of `optimizer_tensors`, for an optimiser over `model.parameters()` in one group."""
    numbers = {name: k for k, (name, _) in enumerate(model.named_parameters())}
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        name, quantity = key.rsplit("/", 1)
        state.setdefault(numbers[name], {})[quantity] = tensor
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})


def _config(config_class: type, settings: dict[str, Any], folder: Path) -> Any:
    known = {field.name for field in dataclasses.fields(config_class)}
    settings = {k: v for k, v in settings.items() if not k.startswith("_")}
    unknown = sorted(settings.keys() - known)
    if unknown:
        raise ValueError(f"{folder}/{CONFIG}: {', '.join(unknown)} is unknown to this version.")
    return config_class(**{k: tuple(v) if isinstance(v, list) else v for k, v in settings.items()})


def _read_json(file: Path) -> dict[str, Any]:
    try:
        said = json.loads(file.read_text())
    except OSError as error:
        raise ValueError(f"{file}: there is no such file; a model folder holds {CONFIG} and {WEIGHTS}.") from error
    except ValueError as error:
        raise ValueError(f"{file}: this is not JSON ({error}).") from error
    if not isinstance(said, dict):
        raise ValueError(f"{file}: this is not a JSON object.")
    return said


def _read_weights(folder: Path) -> dict[str, Tensor]:
    files = [folder / WEIGHTS]
    index = folder / f"{WEIGHTS}.index.json"  # large models are split over several files
    if index.exists():
        names = _read_json(index).get("weight_map")
        if not isinstance(names, dict):
            raise ValueError(f"{index}: there is no weight_map in it.")
        files = [folder / name for name in sorted(set(names.values()))]
    tensors: dict[str, Tensor] = {}
    for file in files:
        if not file.exists():
            raise ValueError(f"{file}: there is no such file; only safetensors weights are read.")
        try:
            tensors.update(load_file(file))
        except SafetensorError as error:
            raise ValueError(f"{file}: this is not a safetensors file ({error}).") from error
    return tensors


def _fill(model: nn.Module, tensors: Mapping[str, Tensor], where: str) -> None:
    wanted = model.state_dict()
    missing, unexpected = sorted(wanted.keys() - tensors.keys()), sorted(tensors.keys() - wanted.keys())
    odd = sorted(name for name in wanted.keys() & tensors.keys() if wanted[name].shape != tensors[name].shape)
    for what, names in (("misses", missing), ("does not expect", unexpected), ("has another shape for", odd)):
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            raise ValueError(f"{where}: the configured model {what} {', '.join(names[:3])}{more} in the weights.")
    model.load_state_dict(tensors)


def _plain(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")


def _swap(fresh: Path, target: Path) -> None:
    if target.exists():
        old = _beside(target)
        target.rename(old)
        fresh.rename(target)
        shutil.rmtree(old)
    else:
        fresh.rename(target)

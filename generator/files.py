"""JSON and safetensors on disk, read with a sentence for what is wrong, written whole or not at all."""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

CONFIG = "config.json"
WEIGHTS = "diffusion_pytorch_model.safetensors"
_PICKLED = (".bin", ".pt", ".pth", ".ckpt")


def read_json(file: Path) -> dict[str, Any]:
    """Raises ValueError where there is no JSON object."""
    try:
        said = json.loads(file.read_text())
    except OSError as error:
        raise ValueError(f"{file}: there is no such file; a model folder holds {CONFIG} and {WEIGHTS}.") from error
    except ValueError as error:
        raise ValueError(f"{file}: this is not JSON ({error}).") from error
    if not isinstance(said, dict):
        raise ValueError(f"{file}: this is not a JSON object.")
    return said


def read_weights(folder: Path) -> dict[str, Tensor]:
    """Every tensor of the folder's safetensors file, or of all that its index names (large models are split)."""
    files = [folder / WEIGHTS]
    index = folder / f"{WEIGHTS}.index.json"
    if index.exists():
        names = read_json(index).get("weight_map")
        if not isinstance(names, dict):
            raise ValueError(f"{index}: there is no weight_map in it.")
        files = [folder / name for name in sorted(set(names.values()))]
    tensors: dict[str, Tensor] = {}
    for file in files:
        tensors.update(read_safetensors(file))
    return tensors


def read_safetensors(file: Path) -> dict[str, Tensor]:
    """Raises ValueError for a file that is missing, in another format, or holds numbers that are not finite."""
    if not file.exists():
        others = sorted(path.name for path in file.parent.glob("*") if path.suffix in _PICKLED)
        found = f" ({some(others)} could run code; convert it with safetensors.torch.save_file)" if others else ""
        raise ValueError(f"{file}: there is no such file; only safetensors weights are read{found}.")
    try:
        tensors = load_file(file)
    except SafetensorError as error:
        raise ValueError(f"{file}: this is not a safetensors file ({error}).") from error
    broken = [name for name, tensor in tensors.items() if not bool(torch.isfinite(tensor).all())]
    if broken:
        raise ValueError(f"{file}: {some(broken)} in it are not finite numbers (NaN or infinite); get the file again.")
    return tensors


def some(names: list[str], most: int = 3) -> str:
    """The first few names, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"{', '.join(names[:most])}{more}"


def plain(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors as safetensors takes them."""
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}


def beside(path: Path) -> Path:
    """A temporary name in the same folder."""
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")


def swap(fresh: Path, target: Path) -> None:
    """Puts a folder in the place of another."""
    if target.exists():
        old = beside(target)
        target.rename(old)
        fresh.rename(target)
        shutil.rmtree(old)
    else:
        fresh.rename(target)

"""Weights as tensors, and where to compute with them. Files and downloads are `manifests.weights`' business.

Nothing is unpickled: safetensors are read as such, everything else with torch's `weights_only=True`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from manifests.weights import cache_folder, find, first_line, is_url, once

__all__ = ["cache_folder", "device", "find", "first_line", "is_url", "once", "tensors"]


def tensors(path: Path) -> dict[str, Any]:
    """Tensors of a weights file by name, on the CPU: .safetensors, or a state dict saved by torch.

    Raises ValueError with one sentence when it holds anything else.
    """
    import torch

    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return dict(load_file(path))
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ValueError(
            f"{path} cannot be read as weights ({first_line(error)}); give a .safetensors file or a torch state dict."
        ) from error
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise ValueError(f"{path} holds no state dict; give a .safetensors file or a torch state dict.")
    return {str(name).removeprefix("module."): value for name, value in state.items()}


def device() -> Any:
    """The torch device to compute on: a GPU if there is one (CUDA_VISIBLE_DEVICES says which)."""
    import torch

    return torch.device("cuda" if torch.cuda.is_available() else "cpu")

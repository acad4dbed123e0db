"""3D VAEs and diffusion transformers for video, trained from a manifest.

    import generator
    model = generator.load("folder")       # a diffusers-layout folder: config.json + safetensors
    generator.export(model, "folder")
    generator.generate("checkpoint", prompt="a red circle moves right", out_file="out.mp4")

    from generator import recipes
    from generator.train import train
    train("manifest", recipes.tiny_cogvideox(), "checkpoint")

Importing this package imports no torch; calling these functions does, and raises ValueError where it is missing.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import nn

__all__ = ["export", "generate", "load"]

Folder = str | os.PathLike[str]


def load(folder: Folder, device: str = "cpu", dtype: torch.dtype | None = None) -> Any:
    """The model in a diffusers-layout folder; see `generator.interop.load`."""
    from generator import interop

    return interop.load(folder, device, dtype)


def export(model: nn.Module, folder: Folder) -> Path:
    """Writes a model in the diffusers layout; see `generator.interop.export`."""
    from generator import interop

    return interop.export(model, folder)


def generate(
    checkpoint: Folder,
    prompt: str,
    out_file: Folder,
    image: Folder | Sequence[Folder] | None = None,
    steps: int = 50,
    guidance: float | None = None,
    seed: int = 0,
    frames: int | None = None,
    fps: float | None = None,
    video: Folder | None = None,
    task: str = "",
    given: int = 0,
    between: int = 0,
    upsampler: Folder | None = None,
) -> Path:
    """Samples one video into a file; see `generator.applications.generate`. For many, `generator.trained.Trained` loads
    the model once."""
    from generator import applications

    return applications.generate(
        checkpoint,
        prompt,
        out_file,
        image,
        steps,
        guidance,
        seed,
        frames,
        fps,
        video,
        task,
        given,
        between,
        upsampler,
    )

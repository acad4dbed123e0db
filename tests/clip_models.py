"""Small open_clip models with random weights, saved in the layouts in which large ones are published."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

PREPROCESS = {"mean": [0.4, 0.45, 0.5], "std": [0.3, 0.25, 0.2], "interpolation": "bicubic", "resize_mode": "shortest"}


def architecture(size: int) -> dict[str, Any]:
    """In open_clip's model format; embeddings of `size` numbers."""
    return {
        "embed_dim": size,
        "vision_cfg": {"image_size": 64, "layers": 2, "width": 64, "patch_size": 16},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
    }


def make(folder: Path, size: int = 32, seed: int = 3) -> dict[str, str]:
    """Paths: `json` (architecture), `safetensors`, `pt` (weights), `folder` (a published model's layout), `full` (an
    architecture with its own preprocessing)."""
    import open_clip

    path = folder / f"tiny{size}.json"
    path.write_text(json.dumps(architecture(size)))
    open_clip.add_model_config(path)
    torch.manual_seed(seed)
    network = open_clip.create_model(path.stem)
    with torch.no_grad():  # random transformers hardly look at the picture: make differences count
        network.visual.conv1.weight *= 6
        network.visual.class_embedding *= 0.1
    state = {name: value.contiguous() for name, value in network.state_dict().items()}
    save_file(state, folder / f"tiny{size}.safetensors")
    torch.save(state, folder / f"tiny{size}.pt")
    published = folder / f"published{size}"
    published.mkdir()
    config = {"model_cfg": architecture(size), "preprocess_cfg": PREPROCESS}
    (published / "open_clip_config.json").write_text(json.dumps(config))
    save_file(state, published / "open_clip_model.safetensors")
    (folder / f"full{size}.json").write_text(json.dumps(config))
    return {
        "json": str(path),
        "safetensors": str(folder / f"tiny{size}.safetensors"),
        "pt": str(folder / f"tiny{size}.pt"),
        "folder": str(published),
        "full": str(folder / f"full{size}.json"),
    }

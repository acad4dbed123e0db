"""Models in the diffusers layout: a folder with config.json and safetensors, in and out.

Parameter names, shapes and configuration of the published classes are kept one to one, so their weights are read
without conversion, and what is trained here loads there. Nothing here can run code that a file contains; a folder
that exists is whole.
"""

# mypy: disable-error-code="no-any-return, no-untyped-call"

from __future__ import annotations

import ast
import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from generator import torch_needed  # noqa: F401  (raises the sentence that names the extra)

# isort: split
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from generator.dit import released
from generator.dit.cogvideox import CogVideoXTransformer, DitConfig
from generator.dit.easyanimate import EasyAnimateConfig, EasyAnimateTransformer
from generator.dit.moviegen import MovieGenConfig, MovieGenTransformer
from generator.dit.stiv import StivConfig, StivTransformer
from generator.dit.stiv_variants import StivVariant, StivVariantConfig
from generator.dit.variants import CogVideoXVariant, VariantConfig
from generator.files import CONFIG, WEIGHTS, beside, plain, read_json, read_weights, some, swap
from generator.text import HashedWordEncoder, TextConfig
from generator.vae.cogvideox import CogVideoXVae, VaeConfig
from generator.vae.image import ImageVae, ImageVaeConfig
from generator.vae.magvit import MagvitConfig, MagvitVae
from generator.vae.slice_vae import SliceVae, SliceVaeConfig
from generator.vae.tae import Tae, TaeConfig

# The name in config.json, and what it stands for. Where a name stands for two, the fields in config.json decide.
CLASSES: tuple[tuple[str, type, type[nn.Module]], ...] = (
    ("AutoencoderKLCogVideoX", VaeConfig, CogVideoXVae),
    ("AutoencoderKLMagvit", MagvitConfig, MagvitVae),  # diffusers' class, EasyAnimate V5
    ("AutoencoderKLMagvit", SliceVaeConfig, SliceVae),  # EasyAnimate's own class of that name, V3
    ("AutoencoderKL", ImageVaeConfig, ImageVae),
    ("MovieGenTae", TaeConfig, Tae),
    ("CogVideoXTransformer3DModel", DitConfig, CogVideoXTransformer),
    ("CogVideoXVariant", VariantConfig, CogVideoXVariant),
    ("MovieGenTransformer", MovieGenConfig, MovieGenTransformer),
    ("StivTransformer", StivConfig, StivTransformer),
    ("StivVariant", StivVariantConfig, StivVariant),
    ("EasyAnimateTransformer", EasyAnimateConfig, EasyAnimateTransformer),
    ("HashedWordEncoder", TextConfig, HashedWordEncoder),
)


def load(folder: str | os.PathLike[str], device: str = "cpu", dtype: torch.dtype | None = None) -> Any:
    """The model in `folder`: config.json and one or several safetensors files, as diffusers writes them.

    dtype: of the weights; float32 if not given, whatever the file holds. The model is in evaluation mode.
    Raises ValueError when something is missing, unknown, not finite or does not fit.
    """
    folder = Path(folder)
    if folder.is_file():
        raise ValueError(f"{folder}: this is a file; give the folder that holds {CONFIG} and {WEIGHTS}.")
    settings = read_json(folder / CONFIG)
    name = settings.pop("_class_name", None)
    if name == released.CLASS:
        return _load_released(folder, settings, dtype or torch.float32).to(device=device).eval()
    candidates = [(config, model) for known, config, model in CLASSES if known == name]
    if not candidates:
        raise ValueError(f"{folder}: the class {name!r} is unknown; this version loads {', '.join(names())}.")
    settings = {key: value for key, value in settings.items() if not key.startswith("_")}
    config_class, model_class = min(candidates, key=lambda classes: len(_unknown(settings, classes[0])))
    config = _configured(config_class, settings, folder)
    model = _filled(
        model_class, config, _renamed(model_class, read_weights(folder)), dtype or torch.float32, str(folder)
    )
    return model.to(device=device).eval()


def _load_released(folder: Path, settings: Mapping[str, Any], dtype: torch.dtype) -> nn.Module:
    """EasyAnimate's own transformer: the names of weights are ours, the settings are not."""
    tensors = released.weights(read_weights(folder))
    try:
        ours = released.settings(settings, tensors)
    except (KeyError, ValueError) as error:
        raise ValueError(f"{folder}/{CONFIG}: {error}") from error
    return _filled(EasyAnimateTransformer, _configured(EasyAnimateConfig, ours, folder), tensors, dtype, str(folder))


def names() -> list[str]:
    """Classes that a config.json may name."""
    return [*dict.fromkeys(name for name, _, _ in CLASSES), released.CLASS]


def export(model: nn.Module, folder: str | os.PathLike[str]) -> Path:
    """Writes `model` so that `load`, and for the published classes diffusers' `from_pretrained`, read it back.

    A folder of that name is replaced as a whole. Raises ValueError for a model of another class, or where a file of
    that name is in the way.
    """
    known = [name for name, _, model_class in CLASSES if type(model) is model_class]
    if not known:
        raise ValueError(f"{type(model).__name__} is not a class this package exports.")
    folder = Path(folder)
    if folder.is_file():
        raise ValueError(f"{folder} is a file; give a folder to export to.")
    fresh = beside(folder)
    fresh.mkdir(parents=True)
    settings = {"_class_name": known[0], **_settings(model)}
    (fresh / CONFIG).write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n")
    save_file(plain(model.state_dict()), fresh / WEIGHTS, metadata={"format": "pt"})
    swap(fresh, folder)
    return folder


def weights_fingerprint(model: nn.Module) -> str:
    """Twelve hexadecimal digits of what a model computes: its weights and its shape.

    The factor that scales latents for the diffusion model is left out: it changes no latent.
    """
    settings = {k: v for k, v in _settings(model).items() if k != "scaling_factor"}
    digest = hashlib.blake2b(json.dumps(settings, sort_keys=True).encode(), digest_size=6)
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _settings(model: Any) -> dict[str, Any]:
    return dataclasses.asdict(model.config)


def _unknown(settings: Mapping[str, Any], config_class: type) -> list[str]:
    return sorted(settings.keys() - {field.name for field in dataclasses.fields(config_class)})


def _configured(config_class: type, settings: Mapping[str, Any], folder: Path) -> Any:
    unknown = _unknown(settings, config_class)
    if unknown:
        raise ValueError(f"{folder}/{CONFIG}: {', '.join(unknown)} is unknown to this version.")
    try:
        return config_class(**{key: _value(said) for key, said in settings.items()})
    except (TypeError, ValueError) as error:
        raise ValueError(f"{folder}/{CONFIG}: {error}") from error


def _value(said: Any) -> Any:
    """Lists become tuples; so do tuples that were written as text, as EasyAnimate does."""
    if isinstance(said, str) and said.startswith("("):
        return ast.literal_eval(said)
    return tuple(said) if isinstance(said, list) else said


def _renamed(model_class: type[nn.Module], tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Names that the published class had in the past are read as those of today."""
    changes: Mapping[str, str] = getattr(model_class, "RENAMED", {})

    def today(name: str) -> str:
        for old, new in changes.items():
            name = name.replace(old, new)
        return name

    return {today(name): tensor for name, tensor in tensors.items()}


def _filled(
    model_class: type[nn.Module], config: Any, tensors: Mapping[str, Tensor], dtype: torch.dtype, where: str
) -> nn.Module:
    """The model with these tensors as its weights. It is made without memory of its own, so that large ones fit."""
    with torch.device("meta"):
        model = model_class(config)
    wanted = model.state_dict()
    missing, unexpected = sorted(wanted.keys() - tensors.keys()), sorted(tensors.keys() - wanted.keys())
    odd = sorted(name for name in wanted.keys() & tensors.keys() if wanted[name].shape != tensors[name].shape)
    shapes = [f"{name} ({_shape(tensors[name])}, configured {_shape(wanted[name])})" for name in odd]
    problems = [
        f"{what} {some(found)}"
        for what, found in (("misses", missing), ("does not expect", unexpected), ("has another shape for", shapes))
        if found
    ]
    if problems:
        raise ValueError(f"{where}: the configured model {', '.join(problems)} in the weights.")
    if [name for name, _ in model.named_buffers() if name not in wanted]:
        model = model_class(config)  # tables that are computed and not stored
    # Copies, because what safetensors returns is the file itself: who wrote to it later would write into the model.
    copies = {name: tensor.to(_kept(tensor, dtype), copy=True) for name, tensor in tensors.items()}
    model.load_state_dict(copies, assign=True)
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    return model


def _kept(tensor: Tensor, dtype: torch.dtype) -> torch.dtype:
    return dtype if tensor.is_floating_point() else tensor.dtype


def _shape(tensor: Tensor) -> str:
    return " x ".join(map(str, tensor.shape)) or "one number"

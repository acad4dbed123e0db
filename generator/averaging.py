"""The mean of several trained models, weight by weight: Movie Gen (arXiv 2410.13720) so averages models that
were fine-tuned on other data, with other settings, or from other checkpoints."""

# mypy: disable-error-code="no-any-return, no-untyped-call"

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from generator import torch_needed  # noqa: F401  (raises the sentence that names the extra)

# isort: split
import torch
from safetensors.torch import save_file
from torch import Tensor

from generator.files import CONFIG, WEIGHTS, beside, plain, read_json, read_weights, swap

_COPIED = ("vae", "scheduler", "system.json", "train.json")


def average(trained: Sequence[str | os.PathLike[str]], out: str | os.PathLike[str]) -> Path:
    """Averages the transformers and text encoders of trainings, in float64, into a folder that `generate` takes.

    trained: folders that `generator.train.train` finished; all of one architecture and with the same VAE, since their
    latents must mean the same.
    Returns `out`. Raises ValueError for fewer than two, for what does not fit together, or where `out` exists.
    """
    folders, out = [Path(folder) for folder in trained], Path(out)
    if len(folders) < 2:
        raise ValueError("an average needs at least two trained models.")
    if out.exists():
        raise ValueError(f"{out} exists; give a new folder.")
    names = sorted(path.parent.name for path in folders[0].glob(f"*/{CONFIG}") if path.parent.name != "vae")
    if "transformer" not in names:
        raise ValueError(f"{folders[0]}: there is no trained model here; give folders that `vidcurate train` wrote.")
    first_vae = read_weights(folders[0] / "vae")
    for folder in folders[1:]:
        _same(first_vae, read_weights(folder / "vae"), f"{folder}/vae", f"{folders[0]}/vae", equal=True)
    fresh = beside(out)
    try:
        for name in names:
            _average([folder / name for folder in folders], fresh / name)
        for name in _COPIED:
            source = folders[0] / name
            if source.is_dir():
                shutil.copytree(source, fresh / name)
            elif source.exists():
                shutil.copy2(source, fresh / name)
        said = read_json(fresh / "train.json")
        (fresh / "train.json").write_text(json.dumps({**said, "averaged": [str(f) for f in folders]}, indent=1) + "\n")
        swap(fresh, out)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return out


def _average(models: Sequence[Path], out: Path) -> None:
    first = read_json(models[0] / CONFIG)
    for model in models[1:]:
        if read_json(model / CONFIG) != first:
            raise ValueError(f"{model} is another architecture than {models[0]}: their {CONFIG} differ.")
    weights = read_weights(models[0])
    total = {name: tensor.double() for name, tensor in weights.items()}
    for model in models[1:]:
        read = read_weights(model)
        _same(weights, read, str(model), str(models[0]), equal=False)
        for name, tensor in read.items():
            total[name] += tensor
    out.mkdir(parents=True)
    mean = {name: (tensor / len(models)).to(weights[name].dtype) for name, tensor in total.items()}
    save_file(plain(mean), out / WEIGHTS, metadata={"format": "pt"})
    shutil.copy2(models[0] / CONFIG, out / CONFIG)


def _same(one: dict[str, Tensor], other: dict[str, Tensor], what: str, than: str, equal: bool) -> None:
    if one.keys() != other.keys() or any(one[name].shape != other[name].shape for name in one):
        raise ValueError(f"{what} has other weights than {than}; only models of one architecture have a mean.")
    if equal and not all(torch.equal(one[name], other[name]) for name in one):
        raise ValueError(
            f"{what} is another VAE than {than}, so the models' latents mean different things; train them on one VAE."
        )

"""The four systems, and Movie Gen's upsampler: each a transformer with its objective, texts, conditions and sampler,
ready to be trained.

In a folder a system is `transformer/`, `text_encoder/` (`text_encoder_2/`, ...) and `system.json` with the rest, which
names published text encoders instead of holding them.
"""

# mypy: disable-error-code="no-any-return, no-untyped-call"

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

from torch import nn

from generator.checkpoint import export_schedule
from generator.dit.cogvideox import CogVideoXTransformer
from generator.dit.easyanimate import EasyAnimateTransformer
from generator.dit.moviegen import MovieGenTransformer
from generator.dit.stiv import StivTransformer
from generator.encoders import Encoder
from generator.files import beside, read_json
from generator.interop import export
from generator.interop import load as load_model
from generator.objectives import Schedule
from generator.systems.base import System
from generator.systems.cogvideox import CogVideoX
from generator.systems.easyanimate import EasyAnimate
from generator.systems.moviegen import MovieGen
from generator.systems.stiv import Stiv
from generator.systems.upsampler import MovieGenUpsampler
from generator.text import HashedWordEncoder
from generator.texts import Published

Config = CogVideoX | MovieGen | Stiv | EasyAnimate

TRANSFORMERS: dict[type[Any], type[nn.Module]] = {
    CogVideoX: CogVideoXTransformer,
    MovieGen: MovieGenTransformer,
    MovieGenUpsampler: MovieGenTransformer,
    Stiv: StivTransformer,
    EasyAnimate: EasyAnimateTransformer,
}

SYSTEMS = {kind.__name__: kind for kind in TRANSFORMERS}

_MODELS = ("dit", "text", "texts")
"""Settings that are in the models' own folders."""


def save(system: System, folder: str | os.PathLike[str]) -> dict[str, nn.Module]:
    """Writes all of it; returns the models by the names of their folders. `scheduler/` is diffusers' description of a
    noise schedule, where there is one."""
    folder = Path(folder)
    config: Any = system.config
    models: dict[str, nn.Module] = {"transformer": system.transformer}
    models |= {_tower(k): tower for k, tower in enumerate(system.towers) if not isinstance(tower, Published)}
    published = [t.settings() if isinstance(t, Published) else None for t in system.towers]
    for name, model in models.items():
        export(model, folder / name)
    if isinstance(system.objective, Schedule):
        export_schedule(system.objective, folder / "scheduler")
    own = {name: said for name, said in dataclasses.asdict(config).items() if name not in _MODELS}
    own |= {"typical": system.typical}
    fresh = beside(folder / "system.json")
    fresh.write_text(
        json.dumps({"system": type(config).__name__, "published": published, **own}, indent=2, sort_keys=True) + "\n"
    )
    fresh.replace(folder / "system.json")
    return models


def load(folder: str | os.PathLike[str]) -> System:
    """What `save` wrote, in evaluation mode. Raises ValueError when something is missing or unknown."""
    folder = Path(folder)
    said = read_json(folder / "system.json")
    kind = SYSTEMS.get(str(said.pop("system", None)))
    if kind is None:
        raise ValueError(f"{folder}/system.json: the system is not one of {', '.join(SYSTEMS)}.")
    transformer: Any = load_model(folder / "transformer")
    fields = {field.name: field for field in dataclasses.fields(kind)}
    if not isinstance(transformer, TRANSFORMERS[kind]):
        raise ValueError(f"{folder / 'transformer'} does not hold the transformer of {kind.__name__}.")
    count = len(transformer.config.text_widths) if isinstance(transformer, MovieGenTransformer) else 1
    published = said.pop("published", None) or [None] * count
    towers = [
        load_model(folder / _tower(k)) if settings is None else Published(Encoder(**settings))
        for k, settings in enumerate(published)
    ]
    for number, tower in enumerate(towers):
        if not isinstance(tower, HashedWordEncoder | Published):
            raise ValueError(f"{folder / _tower(number)} does not hold a text encoder that this version can run.")
    texts = {"texts": tuple(t.config for t in towers)} if "texts" in fields else {"text": towers[0].config}
    typical = said.pop("typical", None)
    unknown = sorted(said.keys() - fields.keys())
    if unknown:
        raise ValueError(f"{folder}/system.json: {', '.join(unknown)} is unknown to this version.")
    own = {name: _nested(fields[name], value) for name, value in said.items()}
    try:
        system = kind(dit=transformer.config, **texts, **own).build()
    except TypeError as error:
        raise ValueError(f"{folder}: these models are not those of {kind.__name__} ({error}).") from error
    system.transformer.load_state_dict(transformer.state_dict())
    for mine, read in zip(system.towers, towers, strict=True):
        mine.load_state_dict(read.state_dict())
    system.typical = typical
    return system.eval()


def _tower(number: int) -> str:
    return f"text_encoder_{number + 1}" if number else "text_encoder"


def _nested(field: dataclasses.Field[Any], said: Any) -> Any:
    if dataclasses.is_dataclass(field.default):
        return type(field.default)(**said)  # type: ignore[misc]
    return said

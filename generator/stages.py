"""How a stage of training begins: from which weights, and with which model."""

from __future__ import annotations

from pathlib import Path

import torch

from generator import systems
from generator.draws import seed_of
from generator.recipe import Recipe, Stage
from generator.systems.base import System
from generator.systems.carry import carried, transplant


def folder_of(out: Path, name: str) -> Path:
    """Where the weights of a finished stage are that later ones start from."""
    return out / "stages" / name


def started(recipe: Recipe, stage: Stage, before: System | None, out: Path) -> System:
    """The system that a stage trains, with the weights it starts from: new ones in the first stage, else those of
    `stage.start` or of the stage `before`, carried over to the stage's model.

    Raises ValueError where they do not fit.
    """
    config = stage.system or recipe.system
    if stage.start:
        before = systems.load(folder_of(out, stage.start))
    torch.manual_seed(seed_of(recipe.seed, "transformer", *([] if before is None else [stage.name])))
    if before is None:
        return config.build()
    system = before if before.config == config else carried(before, config, stage.grow)
    if stage.temporal:
        transplant(system, systems.load(folder_of(out, stage.temporal)))
    return system

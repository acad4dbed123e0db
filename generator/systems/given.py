"""Tasks as frames that are given: none is text to video, the first image to video, the first few prediction, the first
and the last interpolation. Drawn per sample, one model learns them all (STIV, arXiv 2412.07730, section 2.4)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

TASKS = ("text", "image", "prediction", "interpolation", "upsampling")


def given(task: str, frames: int, count: int = 1) -> Tensor:
    """Which of `frames` latent frames a task is given, bool (frames,).

    count: how many frames prediction is given, and how far apart those of temporal upsampling are.
    Raises ValueError for another task, or where nothing would be left to make.
    """
    if task not in TASKS:
        raise ValueError(f"tasks are {', '.join(TASKS)}; {task!r} is not one of them.")
    here = torch.zeros(frames, dtype=torch.bool)
    if task == "upsampling":
        here[:: max(count, 2)] = True
    elif task != "text":
        here[: count if task == "prediction" else 1] = True
        here[-1] |= task == "interpolation"
    if bool(here.all()):
        raise ValueError(f"the task {task} leaves none of {frames} latent frames to make; make the video longer.")
    return here


def draw_given(shares: Mapping[str, float], frames: int, generator: torch.Generator) -> Tensor:
    """A task drawn with these shares, as (1, frames). Where it leaves nothing to make of so few frames, as of a single
    image, none is given."""
    names = list(shares)
    number = int(torch.multinomial(torch.tensor([shares[name] for name in names]), 1, generator=generator))
    most = max(frames // 2, 1)
    count = int(torch.randint(1, most + 1, (), generator=generator))
    found = given(names[number], frames, count) if frames > 2 else torch.zeros(frames, dtype=torch.bool)
    return found[None]

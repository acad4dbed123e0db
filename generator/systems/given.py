"""Tasks as frames that are given: none is text to video, the first image to video, the first few prediction, the first
and the last interpolation, every second temporal upsampling; where frames are views of an object, the first is one.
Drawn per sample, one model learns them all (STIV, arXiv 2412.07730, section 2.4).

A share may name a count, as in "prediction:4" or "upsampling:2"; else counts are drawn too.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

TASKS = ("text", "image", "prediction", "interpolation", "upsampling", "views")


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


def draw_given(shares: Mapping[str, float], frames: int, generator: torch.Generator, repeated: int = 0) -> Tensor:
    """A task drawn with these shares, as (1, frames). Where it leaves nothing to make of so few frames, as of a single
    image, none is given. repeated: how many of the frames, in front, repeat the first of the others; they are given
    where that is."""
    names, frames = list(shares), frames - repeated
    number = int(torch.multinomial(torch.tensor([shares[name] for name in names]), 1, generator=generator))
    most = max(frames // 2, 1)
    count = int(torch.randint(1, most + 1, (), generator=generator))
    task, always = named(names[number])
    found = given(task, frames, always or count) if frames > 2 else torch.zeros(frames, dtype=torch.bool)
    return torch.cat([found[:1]] * repeated + [found])[None]


def named(share: str) -> tuple[str, int]:
    """The task and its count, 0 where it is drawn. Raises ValueError for another count than a number."""
    task, _, count = share.partition(":")
    if count and not count.isdecimal():
        raise ValueError(f"the task {share!r} must be named like prediction or prediction:4.")
    return task, int(count or 0)


def learnt(shares: Mapping[str, float], dropped: float) -> dict[str, int]:
    """The tasks that these shares teach, with the count that each was always given, 0 for any. dropped: how often what
    is given is left out, which teaches to go by the text alone."""
    tasks: dict[str, int] = {"text": 0} if dropped else {}
    for share in [name for name, weight in shares.items() if weight]:
        task, count = named(share)
        tasks[task] = count if tasks.get(task, count) == count else 0
    return tasks


def latents_given(frames: Tensor, latents: int) -> Tensor:
    """Which of so many latents are known, (T,), where `frames` (F,) are given: those whose last frame is. A latent is
    one frame, or the first is, and each of the others as many as they share."""
    if latents == len(frames):
        return frames
    ratio, rest = divmod(len(frames) - 1, latents - 1)
    assert not rest, "the first latent is one frame"
    return frames[::ratio]


def held(video: Tensor, frames: Tensor) -> Tensor:
    """video (3, F, H, W) with each frame that is not given replaced by the nearest that is, the earlier of two."""
    where = frames.nonzero().flatten()
    apart = (torch.arange(len(frames), device=where.device)[:, None] - where).abs()
    return video[:, where[apart.argmin(dim=1)]]

"""What a training shows at its end: reconstructions of the VAE, and samples for captions of the clips."""

# mypy: disable-error-code="no-any-return, no-untyped-call"

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F

from generator.caches import Pixels, pixel_batch
from generator.feed import order
from generator.progress import Progress
from generator.recipe import Recipe
from generator.sample import sample_videos, to_pixels, write_mp4
from generator.systems.base import System


@torch.no_grad()
def show_reconstructions(vae: Any, pixels: Pixels, ids: Sequence[str], file: Path) -> float:
    """A picture of up to four clips, each above what the VAE makes of it. Returns the mean PSNR of up to 32, dB."""
    device = next(vae.parameters()).device
    shown, psnr = [], []
    for number, clip in enumerate(ids[:32]):
        x = pixel_batch(pixels, [clip]).to(device)
        y = vae.decode(vae.encode_moments(x)[0]).clamp(-1, 1)[:, :, : x.shape[2]]
        psnr.append(float(10 * torch.log10(4 / F.mse_loss(y, x))))
        if number < 4:
            shown += [np.hstack(list(to_pixels(video)[0, ::4])) for video in (x, y)]
    file.parent.mkdir(parents=True, exist_ok=True)
    strip = np.vstack(shown).repeat(2, axis=0).repeat(2, axis=1)
    if not cv2.imwrite(str(file), strip[..., ::-1]):
        raise OSError(f"{file}: could not be written")
    return float(np.mean(psnr))


def draw_samples(
    vae: Any,
    system: System,
    recipe: Recipe,
    captions: Mapping[str, str],
    folder: Path,
    report: Progress,
    write: bool = True,
) -> None:
    """Videos for the captions of a few clips, and which file is which caption. write: false in processes that only help
    to compute them."""
    drawn = dict.fromkeys(captions[clip] for clip in order(list(captions), recipe.seed, 0))
    prompts = list(drawn)[: recipe.samples]
    for number, prompt in enumerate(prompts):
        video = sample_videos(
            vae, system, [prompt], recipe.shown, recipe.sample_steps, recipe.guidance, recipe.seed + number
        )[0]
        if write:
            write_mp4(folder / f"{number}.mp4", video, recipe.shown.fps)
        report("sample", number + 1, len(prompts), {})
    if not write:
        return
    said = {f"{number}.mp4": prompt for number, prompt in enumerate(prompts)}
    folder.mkdir(parents=True, exist_ok=True)  # also where nothing was to be drawn
    (folder / "prompts.json").write_text(json.dumps(said, indent=1, ensure_ascii=False) + "\n")

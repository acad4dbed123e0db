"""One side of a comparison: a small training on chosen clips, measured on clips that no side has seen.

Sides that compare transformers share one VAE, so that their losses are about the same latents; sides that compare VAEs
train nothing else, and are measured by their reconstructions.
"""

# mypy: disable-error-code="no-any-return, no-untyped-call"

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from generator import torch_needed  # noqa: F401  (raises the sentence that names the extra)

# isort: split
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from generator import systems
from generator.caches import to_video
from generator.data import Row, read_clip, read_rows
from generator.dit.conditions import whole_patches
from generator.dit.costs import patch_of
from generator.interop import load
from generator.measures import heldout_loss, matched_times, vae_scores
from generator.recipe import Recipe
from generator.systems.base import Batch
from manifests.types import MediaError

Scores = Mapping[str, npt.NDArray[np.float64]]
"""By measure, a number for every held-out clip."""

_SHOWN = ("tasks", "dropping", "masks", "count_given")
"""Settings of systems that decide what of a clip a model is shown, and which errors count."""

LOSS, CLEAN, PSNR = "held-out loss", "error of the clean latent", "PSNR"
BETTER_HIGH = frozenset({PSNR, "SSIM"})


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class HeldClips:
    """rows: of the manifest. videos: (N, 3, F, H, W) in [-1, 1]. micro: (N, 6)."""

    rows: Sequence[Row]
    videos: Tensor
    micro: Tensor

    @property
    def ids(self) -> list[str]:
        return [row.id for row in self.rows]

    @property
    def films(self) -> list[str]:
        """Of each clip."""
        return [row.film for row in self.rows]


def held_clips(folder: str | os.PathLike[str], recipe: Recipe) -> HeldClips:
    """The sampled clips of a manifest, decoded as the recipe says. Clips that cannot be read are left out; raises
    ValueError where none is left."""
    rows, videos, why = [], [], ""
    for row in read_rows(folder):
        try:
            frames = torch.from_numpy(read_clip(row, recipe.data))
        except (MediaError, OSError) as error:
            why = str(error)
            continue
        rows.append(row)
        videos.append(to_video(frames))
    if not rows:
        raise ValueError(f"none of the held-out clips can be read; the last: {why}")
    micro = torch.tensor([row.micro(recipe.data) for row in rows])
    return HeldClips(rows, torch.stack(videos), micro)


def shortened(recipe: Recipe, seed: int, steps: int | None, vae_steps: int | None, vae_alone: bool) -> Recipe:
    """The recipe as one side trains it: so many steps in each stage, no samples. vae_alone: and no transformer."""
    stages = () if vae_alone else recipe.stages
    if steps is not None:
        stages = tuple(dataclasses.replace(s, training=dataclasses.replace(s.training, steps=steps)) for s in stages)
    coding = recipe.vae_stages
    if vae_steps is not None:
        coding = tuple(
            dataclasses.replace(s, training=dataclasses.replace(s.training, steps=vae_steps)) for s in coding
        )
    return dataclasses.replace(recipe, seed=seed, stages=stages, vae_stages=coding, samples=0)


def score_vae(folder: Path, clips: HeldClips) -> Scores:
    """Of the VAE that was trained into a folder: PSNR (dB), SSIM, and flicker (8-bit levels)."""
    vae: Any = load(folder / "vae")
    found = vae_scores(vae, clips.videos)
    names = {PSNR: "psnr", "SSIM": "ssim", "flicker": "flicker", "flicker of the clips": "flicker_original"}
    return {name: found[key].double().numpy() for name, key in names.items()}


@torch.no_grad()
def score_system(folder: Path, clips: HeldClips, like: systems.Config) -> Scores:
    """Of the system that was trained into a folder: the held-out loss at fixed noise and times; and the squared error
    of the clean latent where signal and noise stand in fixed ratios, which objectives have in common.

    like: the system of the other side. What is shown of a clip is drawn as there, so that a side which is shown more
    frames while it trains does not have an easier examination."""
    vae: Any = load(folder / "vae")
    system: Any = systems.load(folder)
    same = {name: getattr(like, name) for name in _SHOWN if hasattr(like, name)}
    system.config = dataclasses.replace(system.config, **same)
    system.dropping = like.dropping
    system.use(vae)
    latents = torch.cat([torch.stack(vae.encode_moments(video[None]), dim=1) for video in clips.videos])
    texts = [row.caption for row in clips.rows]
    latents, repeated = whole_patches(latents, patch_of(system.transformer.config)[0])
    slots = list(range(len(texts)))
    batch = Batch(latents, texts, slots, lambda: clips.videos, clips.micro, repeated=repeated)
    loss = heldout_loss(system, batch, clips.ids).loss
    clean = heldout_loss(system, batch, clips.ids, matched_times(system.objective)).clean
    return {LOSS: loss.double().mean(1).numpy(), CLEAN: clean.double().mean(1).numpy()}

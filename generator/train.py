"""Training: from a manifest to a VAE, and from its latents to a system's text encoders and transformer.

What a run computes is a function of the recipe and the clips alone; see `generator.loop`.
"""

# mypy: disable-error-code="no-any-return, no-untyped-call"

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from generator import torch_needed  # noqa: F401  (raises the sentence that names the extra)

# isort: split
import torch

from generator import systems
from generator.data import read_rows
from generator.draws import Draws, seed_of
from generator.interop import export, load, weights_fingerprint
from generator.loop import Learn, Learnt, fit
from generator.material import Material, spread
from generator.progress import Progress, listener
from generator.recipes import Recipe
from generator.run import Run, forget
from generator.showing import draw_samples, show_reconstructions
from generator.stages import folder_of, started
from generator.systems.base import Batch, Packed, System
from generator.vae import sizes as vaes
from generator.vae.training import VaeLearner
from manifests.ids import fingerprint


def train(
    folder: str | os.PathLike[str],
    recipe: Recipe,
    out: str | os.PathLike[str],
    progress: Progress | None = None,
    device: str = "cpu",
    fresh: bool = False,
    vae_from: str | os.PathLike[str] | None = None,
    cache: str | os.PathLike[str] | None = None,
) -> Path:
    """Trains what `recipe` describes on the sampled clips of the manifest in `folder`; goes on where it was stopped.

    out: gets `vae/`, `transformer/`, `text_encoder/`, `scheduler/` (diffusers layout) and `system.json`, `samples/`,
    `log.jsonl` (one line per logged step), `train.json` (what was trained on what, and how well), `checkpoints/` and
    `cache/`. progress: see `generator.progress`. fresh: forget an earlier run in `out` (decoded pixels are kept).
    vae_from: folder of a trained VAE, which is taken as it is instead of training one. cache: where decoded pixels and
    latents are kept instead of in `out`, so that several trainings share them.

    Returns `out`. Raises ValueError when there is nothing to train on, when `out` holds a run of another recipe or
    other clips, or when the loss or its gradient is no longer finite.
    """
    out = Path(out)
    if fresh:
        forget(out)
    with listener(progress) as report, torch.random.fork_rng(), _threads(recipe.threads):
        rows = read_rows(folder)

        configs = dict.fromkeys([recipe.data, *(stage.data or recipe.data for stage in recipe.stages)])
        kept = Path(cache or out / "cache")
        material = {data: Material(rows, data, kept, recipe.loading, report, device) for data in configs}
        clips = material[recipe.data]
        used = {(row.id, row.caption): row for data in configs for row in material[data].rows}
        taken = None if vae_from is None else _taken(vae_from, recipe)
        run = Run(out, recipe, list(used.values()), report, "" if taken is None else weights_fingerprint(taken))
        if not run.open(folder):
            return out

        vae = (taken or _seeded(recipe.seed, "vae", lambda: vaes.build(recipe.vae))).to(device)
        if taken is None:
            for coding in recipe.vae_stages:
                learner = _seeded(recipe.seed, coding.name, functools.partial(VaeLearner, vae, coding)).to(device)
                feed, how = clips.videos(recipe.seed, coding.training.batch), coding.training
                fit(coding.name, learner, learner.learn, feed, how, run, coding.only)
        vae.requires_grad_(False)
        maker = weights_fingerprint(vae)
        named = f"latents-{maker}" if cache else "latents"
        latents = clips.encode(vae, maker, named)
        if taken is None:
            vae.config = dataclasses.replace(vae.config, scaling_factor=1 / spread(latents, clips.ids))
        export(vae, out / "vae")
        if not recipe.stages:
            psnr = show_reconstructions(vae, clips.pixels, clips.ids, out / "samples" / "vae.png")
            run.close(_results({"vae": vae}, psnr))
            return out

        system: System | None = None
        for stage in recipe.stages:
            system = started(recipe, stage, system, out).to(device)
            system.use(vae)
            how, shown = stage.training, material[stage.data or recipe.data]
            shown.encode(vae, maker, named)
            shown.tell(system)
            feed = shown.batches(system, vae, recipe.seed, how.batch)
            fit(stage.name, system, diffusion(system, how.batch), feed, how, run, stage.only)
            if stage.name in recipe.started_from:
                systems.save(system, folder_of(out, stage.name))
        assert system is not None, "there is a stage"
        models = {"vae": vae, **systems.save(system, out)}

        psnr = show_reconstructions(vae, clips.pixels, clips.ids, out / "samples" / "vae.png")
        captions = {row.id: row.caption for row in material[recipe.shown].rows}
        draw_samples(vae, system, recipe, captions, out / "samples", report)
        run.close(_results(models, psnr))
    return out


def _results(models: Mapping[str, torch.nn.Module], psnr: float) -> dict[str, Any]:
    return {
        "parameters": {name: sum(p.numel() for p in model.parameters()) for name, model in models.items()},
        "fingerprints": {name: weights_fingerprint(model) for name, model in models.items()},
        "vae_psnr_on_training_clips": psnr,
    }


def _taken(folder: str | os.PathLike[str], recipe: Recipe) -> Any:
    """The VAE in a folder. Raises ValueError where it is not of the recipe's making but for the scale of latents."""
    vae: Any = load(folder)
    if fingerprint(dataclasses.replace(vae.config, scaling_factor=1.0)) != fingerprint(
        dataclasses.replace(recipe.vae, scaling_factor=1.0)
    ):
        raise ValueError(f"{folder}: this VAE is not built as recipe {recipe.name} says; train one with that recipe.")
    return vae


def diffusion(system: System, world: int) -> Learn:
    """What a system learns from batches that are part of global ones of `world` samples."""

    def learn(batch: Batch | Packed, draws: Draws, step: int) -> Learnt:
        losses = system.losses(batch, draws, batch.world or world)  # type: ignore[arg-type]
        return Learnt(losses.mean, losses.tokens)

    return learn


@contextlib.contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _seeded(seed: int, name: str, build: Callable[[], Any]) -> Any:
    torch.manual_seed(seed_of(seed, name))
    return build()

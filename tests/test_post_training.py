"""Going on from a trained system: with another VAE, on images alone (Movie Gen's text-to-image post-training)."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
import torch

from generator import recipes, systems
from generator.data import DataConfig
from generator.published.moviegen import moviegen_t2i, moviegen_tae
from generator.recipe import Recipe, Stage, VaeStage
from generator.train import train
from generator.vae import sizes as vaes
from tests.generator_films import make_manifest, one_thread  # noqa: F401  (used by being here)


def quiet(phase: str, done: int, total: int, record: Mapping[str, Any]) -> None:
    pass


def small() -> Recipe:
    """A Movie Gen of one layer, videos of 16 x 16."""
    tiny = recipes.tiny_moviegen()
    how = dataclasses.replace(tiny.stages[0].training, steps=1, batch=2, warmup=1, ema=0.0)
    return dataclasses.replace(
        tiny,
        name="small",
        data=DataConfig(frames=8, size=16, fps=8.0),
        vae_stages=(dataclasses.replace(tiny.vae_stages[1], training=how, frames=8, images=0.25),),
        system=dataclasses.replace(tiny.system, dit=dataclasses.replace(tiny.system.dit, num_layers=1)),
        stages=(Stage(how),),
        samples=0,
    )


def test_a_system_of_videos_goes_on_with_a_vae_of_images(tmp_path: Path) -> None:
    manifest, joint = make_manifest(tmp_path / "shapes", clips=2), small()
    first = train(manifest, joint, tmp_path / "joint", quiet)
    how = joint.stages[0].training
    post = dataclasses.replace(
        joint,
        name="post",
        data=DataConfig(frames=1, size=32),
        vae=vaes.stiv_debug(),
        vae_stages=(VaeStage(how, joint.vae_stages[0].loss),),
        stages=(Stage(dataclasses.replace(how, lr=1e-9), "t2i"),),
        goes_on=True,
    )
    with pytest.raises(ValueError, match="post goes on from a trained system; give its folder with --from"):
        train(manifest, post, tmp_path / "post", quiet)
    out = train(manifest, post, tmp_path / "post", quiet, start=first)
    before, after = (systems.load(folder).state_dict() for folder in (first, out))
    anew = post.system.build().state_dict()
    close = [torch.allclose(after[name], before[name], atol=1e-6) for name in before]
    assert all(close) and not all(torch.allclose(anew[name], before[name], atol=1e-6) for name in before)
    said = json.loads((out / "train.json").read_text())
    assert (
        said["given_start"]
        and said["fingerprints"]["vae"] != json.loads((first / "train.json").read_text())["fingerprints"]["vae"]
    )
    with pytest.raises(ValueError, match="holds a run from other weights"):
        train(manifest, post, tmp_path / "post", quiet, start=out)
    alone = dataclasses.replace(joint, stages=())
    with pytest.raises(ValueError, match="trains a VAE alone, so there is nothing to go on with"):
        train(manifest, alone, tmp_path / "alone", quiet, start=first)


def test_the_published_post_training_has_its_numbers() -> None:
    recipe = moviegen_t2i()
    (stage,) = recipe.stages
    how = stage.training
    assert (how.steps, how.batch, how.lr, how.schedule, how.warmup) == (6000, 64, 1e-5, "constant", 2000)
    assert recipe.data.frames == 1 and recipe.data.size == 1024 and recipe.goes_on
    assert recipe.system == recipes.named("moviegen_30b").system, "so that its weights fit"


def test_the_tae_sees_one_batch_of_images_to_three_of_videos_then_the_penalty() -> None:
    first, then = recipes.named("moviegen_tae").vae_stages
    assert first.images == then.images == 0.25 and (first.training.steps, then.training.steps) == (50_000, 10_000)
    assert (first.loss.outliers, then.loss.outliers, then.loss.outlier_reach) == (0, 1e5, 3)


def test_the_tae_can_be_built_and_its_recipe_states_what_is_theirs() -> None:
    recipe, said = recipes.named("moviegen_tae"), moviegen_tae.__doc__ or ""
    assert recipe.name == "moviegen_tae" and not recipe.stages and recipe.latents == (4, 32, 32)
    assert "--recipe moviegen_tae" in said and "Published:" in said and "Ours:" in said

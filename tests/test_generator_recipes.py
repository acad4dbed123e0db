"""What test_training.py leaves out of the recipes: each thing that can be wrong is said before any work is done."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

pytest.importorskip("torch")

from generator import recipes


@pytest.mark.parametrize("name", recipes.RECIPES)
def test_the_recipes_that_are_named_fit_together(name: str) -> None:
    recipe = recipes.named(name)
    assert recipe.name == name and recipes.named(name) == recipe
    assert {stage.name for stage in recipe.vae_stages} >= {"vae"}


@pytest.mark.parametrize(
    ("part", "change", "sentence"),
    [
        ("data", {"frames": 16}, r"4k \+ 1"),
        ("data", {"size": 72}, "sample_height and sample_width must be 9 and 9"),
        ("system.dit", {"in_channels": 12}, r"must be vae\.latent_channels"),
        ("system.dit", {"patch_size": 3}, "must be whole patches"),
        ("system.dit", {"ofs_embed_dim": 16}, r"dit\.ofs_embed_dim must be None"),
        ("system", {"groups": 0}, "must be a multiple of groups"),
        ("system", {"groups": 5}, "must be a multiple of groups"),
        ("system.text", {"width": 64}, r"dit\.text_embed_dim must be text\.width"),
    ],
    ids=str,
)
def test_parts_that_do_not_fit_are_refused(part: str, change: dict[str, Any], sentence: str) -> None:
    recipe = recipes.smoke()
    with pytest.raises(ValueError, match=rf"recipe smoke: .*{sentence}"):
        changed(recipe, part.split("."), change)


def changed(whole: Any, path: list[str], change: dict[str, Any]) -> Any:
    if not path:
        return dataclasses.replace(whole, **change)
    return dataclasses.replace(whole, **{path[0]: changed(getattr(whole, path[0]), path[1:], change)})


def test_stages_are_told_apart() -> None:
    recipe = recipes.smoke()
    for stages in (recipe.stages * 2, (dataclasses.replace(recipe.stages[0], name="vae"),)):
        with pytest.raises(ValueError, match=r"recipe smoke: .*stages must have names"):
            dataclasses.replace(recipe, stages=stages)


def test_numbers_out_of_range_are_refused() -> None:
    recipe = recipes.smoke()
    for key in ("steps", "batch", "log_every", "checkpoint_every"):
        with pytest.raises(ValueError, match=f"{key}.* must be at least 1"):
            dataclasses.replace(recipe.stages[0].training, **{key: 0})
    for steps in (0, 1001):
        with pytest.raises(ValueError, match="sample_steps must be between 1 and 1000"):
            dataclasses.replace(recipe, sample_steps=steps)


@pytest.mark.parametrize("change", [{"crop": 128}, {"crop": -8}, {"frames": 18}, {"frames": -1}], ids=str)
def test_pieces_that_clips_do_not_have_are_refused(change: dict[str, int]) -> None:
    recipe = recipes.smoke()
    with pytest.raises(ValueError, match=f"the {next(iter(change))} of VAE stages must be"):
        dataclasses.replace(recipe, vae_stages=(dataclasses.replace(recipe.vae_stages[0], **change),))


def test_a_vae_that_cannot_be_inflated_is_refused_before_it_is_trained() -> None:
    recipe = recipes.named("tiny_stiv")  # its VAE sees single frames
    stages = (*recipe.vae_stages, dataclasses.replace(recipe.vae_stages[-1], name="clips", inflate=True))
    with pytest.raises(ValueError, match="recipe tiny_stiv: inflate is for VAEs to which a still"):
        dataclasses.replace(recipe, vae_stages=stages)

"""Recipes with published values: they fit together, at the published token counts and the costs that they state."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch

from generator import recipes
from generator.dit import sizes
from generator.published import PUBLISHED
from generator.published.cogvideox import TEN_SECONDS
from generator.published.costs import hours, tokens
from generator.recipe import Recipe
from generator.systems.carry import carried, transplant
from generator.systems.given import learnt
from generator.vae import sizes as vaes
from manifests.buckets import Buckets

TOKENS = {
    "cogvideox_2b": [4_992, 17_550, 167_280, 167_280],
    "cogvideox_5b": [4_992, 17_550, 167_280, 167_280],
    "moviegen_30b": [256, 8_448, 8_448, 73_728, 73_728, 73_728],
    "moviegen_t2i": [4_096],
    "stiv_xl": [256, 256, 2_560, 2_560, 2_560],
    "stiv_m": [256, 256, 2_560, 2_560, 2_560, 1_024, 10_240, 10_240, 10_240],
    "stiv_prediction": [256, 256, 2_560, 2_560, 2_560, 2_560],
    "stiv_tup": [256, 256, 2_560, 2_560, 2_560, 2_560],
    "stiv_views": [256, 256, 2_560, 2_560, 2_560, 1_600],
    "stiv_long": [256, 256, 2_560, 2_560, 2_560, 2_560],
    "easyanimate_v3": [256, 9_216, 9_216, 36_864, 82_944],
}


def of(recipe: Recipe) -> list[int]:
    return [tokens(recipe, stage.data or recipe.data, (stage.system or recipe.system).dit) for stage in recipe.stages]


@pytest.mark.parametrize("name", PUBLISHED)
def test_recipes_have_the_published_token_counts(name: str) -> None:
    recipe = recipes.named(name)
    assert recipe.name == name and of(recipe) == TOKENS[name]


@pytest.mark.slow
@pytest.mark.parametrize("name", PUBLISHED)
def test_docstrings_state_the_cost_that_is_estimated(name: str) -> None:
    said = PUBLISHED[name].__doc__ or ""
    assert "Command: " in said and f"--recipe {name}" in said and "an estimate" in said
    found = re.search(r"about ([\d.]+) ([kM]) GPU hours", said)
    assert found
    stated = float(found[1]) * {"k": 1e3, "M": 1e6}[found[2]]
    assert hours(PUBLISHED[name]()) == pytest.approx(stated, rel=0.05)


@pytest.mark.parametrize("name", ["cogvideox_2b", "stiv_xl", "easyanimate_v3"])
def test_the_models_of_all_stages_can_be_built(name: str) -> None:
    recipe = recipes.named(name)
    with torch.device("meta"):
        for stage in recipe.stages:
            config: Any = stage.system or recipe.system
            built = config.build()
            assert sum(p.numel() for p in built.parameters()) > 5e8
            assert built.text_length == {"cogvideox_2b": 226, "stiv_xl": 77, "easyanimate_v3": 120}[name]


def test_weights_go_from_stage_to_stage_of_stiv() -> None:
    """With the recipe's own order of stages, at a tenth of its size."""
    recipe = recipes.named("stiv_m")
    kept: dict[str, Any] = {}
    before = None
    for stage in recipe.stages:
        assert stage.system is not None
        small = recipes.replace(stage.system.dit, num_layers=1, width=48, num_heads=3)
        config = recipes.replace(stage.system, dit=small)
        start = kept[stage.start] if stage.start else before
        before = kept[stage.name] = config.build() if start is None else carried(start, config)
        if stage.temporal:
            transplant(before, kept[stage.temporal])
    assert [stage.name for stage in recipe.stages if stage.temporal] == ["hr_t2v"]
    time = "blocks.0.temporal.to_q.weight"
    states = {name: system.transformer.state_dict() for name, system in kept.items()}
    assert torch.equal(states["hr_t2v"][time], states["t2v_unmasked"][time])
    space = "blocks.0.spatial.to_q.weight"
    assert torch.equal(states["hr_t2v"][space], states["hr_t2i"][space])


def test_ten_seconds_at_sixteen_frames_a_second() -> None:
    recipe = PUBLISHED["cogvideox_5b"]()
    assert TEN_SECONDS.frames / TEN_SECONDS.fps == pytest.approx(10, abs=0.1)
    assert (TEN_SECONDS.size, TEN_SECONDS.width) == (768, 1360)
    assert tokens(recipe, TEN_SECONDS, sizes.cogvideox_5b()) == 167_280
    assert tokens(recipe, TEN_SECONDS, sizes.cogvideox_1_5_5b()) == 85_680


def test_movie_gens_numbers_of_samples_and_images() -> None:
    recipe = PUBLISHED["moviegen_30b"]()
    samples = {stage.name: stage.training.steps * stage.training.batch for stage in recipe.stages}
    assert samples["t2i_256"] == pytest.approx(1.94e9, rel=0.01)
    assert samples["joint_256"] + samples["joint_256_doubled"] == pytest.approx(394.8e6, rel=0.05)
    assert samples["joint_768"] + samples["joint_768_halved"] == pytest.approx(73.8e6, rel=0.02)
    data = recipe.stages[1].data
    assert data is not None and data.images / (1 - data.images) == pytest.approx(1 / 10)
    assert isinstance(data.buckets, Buckets) and {length.frames for length in data.buckets.lengths} == {128, 192, 256}


def test_the_last_stages_are_fine_tuning_on_the_best() -> None:
    last = {name: PUBLISHED[name]().stages[-1] for name in ("cogvideox_2b", "moviegen_30b")}
    subsets = {name: stage.data and stage.data.subset for name, stage in last.items()}
    assert subsets == {"cogvideox_2b": "high_quality", "moviegen_30b": "sft_picked"}
    buckets = last["moviegen_30b"].data.buckets  # type: ignore[union-attr]
    assert isinstance(buckets, Buckets)
    assert [length.frames / length.crop for length in buckets.lengths] == pytest.approx([16, 24]), "frames a second"
    animate = PUBLISHED["easyanimate_v3"]()
    assert [stage.only for stage in animate.stages] == [(), ("attn_temporal",), (), (), ()]
    with torch.device("meta"):
        names = [name for name, _ in animate.system.build().named_parameters() if "attn_temporal" in name]
    assert len({name.split(".attn_temporal")[0] for name in names}) == 28, "a motion module in every block"


def test_each_bucket_of_a_recipe_fits_its_vae() -> None:
    for name in PUBLISHED:
        recipe = PUBLISHED[name]()
        with torch.device("meta"):
            from generator.vae.sizes import build

            vae: Any = build(recipe.vae)
        for stage in recipe.stages:
            data, config = stage.data or recipe.data, stage.system or recipe.system
            if data.buckets is None:
                continue
            for picture in data.buckets.axes[0]:
                for length in data.buckets.axes[1]:
                    shape = data.buckets.shape(f"{picture}/{length}", data.area)
                    if name == "easyanimate_v3" and shape.frames < 9:
                        continue  # fewer than `least` frames: no clip is ever put there
                    latents = vae.latent_shape(shape.frames, shape.height, shape.width)
                    problems = config.problems(latents, recipe.vae.latent_channels, 0)
                    broken = [said for said, wrong in problems.items() if wrong and "sample_height" not in said]
                    assert not broken, (name, stage.name, picture, length)


def test_a_recipe_that_trains_no_vae_asks_for_one(tmp_path: Any) -> None:
    from generator.train import train
    from tests.generator_films import make_manifest

    base = recipes.smoke()
    recipe = recipes.replace(base, vae_stages=())
    with pytest.raises(ValueError, match="recipe smoke trains no VAE; give a trained one with --vae-from FOLDER"):
        train(make_manifest(tmp_path / "clips", 2), recipe, tmp_path / "out", lambda *_: None)


def test_vaes_of_easyanimate() -> None:
    """Section 3.2 of its paper: MagViT 350 k steps; the Slice VAE 200 k, then 100 k of its decoder alone."""
    magvit, slices = (recipes.named(name) for name in ("easyanimate_magvit", "easyanimate_slice_vae"))
    assert [(s.training.steps, s.training.batch) for s in magvit.vae_stages] == [(350_000, 128)]
    assert [(s.training.steps, s.training.batch) for s in slices.vae_stages] == [(200_000, 96), (100_000, 96)]
    decoder = slices.vae_stages[1]
    assert decoder.only == ("decoder", "objective") and (decoder.loss.l1, decoder.loss.l2) == (0.0, 1.0)
    with torch.device("meta"):
        names = [name for name, _ in vaes.build(slices.vae).named_parameters()]
    trained = [name for name in names if any(word in name for word in decoder.only)]
    assert 0 < len(trained) < len(names) and not any(name.startswith("encoder") for name in trained)


def test_models_of_stiv_that_learn_a_task_say_so() -> None:
    """From the weights of STIV, and only what the paper gives is given."""
    for name, tasks in {
        "stiv_prediction": {"text": 0, "prediction": 4},
        "stiv_tup": {"text": 0, "upsampling": 2},
        "stiv_views": {"text": 0, "views": 0},
        "stiv_long": {"text": 0, "image": 0, "interpolation": 0},
    }.items():
        recipe = recipes.named(name)
        *before, last = recipe.stages
        assert [stage.name for stage in before] == ["t2i", "t2i_unmasked", "t2v", "t2v_unmasked", "stiv"]
        assert learnt(last.system.tasks, last.system.dropping.image) == tasks
    lengths = recipe.stages[-1].data.buckets.lengths  # of long videos: two rates
    assert [length.frames / length.crop for length in lengths] == pytest.approx([8 / 19, 8])

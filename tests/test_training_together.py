"""A whole training with everything switched on, and by two processes that share weights and tokens."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

from generator import recipes
from generator.launch import launch
from generator.lora import FILE, Lora
from generator.options import Options
from generator.recipe import Recipe, Stage
from generator.train import train
from tests.generator_films import make_manifest, one_thread  # noqa: F401  (used by being here)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_manifest(tmp_path_factory.mktemp("shapes"), clips=8)


def recipe_of(*stages: Stage) -> Recipe:
    smoke = recipes.smoke()
    coding = dataclasses.replace(
        smoke.vae_stages[0], training=dataclasses.replace(smoke.vae_stages[0].training, steps=2, validate_every=2)
    )
    return dataclasses.replace(smoke, vae_stages=(coding,), stages=stages, held_out=0.2, sample_steps=2)


def quiet(phase: str, done: int, total: int, record: Mapping[str, Any]) -> None:
    pass


def lines(out: Path, model: str) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return [line for line in found if line["model"] == model]


def test_everything_at_once(manifest: Path, tmp_path: Path) -> None:
    how = recipes.smoke().stages[0].training
    first = dataclasses.replace(how, steps=4, validate_every=2, recompute="all but attention")
    tune = dataclasses.replace(how, steps=2, ema=0.0, optimizer="adafactor", precision="bfloat16")
    recipe = recipe_of(Stage(first), Stage(tune, "tune", lora=Lora(2, 4)))
    out = train(manifest, recipe, tmp_path / "out", quiet, options=Options(passes=2, sample_every=2, tensorboard=True))
    assert json.loads((out / "train.json").read_text())["clips"] < 8, "some are held out"
    names = {"val_loss", "val_loss_t1", "val_loss_t2", "val_loss_t3", "val_loss_t4"}
    assert [line["step"] for line in lines(out, "dit") if names <= line.keys()] == [2, 4]
    assert lines(out, recipe.vae_stages[0].name)[-1]["val_psnr"] > 0
    assert {"loss_t1", "loss_t4", "mfu", "data_share", "memory_gb"} <= lines(out, "dit")[0].keys()
    assert 0 < lines(out, "dit")[-1]["mfu"] < 1 and lines(out, "tune")[-1]["mfu"] == "n/a"
    assert (out / "samples" / "step-00000002" / "0.mp4").exists()
    assert (out / "lora" / "tune" / FILE).exists() and list((out / "tensorboard").iterdir())
    train(manifest, recipe, out, quiet)  # finished: left alone


def test_two_processes_train_what_one_does(manifest: Path, tmp_path: Path) -> None:
    how = dataclasses.replace(recipes.smoke().stages[0].training, steps=3, validate_every=3)
    recipe = recipe_of(Stage(how))
    one = train(manifest, recipe, tmp_path / "one", quiet)
    options = Options(shard=True, context=2)
    two = launch(2, train, manifest, recipe, tmp_path / "two", quiet, "cpu", False, None, None, options)
    for model in (recipe.vae_stages[0].name, "dit"):
        for mine, theirs in zip(lines(two, model), lines(one, model), strict=True):
            assert mine["loss"] == pytest.approx(theirs["loss"], rel=1e-4)
            assert mine.get("val_loss") == (theirs.get("val_loss") and pytest.approx(theirs["val_loss"], rel=1e-4))
    assert {path.suffix for path in (two / "checkpoints").iterdir()} == {".shards"}
    assert (two / "transformer" / "config.json").exists() and (two / "samples" / "0.mp4").exists()
    with pytest.raises(ValueError, match="holds a run with another recipe"):
        launch(2, train, manifest, dataclasses.replace(recipe, seed=1), two, quiet)

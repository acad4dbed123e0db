"""Trainings that share a VAE and what was decoded, and those of a VAE alone."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

pytest.importorskip("torch")
import torch

import generator
from generator.data import read_rows
from generator.train import train
from tests.generator_films import make_manifest, one_thread, write_manifest  # noqa: F401  (used by being here)
from tests.test_generator_train import losses, quiet, said, tiny


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_manifest(tmp_path_factory.mktemp("shapes"), clips=5)


@pytest.fixture(scope="module")
def vae(manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a recipe without stages: a VAE alone."""
    recipe = dataclasses.replace(tiny(), stages=())
    return train(manifest, recipe, tmp_path_factory.mktemp("vae") / "out", quiet)


def test_a_recipe_without_stages_trains_a_vae_alone(vae: Path, manifest: Path) -> None:
    assert {model for model, *_ in losses(vae)} == {"vae"} and said(vae)["finished"]
    assert not (vae / "transformer").exists() and (vae / "samples" / "vae.png").exists()
    stamp = (vae / "vae" / "config.json").stat().st_mtime_ns
    train(manifest, dataclasses.replace(tiny(), stages=()), vae, quiet)
    assert (vae / "vae" / "config.json").stat().st_mtime_ns == stamp, "a finished one is left alone"


def test_a_given_vae_is_taken_as_it_is(vae: Path, manifest: Path, tmp_path: Path) -> None:
    """On other clips too: its scale of latents, which a training of its own computes from its clips, stays."""
    rows = [dataclasses.asdict(row) for row in read_rows(manifest)[:3]]
    rows = [
        {"clip_id": r["id"], "uri": r["uri"], "caption": r["caption"], "sampled": True, "fps": 16.0}
        | {"start_us": r["start"], "end_us": r["end"]}
        for r in rows
    ]
    fewer = write_manifest(tmp_path / "fewer", rows)
    out = train(fewer, tiny(), tmp_path / "out", quiet, vae_from=vae / "vae")
    assert {model for model, *_ in losses(out)} == {"dit"}
    mine, given = generator.load(out / "vae"), generator.load(vae / "vae")
    assert mine.config == given.config
    assert all(torch.equal(value, given.state_dict()[key]) for key, value in mine.state_dict().items())

    changed = dataclasses.replace(tiny(), vae=dataclasses.replace(tiny().vae, norm_num_groups=2))
    with pytest.raises(ValueError, match=rf"{vae / 'vae'}: this VAE is not built as recipe tiny says"):
        train(manifest, changed, tmp_path / "other", quiet, vae_from=vae / "vae")
    with pytest.raises(ValueError, match=f"{out} holds a run with another VAE"):
        train(fewer, tiny(), out, quiet)


def test_trainings_share_what_was_decoded_and_encoded(vae: Path, manifest: Path, tmp_path: Path) -> None:
    heard: list[str] = []
    for seed in (0, 1):
        recipe = dataclasses.replace(tiny(), seed=seed)
        heard.clear()
        train(
            manifest,
            recipe,
            tmp_path / str(seed),
            lambda phase, *_: heard.append(phase),
            vae_from=vae / "vae",
            cache=tmp_path / "cache",
        )
        assert ("decode" in heard, "encode" in heard) == (seed == 0, seed == 0)
        assert not (tmp_path / str(seed) / "cache").exists()


def test_a_stopped_training_with_a_given_vae_goes_on_exactly(vae: Path, manifest: Path, tmp_path: Path) -> None:
    whole = train(manifest, tiny(), tmp_path / "whole", quiet, vae_from=vae / "vae")
    out = tmp_path / "out"

    class Stopped(Exception):
        pass

    def progress(phase: str, done: int, *_: object) -> None:
        if (phase, done) == ("dit", 3):
            raise Stopped

    with pytest.raises(Stopped):
        train(manifest, tiny(), out, progress, vae_from=vae / "vae")
    train(manifest, tiny(), out, quiet, vae_from=vae / "vae")
    assert losses(out) == losses(whole) and said(out)["fingerprints"] == said(whole)["fingerprints"]
    assert json.loads((out / "train.json").read_text())["given_vae"]

"""Systems that are told texts by published encoders: frozen, asked once for each text, not part of what is saved."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("transformers")
pytest.importorskip("sentencepiece")
import torch

from generator import recipes, systems
from generator.dit import sizes
from generator.draws import Draws
from generator.encoders import Encoder, LoadedEncoder, byt5, metaclip, t5_xxl, t5_xxl_masked, ul2
from generator.optimising import Training
from generator.recipe import Recipe, Stage
from generator.systems.base import Batch, System
from generator.systems.cogvideox import CogVideoX
from generator.systems.easyanimate import EasyAnimate
from generator.systems.moviegen import MovieGen
from generator.systems.stiv import Stiv
from generator.texts import Published, tower
from generator.train import train
from tests import tiny_encoders
from tests.generator_films import make_manifest, one_thread  # noqa: F401  (used by being here)
from tests.test_stages import vaes_trained

TEXTS = ["a red circle moves right", 'a sign says "sea"']


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("encoders")
    tiny_encoders.t5(folder / "t5")
    tiny_encoders.byt5(folder / "byt5")
    tiny_encoders.clip(folder / "clip")
    return folder


def small(encoder: Encoder, length: int = 16) -> Encoder:
    return replace(encoder, length=length, width=32)


def t5(folder: Path) -> Encoder:
    return small(t5_xxl(str(folder / "t5" / "text_encoder")))


def configs(folder: Path) -> dict[str, Any]:
    dit = replace(sizes.cogvideox_debug(), num_layers=1, sample_height=4, sample_width=4, sample_frames=9)
    said = (
        small(ul2(str(folder / "t5" / "text_encoder"))),
        small(metaclip(str(folder / "clip"))),
        small(byt5(str(folder / "byt5"))),
    )
    return {
        "cogvideox": CogVideoX(dit, t5(folder)),
        "moviegen": MovieGen(replace(sizes.moviegen_debug(), num_layers=1, text_widths=(32, 32, 32)), said),
        "stiv": Stiv(replace(sizes.stiv_debug(), num_layers=2), small(metaclip(str(folder / "clip")))),
        "easyanimate": EasyAnimate(
            sizes.easyanimate_debug(), small(t5_xxl_masked(str(folder / "t5" / "text_encoder")))
        ),
    }


@pytest.mark.parametrize("name", ["cogvideox", "moviegen", "stiv", "easyanimate"])
def test_each_system_learns_from_published_texts(name: str, folder: Path, tmp_path: Path) -> None:
    config = configs(folder)[name]
    torch.manual_seed(0)
    system: System = config.build()
    assert not any("towers" in key for key in system.state_dict()), "the encoder is not of the system's weights"
    assert not config.problems((4, 4, 4), 4, 2).get("dit.text_embed_dim must be text.width")
    batch = Batch(torch.randn(2, 2, 4, 4, 4, 4), TEXTS, [0, 1], lambda: torch.empty(0), torch.ones(2, 6), 2)
    losses = system.losses(batch, Draws.of([0, 1], name), 2)
    losses.mean.backward()
    assert torch.isfinite(losses.each).all()
    for parameter in system.transformer.parameters():
        parameter.data += 0.02 * torch.randn_like(parameter)
    system.eval()
    micro, x, t = torch.ones(2, 6), torch.randn(2, 4, 4, 4, 4), torch.tensor([0.5, 0.5])
    with torch.no_grad():
        said, null = (system.guess(x, t, system.say(texts, micro), None)[0] for texts in (TEXTS, ["", ""]))
    assert not torch.allclose(said, null), "the texts are heard"
    systems.save(system, tmp_path / "out")
    assert not (tmp_path / "out" / "text_encoder").exists()
    again = systems.load(tmp_path / "out")
    assert again.config == config  # type: ignore[comparison-overlap]
    with torch.no_grad():
        assert torch.equal(again.guess(x, t, again.say(TEXTS, micro), None)[0], said)


def test_each_text_is_encoded_once_and_the_encoder_let_go(folder: Path, tmp_path: Path) -> None:
    encoder = tower(t5(folder))
    assert isinstance(encoder, Published)
    ticks: list[tuple[int, int]] = []
    encoder.remember([*TEXTS, TEXTS[0]], tmp_path, lambda *tick: ticks.append(tick))
    assert ticks == [(2, 2)] and encoder._encoder()._loaded is None
    alone = t5(folder).load()(TEXTS)
    assert torch.equal(encoder.embed(TEXTS).sequence, alone.sequence) and encoder._encoder()._loaded is None
    assert torch.equal(encoder(["", *TEXTS])[1:], alone.sequence), "a text that is not cached loads it again"
    assert encoder._encoder()._loaded is not None


def test_another_encoder_in_the_same_place_is_refused(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "encoders"
    shutil.copytree(folder / "t5", copy)
    settings = small(t5_xxl(str(copy / "text_encoder")))
    tower(settings).remember(TEXTS, tmp_path, lambda *_: None)  # type: ignore[union-attr, operator]
    shutil.rmtree(copy)
    tiny_encoders.t5(copy, seed=1)
    with pytest.raises(ValueError, match=r"the cached text embeddings were made by text encoder .* is in use; delete"):
        tower(settings).remember(TEXTS, tmp_path, lambda *_: None)  # type: ignore[union-attr, operator]


def test_an_encoder_of_another_width_is_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match="says 32 numbers a token, not the 48 of the recipe"):
        tower(replace(t5(folder), width=48))(TEXTS)
    with pytest.raises(ValueError, match=r"dit\.text_embed_dim must be text\.width"):
        recipe(replace(t5(folder), width=48))


def recipe(text: Any) -> Recipe:
    base = recipes.smoke()
    how = Training(steps=2, batch=2, lr=1e-3, warmup=1)
    dit = replace(sizes.cogvideox_debug(), num_layers=1, sample_height=4, sample_width=4, sample_frames=9)
    data = replace(base.data, frames=9, size=32)
    return replace(base, name="texts", data=data, system=CogVideoX(dit, text), stages=(Stage(how),), sample_steps=2)


def test_a_training_asks_the_encoder_once(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loads, asked = [], []
    load, call = Encoder.load, LoadedEncoder.__call__

    def counted(self: Encoder, *args: Any) -> LoadedEncoder:
        loads.append(self.source)
        return load(self, *args)

    def heard(self: LoadedEncoder, texts: Any) -> Any:
        asked.extend(texts)
        return call(self, texts)

    monkeypatch.setattr(Encoder, "load", counted)
    monkeypatch.setattr(LoadedEncoder, "__call__", heard)
    manifest = make_manifest(tmp_path / "clips", 3)
    phases = set()

    def progress(phase: str, done: int, total: int, record: Mapping[str, Any]) -> None:
        phases.add(phase)

    out = train(manifest, recipe(t5(folder)), tmp_path / "out", progress, vae_from=vaes_trained(manifest, tmp_path))
    assert len(loads) == 1 and len(asked) == len(set(asked)) == 4, "three captions and the empty text"
    assert "texts" in phases and not (out / "text_encoder").exists()
    assert json.loads((out / "system.json").read_text())["published"][0]["source"] == str(
        folder / "t5" / "text_encoder"
    )

"""Training: losses go down, a stopped run goes on exactly, and what it writes can be read and sampled."""

from __future__ import annotations

import dataclasses
import json
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import av
import diffusers
import numpy as np
import pytest

import generator
from generator import recipes, systems
from generator.checkpoint import load_schedule, load_state
from generator.loop import learning_rate
from generator.recipe import Recipe, Stage
from generator.sample import sample_videos
from generator.train import train
from tests.generator_films import make_manifest

MODELS = ("vae", "transformer", "text_encoder")


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_manifest(tmp_path_factory.mktemp("shapes"), clips=12)


@pytest.fixture(scope="module")
def smoke() -> Recipe:
    return recipes.smoke()


@pytest.fixture(scope="module")
def trained(manifest: Path, smoke: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(manifest, smoke, tmp_path_factory.mktemp("trained") / "out", quiet)


def quiet(phase: str, done: int, total: int, record: Mapping[str, Any]) -> None:
    pass


class Stopped(Exception):
    pass


def stop_at(phase: str, step: int) -> Any:
    def progress(now: str, done: int, total: int, record: Mapping[str, Any]) -> None:
        if (now, done) == (phase, step):
            raise Stopped

    return progress


def log(out: Path, model: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return [line for line in lines if line["model"] == model]


def losses(out: Path, model: str) -> list[tuple[int, float]]:
    return [(line["step"], line["loss"]) for line in log(out, model)]


def fingerprints(out: Path) -> dict[str, str]:
    return json.loads((out / "train.json").read_text())["fingerprints"]


def shorter(stage: Any, **changes: Any) -> Any:
    return dataclasses.replace(stage, training=dataclasses.replace(stage.training, log_every=1, **changes))


def test_losses_go_down(manifest: Path, tmp_path: Path) -> None:
    tiny = recipes.tiny_cogvideox()
    recipe = dataclasses.replace(
        tiny,
        vae_stages=(shorter(tiny.vae_stages[0], steps=30, batch=8), shorter(tiny.vae_stages[1], steps=4)),
        stages=(Stage(dataclasses.replace(tiny.stages[0].training, steps=60, log_every=1)),),
        samples=1,
        sample_steps=2,
    )
    out = train(manifest, recipe, tmp_path / "out", quiet)
    for model in ("vae_stills", "dit"):
        values = [loss for _, loss in losses(out, model)]
        assert statistics.fmean(values[-5:]) < 0.7 * statistics.fmean(values[:5])


@pytest.mark.parametrize(("phase", "step"), [("decode", 7), ("vae", 6), ("encode", 5), ("dit", 7), ("sample", 1)])
def test_a_stopped_run_goes_on_exactly(
    phase: str, step: int, manifest: Path, smoke: Recipe, trained: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with pytest.raises(Stopped):
        train(manifest, smoke, out, stop_at(phase, step))
    assert phase in ("decode", "encode") or (out / "checkpoints").exists()
    train(manifest, smoke, out, quiet)
    assert fingerprints(out) == fingerprints(trained)
    for model in ("vae", "dit"):
        assert losses(out, model) == losses(trained, model)


def test_a_half_written_log_line_is_no_obstacle(manifest: Path, smoke: Recipe, trained: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(Stopped):
        train(manifest, smoke, out, stop_at("dit", 5))
    with (out / "log.jsonl").open("a") as file:
        file.write('{"step": 6, "mod')
    train(manifest, smoke, out, quiet)
    assert losses(out, "dit") == losses(trained, "dit") and fingerprints(out) == fingerprints(trained)


def test_a_finished_run_is_left_alone_and_another_is_refused(
    manifest: Path, smoke: Recipe, trained: Path, tmp_path: Path
) -> None:
    before = (trained / "log.jsonl").read_bytes()
    train(manifest, smoke, trained, stop_at("vae", 1))
    assert (trained / "log.jsonl").read_bytes() == before
    with pytest.raises(ValueError, match="holds a run with another recipe"):
        train(manifest, dataclasses.replace(smoke, seed=1), trained, quiet)
    with pytest.raises(ValueError, match="holds a run on other clips"):
        train(make_manifest(tmp_path / "others", clips=3), smoke, trained, quiet)
    assert (trained / "log.jsonl").read_bytes() == before


def test_starting_afresh_forgets(manifest: Path, smoke: Recipe, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(Stopped):
        train(manifest, smoke, out, stop_at("dit", 5))
    decoded: list[int] = []

    def progress(phase: str, done: int, total: int, record: Mapping[str, Any]) -> None:
        if phase == "decode":
            decoded.append(done)

    other = dataclasses.replace(smoke, seed=1)
    train(manifest, other, out, progress, fresh=True)
    assert not decoded, "pixels are kept"
    assert json.loads((out / "train.json").read_text())["recipe"]["seed"] == 1


def test_a_loss_that_is_not_a_number_stops_the_run_and_keeps_the_last_checkpoint(
    manifest: Path, smoke: Recipe, tmp_path: Path
) -> None:
    wild = dataclasses.replace(smoke, vae_stages=(shorter(smoke.vae_stages[0], lr=1e30, clip=1e30),))
    with pytest.raises(ValueError, match=r"the vae loss is (nan|inf) at step \d+; lower the learning rate"):
        train(manifest, wild, tmp_path / "out", quiet)


def test_what_a_run_writes(trained: Path, smoke: Recipe) -> None:
    for model in ("vae", "dit"):
        assert [line["step"] for line in log(trained, model)] == list(range(1, 9))
        assert {"loss", "lr", "grad_norm", "samples_per_s", "tokens_per_s"} <= log(trained, model)[0].keys()
    said = json.loads((trained / "train.json").read_text())
    assert said["finished"] and said["clips"] == 12 and said["parameters"]["vae"] == 510_547
    assert len(list((trained / "checkpoints").glob("*.safetensors"))) == 4
    state = load_state(trained / "checkpoints" / "dit-00000008.safetensors")
    assert state.step == 8 and state.average and state.optimizer
    prompts = json.loads((trained / "samples" / "prompts.json").read_text())
    assert list(prompts) == ["0.mp4"] and "moves" in prompts["0.mp4"]
    assert (trained / "samples" / "vae.png").stat().st_size > 1000
    assert load_schedule(trained / "scheduler").snr_shift == smoke.system.snr_shift
    assert not list(trained.rglob("*.tmp"))


def test_diffusers_reads_what_was_trained(trained: Path) -> None:
    vae = diffusers.AutoencoderKLCogVideoX.from_pretrained(trained / "vae", local_files_only=True)
    assert vae.config.scaling_factor == generator.load(trained / "vae").config.scaling_factor != 1.15258426
    diffusers.CogVideoXTransformer3DModel.from_pretrained(trained / "transformer", local_files_only=True)
    scheduler = diffusers.CogVideoXDDIMScheduler.from_pretrained(trained / "scheduler", local_files_only=True)
    assert scheduler.config.prediction_type == "v_prediction" and scheduler.alphas_cumprod[-1] == 0


def test_the_prompt_and_the_seed_decide_the_sample(trained: Path, smoke: Recipe) -> None:
    vae, system = generator.load(trained / "vae"), systems.load(trained)
    system.use(vae)

    def sample(prompt: str, seed: int, frames: int = 17) -> np.ndarray:
        data = dataclasses.replace(smoke.data, frames=frames)
        return sample_videos(vae, system, [prompt], data, 3, 6.0, seed)[0]

    one = sample("A red circle moves right.", 0)
    assert one.shape == (17, 64, 64, 3) and one.dtype == np.uint8
    assert np.array_equal(one, sample("A red circle moves right.", 0))
    assert not np.array_equal(one, sample("A red circle moves right.", 1))
    assert not np.array_equal(one, sample("A blue square moves left.", 0))
    assert sample("x", 0, frames=9).shape[0] == 9 and sample("x", 0, frames=1).shape[0] == 1
    with pytest.raises(ValueError, match=r"4k \+ 1"):
        sample("x", 0, frames=8)


def test_generate_writes_a_film(trained: Path, tmp_path: Path) -> None:
    file = generator.generate(trained, "A red circle.", tmp_path / "new" / "a.mp4", steps=2, frames=5, fps=12)
    with av.open(str(file)) as container:
        stream = container.streams.video[0]
        assert sum(1 for _ in container.decode(stream)) == 5
        assert (stream.width, stream.height, stream.codec.name, stream.average_rate) == (64, 64, "h264", 12)
    with pytest.raises(ValueError, match="there is no trained model here"):
        generator.generate(tmp_path, "x", tmp_path / "b.mp4")
    with pytest.raises(ValueError, match="between 1 and 1000"):
        generator.generate(trained, "x", tmp_path / "b.mp4", steps=0)
    with pytest.raises(ValueError, match="was trained for videos from text, not for videos from a first frame"):
        generator.generate(trained, "x", tmp_path / "b.mp4", image="a.png")


def test_recipes_that_do_not_fit_together_are_refused() -> None:
    tiny = recipes.tiny_cogvideox()
    for change, message in {
        "data": (dataclasses.replace(tiny.data, frames=16), r"4k \+ 1"),
        "vae_stages": ((dataclasses.replace(tiny.vae_stages[0], crop=36),), "multiples of 8"),
        "system": (
            dataclasses.replace(tiny.system, text=dataclasses.replace(tiny.system.text, length=17)),
            r"max_text_seq_length must be text\.length",
        ),
        "stages": ((Stage(dataclasses.replace(tiny.stages[0].training, batch=12)),), "multiple of groups"),
    }.items():
        with pytest.raises(ValueError, match=message[1]):
            dataclasses.replace(tiny, **{change: message[0]})
    with pytest.raises(ValueError, match="no training recipe 'huge'; choose one of tiny_cogvideox"):
        recipes.named("huge")


def test_learning_rate_warms_up_and_decays() -> None:
    how = dataclasses.replace(recipes.tiny_cogvideox().stages[0].training, steps=100, warmup=10)
    rates = [learning_rate(step, how) for step in range(100)]
    assert rates[0] == pytest.approx(0.1) and max(rates) == rates[10] == pytest.approx(1.0)
    assert rates[10:] == sorted(rates[10:], reverse=True) and rates[99] == pytest.approx(0.05, abs=0.001)

"""What test_training.py leaves out: what is exported, what is damaged or another's, what nobody asked to touch."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

pytest.importorskip("torch")
import torch
from safetensors.torch import load_file

import generator
from generator import recipes, systems
from generator import train as training
from generator.checkpoint import load_state
from generator.data import DataConfig
from generator.loop import Learnt
from generator.recipe import Recipe, Stage
from generator.sample import sample_videos, to_pixels, write_mp4
from generator.train import train
from tests.generator_films import make_manifest, one_thread  # noqa: F401  (used by being here)

MODELS = ("vae", "transformer", "text_encoder")


def tiny() -> Recipe:
    """Smaller still than `smoke`: 9 frames of 32 x 32, four steps of each model."""
    base, size, frames = recipes.smoke(), 32, 9
    how = dataclasses.replace(base.vae_stages[0].training, steps=4, batch=2, warmup=1, log_every=1, checkpoint_every=2)
    return dataclasses.replace(
        base,
        name="tiny",
        data=dataclasses.replace(base.data, size=size, frames=frames),
        vae_stages=(dataclasses.replace(base.vae_stages[0], training=how, crop=16),),
        system=dataclasses.replace(
            base.system,
            dit=dataclasses.replace(
                base.system.dit, num_layers=2, sample_height=size // 8, sample_width=size // 8, sample_frames=frames
            ),
        ),
        stages=(Stage(dataclasses.replace(how, batch=8, ema=0.9)),),
        sample_steps=3,
        guidance=2.5,
    )


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_manifest(tmp_path_factory.mktemp("shapes"), clips=4)


@pytest.fixture(scope="module")
def finished(manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(manifest, tiny(), tmp_path_factory.mktemp("finished") / "out", quiet)


@pytest.fixture
def trained(finished: Path, tmp_path: Path) -> Path:
    """A copy that a test may break."""
    return Path(shutil.copytree(finished, tmp_path / "out"))


def quiet(phase: str, done: int, total: int, record: Mapping[str, Any]) -> None:
    pass


class Stopped(Exception):
    pass


def stopped(manifest: Path, out: Path, phase: str, step: int, recipe: Recipe | None = None) -> Path:
    def progress(now: str, done: int, total: int, record: Mapping[str, Any]) -> None:
        if (now, done) == (phase, step):
            raise Stopped

    with pytest.raises(Stopped):
        train(manifest, recipe or tiny(), out, progress)
    return out


def said(out: Path) -> dict[str, Any]:
    return json.loads((out / "train.json").read_text())


def losses(out: Path) -> list[tuple[str, int, float]]:
    lines = map(json.loads, (out / "log.jsonl").read_text().splitlines())
    return [(line["model"], line["step"], line["loss"]) for line in lines]


def decoded(file: Path) -> np.ndarray:
    with av.open(str(file)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def test_what_is_exported_are_the_averaged_weights(finished: Path) -> None:
    state = load_state(finished / "checkpoints" / "dit-00000004.safetensors")
    for name, folder in {"transformer": "transformer", "towers.0": "text_encoder"}.items():
        for key, value in generator.load(finished / folder).state_dict().items():
            assert torch.equal(value, state.average[f"{name}.{key}"])
    moved = [key for key, value in state.average.items() if not torch.equal(value, state.model[key])]
    assert len(moved) > len(state.average) / 2
    vae = load_state(finished / "checkpoints" / "vae-00000004.safetensors")
    assert not vae.average
    for key, value in generator.load(finished / "vae").state_dict().items():
        assert torch.equal(value, vae.model[f"vae.{key}"])


def test_scaled_latents_have_unit_variance(finished: Path) -> None:
    vae = generator.load(finished / "vae")
    pixels = load_file(next((finished / "cache").glob("pixels-*/*.safetensors")))
    videos = torch.stack(list(pixels.values())).permute(0, 4, 1, 2, 3) / 127.5 - 1
    torch.manual_seed(0)
    with torch.no_grad():
        mean, logvar = vae.encode_moments(videos)
        drawn = (mean + (0.5 * logvar).exp() * torch.randn(50, *mean.shape)) * vae.config.scaling_factor
    assert float(drawn.std()) == pytest.approx(1.0, abs=0.02)


def test_progress_tells_each_phase_to_its_end(manifest: Path, tmp_path: Path) -> None:
    heard: dict[str, list[tuple[int, int]]] = {}
    train(
        manifest,
        tiny(),
        tmp_path / "out",
        lambda phase, done, total, _: heard.setdefault(phase, []).append((done, total)),
    )
    assert {phase: (len(ticks), ticks[0], ticks[-1]) for phase, ticks in heard.items()} == {
        "decode": (4, (1, 4), (4, 4)),
        "vae": (4, (1, 4), (4, 4)),
        "encode": (4, (1, 4), (4, 4)),
        "dit": (4, (1, 4), (4, 4)),
        "sample": (1, (1, 1), (1, 1)),
    }


def test_training_leaves_the_random_numbers_of_its_caller_alone(manifest: Path, finished: Path, tmp_path: Path) -> None:
    torch.manual_seed(123)
    before = torch.get_rng_state()
    train(manifest, tiny(), tmp_path / "out", quiet)
    assert torch.equal(torch.get_rng_state(), before)
    assert said(tmp_path / "out")["fingerprints"] == said(finished)["fingerprints"], "nor does it depend on them"


def test_a_damaged_checkpoint_is_named_and_the_one_before_it_serves(
    manifest: Path, finished: Path, tmp_path: Path
) -> None:
    recipe = tiny()
    out = stopped(manifest, tmp_path / "out", "vae", 4)
    newest = out / "checkpoints" / "vae-00000004.safetensors"
    newest.write_bytes(newest.read_bytes()[:1000])
    with pytest.raises(ValueError, match=rf"{newest.name}: this checkpoint cannot be read .* delete it"):
        train(manifest, recipe, out, quiet)
    newest.unlink()
    train(manifest, recipe, out, quiet)
    assert said(out)["fingerprints"] == said(finished)["fingerprints"] and losses(out) == losses(finished)


def test_checkpoints_of_another_run_are_not_mixed_in(manifest: Path, finished: Path, tmp_path: Path) -> None:
    out = stopped(manifest, tmp_path / "out", "vae", 3, dataclasses.replace(tiny(), seed=1))
    shutil.copy(finished / "checkpoints" / "vae-00000004.safetensors", out / "checkpoints")
    with pytest.raises(ValueError, match=r"vae-00000004\.safetensors is of run \w+, this is run \w+"):
        train(manifest, dataclasses.replace(tiny(), seed=1), out, quiet)
    (out / "train.json").unlink()
    with pytest.raises(ValueError, match=rf"{out} holds checkpoints but no train\.json"):
        train(manifest, tiny(), out, quiet)


def test_refusals_name_the_folder_and_both_sides(manifest: Path, trained: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=rf"{trained} holds a run with another recipe \(recipe tiny, 4 clips"):
        train(manifest, dataclasses.replace(tiny(), guidance=3.5), trained, quiet)
    with pytest.raises(ValueError, match=rf"{trained} holds a run on other clips .*--fresh"):
        train(make_manifest(tmp_path / "others", clips=3), tiny(), trained, quiet)


@pytest.mark.parametrize("model", ["vae", "dit"])
def test_a_broken_gradient_is_never_exported(
    model: str, manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loss of the last step is a number, but its gradient is none: no later loss would tell."""
    fit = training.fit

    def spoilt(stage: str, network: Any, learn: Any, *rest: Any) -> None:
        def at(batch: Any, draws: Any, step: int) -> Learnt:
            learnt = learn(batch, draws, step)
            zero = next(network.parameters()).sum() * 0
            return dataclasses.replace(learnt, loss=learnt.loss + (zero.sqrt() if step == 3 else zero))

        fit(stage, network, at if stage == model else learn, *rest)

    monkeypatch.setattr(training, "fit", spoilt)
    out = tmp_path / "out"
    with pytest.raises(ValueError, match=rf"the {model} gradient norm is nan at step 4; .*{out} keeps the last good"):
        train(manifest, tiny(), out, quiet)
    assert not (out / {"vae": "vae", "dit": "transformer"}[model]).exists()
    assert load_state(max((out / "checkpoints").glob(f"{model}-*"))).step == 2


def test_starting_afresh_touches_no_folder_that_is_not_a_training(manifest: Path, tmp_path: Path) -> None:
    for name in ("samples/holiday.mp4", "vae/mine.txt", "log.jsonl"):
        file = tmp_path / "out" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("mine\n")
    training.forget(tmp_path / "out")
    assert sum(path.read_text() == "mine\n" for path in (tmp_path / "out").rglob("*.*")) == 3


def test_starting_afresh_removes_all_of_a_training_but_its_pixels(trained: Path) -> None:
    (trained / "notes.txt").write_text("mine")
    training.forget(trained)
    assert sorted(path.name for path in trained.iterdir()) == ["cache", "notes.txt"]
    assert [path.name.split("-")[0] for path in (trained / "cache").iterdir()] == ["pixels"]


def test_generate_takes_what_the_training_says(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Frames, rate and guidance; and the sample a training draws is the one that generate draws. Pixels are compared
    before they are coded: x264 does not always make the same file of them."""
    written: list[np.ndarray] = []

    def spy(file: Path, frames: np.ndarray, fps: float) -> Path:
        written.append(frames)
        return write_mp4(file, frames, fps)

    monkeypatch.setattr("generator.sample.write_mp4", spy)
    prompt = json.loads((finished / "samples" / "prompts.json").read_text())["0.mp4"]
    film = decoded(generator.generate(finished, prompt, tmp_path / "a.mp4", steps=3)).astype(float)
    assert film.shape == (9, 32, 32, 3)
    assert np.abs(film - decoded(finished / "samples" / "0.mp4")).mean() < 3, "but for the coding"
    vae, system = generator.load(finished / "vae"), systems.load(finished)
    system.use(vae)
    exact = sample_videos(vae, system, [prompt], tiny().data, 3, 2.5, 0)[0]
    assert np.array_equal(written[0], exact) and np.abs(film - exact).mean() < 12
    generator.generate(finished, prompt, tmp_path / "b.mp4", steps=3, guidance=2.5, seed=0, frames=9, fps=8)
    assert np.array_equal(written[1], exact)
    for change in ({"guidance": 6.0}, {"seed": 1}):
        generator.generate(finished, prompt, tmp_path / "b.mp4", steps=3, **change)
        assert not np.array_equal(written[-1], exact)


def test_folders_without_a_training_record_use_the_published_settings(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (trained / "train.json").unlink()
    asked: list[tuple[Any, ...]] = []

    def spy(*args: Any, **more: Any) -> np.ndarray:
        asked.append(args[2:])
        return np.zeros((1, 5, 32, 32, 3), np.uint8)

    monkeypatch.setattr("generator.trained.sample_videos", spy)
    with av.open(str(generator.generate(trained, "x", tmp_path / "a.mp4"))) as container:
        assert container.streams.video[0].average_rate == 8
    assert asked == [(["x"], DataConfig(), 50, 6.0, 0)]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"fps": 0}, "fps must be between 0.1 and 1000, got 0"),
        ({"fps": float("nan")}, "fps must be between"),
        ({"frames": 8}, r"4k \+ 1"),
        ({"frames": 0}, r"4k \+ 1"),
        ({"frames": -3}, r"4k \+ 1"),
        ({"steps": 1001}, "between 1 and 1000, got 1001"),
    ],
    ids=str,
)
def test_numbers_that_make_no_film_are_refused(
    options: dict[str, Any], sentence: str, finished: Path, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=sentence):
        generator.generate(finished, "x", tmp_path / "a.mp4", **options)
    assert not (tmp_path / "a.mp4").exists()


def test_folders_with_the_wrong_models_are_refused(trained: Path, tmp_path: Path) -> None:
    shutil.rmtree(trained / "text_encoder")
    with pytest.raises(ValueError, match=rf"{trained}/text_encoder/config\.json: there is no such file"):
        generator.generate(trained, "x", tmp_path / "a.mp4")
    shutil.copytree(trained / "vae", trained / "text_encoder")
    with pytest.raises(ValueError, match="text_encoder does not hold a text encoder"):
        generator.generate(trained, "x", tmp_path / "a.mp4")
    shutil.rmtree(trained / "vae")
    shutil.copytree(trained / "transformer", trained / "vae")
    with pytest.raises(ValueError, match="vae does not hold a VAE"):
        generator.generate(trained, "x", tmp_path / "a.mp4")


def test_pixels_are_rounded_and_clamped_and_colours_stay_in_order(tmp_path: Path) -> None:
    video = torch.tensor([-3.0, -1.0, 0.0, 1.0, 1.5]).view(1, 1, 5, 1, 1).expand(1, 3, 5, 16, 16).clone()
    video[:, 2] = -1.0
    frames = to_pixels(video)[0]
    assert frames[:, 0, 0, 0].tolist() == [0, 0, 128, 255, 255] and frames.shape == (5, 16, 16, 3)
    shown = decoded(write_mp4(tmp_path / "a.mp4", frames, 29.97))[3].mean(axis=(0, 1))
    assert min(shown[:2]) > 220 and shown[2] < 40, "yellow"

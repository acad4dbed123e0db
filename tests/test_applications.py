"""What generate makes besides videos from text, with models of random weights: what is given is kept, and bad wishes
are refused. Whether a trained model makes the right thing of it is measured in test_applications_trained.py."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

pytest.importorskip("torch")
import torch

import generator
from curation.judging.prompts import Prompt
from curation.judging.samples import draw
from generator import applications, recipes, systems
from generator.applications import make
from generator.draws import Draws
from generator.inputs import read_film, read_image
from generator.recipe import Recipe
from generator.sample import write_mp4
from generator.systems.base import Batch
from generator.systems.given import draw_given, held, latents_given, learnt
from generator.trained import Trained, Wish
from generator.vae import sizes as vaes
from manifests.buckets import Shape
from tests.generator_films import one_thread, write_film  # noqa: F401  (one is used by being here)

ALL = {"text": 1.0, "image": 1.0, "prediction": 1.0, "interpolation": 1.0, "upsampling": 1.0}


def stiv(**changes: Any) -> Recipe:
    recipe = recipes.tiny_stiv()
    dit = dataclasses.replace(recipe.system.dit, num_layers=1, post_layers=1)
    return dataclasses.replace(
        recipe, guidance=1.0, system=dataclasses.replace(recipe.system, **{"tasks": ALL, "dit": dit} | changes)
    )


def folder_of(recipe: Recipe, to: Path, **said: Any) -> Path:
    """As a training leaves it, with weights that nobody trained. said: more about its last stage's data."""
    torch.manual_seed(0)
    system = recipe.system.build()
    for parameter in system.parameters():  # zero-initialised outputs say nothing yet
        parameter.data += 0.05 * torch.randn_like(parameter)
    generator.export(vaes.build(recipe.vae), to / "vae")
    systems.save(system, to)
    data = {name: getattr(recipe.data, name) for name in ("frames", "size", "fps", "width")} | said
    (to / "train.json").write_text(json.dumps({"recipe": {"data": data, "guidance": recipe.guidance}}))
    return to


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folder_of(stiv(), tmp_path_factory.mktemp("stiv"))


@pytest.fixture(scope="module")
def model(folder: Path) -> Trained:
    return Trained(folder)


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 frames of 48 x 64, 16 a second."""
    file = tmp_path_factory.mktemp("films") / "film.mp4"
    write_film(file, [np.full((48, 64, 3), (40 + 4 * k, 90, 200 - 4 * k), np.uint8) for k in range(40)])
    return file


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    files = [tmp_path_factory.mktemp("images") / f"{name}.png" for name in ("first", "last")]
    for file, colour in zip(files, ((200, 60, 40), (40, 80, 220)), strict=True):
        picture = np.full((50, 70, 3), colour, np.uint8)
        picture[15:35, 25:45] = 255 - picture[0, 0]
        cv2.imwrite(str(file), picture)
    return files


def recoded(model: Trained, picture: np.ndarray) -> np.ndarray:
    """What the VAE makes of a picture."""
    x = torch.from_numpy(picture.copy()).permute(2, 0, 1)[None, :, None].float() / 127.5 - 1
    with torch.no_grad():
        y = model.vae.decode(model.vae.encode_moments(x)[0]).clamp(-1, 1)
    return ((y[0, :, 0].permute(1, 2, 0) + 1) * 127.5).numpy()


def kept(model: Trained, made: np.ndarray, given: dict[int, np.ndarray]) -> bool:
    """Whether the given frames are there but for the VAE, and no other is one of them."""
    apart = {k: [float(np.abs(frame - recoded(model, one)).max()) for frame in made] for k, one in given.items()}
    return all(found[k] < 1.5 and min(found[:k] + found[k + 1 :]) > found[k] for k, found in apart.items())


def test_given_frames_are_kept(model: Trained, film: Path, images: list[Path]) -> None:
    shape = model.data.shown
    first, last = (read_image(file, shape) for file in images)
    quick = Wish("a disc", steps=2)

    def made(**wish: Any) -> np.ndarray:
        return make(model, dataclasses.replace(quick, **wish)).frames

    assert made().shape == (8, 32, 32, 3)
    assert kept(model, made(images=(images[0],)), {0: first})
    assert kept(model, made(images=tuple(images)), {0: first, 7: last})
    assert kept(model, made(images=(images[0],), frames=6), {0: first}) and made(frames=1).shape == (1, 32, 32, 3)
    frames, rate = read_film(film, shape, 3, 4.0)
    assert rate == 4 and kept(model, made(video=film, given=3), dict(enumerate(frames)))
    usual = read_film(film, shape, 4, 4.0)[0]
    assert kept(model, made(video=film), dict(enumerate(usual))), "STIV goes on from four frames"
    every, rate = read_film(film, shape)
    assert rate == 16 and len(every) == 40
    assert kept(model, made(video=film, task="interpolation"), {0: every[0], 7: every[-1]})


@pytest.mark.parametrize(("between", "count"), [(1, 9), (2, 4), (1, 2), (6, 2)])
def test_upsampling_keeps_every_frame_of_the_film(between: int, count: int, model: Trained, film: Path) -> None:
    """In windows where the film has more frames than fit, and one that overlaps at its end."""
    step, every = between + 1, read_film(film, model.data.shown, count)[0]
    frames = step * (count - 1) + 1
    wish = Wish(video=film, task="upsampling", between=between, frames=frames, steps=1)
    made = make(model, wish)
    assert len(made.frames) == frames and made.fps == 16 * step
    assert kept(model, made.frames, {k * step: one for k, one in enumerate(every)})


def test_long_videos_pass_through_their_key_frames(model: Trained, images: list[Path]) -> None:
    wish = Wish("a disc", images=(images[0],), steps=1)
    made = make(model, dataclasses.replace(wish, task="long", frames=24)).frames
    assert made.shape == (24, 32, 32, 3)
    keys = make(model, wish).frames
    assert kept(model, made, {0: read_image(images[0], model.data.shown), 7: keys[1], 14: keys[2], 21: keys[3]})
    assert len(make(model, dataclasses.replace(wish, task="long")).frames) == 50, "as many key frames as frames"
    assert np.array_equal(make(model, dataclasses.replace(wish, task="long", frames=24)).frames, made)


def test_files_are_films_or_pictures(folder: Path, images: list[Path], tmp_path: Path) -> None:
    picture = generator.generate(folder, "a disc", tmp_path / "new" / "a.png", frames=1, steps=1)
    assert cv2.imread(str(picture)).shape == (32, 32, 3)
    strip = generator.generate(folder, "", tmp_path / "b.PNG", image=images, steps=1)
    assert cv2.imread(str(strip)).shape == (32, 8 * 32, 3)
    seen = read_film(generator.generate(folder, "x", tmp_path / "c.mp4", steps=1, fps=12), Shape(32, 32, 8))
    assert len(seen[0]) == 8 and seen[1] == 12
    with pytest.raises(ValueError, match=r"c\.gif: a sample is written as \.mp4 or \.png"):
        generator.generate(folder, "x", tmp_path / "c.gif")


def test_views_are_made_from_an_image_alone(images: list[Path], tmp_path: Path) -> None:
    model = Trained(folder_of(stiv(tasks={"views": 1.0}), tmp_path))
    made = make(model, Wish(images=(images[0],), frames=7, steps=1)).frames
    assert kept(model, made, {0: read_image(images[0], model.data.shown)}) and len(made) == 7
    with pytest.raises(ValueError, match="leave out --prompt"):
        make(model, Wish("a chair", images=(images[0],)))


@pytest.mark.parametrize("size", [(20, 90), (90, 20), (300, 200), (32, 32)])
def test_images_are_cut_as_clips_are(size: tuple[int, int], tmp_path: Path) -> None:
    """Scaled until they cover the shape, the middle kept: a film of the same picture becomes the same frame."""
    height, width = size
    picture = np.zeros((height, width, 3), np.uint8)
    picture[height // 4 : -height // 4, width // 4 : -width // 4] = (200, 120, 60)
    cv2.imwrite(str(tmp_path / "a.png"), picture[..., ::-1])
    write_film(tmp_path / "a.mp4", [picture] * 2)
    shape = Shape(32, 32, 1)
    one, two = read_image(tmp_path / "a.png", shape), read_film(tmp_path / "a.mp4", shape, 1)[0][0]
    assert one.shape == (32, 32, 3) and np.abs(one.astype(float) - two).mean() < 8
    assert np.abs(one[16, 16].astype(int) - (200, 120, 60)).max() < 3, "RGB"


def test_frames_are_those_on_screen_at_the_rate(film: Path) -> None:
    shown = read_film(film, Shape(32, 32, 8), 5, 4.0)[0][:, 16, 16, 0]
    assert np.abs(shown - (40.0 + 16 * np.arange(5))).max() < 6


def other(name: str, **changes: Any) -> Recipe:
    recipe = recipes.named(name)
    dit = dataclasses.replace(recipe.system.dit, num_layers=2)
    return dataclasses.replace(
        recipe, guidance=2.0, system=dataclasses.replace(recipe.system, **{"dit": dit} | changes)
    )


def i2v() -> Recipe:
    dit = dataclasses.replace(recipes.tiny_cogvideox().system.dit, num_layers=2, in_channels=8)
    return other("tiny_cogvideox", dit=dit, tasks={"image": 1.0, "interpolation": 1.0, "prediction:2": 1.0})


@pytest.mark.parametrize(
    "recipe", [i2v, lambda: other("tiny_easyanimate", masks=True)], ids=["cogvideox", "easyanimate"]
)
def test_models_that_are_shown_latents_look_at_them(
    recipe: Callable[[], Recipe], images: list[Path], film: Path, tmp_path: Path
) -> None:
    """Each picture that is given changes the sample."""
    model = Trained(folder_of(recipe(), tmp_path))
    plain = Wish("a disc", steps=1, images=(images[0], images[1]))
    samples = {
        files: make(model, dataclasses.replace(plain, images=tuple(images[k] for k in files))).frames.astype(float)
        for files in ((0,), (1,), (0, 1), (0, 0))
    }
    for one, two in (((0,), (1,)), ((0,), (0, 1)), ((0, 0), (0, 1))):
        assert np.abs(samples[one] - samples[two]).mean() > 0.01
    assert len(make(model, dataclasses.replace(plain, images=(), video=film, frames=17)).frames) == 17


def test_a_latent_is_known_where_its_last_frame_is() -> None:
    """What it lacks repeats the nearest given frame."""
    frames = torch.tensor([True] + [False] * 15 + [True])
    assert latents_given(frames, 5).tolist() == [True, False, False, False, True]
    assert latents_given(torch.arange(17) < 5, 5).tolist() == [True, True, False, False, False]
    assert latents_given(torch.arange(17) < 8, 5).tolist() == [True, True, False, False, False]
    assert latents_given(frames, 17) is frames
    video = torch.arange(17.0).view(1, 17, 1, 1)
    assert held(video, frames).flatten().tolist() == [0.0] * 9 + [16.0] * 8


def test_tasks_may_have_one_count() -> None:
    generator_ = torch.Generator().manual_seed(0)
    drawn = [draw_given({"prediction:4": 1.0}, 10, generator_) for _ in range(5)]
    assert all(one.tolist() == [[True] * 4 + [False] * 6] for one in drawn)
    drawn = [draw_given({"upsampling:3": 1.0, "text": 0.0}, 8, generator_, repeated=1) for _ in range(5)]
    assert all(one[0].nonzero().flatten().tolist() == [0, 1, 4, 7] for one in drawn), "what repeats is given too"
    assert learnt({"prediction:4": 1, "image": 1, "views": 0}, 0.1) == {"text": 0, "prediction": 4, "image": 0}
    assert learnt({"prediction:4": 1, "prediction": 1}, 0.0) == {"prediction": 0}
    with pytest.raises(ValueError, match=r"'prediction:x' must be named like prediction or prediction:4"):
        draw_given({"prediction:x": 1.0}, 10, generator_)


def test_a_count_that_was_not_trained_is_refused(film: Path, tmp_path: Path) -> None:
    model = Trained(folder_of(stiv(tasks={"prediction:2": 1.0, "upsampling:3": 1.0}), tmp_path))
    frames = read_film(film, model.data.shown, 2, 4.0)[0]
    assert kept(model, make(model, Wish(video=film, steps=1)).frames, dict(enumerate(frames)))
    assert len(make(model, Wish(video=film, task="upsampling", frames=7, steps=1)).frames) == 7
    with pytest.raises(ValueError, match="was trained to go on from 2 frames, not 3"):
        make(model, Wish(video=film, given=3))
    with pytest.raises(ValueError, match="was trained to put 2 frames between two"):
        make(model, Wish(video=film, task="upsampling", between=1))


@pytest.mark.parametrize("patch", [2, 3, 4])
def test_latents_that_are_no_whole_patches_in_time(patch: int, tmp_path: Path) -> None:
    """CogVideoX 1.5: the first latent stands several times in front, and is dropped from the result."""
    recipe = recipes.tiny_cogvideox()
    dit = dataclasses.replace(recipe.system.dit, num_layers=1, patch_size_t=patch, patch_bias=True)
    recipe = dataclasses.replace(recipe, system=dataclasses.replace(recipe.system, dit=dit))
    model = Trained(folder_of(recipe, tmp_path))
    for frames in (1, 5, 9, 17):
        assert make(model, Wish("a disc", frames=frames, steps=1)).frames.shape == (frames, 64, 64, 3)
    with pytest.raises(ValueError, match=r"4k \+ 1"):
        make(model, Wish("a disc", frames=8))


def test_frames_that_repeat_are_given_where_the_first_is(images: list[Path], tmp_path: Path) -> None:
    model = Trained(folder_of(stiv(), tmp_path))
    first, last = (read_image(file, model.data.shown) for file in images)
    made = make(model, Wish(images=tuple(images), frames=7, steps=2)).frames
    assert kept(model, made, {0: first, 6: last})
    x0 = torch.randn(2, 2, 4, 8, 4, 4)
    batch = Batch(x0, ["", ""], [0, 1], lambda: x0, torch.zeros(2, 6), repeated=1)
    given = model.system.known(batch, x0[:, 0], Draws.of([0, 1], 5)).given
    assert torch.equal(given[:, 0], given[:, 1])


def test_the_rate_is_told_where_there_were_several(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Any] = []

    def spy(vae: Any, system: Any, prompts: Any, data: Any, *rest: Any, stride: float = 1, **more: Any) -> np.ndarray:
        told.append((prompts[0], data.frames, stride))
        return np.zeros((1, data.frames, 32, 32, 3), np.uint8)

    monkeypatch.setattr("generator.trained.sample_videos", spy)
    model = Trained(folder_of(stiv(), tmp_path, buckets={"kind": "Buckets"}))
    make(model, Wish("a disc"))
    make(model, Wish("a disc FPS-9", fps=8.0))
    make(model, Wish("a disc", frames=1))
    make(model, Wish("a disc", task="long", frames=15, fps=8.0))
    assert told == [
        ("a disc FPS-4", 8, 1.0),
        ("a disc FPS-9", 8, 0.5),
        ("a disc", 1, 1.0),
        ("a disc FPS-1", 8, 3.5),  # key frames
        ("a disc FPS-8", 8, 0.5),
        ("a disc FPS-8", 8, 0.5),
    ]


WISHES: list[tuple[dict[str, Any], str]] = [
    ({"task": "dream"}, "there is no task 'dream'; choose one of text, image, prediction"),
    ({"task": "image"}, "the task image takes one image"),
    ({"task": "prediction", "image": "first"}, "the task prediction takes a video"),
    ({"image": ["first"] * 3}, "give one image, two images or a video, not more"),
    ({"image": "first", "video": "film"}, "give one image, two images or a video, not more"),
    ({"image": "absent"}, "absent.png: there is no such image"),
    ({"image": "film"}, "film.mp4 cannot be read as an image"),
    ({"video": "absent"}, "absent.png: there is no such file"),
    ({"video": "text"}, "text.mp4: not a video that can be read"),
    ({"video": "film", "given": 30}, r"film.mp4 has only 10 frames at 4 a second, 30 are needed"),
    ({"video": "film", "given": 8}, "nothing is left to make of 8 frames where 8 are given"),
    ({"video": "film", "given": -1}, "given is a number from 1 on"),
    ({"video": "film", "between": 2}, "--between is a number from 1 on, and for the task upsampling alone"),
    ({"video": "film", "task": "upsampling", "between": 8}, "makes 8 frames at a time, and not 8 between two"),
    ({"video": "film", "task": "upsampling", "frames": 90}, "has only 40 frames, 46 are needed"),
    ({"video": "one", "task": "upsampling"}, "one.mp4 has one frame, and so nothing between two"),
    ({"video": "one", "task": "interpolation"}, "one.mp4 has 1 frames, and so no first and last"),
    ({"image": "first", "frames": 1}, "nothing is left to make of 1 frames"),
    ({"image": "first", "frames": 0}, "nothing is left to make|does not fit this VAE"),
    ({"task": "long", "frames": 51}, "has 2 to 50 frames, got 51"),
    ({"image": "first", "task": "views"}, "was trained for videos from text, .* not for views of an object"),
]


@pytest.mark.parametrize(("wish", "sentence"), WISHES, ids=lambda part: part if isinstance(part, str) else str(part))
def test_wishes_that_cannot_be_met_are_refused(
    wish: dict[str, Any], sentence: str, folder: Path, film: Path, images: list[Path], tmp_path: Path
) -> None:
    files = {"first": images[0], "film": film, "absent": tmp_path / "absent.png", "text": tmp_path / "text.mp4"}
    files["text"].write_text("not a film")
    files["one"] = write_mp4(tmp_path / "one.mp4", np.zeros((1, 32, 32, 3), np.uint8), 8)
    named = {
        key: [files[one] for one in said] if isinstance(said, list) else files.get(said, said)
        for key, said in wish.items()
    }
    with pytest.raises(ValueError, match=sentence) as refused:
        generator.generate(folder, "a disc", tmp_path / "a.mp4", steps=1, **named)
    assert "\n" not in str(refused.value) and not (tmp_path / "a.mp4").exists()


def test_models_that_were_not_trained_for_it_refuse(images: list[Path], film: Path, tmp_path: Path) -> None:
    text = Trained(folder_of(other("tiny_moviegen"), tmp_path / "text"))
    for wish in (Wish(images=(images[0],)), Wish(images=tuple(images)), Wish(video=film), Wish(task="long")):
        with pytest.raises(ValueError, match=r"was trained for videos from text, not for .*whose tasks have"):
            make(text, wish)
    coded = other("tiny_cogvideox", dit=i2v().system.dit, tasks={"upsampling": 1.0})
    with pytest.raises(ValueError, match="its VAE codes several frames as one"):
        make(Trained(folder_of(coded, tmp_path / "coded")), Wish(video=film, task="upsampling"))


def test_many_samples_load_the_model_once(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[Path] = []
    real = Trained.__init__
    monkeypatch.setattr(Trained, "__init__", lambda self, to: loaded.append(to) or real(self, to))
    prompts = [Prompt(f"p{k}", f"a disc {k}", "object", "low") for k in range(3)]
    files = draw(folder, prompts, tmp_path / "drawn", steps=1)
    assert loaded == [folder] and all(file.stat().st_size for file in files)
    draw(folder, prompts, tmp_path / "drawn", steps=1)
    assert loaded == [folder], "nothing was left to draw"
    generator.generate(folder, "a disc 0", tmp_path / "a.mp4", steps=1)
    assert len(loaded) == 2 and set(applications.TASKS) > {"text", "long"}

"""Films made larger: Movie Gen's upsampler as a system that is trained, saved, and asked for by generate."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
import torch

import generator
from generator import recipes, systems
from generator.applications import make
from generator.draws import Draws
from generator.inputs import read_film, read_whole
from generator.recipe import Recipe
from generator.systems.base import Batch, Shown
from generator.systems.carry import carried
from generator.systems.upsampler import UpsamplerSystem
from generator.trained import Trained, Wish
from generator.vae import sizes as vaes
from manifests.buckets import Shape
from tests.by_heart import learn_by_heart
from tests.generator_films import one_thread, write_film  # noqa: F401  (one is used by being here)
from tests.test_applications import folder_of, stiv


def upsampling() -> Recipe:
    recipe = recipes.tiny_upsampler()
    system = recipe.stages[-1].system
    assert system is not None
    return dataclasses.replace(recipe, stages=(), system=system)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folder_of(upsampling(), tmp_path_factory.mktemp("upsampler"))


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """18 frames of 20 x 36, more than a window of 14; no whole patches when twice as large."""
    file = tmp_path_factory.mktemp("films") / "small.mp4"
    rng = np.random.default_rng(0)
    write_film(file, [rng.integers(0, 255, (20, 36, 3), dtype=np.uint8) for _ in range(18)])
    return file


def test_films_become_twice_as_large(folder: Path, film: Path, tmp_path: Path) -> None:
    small, rate = read_whole(film)
    assert small.shape == (18, 20, 36, 3) and rate == 16
    made = make(Trained(folder), Wish(video=film, steps=1))
    assert made.frames.shape == (18, 40, 72, 3) and made.fps == 16
    again = make(Trained(folder), Wish(video=film, steps=1, frames=15))
    assert again.frames.shape == (15, 40, 72, 3)
    other = tmp_path / "other.mp4"
    write_film(other, list(255 - small))
    assert not np.array_equal(make(Trained(folder), Wish(video=other, steps=1)).frames, made.frames)


def test_samples_are_made_larger_by_a_second_model(folder: Path, tmp_path: Path) -> None:
    base = folder_of(stiv(), tmp_path / "base")
    file = generator.generate(base, "a disc", tmp_path / "a.mp4", steps=1, frames=2, upsampler=folder)
    assert read_film(file, Shape(64, 64, 1))[0].shape == (2, 64, 64, 3)
    with pytest.raises(ValueError, match=r"base was trained for videos from text, .* not for making films larger"):
        generator.generate(base, "a disc", tmp_path / "b.mp4", steps=1, upsampler=base)
    with pytest.raises(ValueError, match="upsampler0 was trained for making films larger, not for videos from text"):
        generator.generate(folder, "a disc", tmp_path / "b.mp4")


def test_it_starts_from_an_image_model_and_learns_to_look_at_the_small_film() -> None:
    """Its new channels say nothing at first, and do after a few steps."""
    recipe = recipes.tiny_upsampler()
    torch.manual_seed(0)
    image = recipe.system.build()
    for parameter in image.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    config = recipe.stages[-1].system
    system = carried(image, config)
    assert isinstance(system, UpsamplerSystem)
    system.use(vaes.build(recipe.vae).eval())
    x, t = torch.randn(1, 4, 3, 8, 8), torch.full((1,), 0.5)
    said = system.say(["a"], torch.zeros(1, 6))
    shown = Shown(x, torch.zeros(1, 3, dtype=torch.bool), torch.randn(1, 4, 3, 8, 8))
    assert torch.allclose(system.guess(x, t, said, shown)[0], image.guess(x, t, said, None)[0], atol=1e-5)

    y, z = torch.meshgrid(torch.linspace(-3, 3, 64), torch.linspace(-3, 3, 64), indexing="ij")
    video = torch.stack([torch.sin(y * (k + 1)) * torch.cos(z * (3 - k)) for k in range(3)])[:, None, None]
    video = video.expand(3, 3, 2, 64, 64)
    with torch.no_grad():
        mean = system.encode(video)
    latents = torch.stack([mean / system.scale, torch.full_like(mean, -20.0)], dim=1)
    batch = Batch(latents, [""] * 3, [0, 1, 2], lambda: video, torch.zeros(3, 6))
    known = system.known(batch, mean, Draws.of([0, 1, 2], 1))
    assert isinstance(known, Shown) and known.beside.shape == mean.shape
    apart = (known.beside[:, None] - mean[None]).flatten(2).norm(dim=2)
    assert apart.argmin(dim=1).tolist() == [0, 1, 2], "each is shown what it was made of"
    losses = learn_by_heart(system, batch, steps=20)
    assert losses[-1] < 0.7 * losses[0]
    new = system.transformer.patch_embed.weight[:, 4:]
    assert bool(new.abs().max() > 1e-3), "and it looks at the small film"


def test_it_survives_a_folder(folder: Path) -> None:
    system = systems.load(folder)
    assert isinstance(system, UpsamplerSystem) and system.tasks == {"enlarging": 0} and system.config.factor == 2

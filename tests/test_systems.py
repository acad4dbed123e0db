"""The four systems as things to train and to sample from: conditions, tasks, losses that fall, folders."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from generator import recipes, systems
from generator.draws import Draws
from generator.recipe import Recipe
from generator.systems.base import Batch, Dropping, Known, System
from generator.systems.given import TASKS, draw_given, given
from tests.by_heart import learn_by_heart
from tests.generator_films import one_thread  # noqa: F401  (used by being here)

NAMES = ("tiny_cogvideox", "tiny_moviegen", "tiny_stiv", "tiny_easyanimate")


def batch_of(recipe: Recipe, count: int = 4) -> Batch:
    generator = torch.Generator().manual_seed(0)
    mean = torch.randn(count, recipe.vae.latent_channels, *recipe.latents, generator=generator)
    video = torch.rand(count, 3, recipe.data.frames, recipe.data.size, recipe.data.size, generator=generator) * 2 - 1
    texts = [f"A {colour} circle moves right." for colour in ("red", "green", "blue", "yellow")][:count]
    micro = torch.tensor([[64.0, 64.0, 0.0, 0.0, 2.0, recipe.data.frames]] * count)
    latents = torch.stack([mean, torch.full_like(mean, -20.0)], dim=1)
    return Batch(latents, texts, list(range(count)), lambda: video, micro)


def built(recipe: Recipe, **changes: Any) -> System:
    torch.manual_seed(0)
    system: System = dataclasses.replace(recipe.system, **changes).build()
    return system


@pytest.mark.parametrize("name", NAMES)
def test_losses_fall(name: str) -> None:
    """On one batch at fixed noise, which every objective learns by heart."""
    recipe = recipes.named(name)
    system, batch = built(recipe, **({"groups": 4} if name == "tiny_cogvideox" else {})), batch_of(recipe)
    losses = learn_by_heart(system, batch, steps=40)
    assert losses[-1] < 0.7 * losses[0]


@pytest.mark.parametrize("name", NAMES)
def test_samples_follow_text_and_seed_and_survive_a_folder(name: str, tmp_path: Path) -> None:
    recipe = recipes.named(name)
    system, batch = built(recipe).eval(), batch_of(recipe, 1)
    for parameter in system.parameters():  # zero-initialised outputs say nothing yet
        parameter.data += 0.05 * torch.randn_like(parameter)
    noise = batch.latents[:, 0]

    def drawn(model: System, text: str, scale: float = 2.0) -> Tensor:
        return model.sample(noise, [text], batch.micro, 3, scale)

    one = drawn(system, "a red circle")
    assert one.shape == noise.shape and bool(one.isfinite().all())
    assert not torch.equal(one, drawn(system, "a blue square"))
    assert not torch.equal(one, drawn(system, "a red circle", scale=1.0)), "guidance counts"
    systems.save(system, tmp_path)
    assert torch.equal(drawn(systems.load(tmp_path), "a red circle"), one)


def test_known_frames_stay_and_their_error_does_not_count() -> None:
    """STIV: the given frame is in every result as it was given, and no gradient asks for it."""
    recipe = recipes.tiny_stiv()
    system, batch = built(recipe, masked=0.0).eval(), batch_of(recipe, 2)
    x0 = batch.latents[:, 0]
    known = Known(x0, given("image", x0.shape[2]).expand(2, -1))
    drawn = system.sample(torch.randn_like(x0), ["a", "b"], batch.micro, 2, 2.0, known)
    assert torch.equal(drawn[:, :, 0], x0[:, :, 0]) and not torch.equal(drawn[:, :, 1:], x0[:, :, 1:])
    _, counted = system.guess(x0, torch.full((2,), 0.5), system.say(["a", "b"], batch.micro), known)
    assert counted is not None and counted[0, 0, :, 0, 0].tolist() == [False] + [True] * (x0.shape[2] - 1)


def test_masked_tokens_skip_the_blocks_and_do_not_count() -> None:
    recipe = recipes.tiny_stiv()
    system, batch = built(recipe, tasks={"text": 1.0}), batch_of(recipe, 2)
    x0, t = batch.latents[:, 0], torch.full((2,), 0.5)
    widths: list[int] = []
    first = next(module for name, module in system.named_modules() if name == "transformer.blocks.0")
    first.register_forward_hook(lambda _, given, out: widths.append(given[0].shape[2]))
    _, counted = system.guess(x0, t, system.say(batch.texts, batch.micro), None, Draws.of([0, 1], 0))
    assert counted is not None and float(counted.float().mean()) == 0.5
    system.guess(x0, t, system.say(batch.texts, batch.micro), None)
    assert widths[0] * 2 == widths[1]


def test_conditions_are_dropped_independently() -> None:
    recipe = recipes.tiny_stiv()
    system = built(recipe, tasks={"image": 1.0}, dropping=Dropping(text=0.3, image=0.2))
    heard: list[tuple[bool, bool]] = []
    known_of, say = system.known, system.say
    texts: list[str] = []

    def spy(batch: Batch, x0: Tensor, draws: Draws) -> Known | None:
        known = known_of(batch, x0, draws)
        assert known is not None
        heard.extend((text == "", not bool(row.any())) for text, row in zip(texts, known.given, strict=True))
        return known

    def listen(said: list[str], micro: Tensor) -> Any:
        texts[:] = said
        return say(said, micro)

    system.known, system.say = spy, listen  # type: ignore[method-assign, assignment]
    batch = batch_of(recipe)
    for step in range(150):
        with torch.no_grad():
            system.losses(batch, Draws.of(batch.slots, step), world=4)
    text, image = (sum(pair[k] for pair in heard) / len(heard) for k in (0, 1))
    both = sum(pair == (True, True) for pair in heard) / len(heard)
    assert text == pytest.approx(0.3, abs=0.06) and image == pytest.approx(0.2, abs=0.06)
    assert both == pytest.approx(text * image, abs=0.03)


def test_what_a_sample_draws_does_not_depend_on_its_neighbours() -> None:
    recipe = recipes.tiny_cogvideox()
    system, batch = built(recipe, groups=4).eval(), batch_of(recipe)
    with torch.no_grad():
        whole = system.losses(batch, Draws.of([0, 1, 2, 3], 7), world=4)
        rest = Batch(batch.latents[2:], batch.texts[2:], [2, 3], batch.video, batch.micro[2:])
        half = system.losses(rest, Draws.of([2, 3], 7), world=4)
    assert torch.equal(whole.times[2:], half.times)
    torch.testing.assert_close(whole.each[2:], half.each)


@pytest.mark.parametrize(
    ("task", "count", "there"),
    [
        ("text", 1, []),
        ("image", 1, [0]),
        ("prediction", 3, [0, 1, 2]),
        ("interpolation", 1, [0, 5]),
        ("upsampling", 2, [0, 2, 4]),
    ],
)
def test_tasks_are_frames_that_are_given(task: str, count: int, there: list[int]) -> None:
    assert task in TASKS and given(task, 6, count).nonzero().flatten().tolist() == there


def test_impossible_tasks_are_refused() -> None:
    with pytest.raises(ValueError, match=r"tasks are text, image, .*'dream' is not one of them"):
        given("dream", 4)
    with pytest.raises(ValueError, match="leaves none of 3 latent frames"):
        given("prediction", 3, 3)
    generator = torch.Generator().manual_seed(0)
    assert not bool(draw_given({"image": 1.0}, 1, generator).any()), "an image has nothing before it"


def test_easyanimate_is_shown_masked_videos() -> None:
    recipe = recipes.tiny_easyanimate()
    system, batch = built(recipe, masks=True), batch_of(recipe, 2)
    for parameter in system.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    seen: list[tuple[int, ...]] = []

    def encode(video: Tensor) -> Tensor:
        seen.append(tuple(video.shape))
        return video[:, :1, :3, ::8, ::8].repeat(1, recipe.vae.latent_channels, 1, 1, 1)

    system.encode = encode  # type: ignore[assignment]
    x0 = batch.latents[:, 0]
    known = system.known(batch, x0, Draws.of([0, 1], 3))
    assert seen == [(2, 3, 9, 64, 64)] * 2, "the mask and the masked video of each clip"
    said, t = system.say(batch.texts, batch.micro), torch.full((2,), 500)
    with torch.no_grad():
        shown, alone = (system.guess(x0, t, said, what)[0] for what in (known, None))
    assert shown.shape[1] == 2 * x0.shape[1] and not torch.equal(shown, alone)

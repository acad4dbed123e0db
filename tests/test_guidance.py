"""Guidance: the worked figures of the papers, and which conditions each pass is shown."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

from generator.dit.sizes import build, inputs, stiv_debug
from generator.guidance import (
    Branch,
    dynamic_weight,
    joint,
    known_clean,
    known_noised,
    released_dynamic_weight,
    renormalised,
    separate,
)
from generator.objectives import FlowMatching
from generator.samplers import euler, linear_times
from tests.drawn import drawn, random


def always(*values: float) -> Branch:
    return lambda x, t: torch.tensor([values], dtype=torch.float32)


def test_joint_guidance_of_the_specified_fixture() -> None:
    x, t = torch.zeros(1, 2), torch.zeros(1)
    assert joint(always(3, 4), always(1, 1), 7.5)(x, t).tolist() == [[16.0, 23.5]]
    assert joint(always(3, 4), always(1, 1), 7.5, renormalise=True)(x, t)[0].tolist() == pytest.approx(
        [2.814, 4.133], abs=1e-3
    )
    assert joint(always(3, 4), always(1, 1), 1.0)(x, t).tolist() == [[3, 4]]
    assert joint(always(3, 4), always(1, 1), 0.0)(x, t).tolist() == [[1, 1]]


def test_separate_guidance() -> None:
    x, t = torch.zeros(1, 2), torch.zeros(1)
    both, image, none = always(3, 4), always(2, 2), always(1, 1)
    assert separate(both, image, none, 1.5, 7.5)(x, t).tolist() == [[1 + 1.5 + 7.5, 1 + 1.5 + 15]]
    assert separate(both, image, none, 7.5, 7.5)(x, t).tolist() == joint(both, none, 7.5)(x, t).tolist()
    assert separate(both, image, none, 1.0, 1.0)(x, t).tolist() == [[3, 4]]
    norm = separate(both, image, none, 1.5, 7.5, renormalise=True)(x, t).norm()
    assert float(norm) == pytest.approx(5.0, abs=1e-5)


def test_norms_are_of_whole_samples() -> None:
    guided, conditional = random(3, 4, 5), 2 * random(3, 4, 5, seed=1)
    conditional[1] *= 10
    found = renormalised(guided, conditional)
    assert torch.allclose(found.flatten(1).norm(dim=1), conditional.flatten(1).norm(dim=1))
    assert torch.allclose(found / found[:, :1, :1], guided / guided[:, :1, :1], rtol=1e-3), "its direction stays"
    assert renormalised(torch.zeros(1, 2), torch.ones(1, 2)).isfinite().all()


def test_weights_grow_with_the_step_and_jump_with_the_released_timestep() -> None:
    assert [dynamic_weight(k, 50, 6.0) for k in (0, 10, 25, 35, 40, 45, 50)] == pytest.approx(
        [1, 1.0, 1.0144, 1.4086, 2.4541, 4.8414, 7.0], abs=2e-3
    )
    assert [released_dynamic_weight(t, 50, 6.0) for t in (999, 959, 499)] == pytest.approx([2.29, 6.97, 1.52], abs=0.01)


def test_the_pass_without_an_image_does_not_see_it() -> None:
    """Its first frame is noised to the time of the others; the other pass sees the image itself at every step."""
    clean, noise = random(1, 2, 3, 2, 2), random(1, 2, 3, 2, 2, seed=1)
    first, flow = torch.arange(3) < 1, FlowMatching(sigma_min=0)
    shown: dict[str, list[Tensor]] = {"with": [], "without": []}

    def spy(name: str) -> Branch:
        return lambda x, t: (shown[name].append(x), torch.zeros_like(x))[1]

    guided = joint(known_clean(spy("with"), clean, first), known_noised(spy("without"), clean, first, noise, flow), 7.5)
    out = euler(guided, noise, linear_times(4))
    assert torch.equal(out, noise)
    for step, (a, b) in enumerate(zip(shown["with"], shown["without"], strict=True)):
        assert torch.equal(a[:, :, 0], clean[:, :, 0]) and torch.equal(a[:, :, 1:], noise[:, :, 1:])
        level = torch.full((1,), step / 4)
        assert torch.allclose(b[:, :, 0], flow.noised(clean, noise, level)[:, :, 0])
        assert torch.equal(b[:, :, 1:], noise[:, :, 1:])


def test_stiv_is_guided_by_text_and_image_at_once() -> None:
    model = drawn(build(dataclasses.replace(stiv_debug(), num_layers=1, post_layers=1)))
    torch.manual_seed(0)
    said = {k: v for k, v in inputs(model.config, (4, 4, 4), (5,), batch=2).items() if k not in ("x", "t")}
    null = {**said, "text": torch.zeros_like(said["text"]), "pooled": torch.zeros_like(said["pooled"])}
    clean, noise, first = random(2, 4, 4, 4, 4), random(2, 4, 4, 4, 4, seed=1), torch.arange(4) < 1
    flow = FlowMatching(sigma_min=0)
    with_image = known_clean(lambda x, t: model(x, t, **said), clean, first)
    without = known_noised(lambda x, t: model(x, t, **null), clean, first, noise, flow)
    t = torch.full((2,), 0.3)
    with torch.no_grad():
        expected = without(noise, t) + 7.5 * (with_image(noise, t) - without(noise, t))
        assert torch.allclose(joint(with_image, without, 7.5)(noise, t), expected, atol=1e-4)
        one = euler(joint(with_image, without, 7.5, renormalise=True), noise, linear_times(3))
        other = euler(
            joint(known_clean(lambda x, t: model(x, t, **said), clean + 1, first), without, 7.5), noise, linear_times(3)
        )
    assert one.isfinite().all() and not torch.allclose(one, other)

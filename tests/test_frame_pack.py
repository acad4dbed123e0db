"""Frame packs: clips of different lengths and sizes in one sequence compute what each computes alone."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor

from generator.dit import sizes
from generator.dit.cogvideox import CogVideoXTransformer
from generator.dit.packing import Layout, apart, first_fit_decreasing, together
from generator.draws import Draws
from generator.systems.base import Batch, Packed
from generator.systems.cogvideox import CogVideoX, CogVideoXSystem
from generator.text import TextConfig
from tests.generator_films import one_thread  # noqa: F401  (used by being here)

SHAPES = [(5, 8, 8), (1, 12, 6), (3, 4, 10), (2, 8, 12), (1, 4, 4)]
TEXTS = ["a red circle moves right", "", "two", "a blue square", "a green square moves up"]


def shaken(model: torch.nn.Module) -> Any:
    """With weights that are nowhere zero, so that every part counts."""
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        parameter.data += 0.05 * torch.randn(parameter.shape, generator=generator)
    return model


def system(**changes: Any) -> CogVideoXSystem:
    torch.manual_seed(0)
    dit = dataclasses.replace(sizes.cogvideox_debug(), **changes)
    return shaken(CogVideoX(dit, TextConfig(length=16, width=32), groups=2).build())


def clips() -> list[Batch]:
    generator = torch.Generator().manual_seed(2)
    world = len(SHAPES)
    return [
        Batch(
            torch.randn(1, 2, 4, *shape, generator=generator),
            [text],
            [slot],
            lambda: torch.empty(0),
            torch.zeros(1, 6),
            world,
        )
        for slot, (shape, text) in enumerate(zip(SHAPES, TEXTS, strict=True))
    ]


def packed(rows: list[list[int]]) -> Packed:
    return Packed(clips(), rows, len(SHAPES))


def tokens() -> list[int]:
    return [t * h * w // 4 + 16 for t, h, w in SHAPES]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"use_rotary_positional_embeddings": False},
        {"in_channels": 8},
    ],
    ids=["rotary", "sinusoids", "image to video"],
)
def test_a_pack_has_the_loss_and_gradient_of_its_clips_alone(changes: dict[str, Any]) -> None:
    model = system(**changes)
    rows = first_fit_decreasing(tokens(), 160)
    assert 1 < len(rows) < len(SHAPES), "several clips stand in one sequence, and there are several"
    whole = model.losses(packed(rows), Draws.of(range(5), "x"), 5)
    whole.mean.backward()
    together_grads = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    alone = [model.losses(clip, Draws.of(clip.slots, "x"), 5) for clip in clips()]
    torch.testing.assert_close(whole.each, torch.cat([one.each for one in alone]))
    assert torch.equal(whole.times, torch.cat([one.times for one in alone]))
    assert whole.tokens == sum(one.tokens for one in alone)
    torch.stack([one.mean for one in alone]).mean().backward()
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(together_grads[name], parameter.grad, rtol=1e-3, atol=1e-5)


def test_a_clip_sees_nothing_of_its_neighbours() -> None:
    model: CogVideoXTransformer = system().transformer.eval()  # type: ignore[assignment]
    generator = torch.Generator().manual_seed(3)
    videos = [torch.randn(4, *shape, generator=generator) for shape in SHAPES]
    text, t = torch.randn(5, 16, 32, generator=generator), torch.arange(5) * 200
    rows = [[0, 1], [4, 2, 3]]
    with torch.no_grad():
        before = model(videos, t, text, rows=rows)
        other = [videos[0] + 1, *videos[1:]]
        after = model(other, t, text, rows=rows)
        assert not torch.allclose(before[0], after[0])
        for k in range(1, 5):
            assert torch.equal(before[k], after[k])
        with_flex = model(videos, t, text, rows=rows, flex=True)
    for one, two in zip(before, with_flex, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-5)


def test_tokens_go_together_and_apart() -> None:
    parts = [torch.arange(n * 2.0).view(n, 2) + 100 * n for n in (3, 1, 4)]
    rows = [[2], [0, 1]]
    sequences = together(rows, parts)
    assert sequences.shape == (2, 4, 2)
    assert all(torch.equal(a, b) for a, b in zip(apart(rows, sequences, [3, 1, 4]), parts, strict=True))
    words = [torch.zeros(2, 2)] * 3
    layout = Layout.of(rows, words, parts)
    assert layout.words.tolist() == [[2, 2, -1, -1], [0, 0, 1, 1]]
    assert layout.video.tolist() == [[2, 2, 2, 2], [0, 0, 0, 1]]
    assert layout.attend[1, 0].int().tolist() == block_diagonal([0, 0, 1, 1, 0, 0, 0, 1]).tolist()


def block_diagonal(clip: list[int]) -> Tensor:
    return torch.tensor([[int(a == b) for a in clip] for b in clip])


def test_models_that_cannot_pack_say_so() -> None:
    model: Any = system(ofs_embed_dim=32).transformer
    with pytest.raises(ValueError, match="take no frame packs"):
        model([torch.zeros(4, 1, 4, 4)], torch.zeros(1), torch.zeros(1, 16, 32), rows=[[0]])
    with pytest.raises(ValueError, match="not whole patches"):
        system().transformer([torch.zeros(4, 1, 5, 4)], torch.zeros(1), torch.zeros(1, 16, 32), rows=[[0]])

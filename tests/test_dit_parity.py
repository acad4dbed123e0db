"""CogVideoX's transformer against diffusers', number for number: outputs and gradients, on sizes that films have.

The weights are drawn large, so that a mistake in text, time or position could not hide; a test shows that too.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import diffusers
import pytest
import torch
from diffusers.models.embeddings import get_3d_rotary_pos_embed
from diffusers.pipelines.cogvideo.pipeline_cogvideox import get_resize_crop_region_for_grid
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from generator.dit.cogvideox import CogVideoXTransformer, DitConfig
from generator.dit.conditions import first_frame, whole_patches
from generator.dit.positions import cropped_grid, integer_grid
from tests.drawn import difference, drawn, moved, random

BASE = DitConfig(
    num_attention_heads=3,
    attention_head_dim=32,
    in_channels=4,
    out_channels=4,
    time_embed_dim=32,
    text_embed_dim=24,
    num_layers=3,
    sample_width=12,
    sample_height=8,
    sample_frames=9,
    max_text_seq_length=6,
)
ROTARY = dataclasses.replace(BASE, use_rotary_positional_embeddings=True)
LEARNED = dataclasses.replace(ROTARY, in_channels=8, use_learned_positional_embeddings=True)
NEWER = dataclasses.replace(ROTARY, patch_size_t=2, patch_bias=False, sample_width=40, sample_height=40)
NEWER_IMAGE = dataclasses.replace(NEWER, in_channels=8, ofs_embed_dim=32)


@dataclass(frozen=True)
class Case:
    """frames, rows, columns of the latents. grid: how the released pipeline places tokens."""

    config: DitConfig
    size: tuple[int, int, int]
    grid: str = "none"

    @property
    def tokens(self) -> tuple[int, int, int]:
        return (self.size[0] // (self.config.patch_size_t or 1), self.size[1] // 2, self.size[2] // 2)

    @property
    def base(self) -> tuple[int, int]:
        return self.config.sample_height // 2, self.config.sample_width // 2


CASES = {
    "sinusoids, odd frames, wide": Case(BASE, (3, 8, 12)),
    "sinusoids, an image, tall": Case(BASE, (1, 14, 6)),
    "sinusoids, another length and size": Case(BASE, (5, 4, 10)),
    "rotary, even frames": Case(ROTARY, (4, 8, 12), "integers"),
    "rotary, wider than trained": Case(ROTARY, (3, 6, 20), "cropped"),
    "rotary, taller than trained": Case(ROTARY, (5, 18, 6), "cropped"),
    "rotary, an image, square": Case(ROTARY, (1, 8, 8), "integers"),
    "rotary and learned, image to video": Case(LEARNED, (3, 8, 12), "integers"),
    "1.5, odd frames made even": Case(NEWER, (4, 10, 6), "integers"),
    "1.5, image to video, ofs": Case(NEWER_IMAGE, (6, 6, 14), "integers"),
}


def pair(case: Case) -> tuple[CogVideoXTransformer, Any]:
    theirs = drawn(diffusers.CogVideoXTransformer3DModel(**dataclasses.asdict(case.config)))
    ours = CogVideoXTransformer(case.config)
    ours.load_state_dict(theirs.state_dict())
    return ours.eval(), theirs


def inputs(case: Case) -> dict[str, Tensor]:
    config = case.config
    latents = random(2, 4, *case.size, seed=1)
    if case.config is NEWER:
        latents, more = whole_patches(random(2, 4, 3, *case.size[1:], seed=1), 2)
        assert more == 1 and torch.equal(latents[:, :, 0], latents[:, :, 1])
    if config.in_channels == 8:
        latents = torch.cat([latents, first_frame(random(2, 4, 1, *case.size[1:], seed=2), case.size[0])], dim=1)
    said = {"x": latents, "t": torch.tensor([7, 953]), "text": random(2, 6, 24, seed=3)}
    return said | ({"ofs": torch.tensor([2.0, 2.0])} if config.ofs_embed_dim else {})


def ask_ours(model: CogVideoXTransformer, case: Case, said: dict[str, Tensor]) -> Tensor:
    grid = cropped_grid(case.tokens, case.base) if case.grid == "cropped" else None
    return model(**said, grid=grid)


def ask_theirs(model: Any, case: Case, said: dict[str, Tensor]) -> Tensor:
    dim, (frames, *space) = case.config.attention_head_dim, case.tokens
    rotary = None
    if case.grid == "cropped":
        crop = get_resize_crop_region_for_grid(tuple(space), case.base[1], case.base[0])
        rotary = get_3d_rotary_pos_embed(dim, crop, tuple(space), frames)
    elif case.grid == "integers":
        rotary = get_3d_rotary_pos_embed(dim, None, tuple(space), frames, grid_type="slice", max_size=tuple(space))
    out = model(said["x"].transpose(1, 2), said["text"], said["t"], ofs=said.get("ofs"), image_rotary_emb=rotary)
    return out.sample.transpose(1, 2)


@pytest.mark.parametrize("name", CASES)
def test_outputs_are_those_of_diffusers(name: str) -> None:
    case = CASES[name]
    (ours, theirs), said = pair(case), inputs(case)
    with torch.no_grad():
        expected = ask_theirs(theirs, case, said)
        assert expected.shape == (2, 4, *said["x"].shape[2:])
        assert difference(ask_ours(ours, case, said), expected) < 1e-5


@pytest.mark.parametrize("name", CASES)
def test_gradients_are_those_of_diffusers(name: str) -> None:
    case = CASES[name]
    (ours, theirs), said = pair(case), inputs(case)
    gradients = []
    for ask, model in ((ask_ours, ours), (ask_theirs, theirs)):
        given = {key: value.clone().requires_grad_(key in ("x", "text")) for key, value in said.items()}
        out = ask(model, case, given)
        (out * random(*out.shape, seed=4)).sum().backward()
        found = {name: p.grad for name, p in model.named_parameters()}
        gradients.append(found | {key: given[key].grad for key in ("x", "text")})
    assert gradients[0].keys() == gradients[1].keys()
    whole = [torch.cat([g[key].flatten() for key in gradients[1]]) for g in gradients]
    assert moved(*whole) < 1e-5
    for key, expected in gradients[1].items():
        if key.endswith("norm_k.bias") and case.grid == "none":
            # The same number on every key changes no softmax; rotation makes it another number on each.
            assert max(float(g[key].abs().max()) for g in gradients) < 1e-4
            continue
        assert float(expected.abs().max()) > 1e-3, key
        assert moved(gradients[0][key], expected) < 3e-5, key


@pytest.mark.parametrize("name", CASES)
def test_text_time_position_and_condition_each_move_the_output(name: str) -> None:
    """By more than a hundredth: a difference of 1e-5 to diffusers means that none of them is wrong."""
    case = CASES[name]
    ours, said = pair(case)[0], inputs(case)
    with torch.no_grad():
        plain = ask_ours(ours, case, said)

        def change(**other: Tensor) -> float:
            return moved(ours(**{**said, **other}), plain)

        assert change(text=said["text"].flip(0)) > 0.01
        assert change(t=said["t"].flip(0)) > 0.01
        grid = integer_grid(*case.tokens)
        plain = ours(**said, grid=grid) if case.config is not LEARNED else plain
        for axis, length in enumerate(case.tokens):
            bent = grid.clone()
            bent[:, axis] = bent[:, axis] * 1.5 + (length == 1)
            if length > 1 or not case.config.use_rotary_positional_embeddings:
                assert change(grid=bent) > 0.01, axis
        if case.config.in_channels == 8:
            without = said["x"].clone()
            without[:, 4:] = 0
            assert change(x=without) > 0.01
        if "ofs" in said:
            assert change(ofs=said["ofs"] + 1) > 0.01


def test_a_step_of_training_takes_as_many_operations_as_diffusers() -> None:
    """What is computed again for the backward pass, to keep less, is no linear map. Nor does it break a graph."""
    case = CASES["rotary, even frames"]
    models, said = pair(case), inputs(case)
    counts = []
    for ask, model in zip((ask_ours, ask_theirs), models, strict=True):
        with FlopCounterMode(display=False) as counter:
            ask(model, case, said).square().mean().backward()
        counts.append(counter.get_total_flops())
    assert counts[0] == counts[1]
    eager = models[0].proj_out.weight.grad.clone()
    models[0].zero_grad()
    torch.compile(models[0], backend="aot_eager", fullgraph=True)(**said).square().mean().backward()
    assert moved(models[0].proj_out.weight.grad, eager) < 1e-5


def test_positions_reach_both_ends_of_the_published_grids() -> None:
    """Interpolation keeps the layout of the trained size, extrapolation the distance of neighbours."""
    assert torch.equal(cropped_grid((2, 30, 45), (30, 45)), integer_grid(2, 30, 45))
    wide = cropped_grid((1, 30, 90), (30, 45)).view(30, 90, 3)
    assert float(wide[0, 1, 2] - wide[0, 0, 2]) == pytest.approx(0.5) and float(wide[-1, -1, 2]) == pytest.approx(44.5)
    assert 7 < float(wide[:, :, 1].min()) < 9 and 21 < float(wide[:, :, 1].max()) < 23, "half as high, in the middle"
    assert integer_grid(1, 30, 90)[-1].tolist() == [0, 29, 89]

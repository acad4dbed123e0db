"""Movie Gen's backbone: what it sees, how positions and time enter, and upgrades that change nothing."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaMLP, LlamaRMSNorm

from generator.dit.layers import SwiGlu
from generator.dit.moviegen import Block, MovieGenTransformer, conditioned, grown
from generator.dit.sizes import build, inputs, moviegen_debug
from tests.drawn import drawn, moved, random

CONFIG = dataclasses.replace(moviegen_debug(), num_layers=2)


@pytest.fixture(scope="module")
def model() -> MovieGenTransformer:
    return drawn(build(CONFIG))


@pytest.fixture(scope="module")
def said() -> dict[str, object]:
    torch.manual_seed(0)
    return inputs(CONFIG, (3, 6, 8), (5, 4, 3), batch=2)


@torch.no_grad()
def ask(model: MovieGenTransformer, said: dict[str, object], **other: object) -> Tensor:
    return model(**{**said, **other})


def test_parts_are_those_of_llama() -> None:
    config = LlamaConfig(hidden_size=64, intermediate_size=176, hidden_act="silu", mlp_bias=False)
    theirs, ours = drawn(LlamaMLP(config)), SwiGlu(64, 176)
    ours.load_state_dict({key.replace("_proj", ""): value for key, value in theirs.state_dict().items()})
    x = random(2, 5, 64)
    assert torch.allclose(ours(x), theirs(x), atol=1e-6)
    norm = drawn(LlamaRMSNorm(64, eps=1e-5))
    mine = Block(CONFIG).norm1
    mine.load_state_dict(norm.state_dict())
    assert torch.allclose(mine(3 * x), norm(3 * x), atol=1e-6)


def test_there_are_no_biases_but_those_of_patches_and_time(model: MovieGenTransformer) -> None:
    biases = {name.split(".")[0] for name, _ in model.named_parameters() if name.endswith("bias")}
    assert biases == {"patch_embed", "time_embedding"}
    plain = build(dataclasses.replace(CONFIG, plain=True))
    assert isinstance(plain.blocks[0].norm1, torch.nn.LayerNorm)
    assert plain.blocks[0].attention.to_q.bias is not None and plain.blocks[0].feed_forward.up.proj.bias is not None


def test_everything_sees_everything(model: MovieGenTransformer, said: dict[str, object]) -> None:
    plain = ask(model, said)
    for frame, seen in ((0, 2), (2, 0)):
        changed = said["x"].clone()
        changed[:, :, frame, 0, 0] += 1
        assert moved(ask(model, said, x=changed)[:, :, seen, 4:, 4:], plain[:, :, seen, 4:, 4:]) > 1e-3


def test_time_and_each_text_move_the_output(model: MovieGenTransformer, said: dict[str, object]) -> None:
    plain = ask(model, said)
    assert moved(ask(model, said, t=torch.tensor([0.4, 0.6])), plain) > 0.01
    for k in range(3):
        texts = list(said["text"])
        texts[k] = random(*texts[k].shape, seed=9)
        assert moved(ask(model, said, text=texts), plain) > 0.01, k


def test_masked_words_are_not_read(model: MovieGenTransformer, said: dict[str, object]) -> None:
    mask = torch.ones(2, 12, dtype=torch.bool)
    assert torch.allclose(ask(model, said, mask=mask), ask(model, said), atol=1e-5)
    mask[:, 3:5] = False
    texts = [said["text"][0].clone(), *said["text"][1:]]
    texts[0][:, 3:] = 100.0
    assert torch.allclose(ask(model, said, text=texts, mask=mask), ask(model, said, mask=mask), atol=1e-5)
    assert moved(ask(model, said, mask=mask), ask(model, said)) > 0.01


def test_positions_are_added_before_every_layer(model: MovieGenTransformer, said: dict[str, object]) -> None:
    x, positions = random(2, 12, 64), random(12, 64, seed=1)
    modulation, text = random(2, 6, 64, seed=2), random(2, 4, 64, seed=3)
    for block in model.blocks:
        with torch.no_grad():
            shifted = block(x + positions, torch.zeros(12, 64), modulation, text)
            assert torch.equal(block(x, positions, modulation, text), shifted)
    seen: list[Tensor] = []
    hooks = [b.register_forward_pre_hook(lambda _, given: seen.append(given[1])) for b in model.blocks]
    ask(model, said)
    [hook.remove() for hook in hooks]
    assert len(seen) == 2 and all(torch.equal(p, model.position_table((3, 3, 4))) for p in seen)


def test_positions_are_a_sum_of_one_table_per_axis_and_all_there_is(
    model: MovieGenTransformer, said: dict[str, object]
) -> None:
    table = model.position_table((3, 3, 4)).view(3, 3, 4, 64)
    time, rows, columns = model.positions
    assert torch.allclose(table[2, 1, 3], time[2] + rows[1] + columns[3])
    turned = ask(model, said, x=said["x"].flip(2)).flip(2)
    assert moved(turned, ask(model, said)) > 0.01
    blank = drawn(build(CONFIG))
    for parameter in blank.positions:
        torch.nn.init.zeros_(parameter)
    assert torch.allclose(ask(blank, said, x=said["x"].flip(2)).flip(2), ask(blank, said), atol=1e-4)


def test_a_fresh_model_says_nothing(said: dict[str, object]) -> None:
    assert not ask(build(CONFIG), said).any()


@pytest.mark.parametrize("how", ["interpolate", "append"])
def test_growing_keeps_the_rest_and_what_was_known(
    how: str, model: MovieGenTransformer, said: dict[str, object]
) -> None:
    """By 2 and 3 in space, as at 256 and 768 pixels."""
    larger = grown(grown(model, (8, 32, 32), how), (8, 96, 96), how)
    assert larger.config.max_size == (8, 96, 96) and not larger.training
    assert torch.equal(larger.positions[0], model.positions[0])
    for old, new in list(zip(model.positions, larger.positions, strict=True))[1:]:
        if how == "append":
            assert torch.equal(new[:16], old)
        else:
            assert torch.allclose(new[0], old[0]) and torch.allclose(new[-1], old[-1])
            middle = new[47:49].mean(dim=0)
            assert torch.allclose(middle, old[7:9].mean(dim=0), atol=1e-5), "halfway stays halfway"
    others = {k: v for k, v in model.state_dict().items() if not k.startswith("positions")}
    assert all(torch.equal(larger.state_dict()[key], value) for key, value in others.items())
    if how == "append":
        assert torch.equal(ask(larger, said), ask(model, said))
    wide = {**said, "x": random(2, 4, 3, 6, 80)}
    assert ask(larger, wide).isfinite().all()
    with pytest.raises(ValueError, match=r"more than the position tables reach .*grown makes them larger"):
        ask(model, wide)


def test_an_image_model_starts_a_table_of_32_frames_that_leaves_images_as_they_are() -> None:
    config = dataclasses.replace(CONFIG, max_size=(1, 16, 16))
    images, said = drawn(build(config)), inputs(config, (1, 6, 8), (5, 4, 3))
    videos = grown(images, (32, 16, 16))
    assert len(videos.positions[0]) == 32 and torch.equal(ask(videos, said), ask(images, said))


def test_tables_do_not_shrink(model: MovieGenTransformer) -> None:
    with pytest.raises(ValueError, match=r"cannot shrink to \(4, 16, 16\)"):
        grown(model, (4, 16, 16))
    with pytest.raises(ValueError, match="'interpolate' or 'append', not by 'repeat'"):
        grown(model, (8, 32, 32), "repeat")


def test_new_channels_are_ignored_until_they_are_trained(model: MovieGenTransformer, said: dict[str, object]) -> None:
    upsampler = conditioned(model, 4)
    low = random(2, 4, 3, 6, 8, seed=5)
    assert torch.equal(ask(upsampler, said, condition=low), ask(model, said))
    upsampler(**{**said, "condition": low}).square().sum().backward()
    new = upsampler.patch_embed.weight.grad[:, 4:]
    assert float(new.abs().sum()) > 0, "and they do learn"
    with torch.no_grad():
        upsampler.patch_embed.weight[:, 4:] += 0.1 * random(*new.shape, seed=6)
    assert moved(ask(upsampler, said, condition=low), ask(model, said)) > 0.01
    with pytest.raises(ValueError, match="the condition must be"):
        ask(upsampler, said)
    with pytest.raises(ValueError, match="the condition must be"):
        ask(model, said, condition=low)


def test_heads_divide_the_width() -> None:
    with pytest.raises(ValueError, match="width 64 must be a multiple of num_heads 5"):
        dataclasses.replace(CONFIG, num_heads=5)

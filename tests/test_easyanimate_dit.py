"""EasyAnimate's transformer: PixArt frame by frame until its motion modules, skips and image guidance are trained."""

from __future__ import annotations

import dataclasses
from typing import Any

import diffusers
import pytest
import torch
from diffusers.models.attention import BasicTransformerBlock
from torch import Tensor, nn

from generator.dit.easyanimate import EasyAnimateConfig, EasyAnimateTransformer, upgraded
from generator.dit.motion import MotionBlock, MotionModule, motion_parameters
from generator.dit.positions import interleaved_sinusoid
from generator.dit.sizes import build, easyanimate_debug, easyanimate_v3, inputs
from tests.drawn import difference, drawn, moved, random

FULL = easyanimate_debug()
IMAGES = dataclasses.replace(FULL, motion_even=(), motion_odd=(), skips=False, clip_width=0, condition_channels=0)


@pytest.fixture(scope="module")
def images() -> EasyAnimateTransformer:
    return drawn(build(IMAGES))


@pytest.fixture(scope="module")
def trained() -> EasyAnimateTransformer:
    return drawn(build(FULL))


@pytest.fixture(scope="module")
def said() -> dict[str, Tensor]:
    torch.manual_seed(0)
    return {**inputs(IMAGES, (3, 6, 8), (5,), batch=2), "t": torch.tensor([12, 870])}


@torch.no_grad()
def ask(model: EasyAnimateTransformer, said: dict[str, Any], **other: Any) -> Tensor:
    return model(**{**said, **other})


def pixart(config: EasyAnimateConfig) -> Any:
    return drawn(
        diffusers.PixArtTransformer2DModel(
            num_attention_heads=config.num_attention_heads,
            attention_head_dim=config.attention_head_dim,
            num_layers=config.num_layers,
            caption_channels=config.caption_width,
            cross_attention_dim=config.width,
            sample_size=config.sample_size,
        )
    )


@pytest.mark.parametrize(
    ("size", "sample", "masked"),
    [((1, 8, 8), 64, False), ((3, 6, 10), 64, True), ((2, 10, 4), 32, True), ((5, 4, 4), 128, True)],
)
def test_frames_are_those_of_diffusers_pixart(size: tuple[int, int, int], sample: int, masked: bool) -> None:
    """At sample_size 128 resolution and aspect ratio are conditions too."""
    config = dataclasses.replace(IMAGES, sample_size=sample, num_attention_heads=3, motion_heads=3, motion_groups=4)
    theirs, ours = pixart(config), EasyAnimateTransformer(config).eval()
    ours.load_state_dict(theirs.state_dict())
    x, t, text = random(2, 4, *size), torch.tensor([12, 870]), random(2, 5, 32, seed=1)
    mask = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 0]]).bool() if masked else None
    sizes: dict[str, Tensor | None] = {"resolution": None, "aspect_ratio": None}
    if sample == 128:
        sizes = {
            "resolution": torch.tensor([[512.0, 768.0], [640.0, 640.0]]),
            "aspect_ratio": torch.tensor([[0.7], [1]]),
        }
    with torch.no_grad():
        frames = [
            theirs(x[:, :, k], text, t, added_cond_kwargs=sizes, encoder_attention_mask=mask).sample
            for k in range(size[0])
        ]
        out = ours(x, t, text, mask, resolution=sizes["resolution"], aspect=sizes["aspect_ratio"])
        assert difference(out, torch.stack(frames, dim=2)) < 1e-5
        for other in ({"t": t.flip(0)}, {"text": text.flip(0)}):
            given = {"t": t, "text": text, "resolution": sizes["resolution"], "aspect": sizes["aspect_ratio"]} | other
            assert moved(ours(x, mask=mask, **given), out) > 0.01
        if sample == 128:
            assert (
                moved(ours(x, t, text, mask, resolution=sizes["resolution"].flip(0), aspect=sizes["aspect_ratio"]), out)
                > 0.01
            )


def test_an_upgraded_model_says_what_the_image_model_says_of_each_frame(
    images: EasyAnimateTransformer, said: dict[str, Tensor]
) -> None:
    """Motion modules, skips, image tokens and condition channels all start at zero."""
    video = upgraded(images, FULL)
    alone = torch.cat([ask(images, said, x=frame) for frame in said["x"].split(1, dim=2)], dim=2)
    assert torch.allclose(ask(video, said), alone, atol=1e-5)
    condition = random(2, 8, 3, 6, 8, seed=4)
    assert torch.equal(ask(video, said, condition=condition), ask(video, said))
    image, off = random(2, 16, seed=5), torch.tensor([False, False])
    assert torch.allclose(ask(video, said, image=image, image_mask=off), ask(video, said), atol=1e-4)
    assert torch.equal(ask(video, said, image=image), ask(video, said, image=image * 2)), "the tokens are zeros"
    video(**said, condition=condition, image=image).square().mean().backward()
    for name in (
        "pos_embed.proj",
        "clip_projection.linear_2",
        "long_connect_fc.0",
        "transformer_blocks.3.attn_temporal.temporal_transformer.proj_out",
    ):
        layer = video.get_submodule(name)
        assert float(layer.weight.grad.abs().sum()) > 0, f"{name} learns"
    with pytest.raises(ValueError, match="everything else must stay as it is"):
        upgraded(images, dataclasses.replace(FULL, num_layers=4))


def test_what_was_trained_counts(trained: EasyAnimateTransformer, said: dict[str, Tensor]) -> None:
    plain = ask(trained, said)
    alone = torch.cat([ask(trained, said, x=frame) for frame in said["x"].split(1, dim=2)], dim=2)
    assert moved(alone, plain) > 0.01, "frames know of each other"
    assert moved(ask(trained, said, x=said["x"].flip(2)).flip(2), plain) > 0.01, "and of their order"
    assert torch.equal(ask(trained, said, condition=torch.zeros(2, 8, 3, 6, 8)), plain)
    assert moved(ask(trained, said, condition=random(2, 8, 3, 6, 8, seed=4)), plain) > 0.01
    image = random(2, 16, seed=5)
    guided = ask(trained, said, image=image)
    assert moved(guided, plain) > 0.01 and moved(ask(trained, said, image=image.flip(0)), guided) > 0.01
    half = ask(trained, said, image=image, image_mask=torch.tensor([True, False]))
    assert torch.allclose(half[0], guided[0], atol=1e-4) and torch.allclose(half[1], plain[1], atol=1e-4)
    mask = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]).bool()
    assert moved(ask(trained, said, mask=mask, image=image), guided) > 0.01


def test_skips_join_the_first_block_to_the_last() -> None:
    assert easyanimate_v3().skip_count == 13 and FULL.skip_count == 2
    model = drawn(build(dataclasses.replace(FULL, num_layers=8)))
    outputs: list[Tensor] = []
    joined: list[int] = []
    entered: list[int] = []
    for number, block in enumerate(model.transformer_blocks):
        block.register_forward_hook(lambda _, __, out: outputs.append(out))
        block.register_forward_pre_hook(lambda _, __, number=number: entered.append(number))
    for line in model.long_connect_fc:
        line.register_forward_pre_hook(
            lambda _, given: joined.extend(
                [k for k, o in enumerate(outputs) if torch.equal(o, given[0])] + [-len(entered)]
            )
        )
    ask(model, inputs(model.config, (2, 4, 4), (5,)))
    # (output of block, minus the number of blocks that had begun)
    assert joined == [2, -5, 1, -6, 0, -7]


@pytest.mark.parametrize("skips", [True, False])
def test_skips_carry_gradients_past_the_blocks_in_the_middle(skips: bool) -> None:
    """Why a deep model with them does not fall apart: its early blocks need not learn through all the others."""
    model = drawn(build(dataclasses.replace(FULL, skips=skips)))
    for block in model.transformer_blocks[2:4]:
        block.register_forward_hook(lambda _, __, out: out.detach())
    model(**inputs(model.config, (2, 4, 4), (5,))).square().mean().backward()
    for block in model.transformer_blocks[:2]:
        gradient = block.ff.net[2].weight.grad
        assert (gradient is not None and bool(gradient.any())) == skips


def test_the_released_pairs_of_28_blocks() -> None:
    config = easyanimate_v3()
    pairs = [(config.skip_count - 1 - k, config.num_layers - config.skip_count + k) for k in range(config.skip_count)]
    assert pairs[0] == (12, 15) and pairs[1] == (11, 16) and pairs[-1] == (0, 27)


@pytest.mark.parametrize("frames", [1, 4])
def test_a_block_of_two_temporal_attentions_is_that_of_animatediff(frames: int) -> None:
    theirs: Any = drawn(
        BasicTransformerBlock(
            32,
            2,
            16,
            activation_fn="geglu",
            attention_bias=False,
            double_self_attention=True,
            positional_embeddings="sinusoidal",
            num_positional_embeddings=8,
        )
    )
    ours = MotionBlock(32, 2, ("temporal", "temporal")).eval()
    names = {"attn1": "attention_blocks.0", "attn2": "attention_blocks.1", "norm1": "norms.0", "norm2": "norms.1"}
    names |= {"norm3": "ff_norm", "ff": "ff"}
    state = {}
    for key, value in theirs.state_dict().items():
        first, rest = key.split(".", 1)
        if first in names:
            state[f"{names[first]}.{rest}"] = value
    ours.load_state_dict(state)
    x = random(2, frames, 6, 32)
    with torch.no_grad():
        expected = theirs(x.transpose(1, 2).flatten(0, 1)).unflatten(0, (2, 6)).transpose(1, 2)
        assert difference(ours(x, interleaved_sinusoid(frames, 32)), expected) < 1e-5


@pytest.mark.parametrize(("kinds", "everywhere"), [(("temporal", "temporal"), False), (("temporal", "global"), True)])
def test_temporal_attention_stays_in_its_place_and_global_attention_does_not(
    kinds: tuple[str, ...], everywhere: bool
) -> None:
    module = drawn(MotionModule(32, 2, kinds, groups=8))
    module.temporal_transformer.norm = nn.Identity()  # it joins the places of a frame, in mean and spread
    x = random(1, 3, 6, 32)
    changed = x.clone()
    changed[:, 1, 2] += 1
    with torch.no_grad():
        difference = (module(changed) - module(x)).abs().amax(dim=-1)[0] > 1e-5
    assert difference[:, 2].all(), "at all times"
    assert bool(difference[:, [0, 1, 3, 4, 5]].any()) == everywhere
    assert difference.all() == everywhere


def test_a_fresh_motion_module_changes_nothing_and_norms_see_one_frame() -> None:
    x = random(2, 3, 6, 32)
    fresh = MotionModule(32, 2, ("temporal", "global"), groups=8)
    assert torch.equal(fresh(x), x)
    seen: list[Tensor] = []
    fresh.temporal_transformer.norm.register_forward_hook(lambda _, given, __: seen.append(given[0]))
    fresh(x)
    assert seen[0].shape == (6, 32, 6), "frames are samples"
    for kinds in ((), ("spatial",)):
        with pytest.raises(ValueError, match="temporal or global"):
            MotionModule(32, 2, kinds)


def test_even_and_odd_blocks_attend_as_released(trained: EasyAnimateTransformer) -> None:
    kinds = [
        [a.kind for a in block.attn_temporal.temporal_transformer.transformer_blocks[0].attention_blocks]
        for block in trained.transformer_blocks
    ]
    assert kinds == [["temporal", "temporal"], ["temporal", "global"]] * 3
    count = sum(p.numel() for p in motion_parameters(trained))
    assert count == 6 * 23_200, "what the second stage of training trains"
    published = build_names(easyanimate_v3())
    assert (
        "transformer_blocks.27.attn_temporal.temporal_transformer.transformer_blocks.0.attention_blocks.1.to_q.weight"
        in published
    )
    assert "long_connect_fc.12.weight" in published and "clip_projection.linear_2.bias" in published


def build_names(config: EasyAnimateConfig) -> set[str]:
    with torch.device("meta"):
        return set(build(config).state_dict())


def test_wrong_conditions_are_named(trained: EasyAnimateTransformer, images: Any, said: dict[str, Tensor]) -> None:
    with pytest.raises(ValueError, match="resolution and aspect must be given exactly"):
        ask(trained, said, resolution=torch.ones(2, 2))
    with pytest.raises(ValueError, match="this model takes no image"):
        ask(images, said, image=torch.ones(2, 16))
    with pytest.raises(ValueError, match="must be a multiple of 4, of motion_heads 5"):
        dataclasses.replace(FULL, motion_heads=5)

"""The choices that papers compare: each does what it says, and the plain model stays what it was."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

pytest.importorskip("torch")
import torch
from torch import Tensor

import generator
from generator import recipes, systems
from generator.dit import sizes
from generator.dit.choices import opened, own
from generator.dit.conditions import random_keep
from generator.dit.stiv_variants import StivVariant, StivVariantConfig
from generator.dit.variants import CogVideoXVariant
from generator.draws import Draws
from generator.objectives import FlowMatching
from generator.systems.base import Batch
from generator.vae import sizes as vaes
from tests.generator_films import one_thread  # noqa: F401  (used by being here)


def model(**changes: object) -> CogVideoXVariant:
    """Every weight drawn, so that what starts at zero has a say."""
    torch.manual_seed(0)
    made = CogVideoXVariant(dataclasses.replace(opened(sizes.cogvideox_debug(), "qk_norm"), **changes))
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return made.eval()


def inputs() -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(1)
    return torch.randn(2, 4, 3, 8, 8), torch.tensor([100, 700]), torch.randn(2, 16, 32)


@torch.no_grad()
def test_a_variant_without_changes_is_the_plain_model(tmp_path: Path) -> None:
    variant, plain = model(), sizes.build(sizes.cogvideox_debug()).eval()
    plain.load_state_dict(variant.state_dict())
    assert torch.equal(variant(*inputs()), plain(*inputs()))
    changed = model(expert_norm=False, full_attention=False)
    generator.export(changed, tmp_path / "model")
    again = generator.load(tmp_path / "model")
    assert again.config == changed.config and torch.equal(again(*inputs()), changed(*inputs()))


@torch.no_grad()
def test_without_expert_norms_text_and_video_are_modulated_alike() -> None:
    for expert in (True, False):
        norm = model(expert_norm=expert).transformer_blocks[0].norm1
        emb, same = torch.randn(1, 32), torch.randn(1, 1, 64)
        both, text_gate, gate = norm(same, same, emb)
        alike = torch.allclose(both[:, 0], both[:, 1]) and torch.allclose(text_gate, gate)
        assert alike != expert
    fewer, more = (sum(p.numel() for p in model(expert_norm=e).parameters()) for e in (False, True))
    assert fewer < more


@torch.no_grad()
def test_attention_in_turns_sees_a_frame_or_a_place_and_the_text() -> None:
    blocks = model(full_attention=False).transformer_blocks
    torch.manual_seed(2)
    x = torch.randn(1, 16 + 3 * 16, 64)
    frame, place = (torch.arange(48) // 16, torch.arange(48) % 16)
    for block, same in ((blocks[0], frame == frame[20]), (blocks[1], place == place[20])):
        before, changed = block.attn1(x, None), x.clone()
        changed[:, 16 + 20] += 1
        moved = (block.attn1(changed, None) - before).abs().sum(-1)[0] > 1e-5
        assert torch.equal(moved[16:], same) and moved[:16].all()
    with pytest.raises(ValueError, match=r"2D \+ 1D takes frames of 16 tokens"):
        blocks[0].attn1(x[:, :-1], None)
    latents, t, text = inputs()
    with pytest.raises(ValueError, match="takes texts of 16 tokens, and no frame packs"):
        model(full_attention=False)(latents, t, text[:, :8])


@torch.no_grad()
def test_text_with_weights_of_its_own_meets_video_in_attention_alone() -> None:
    plain, mmdit = model(), model(separate_weights=True)
    block, video = mmdit.transformer_blocks[0], torch.randn(1, 48, 64)
    for made in (mmdit, plain):
        own = made.transformer_blocks[0].attn1.to_q
        said = [own(torch.cat([torch.ones(1, 16, 64), video], dim=1))[:, :16], own(torch.ones(1, 64, 64))[:, 16:32]]
        assert torch.allclose(*said, atol=1e-5) == (made is plain), "the same token as text and as video"
    before = mmdit(*inputs())
    for weight in (block.attn1.to_k.text.weight, block.ff.net[2].text.weight):
        weight.zero_()
        after = mmdit(*inputs())
        assert not torch.allclose(before, after), "what the text becomes reaches the video"
        before = after
    halves = model(separate_weights=True, num_layers=2)
    assert sum(p.numel() for p in halves.parameters()) < sum(p.numel() for p in plain.parameters())


@torch.no_grad()
def test_without_their_norm_large_queries_are_large() -> None:
    for normed in (True, False):
        attention, x = model(qk_norm=normed).transformer_blocks[0].attn1, torch.randn(1, 20, 64)
        before = attention(x, None)
        attention.to_q.weight.mul_(100)
        attention.to_q.bias.mul_(100)
        assert torch.allclose(before, attention(x, None), atol=1e-2) == normed


def stiv(**changes: object) -> StivVariant:
    torch.manual_seed(0)
    made = StivVariant(dataclasses.replace(opened(sizes.stiv_debug(), "micro"), **changes))
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return made.eval()


def stiv_inputs() -> dict[str, Tensor]:
    torch.manual_seed(1)
    return sizes.inputs(sizes.stiv_debug(), (8, 4, 4), (16,), batch=2)


@torch.no_grad()
def test_a_stiv_variant_without_changes_is_the_plain_model_and_each_change_is_one(tmp_path: Path) -> None:
    plain, variant, given = sizes.build(sizes.stiv_debug()).eval(), stiv(), stiv_inputs()
    plain.load_state_dict(variant.state_dict())
    keep = random_keep(2, 4, 0.5)
    before, masked = variant(**given), variant(**given, keep=keep)
    assert torch.equal(before, plain(**given)) and torch.equal(masked, plain(**given, keep=keep))
    for name in own(StivVariantConfig):
        changed = stiv(**{name: not getattr(StivVariantConfig(), name)})
        weights = {key: tensor for key, tensor in variant.state_dict().items() if key in changed.state_dict()}
        same = {key: tensor for key, tensor in weights.items() if tensor.shape == changed.state_dict()[key].shape}
        changed.load_state_dict(same, strict=False)
        assert not torch.allclose(changed(**given), before, atol=1e-4), name
        assert changed(**given, keep=keep).shape == before.shape, name
    generator.export(changed, tmp_path / "model")
    assert torch.equal(generator.load(tmp_path / "model")(**given), changed(**given))


@torch.no_grad()
def test_choices_of_stiv_do_what_their_names_say() -> None:
    given = stiv_inputs()
    deaf, moved = stiv(micro=False), given | {"micro": given["micro"] + 9}
    assert torch.equal(deaf(**given), deaf(**moved)) and not torch.equal(stiv()(**given), stiv()(**moved))
    later = given | {"x": given["x"].clone()}
    later["x"][:, :, -2:] += 1  # the last of four moments
    for causal in (True, False):
        model = stiv(causal=causal)
        assert torch.allclose(model(**given)[:, :, :6], model(**later)[:, :, :6], atol=1e-5) == causal
    blocks = [module for module in stiv(shared_norm=False).modules() if type(module).__name__ == "VariantBlock"]
    assert [block.own.start for block in blocks] == [0, 6, 12, 18, 24, 30]
    still = stiv(rotary=False)
    attention = still.blocks[0].spatial
    assert not torch.equal(still(**given), still(**given | {"x": given["x"].flip(-1)}).flip(-1)), "places are told"
    with_norm, without = stiv(sandwich=True).blocks[0], stiv(sandwich=False).blocks[0]
    x = 100 * torch.randn(2, 5, 48)
    assert with_norm._after(x).std() < 1.1 and torch.equal(without._after(x), x)
    assert attention.norm_q is not None and stiv(qk_norm=False).blocks[0].spatial.norm_q is None


def test_guidance_keeps_the_norm_where_it_is_told_to() -> None:
    torch.manual_seed(0)
    config = recipes.tiny_stiv().system
    sampled = []
    for renormalise in (False, True):
        system = (
            dataclasses.replace(config, renormalise=renormalise, dit=dataclasses.replace(config.dit)).build().eval()
        )
        torch.manual_seed(1)
        for parameter in system.parameters():
            torch.nn.init.normal_(parameter, std=0.1)
        torch.manual_seed(2)
        sampled.append(system.sample(torch.randn(1, 4, 8, 4, 4), ["a cat"], torch.ones(1, 6), 2, 7.5))
    assert sampled[1].norm() < sampled[0].norm(), "what guidance would make too large"


def test_a_cogvideox_of_flows_learns_velocities_and_samples(tmp_path: Path) -> None:
    config = dataclasses.replace(recipes.tiny_cogvideox().system, objective="flow")
    torch.manual_seed(0)
    system = config.build()
    assert isinstance(system.objective, FlowMatching)
    draws = Draws.of(list(range(16)), "test")
    times = system.times(draws, list(range(16)), 16)
    assert times.dtype.is_floating_point and float(times.min()) > 0 and float(times.max()) < 1
    assert ((times * 8).long() == torch.arange(16) // 2).all(), "an eighth of the times for each pair of samples"
    latents = torch.randn(16, 2, 4, 5, 8, 8)
    batch = Batch(latents, ["a"] * 16, list(range(16)), lambda: latents, torch.ones(16, 6))
    with torch.no_grad():
        losses = system.losses(batch, Draws.of(list(range(16)), "test"), 16)
    # It knows nothing yet, so the loss is at least the variance of the target: of latents, 2.6 here, and of noise, 1.
    assert losses.each.shape == (16,) and 3.4 < float(losses.mean) < 6
    systems.save(system, tmp_path)
    again = systems.load(tmp_path)
    assert isinstance(again.objective, FlowMatching) and not (tmp_path / "scheduler").exists()
    sampled = again.sample(torch.randn(1, 4, 5, 8, 8), ["a"], torch.ones(1, 6), 3, 2.0)
    assert sampled.shape == (1, 4, 5, 8, 8) and bool(sampled.isfinite().all())


def test_a_tae_of_3d_convolutions_has_the_shapes_of_the_other_and_more_weights() -> None:
    plain = vaes.moviegen_tae_debug()
    torch.manual_seed(0)
    flat, full = vaes.build(plain), vaes.build(dataclasses.replace(plain, full_3d=True))
    video = torch.rand(1, 3, 16, 16, 16) * 2 - 1
    with torch.no_grad():
        mean, logvar = full.encode_moments(video)
        assert mean.shape == logvar.shape == flat.encode_moments(video)[0].shape
        assert full.decode(mean).shape == flat.decode(mean).shape
    weights = [sum(p.numel() for p in vae.parameters()) for vae in (flat, full)]
    assert weights[0] < weights[1]

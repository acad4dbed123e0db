"""STIV's transformer: factorised attention, norms without weights, one modulation, rotation and masked tokens."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor, nn

from generator.dit.conditions import kept_places, masked_mean, random_keep, replaced
from generator.dit.positions import interpolated_grid
from generator.dit.sizes import build, inputs, stiv_debug
from generator.dit.stiv import MICRO, StivTransformer, inflated
from tests.drawn import drawn, moved, random

CONFIG = dataclasses.replace(stiv_debug(), num_layers=2, post_layers=1)
SIZE = (6, 8, 4)


@pytest.fixture(scope="module")
def model() -> StivTransformer:
    return drawn(build(CONFIG))


@pytest.fixture(scope="module")
def said() -> dict[str, Tensor]:
    torch.manual_seed(0)
    return inputs(CONFIG, SIZE, (5,), batch=2)


@torch.no_grad()
def ask(model: StivTransformer, said: dict[str, Tensor], **other: object) -> Tensor:
    return model(**{**said, **other})


def test_every_part_of_the_singleton_moves_the_output(model: StivTransformer, said: dict[str, Tensor]) -> None:
    plain = ask(model, said)
    assert moved(ask(model, said, t=said["t"] + 0.3), plain) > 0.01
    assert moved(ask(model, said, pooled=random(2, 32, seed=3)), plain) > 0.01
    assert moved(ask(model, said, text=random(2, 5, 32, seed=3)), plain) > 0.01
    for k, name in enumerate(MICRO):
        micro = said["micro"].clone()
        micro[:, k] += 3
        assert moved(ask(model, said, micro=micro), plain) > 0.01, name


def test_parts_of_the_singleton_are_normalised(model: StivTransformer, said: dict[str, Tensor]) -> None:
    loud = drawn(build(CONFIG))
    with torch.no_grad():
        loud.singleton.pooled.weight *= 100
        loud.singleton.pooled.bias *= 100
    assert torch.allclose(ask(loud, said), ask(model, said), atol=1e-3)


@pytest.mark.parametrize("which", ["spatial", "temporal", "cross"])
def test_sublayers_stand_between_norms_and_so_do_queries_and_keys(
    which: str, model: StivTransformer, said: dict[str, Tensor]
) -> None:
    loud = drawn(build(CONFIG))
    with torch.no_grad():
        for block in [*loud.blocks, *loud.post_blocks]:
            layer = getattr(block, which)
            for part in (layer.to_q, layer.to_k, layer.to_out[0]):
                part.weight.mul_(10)
                part.bias.mul_(10)
    assert moved(ask(loud, said), ask(model, said)) < 1e-4
    assert not any(isinstance(m, nn.LayerNorm | nn.GroupNorm) for m in model.modules()), "no norm has weights"


def test_one_module_modulates_all_layers(model: StivTransformer) -> None:
    assert [name for name, _ in model.named_modules() if "modulation" in name] == ["modulation", "modulation_out"]
    assert model.modulation.out_features == 6 * CONFIG.width


def test_modulation_as_printed_and_as_in_pixart(model: StivTransformer, said: dict[str, Tensor]) -> None:
    printed = build(dataclasses.replace(CONFIG, plus_one=False))
    printed.load_state_dict(model.state_dict())
    with torch.no_grad():
        scale = printed.modulation.bias.view(6, -1)
        scale[[0, 3]] += 1  # scale of attention and of the feed-forward
    assert torch.allclose(ask(printed.eval(), said), ask(model, said), atol=1e-4)


def test_attention_over_time_is_what_joins_frames(said: dict[str, Tensor]) -> None:
    changed = said["x"].clone()
    changed[:, :, 4:] += 1
    for temporal, joined in ((False, False), (True, True)):
        model = drawn(build(dataclasses.replace(CONFIG, temporal=temporal)))
        plain, other = ask(model, said)[:, :, :4], ask(model, said, x=changed)[:, :, :4]
        assert (moved(other, plain) > 1e-3) == joined
        if not joined:
            assert torch.allclose(other, plain, atol=1e-5)


def test_attention_over_time_stays_in_its_place() -> None:
    model = drawn(build(dataclasses.replace(CONFIG, num_layers=1, post_layers=0)))
    block = model.blocks[0]
    x = random(1, 3, 4, 48)
    seen = []
    block.temporal.register_forward_hook(lambda _, given, out: seen.append((given[0], out)))
    six = [random(1, 1, 1, 48, seed=k) for k in range(6)]
    space, time = model._positions((3, 2, 2), None, x.device)
    from generator.dit.positions import axial_angles, rotation

    with torch.no_grad():
        block(
            x, six, random(1, 5, 48), None, rotation(axial_angles(space, (8, 8))), rotation(axial_angles(time, (16,)))
        )
    assert seen[0][0].shape == (4, 3, 48), "places are samples, frames are the sequence"


def test_rotation_knows_rows_columns_and_frames(model: StivTransformer, said: dict[str, Tensor]) -> None:
    plain = ask(model, said)
    for axis in (2, 3, 4):
        flipped = ask(model, said, x=said["x"].flip(axis)).flip(axis)
        assert moved(flipped, plain) > 0.01, axis


def test_positions_are_interpolated_in_space_and_time(model: StivTransformer, said: dict[str, Tensor]) -> None:
    assert interpolated_grid((4,), (2,)).flatten().tolist() == [0, 0.5, 1.0, 1.5]
    assert torch.equal(ask(model, said, trained_size=(3, 4, 2)), ask(model, said)), "at the size of training"
    for trained in ((2, 4, 2), (3, 2, 2), (3, 4, 1)):
        assert moved(ask(model, said, trained_size=trained), ask(model, said)) > 1e-3
    known = build(dataclasses.replace(CONFIG, trained_size=(2, 2, 2)))
    known.load_state_dict(model.state_dict())
    assert torch.equal(ask(known.eval(), said), ask(model, said, trained_size=(2, 2, 2)))


def test_half_of_the_places_skip_the_main_blocks(model: StivTransformer, said: dict[str, Tensor]) -> None:
    keep = random_keep(2, 8, 0.5, torch.Generator().manual_seed(0))
    sizes = []
    blocks = [*model.blocks, *model.post_blocks]
    hooks = [b.register_forward_pre_hook(lambda _, given: sizes.append(given[0].shape[2])) for b in blocks]
    masked = ask(model, said, keep=keep)
    [hook.remove() for hook in hooks]
    assert sizes == [4, 4, 8] and masked.shape == said["x"].shape
    assert moved(masked, ask(model, said)) > 0.01
    everything = torch.arange(8).expand(2, -1)
    assert torch.equal(ask(model, said, keep=everything), ask(model, said))


def test_dropped_places_are_never_looked_at(model: StivTransformer, said: dict[str, Tensor]) -> None:
    keep = torch.tensor([[0, 3, 5], [1, 2, 7]])
    hidden = ~kept_places(keep, 4, 2, 2)
    assert int(hidden[0].sum()) == 5 * 4
    noisy = torch.where(hidden, said["x"] + 5, said["x"])
    assert torch.equal(ask(model, said, keep=keep, x=noisy), ask(model, said, keep=keep))


def test_kept_tokens_keep_their_positions(model: StivTransformer, said: dict[str, Tensor]) -> None:
    keep = torch.tensor([[0, 3, 5], [1, 2, 7]])
    turned = ask(model, said, keep=keep[:, [2, 0, 1]])
    assert torch.allclose(turned, ask(model, said, keep=keep), atol=1e-5), "their order tells nothing"


def test_kept_tokens_are_half_and_differ_by_sample() -> None:
    keep = random_keep(200, 16, 0.5, torch.Generator().manual_seed(0))
    assert keep.shape == (200, 8) and bool((keep.diff(dim=1) > 0).all())
    counts = torch.bincount(keep.flatten(), minlength=16)
    assert len(counts) == 16 and int(counts.min()) > 70 and int(counts.max()) < 130
    assert random_keep(1, 5, 0.5).shape == (1, 2), "rounded down"
    for share in (1.0, 0.99):
        with pytest.raises(ValueError, match="leaves none"):
            random_keep(1, 16, share)


def test_known_frames_are_put_in_and_not_learnt() -> None:
    noisy, clean = random(2, 4, 6, 2, 2), random(2, 4, 6, 2, 2, seed=1)
    first = torch.arange(6) < 1
    shown = replaced(noisy, clean, first)
    assert torch.equal(shown[:, :, 0], clean[:, :, 0]) and torch.equal(shown[:, :, 1:], noisy[:, :, 1:])
    each = torch.stack([torch.arange(6) < 2, torch.arange(6) % 5 == 0])
    shown = replaced(noisy, clean, each)
    assert torch.equal(shown[1, :, [0, 5]], clean[1, :, [0, 5]]) and torch.equal(shown[1, :, 1], noisy[1, :, 1])
    loss = random(2, 4, 6, 2, 2, seed=2).abs()
    assert float(masked_mean(loss, ~first)) == pytest.approx(float(loss[:, :, 1:].mean()))
    by_sample = torch.cat([loss[0][:, ~each[0]].flatten(), loss[1][:, ~each[1]].flatten()]).mean()
    assert float(masked_mean(loss, ~each)) == pytest.approx(float(by_sample))
    loss[:, :, 0] = torch.inf
    assert masked_mean(torch.where(first[:, None, None], 0, loss), ~first).isfinite()
    with pytest.raises(ValueError, match="every frame is given"):
        masked_mean(loss, torch.zeros(6, dtype=torch.bool))


def test_a_video_model_starts_from_an_image_model() -> None:
    config = dataclasses.replace(CONFIG, patch=(1, 2, 2), temporal=False)
    images = drawn(build(config))
    videos = inflated(images, CONFIG)
    still = random(2, 4, 1, 8, 4)
    with torch.no_grad():
        tokens = videos.patch_embed(still.expand(-1, -1, 6, -1, -1))
        assert torch.allclose(tokens, images.patch_embed(still).expand(-1, -1, 3, -1, -1), atol=1e-5)
    same = {k: v for k, v in images.state_dict().items() if not k.startswith(("patch_embed", "proj_out"))}
    assert same and all(torch.equal(videos.state_dict()[key], value) for key, value in same.items())
    # Without its attention over time the video model says of a still film what the image model says of the image.
    plain = build(dataclasses.replace(CONFIG, temporal=False))
    plain.load_state_dict({k: v for k, v in videos.state_dict().items() if ".temporal." not in k})
    torch.manual_seed(0)
    said = inputs(config, (1, 8, 4), (5,), batch=2)
    film = ask(plain.eval(), {**said, "x": still.expand(-1, -1, 6, -1, -1)})
    image = ask(images, {**said, "x": still})
    assert torch.allclose(film, image.expand(-1, -1, 6, -1, -1), atol=1e-4)
    with pytest.raises(ValueError, match="may differ in patch, trained_size and temporal only"):
        inflated(images, dataclasses.replace(CONFIG, num_layers=3))
    with pytest.raises(ValueError, match=r"cannot become one of patch"):
        inflated(images, dataclasses.replace(CONFIG, patch=(2, 4, 4)))


def test_a_fresh_model_says_nothing_and_gates_are_closed(said: dict[str, Tensor]) -> None:
    assert not ask(build(CONFIG), said).any()


def test_heads_are_split_over_rows_and_columns() -> None:
    with pytest.raises(ValueError, match=r"must be a multiple of 4"):
        dataclasses.replace(CONFIG, num_heads=8)

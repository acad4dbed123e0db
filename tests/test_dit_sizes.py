"""Published and debug sizes: parameters, tokens, operations; and every size goes out to a folder and comes back."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import diffusers
import pytest
import torch

import generator
from generator.dit import sizes
from generator.dit.costs import cost, cost_of
from generator.dit.sizes import SIZES, Size, build, inputs

# As derived from the papers and released configurations: exact for ours and debug sizes, in billions for the large.
EXACT = {
    "cogvideox_debug": 313_424,
    "moviegen_debug": 323_136,
    "moviegen_upsampler_debug": 148_560,
    "stiv_debug": 409_904,
    "easyanimate_debug": 333_824,
    "pixart_alpha": 610_856_096,  # "0.6B"
    "easyanimate_v3": 1_538_364_704,
}
BILLIONS = {
    "cogvideox_2b": 1.694,
    "cogvideox_5b": 5.570,
    "cogvideox_5b_i2v": 5.570,
    "cogvideox_1_5_5b": 5.571,
    "cogvideox_1_5_5b_i2v": 5.572,
    "moviegen_30b": 29.304,
    "moviegen_5b": 4.922,
    "moviegen_upsampler": 7.156,
}
# 480 x 720 x 49, 768 x 768 x 256 ("73K"), 512 x 512 x 144 (the "token length" 9216 counts space at half of this).
TOKENS = {"cogvideox_2b": 17_550, "moviegen_30b": 73_728, "easyanimate_v3": 4 * 9216, "stiv_m": 10_240}
BY_NAME = {size.name: size for size in SIZES}
DEBUG = [size for size in SIZES if size.name.endswith("debug")]


def parameters(config: object) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in build(config).parameters())


@pytest.mark.parametrize("name", EXACT)
def test_sizes_to_the_last_weight(name: str) -> None:
    assert parameters(getattr(sizes, name)()) == EXACT[name]


@pytest.mark.parametrize("name", BILLIONS)
def test_published_sizes(name: str) -> None:
    assert parameters(getattr(sizes, name)()) / 1e9 == pytest.approx(BILLIONS[name], abs=6e-4)


def test_stiv_counts_as_its_paper_does() -> None:
    """ "600M" and "1.5B" are the blocks of text-to-image, "8.7B" is with attention over time."""
    for config, temporal, billions in (
        (sizes.stiv_xl(), False, 0.6),
        (sizes.stiv_xxl(), False, 1.5),
        (sizes.stiv_m(), True, 8.7),
    ):
        blocks = dataclasses.replace(config, post_layers=0, temporal=temporal)
        assert parameters(blocks) / 1e9 == pytest.approx(billions, rel=0.05)
        assert config.head_dim == 64


def test_the_same_weights_as_diffusers() -> None:
    with torch.device("meta"):
        theirs = {
            "cogvideox_2b": diffusers.CogVideoXTransformer3DModel(**dataclasses.asdict(sizes.cogvideox_2b())),
            "cogvideox_1_5_5b_i2v": diffusers.CogVideoXTransformer3DModel(
                **dataclasses.asdict(sizes.cogvideox_1_5_5b_i2v())
            ),
            "pixart_alpha": diffusers.PixArtTransformer2DModel(caption_channels=4096, sample_size=64),
        }
        for name, model in theirs.items():
            ours = build(getattr(sizes, name)()).state_dict()
            assert {key: value.shape for key, value in ours.items()} == {
                key: value.shape for key, value in model.state_dict().items()
            }


@pytest.mark.parametrize("name", TOKENS)
def test_tokens_of_a_published_film(name: str) -> None:
    size = BY_NAME[name]
    config = size.config()
    small = build_small(config)
    with torch.device("meta"):
        model = build(small)
        seen = []
        patch = model.pos_embed.proj if hasattr(model, "pos_embed") else model.patch_embed
        patch.register_forward_hook(lambda _, __, out: seen.append(out))
        model(**inputs(small, size.latents, size.text))
    count = seen[0].shape[0] * seen[0][0, 0].numel() if seen[0].ndim > 3 else seen[0].shape[1]
    assert count == TOKENS[name] == cost(small, size.latents, size.text).video_tokens


def build_small(config: object) -> object:
    """One layer is enough to count tokens; where a paper counts pixels' frames, 16 of them are 4 latents."""
    return dataclasses.replace(config, num_layers=1)


def test_easyanimate_counts_tokens_of_16_pixels() -> None:
    """ "9216" is 144 frames of 256 x 256, "3328" 49 frames of it in the versions whose first frame stands alone."""
    config = dataclasses.replace(sizes.easyanimate_debug(), num_layers=1)
    assert cost(config, (144 // 4, 256 // 8, 256 // 8), (4,)).video_tokens == 9216
    assert cost(config, ((49 - 1) // 4 + 1, 256 // 8, 256 // 8), (4,)).video_tokens == 3328


@pytest.mark.parametrize("layers", [1, 3])
def test_operations_count_attention_whole(layers: int) -> None:
    """2 per weight and token of the linear maps, 4 N^2 width per layer of attention: 12 h s with the backward pass."""
    config = dataclasses.replace(sizes.cogvideox_debug(), num_layers=layers)
    width, text, video = config.width, 16, 5 * 4 * 4
    tokens = text + video
    block = 2 * tokens * 12 * width**2 + 4 * tokens**2 * width + 2 * config.time_embed_dim * 12 * width
    ends = 2 * text * 32 * width + 2 * video * (4 * 4 * width + width * 16)
    time = 2 * (width * 32 + 32 * 32 + 32 * 2 * width)
    found = cost(config, (5, 8, 8), (text,))
    assert found.forward == layers * block + ends + time
    assert found.training == 3 * found.forward


@pytest.mark.parametrize("size", DEBUG, ids=lambda size: size.name)
def test_a_debug_size_runs_learns_and_comes_back_from_its_folder(size: Size, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, said = build(size.config()), inputs(size.config(), size.latents, size.text, batch=2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    out = model(**said)
    assert out.shape[2:] == size.latents and out.isfinite().all()
    out.square().mean().backward()
    still = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum()]
    assert still in ([], ["mask_token"]), "all weights learn; a mask token only where tokens are masked"

    folder = generator.export(model.eval(), tmp_path / "model")
    assert sorted(path.name for path in folder.iterdir()) == [
        "config.json",
        "diffusion_pytorch_model.safetensors",
    ]
    again = generator.load(folder)
    assert again.config == model.config and not again.training
    with torch.no_grad():
        assert torch.equal(again(**said), model(**said))


@pytest.mark.parametrize("size", DEBUG, ids=lambda size: size.name)
def test_half_precision_and_one_graph(size: Size) -> None:
    """Weights of bfloat16, mixed precision, and a compiler that accepts no break in the graph."""
    torch.manual_seed(0)
    model, said = build(size.config()), inputs(size.config(), size.latents, size.text)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
        whole = model(**said)
        with torch.autocast("cpu", torch.bfloat16):
            mixed = model(**said)
        assert torch.allclose(mixed.float(), whole, atol=0.05 * float(whole.abs().max()))
        graph = torch.compile(model, backend="eager", fullgraph=True)
        assert torch.allclose(graph(**said), whole, atol=1e-5)
        half = {key: halved(value) if key != "t" else value for key, value in said.items()}
        assert model.bfloat16()(**half).dtype == torch.bfloat16


def halved(value: object) -> object:
    return [one.bfloat16() for one in value] if isinstance(value, list) else value.bfloat16()


def test_costs_of_a_large_model_need_no_memory() -> None:
    assert cost_of(BY_NAME["cogvideox_2b"]).forward / 1e12 == pytest.approx(120.0, abs=0.1)


@pytest.mark.parametrize(
    ("name", "latents", "nearest"),
    [
        ("cogvideox_debug", (5, 7, 8), r"\(5, 8, 8\)"),
        ("moviegen_debug", (4, 8, 9), r"\(4, 8, 8\)"),
        ("stiv_debug", (7, 5, 4), r"\(8, 4, 4\)"),
        ("easyanimate_debug", (3, 8, 1), r"\(3, 8, 2\)"),
    ],
)
def test_a_size_that_does_not_fit_is_answered_by_the_nearest(
    name: str, latents: tuple[int, int, int], nearest: str
) -> None:
    size = BY_NAME[name]
    with pytest.raises(ValueError, match=rf"not whole patches of .*the nearest size is {nearest}"):
        build(size.config())(**inputs(size.config(), latents, size.text))


@pytest.mark.parametrize("size", DEBUG, ids=lambda size: size.name)
def test_other_channels_and_texts_are_refused(size: Size) -> None:
    model, said = build(size.config()), inputs(size.config(), size.latents, size.text)
    with pytest.raises(ValueError, match=r"this model takes latents \(B, 4, F, H, W\) and"):
        model(**{**said, "x": said["x"][:, :3]})
    text = said["text"]
    short = [each[..., :-1] for each in text] if isinstance(text, list) else text[..., :-1]
    with pytest.raises(ValueError, match=r"this model takes .* text"):
        model(**{**said, "text": short})
    if "condition" in said:
        with pytest.raises(ValueError, match=r"the condition must be \(B, 4, F, H, W\) as large as the latents"):
            model(**{**said, "condition": said["condition"][:, :3]})

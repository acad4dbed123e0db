"""What test_cogvideox.py leaves out: positions of the published sizes, the start of training, damaged folders."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import generator
from generator.dit.cogvideox import CogVideoXTransformer, DitConfig, integer_grid, rotary_angles, sincos_table
from generator.interop import weights_fingerprint
from generator.text import HashedWordEncoder, TextConfig, words
from generator.vae.cogvideox import CogVideoXVae, VaeConfig
from tests.generator_films import one_thread  # noqa: F401  (used by being here)

VAE = VaeConfig(block_out_channels=(4, 4, 8, 8), layers_per_block=1, latent_channels=2, norm_num_groups=2)
DIT = DitConfig(
    num_attention_heads=2,
    attention_head_dim=16,
    in_channels=2,
    out_channels=2,
    time_embed_dim=16,
    text_embed_dim=8,
    num_layers=2,
    sample_width=6,
    sample_height=4,
    sample_frames=9,
    max_text_seq_length=5,
    use_rotary_positional_embeddings=True,
)
WEIGHTS = "diffusion_pytorch_model.safetensors"


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def build(model_class: Callable[[Any], Any], config: Any) -> Any:
    torch.manual_seed(0)
    return model_class(config).eval()


def shaken(model: Any) -> Any:
    """Every weight moved, so that none is a zero that hides a mistake."""
    with torch.no_grad():
        for number, parameter in enumerate(model.parameters()):
            parameter.add_(0.1 * random(*parameter.shape, seed=number))
    return model


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return generator.export(HashedWordEncoder(TextConfig(buckets=8)), tmp_path / "model")


@pytest.mark.parametrize(
    ("size", "options"),
    [
        ((13, 30, 45), {"crops_coords": ((0, 0), (30, 45))}),
        ((11, 48, 85), {"crops_coords": None, "grid_type": "slice", "max_size": (150, 150)}),
    ],
    ids=["1.0 at 480 x 720", "1.5 at 768 x 1360"],
)
def test_rotary_angles_are_those_of_the_published_pipelines(size: tuple[int, int, int], options: Any) -> None:
    embeddings = pytest.importorskip("diffusers.models.embeddings")
    angles = rotary_angles(integer_grid(*size), 64)
    assert len(angles) == size[0] * size[1] * size[2] and angles.shape[1] == 32
    cos, sin = embeddings.get_3d_rotary_pos_embed(64, grid_size=size[1:], temporal_size=size[0], **options)
    assert torch.allclose(angles.cos(), cos[:, ::2], atol=1e-4) and torch.allclose(angles.sin(), sin[:, ::2], atol=1e-4)


def test_the_published_resolution_is_17550_tokens() -> None:
    assert len(integer_grid(13, 30, 45)) == 17_550
    assert integer_grid(2, 2, 2).tolist()[:3] == [[0, 0, 0], [0, 0, 1], [0, 1, 0]], "columns turn fastest"


def test_sinusoids_are_those_of_the_published_2b() -> None:
    embeddings = pytest.importorskip("diffusers.models.embeddings")
    theirs = embeddings.get_3d_sincos_pos_embed(1920, (45, 30), 3, 1.875, 1.0, output_type="pt").flatten(0, 1)
    ours = sincos_table(integer_grid(3, 30, 45) / torch.tensor([1.0, 1.875, 1.875]), 1920)
    assert torch.allclose(ours.double(), theirs, atol=1e-6)


def test_rotary_positions_are_relative_and_a_grid_replaces_them() -> None:
    model = shaken(build(CogVideoXTransformer, DIT))
    x, t, text, grid = random(1, 2, 3, 4, 6), torch.tensor([500]), random(1, 5, 8), integer_grid(3, 2, 3)
    with torch.no_grad():
        plain = model(x, t, text)
        assert torch.equal(model(x, t, text, grid=grid), plain)
        assert not torch.allclose(model(x, t, text, grid=grid / 2), plain, atol=1e-3)
        alone = text[:, :0]  # text tokens have no place, so only among themselves are video tokens free to move
        moved = model(x, t, alone, grid=grid + torch.tensor([5.0, 3.0, 7.0]))
        assert torch.allclose(moved, model(x, t, alone), atol=1e-4)
        assert not torch.allclose(moved, plain, atol=1e-3)


def test_training_starts_from_blocks_that_do_nothing() -> None:
    """Zero modulation: what a fresh model says depends on neither text nor time."""
    model = build(CogVideoXTransformer, DIT)
    x = random(2, 2, 3, 4, 6)
    ask = [(torch.tensor([3, 900]), random(2, 5, 8, seed=1)), (torch.tensor([700, 0]), random(2, 5, 8, seed=2))]
    with torch.no_grad():
        assert torch.equal(*(model(x, t, text) for t, text in ask))
        shaken(model)
        assert not torch.allclose(*(model(x, t, text) for t, text in ask), atol=1e-3)


def test_each_video_of_a_batch_is_on_its_own() -> None:
    model, vae = shaken(build(CogVideoXTransformer, DIT)), shaken(build(CogVideoXVae, VAE))
    x, t, text, video = random(2, 2, 3, 4, 6), torch.tensor([3, 900]), random(2, 5, 8), random(2, 3, 5, 16, 16)
    with torch.no_grad():
        assert torch.allclose(model(x, t, text)[1:], model(x[1:], t[1:], text[1:]), atol=1e-5)
        assert torch.allclose(vae.encode_moments(video)[0][1:], vae.encode_moments(video[1:])[0], atol=1e-5)


@pytest.mark.parametrize(("bias", "clamped"), [(100.0, 20.0), (-100.0, -30.0)])
def test_log_variance_is_clamped_and_the_mean_is_not(bias: float, clamped: float) -> None:
    vae = build(CogVideoXVae, VAE)
    nn.init.constant_(vae.encoder.conv_out.conv.bias, bias)
    with torch.no_grad():
        mean, logvar = vae.encode_moments(random(1, 3, 1, 16, 16))
    assert bool((logvar == clamped).all()) and float(mean.abs().min()) > 50


@pytest.mark.parametrize("latents", [1, 2, 3, 4, 5])
def test_latents_may_arrive_in_pieces_and_earlier_frames_do_not_wait_for_later_ones(latents: int) -> None:
    vae, z = shaken(build(CogVideoXVae, VAE)), random(1, 2, latents, 2, 2)
    first = 2 + latents % 2 if latents > 1 else 1
    changed = z.clone()
    changed[:, :, first:] += 1
    with torch.no_grad():
        whole = vae.decode(z)
        assert whole.shape == (1, 3, 4 * (latents - 1) + 1, 16, 16)
        pieces = vae.decode_stream([z[:, :, :first], *(z[:, :, k : k + 2] for k in range(first, latents, 2))])
        assert torch.equal(torch.cat(list(pieces), dim=2), whole)
        known = 4 * (first - 1) + 1
        assert torch.equal(vae.decode(changed)[:, :, :known], whole[:, :, :known])
        assert latents == first or not torch.equal(vae.decode(changed)[:, :, known:], whole[:, :, known:])


@pytest.mark.parametrize("ratio", [1, 2, 8])
def test_other_compressions_in_time_keep_the_frame_rule(ratio: int) -> None:
    vae = build(CogVideoXVae, dataclasses.replace(VAE, temporal_compression_ratio=ratio))
    for latents in (1, 2, 5):
        video = random(1, 3, ratio * (latents - 1) + 1, 16, 16)
        with torch.no_grad():
            mean, _ = vae.encode_moments(video)
            assert mean.shape == (1, 2, latents, 2, 2)
            assert vae.decode(mean).shape == video.shape


@pytest.mark.parametrize(
    ("method", "shape", "sentence"),
    [
        ("encode_moments", (1, 4, 1, 16, 16), r"a video of this VAE is \(B, 3, .* got \(1, 4, 1, 16, 16\)"),
        ("encode_moments", (3, 1, 16, 16), r"got \(3, 1, 16, 16\)"),
        ("encode_moments", (1, 3, 0, 16, 16), "got"),
        ("encode_moments", (1, 3, 4, 16, 16), r"4 frames of 16 x 16 does not fit .* 4k \+ 1"),
        ("encode_moments", (1, 3, 1, 16, 20), "multiples of 8"),
        ("decode", (1, 3, 1, 2, 2), r"a latent of this VAE is \(B, 2, "),
        ("decode", (1, 2, 0, 2, 2), "got"),
    ],
)
def test_shapes_that_the_vae_cannot_take_are_value_errors(method: str, shape: tuple[int, ...], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        getattr(build(CogVideoXVae, VAE), method)(torch.zeros(shape))


@pytest.mark.parametrize(
    ("x", "text"),
    [((1, 3, 3, 4, 6), (1, 5, 8)), ((2, 3, 4, 6), (1, 5, 8)), ((1, 2, 3, 4, 6), (1, 5, 9)), ((1, 2, 3, 4, 6), (1, 8))],
)
def test_shapes_that_the_transformer_cannot_take_are_value_errors(x: tuple[int, ...], text: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"takes latents \(B, 2, F, H, W\) and text \(B, L, 8\), got"):
        build(CogVideoXTransformer, DIT)(torch.zeros(x), torch.zeros(1), torch.zeros(text))


def test_a_learned_table_fits_one_size() -> None:
    model = build(CogVideoXTransformer, dataclasses.replace(DIT, use_learned_positional_embeddings=True))
    assert model(torch.zeros(1, 2, 3, 4, 6), torch.zeros(1), torch.zeros(1, 5, 8)).shape == (1, 2, 3, 4, 6)
    for frames, length in ((2, 5), (3, 4)):
        with pytest.raises(ValueError, match="learned position table for 5 text and 18 video tokens"):
            model(torch.zeros(1, 2, frames, 4, 6), torch.zeros(1), torch.zeros(1, length, 8))


@pytest.mark.parametrize(
    ("config", "key", "value"),
    [
        (VAE, "down_block_types", ("DownBlock2D",) * 4),
        (VAE, "up_block_types", ("CogVideoXUpBlock3D",) * 3),
        (VAE, "act_fn", "relu"),
        (VAE, "use_quant_conv", True),
        (VAE, "temporal_compression_ratio", 16),
        (DIT, "activation_fn", "gelu"),
        (DIT, "flip_sin_to_cos", False),
        (TextConfig(), "heads", 3),
    ],
)
def test_settings_that_nobody_published_are_refused_by_name(config: Any, key: str, value: Any) -> None:
    with pytest.raises(ValueError, match=key.removesuffix("_fn")):
        dataclasses.replace(config, **{key: value})


def test_a_learned_table_comes_with_rotation() -> None:
    with pytest.raises(ValueError, match="learned_positional_embeddings needs use_rotary"):
        DitConfig(use_learned_positional_embeddings=True)


def test_a_ratio_beyond_the_chunk_is_refused() -> None:
    five = {"block_out_channels": (4,) * 5, "down_block_types": ("CogVideoXDownBlock3D",) * 5}
    with pytest.raises(ValueError, match="temporal_compression_ratio 16 must be at most 8"):
        dataclasses.replace(VAE, **five, up_block_types=("CogVideoXUpBlock3D",) * 5, temporal_compression_ratio=16)


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        ("{", "is not JSON"),
        ("[1]", "is not a JSON object"),
        ("null", "is not a JSON object"),
        ('{"_class_name": "HashedWordEncoder", "colour": 1}', "colour is unknown"),
        ('{"buckets": 8}', "the class None is unknown"),
    ],
)
def test_a_config_that_cannot_be_used_is_named(said: str, sentence: str, folder: Path) -> None:
    (folder / "config.json").write_text(said)
    with pytest.raises(ValueError, match=rf"{folder}.*{sentence}"):
        generator.load(folder)


@pytest.mark.parametrize(
    ("index", "sentence"),
    [
        ("{}", "there is no weight_map"),
        ('{"weight_map": ["a"]}', "there is no weight_map"),
        ('{"weight_map": {"norm.bias": "gone.safetensors"}}', "gone.safetensors: there is no such file"),
    ],
)
def test_an_index_of_parts_that_cannot_be_used_is_named(index: str, sentence: str, folder: Path) -> None:
    (folder / f"{WEIGHTS}.index.json").write_text(index)
    with pytest.raises(ValueError, match=rf"{folder}.*{sentence}"):
        generator.load(folder)


def test_weights_that_are_missing_or_too_many_are_named(folder: Path) -> None:
    tensors = load_file(folder / WEIGHTS)
    save_file({name: tensor for name, tensor in tensors.items() if name != "norm.bias"}, folder / WEIGHTS)
    with pytest.raises(ValueError, match=rf"{folder}: the configured model misses norm\.bias in the weights"):
        generator.load(folder)
    save_file(tensors | {f"more.{k}": torch.zeros(1) for k in range(5)}, folder / WEIGHTS)
    with pytest.raises(ValueError, match=r"does not expect more\.0, more\.1, more\.2 and 2 more in the weights"):
        generator.load(folder)


def test_weights_of_half_precision_are_loaded_as_asked(folder: Path) -> None:
    halved = {name: tensor.bfloat16() for name, tensor in load_file(folder / WEIGHTS).items()}
    save_file(halved, folder / WEIGHTS)
    for dtype in (None, torch.float64):
        loaded = generator.load(folder, dtype=dtype).state_dict()
        assert {tensor.dtype for tensor in loaded.values()} == {dtype or torch.float32}
        assert all(torch.equal(loaded[name], tensor.to(loaded[name].dtype)) for name, tensor in halved.items())


def test_an_export_replaces_the_whole_folder_and_nothing_else(folder: Path) -> None:
    (folder / "old.txt").write_text("of the last export")
    beside = folder.with_name("file")
    beside.write_text("mine")
    generator.export(HashedWordEncoder(TextConfig(buckets=9)), folder)
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", WEIGHTS]
    assert json.loads((folder / "config.json").read_text())["buckets"] == 9
    with pytest.raises(ValueError, match="is a file; give a folder"):
        generator.export(HashedWordEncoder(TextConfig(buckets=9)), beside)
    with pytest.raises(ValueError, match="Linear is not a class this package exports"):
        generator.export(nn.Linear(1, 1), folder)  # type: ignore[arg-type]
    assert beside.read_text() == "mine" and len(list(folder.parent.iterdir())) == 2


def test_a_fingerprint_is_of_what_the_model_computes() -> None:
    vae = build(CogVideoXVae, VAE)
    before = weights_fingerprint(vae)
    vae.config = dataclasses.replace(VAE, scaling_factor=2.0)
    assert weights_fingerprint(vae) == before == weights_fingerprint(build(CogVideoXVae, VAE))
    vae.decoder.conv_out.conv.bias.data[0] += 1e-6
    assert weights_fingerprint(vae) != before


def test_words_of_any_script() -> None:
    assert words("Pan left. A 3D-cat, twice!") == ["pan", "left", "a", "3d", "cat", "twice"]
    assert words("猫 runs 走る") == ["猫", "runs", "走", "る"]
    assert words("Élan_vital Ж") == ["élan", "vital", "ж"] and words(" ... ") == []

"""Model folders: every VAE goes out and comes back, published folders are read, and bad ones are answered plainly."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from safetensors.torch import load_file, save_file

import generator
from generator.vae import sizes
from generator.vae.image import ImageVae
from generator.vae.magvit import MagvitVae
from generator.vae.slice_vae import SliceVae
from tests.generator_films import one_thread  # noqa: F401  (used by being here)
from tests.vae_checks import drawn, off, random

WEIGHTS = "diffusion_pytorch_model.safetensors"
DEBUG = (
    sizes.cogvideox_debug,
    sizes.moviegen_tae_debug,
    sizes.stiv_debug,
    sizes.easyanimate_v5_debug,
    sizes.easyanimate_v3_debug,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return generator.export(drawn(sizes.build(sizes.easyanimate_v5_debug())), tmp_path / "vae")


@pytest.mark.parametrize("size", DEBUG, ids=lambda size: size.__name__)
def test_every_vae_goes_out_and_comes_back(size: Any, tmp_path: Path) -> None:
    model = drawn(sizes.build(size()))
    back = generator.load(generator.export(model, tmp_path / "vae"))
    assert type(back) is type(model) and back.config == model.config and not back.training
    assert all(parameter.requires_grad for parameter in back.parameters())
    x = random(1, 3, 9, 8, 16)
    with torch.no_grad():
        assert all(torch.equal(a, b) for a, b in zip(model.encode_moments(x), back.encode_moments(x), strict=True))


@pytest.mark.parametrize(
    ("size", "theirs"),
    [(sizes.easyanimate_v5_debug, diffusers.AutoencoderKLMagvit), (sizes.stiv_debug, diffusers.AutoencoderKL)],
)
def test_diffusers_reads_ours_and_we_read_diffusers(size: Any, theirs: Any, tmp_path: Path) -> None:
    ours = drawn(sizes.build(size()))
    published = theirs.from_pretrained(generator.export(ours, tmp_path / "ours"), local_files_only=True)
    published.save_pretrained(tmp_path / "theirs", max_shard_size="200KB")
    assert list((tmp_path / "theirs").glob("*.index.json"))
    back = generator.load(tmp_path / "theirs")
    weights = zip(ours.state_dict().items(), back.state_dict().items(), strict=True)
    assert all(a == b and torch.equal(x, y) for (a, x), (b, y) in weights)


def test_easyanimate_v3_is_told_from_v5_by_its_settings(tmp_path: Path) -> None:
    """It has the same class name, and writes its tuples as text."""
    vae = drawn(SliceVae(sizes.easyanimate_v3_debug()))
    folder = generator.export(vae, tmp_path / "vae")
    said = json.loads((folder / "config.json").read_text())
    assert said["_class_name"] == "AutoencoderKLMagvit"
    for key in ("down_block_types", "up_block_types"):
        said[key] = str(tuple(said[key]))
    for key in ("slice_mag_vae", "cache_compression_vae", "spatial_group_norm"):
        del said[key]
    (folder / "config.json").write_text(json.dumps(said))
    back = generator.load(folder)
    assert type(back) is SliceVae and back.config == vae.config
    assert type(generator.load(generator.export(MagvitVae(sizes.easyanimate_v5_debug()), folder))) is MagvitVae


def test_old_names_of_attention_are_read(tmp_path: Path) -> None:
    vae = drawn(ImageVae(sizes.stiv_debug()))
    folder = generator.export(vae, tmp_path / "vae")
    old = {".to_q.": ".query.", ".to_k.": ".key.", ".to_v.": ".value.", ".to_out.0.": ".proj_attn."}
    tensors = load_file(folder / WEIGHTS)
    for new, past in old.items():
        tensors = {name.replace(new, past): tensor for name, tensor in tensors.items()}
    assert any(".query." in name for name in tensors)
    save_file(tensors, folder / WEIGHTS)
    x = random(1, 3, 1, 8, 8)
    with torch.no_grad():
        assert off(generator.load(folder).encode_moments(x)[0], vae.encode_moments(x)[0]) == 0


def test_a_checkpoint_of_another_model_is_answered_with_its_keys(folder: Path, tmp_path: Path) -> None:
    other = generator.export(sizes.build(sizes.cogvideox_debug()), tmp_path / "other")
    shutil.copy(other / WEIGHTS, folder / WEIGHTS)
    with pytest.raises(ValueError) as caught:
        generator.load(folder)
    said = str(caught.value)
    assert said.startswith(f"{folder}: the configured model misses ") and " and " in said
    assert "does not expect decoder.conv_in.conv.bias" in said and len(said) < 700


def test_a_checkpoint_of_another_size_is_answered_with_both_shapes(folder: Path) -> None:
    tensors = load_file(folder / WEIGHTS)
    tensors["encoder.conv_in.weight"] = torch.zeros(4, 3, 3, 3, 3)
    save_file(tensors, folder / WEIGHTS)
    said = r"has another shape for encoder\.conv_in\.weight \(4 x 3 x 3 x 3 x 3, configured 8 x 3 x 3 x 3 x 3\)"
    with pytest.raises(ValueError, match=said):
        generator.load(folder)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_named(value: float, folder: Path) -> None:
    tensors = load_file(folder / WEIGHTS)
    tensors["encoder.conv_in.weight"][0, 0, 0, 0, 0] = value
    save_file(tensors, folder / WEIGHTS)
    with pytest.raises(ValueError, match=r"safetensors: encoder\.conv_in\.weight in it are not finite numbers"):
        generator.load(folder)


def test_only_safetensors_are_read(folder: Path) -> None:
    (folder / WEIGHTS).rename(folder / "diffusion_pytorch_model.bin")
    with pytest.raises(ValueError, match=r"only safetensors weights are read \(diffusion_pytorch_model\.bin could run"):
        generator.load(folder)
    (folder / WEIGHTS).write_bytes(b"PK\x03\x04 a zip")
    with pytest.raises(ValueError, match="this is not a safetensors file"):
        generator.load(folder)
    with pytest.raises(ValueError, match=r"config\.json: this is a file; give the folder"):
        generator.load(folder / "config.json")


def test_settings_out_of_range_are_named_with_their_file(folder: Path) -> None:
    said = json.loads((folder / "config.json").read_text()) | {"act_fn": "relu"}
    (folder / "config.json").write_text(json.dumps(said))
    with pytest.raises(ValueError, match=r"config\.json: act_fn 'relu' is not supported"):
        generator.load(folder)
    (folder / "config.json").write_text(json.dumps(said | {"act_fn": "silu", "block_out_channels": 3}))
    with pytest.raises(ValueError, match=r"config\.json: "):
        generator.load(folder)


def test_a_loaded_model_does_not_depend_on_its_file(folder: Path) -> None:
    model = generator.load(folder)
    before = model.encoder.conv_in.weight.clone()
    (folder / WEIGHTS).write_bytes(b"")
    assert torch.equal(model.encoder.conv_in.weight, before)

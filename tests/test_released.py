"""EasyAnimate's released transformer folders: their settings and weights read as ours, other versions refused."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

import generator
from generator.dit.easyanimate import EasyAnimateConfig
from generator.dit.positions import interleaved_sinusoid
from generator.dit.sizes import build, easyanimate_debug, inputs
from tests.drawn import drawn

V3 = dataclasses.replace(easyanimate_debug(), motion_groups=32)
BOTH = ("temporal", "temporal")
V2 = dataclasses.replace(V3, motion_even=BOTH, motion_odd=BOTH, motion_heads=1)
IMAGES = {"motion_even": (), "motion_odd": (), "skips": False, "clip_width": 0, "condition_channels": 0}
PIXART = dataclasses.replace(V3, motion_heads=16, **IMAGES)
KINDS = {"temporal": "Temporal_Self", "global": "Global_Self"}


def publish(config: EasyAnimateConfig, folder: Path, **other: Any) -> Any:
    """As `Transformer3DModel.save_pretrained` writes it: many settings, and a table of positions in every attention."""
    model = drawn(build(config))
    tensors = dict(model.state_dict())
    for name in list(tensors):
        if ".attention_blocks." in name and name.endswith("to_q.weight"):
            table = interleaved_sinusoid(16, config.width)[None]
            tensors[name.replace("to_q.weight", "pos_encoder.pe")] = table.clone()

    def motion(kinds: tuple[str, ...]) -> dict[str, Any]:
        return {
            "num_attention_heads": config.motion_heads,
            "num_transformer_block": config.motion_blocks,
            "attention_block_types": [KINDS[kind] for kind in kinds],
            "temporal_position_encoding": True,
        }

    said = {
        "_class_name": "Transformer3DModel",
        "_diffusers_version": "0.27.0",
        "num_attention_heads": config.num_attention_heads,
        "attention_head_dim": config.attention_head_dim,
        "in_channels": config.latent_channels + config.condition_channels,
        "out_channels": config.out_channels,
        "num_layers": config.num_layers,
        "caption_channels": config.caption_width,
        "cross_attention_dim": config.width,
        "sample_size": config.sample_size,
        "patch_size": config.patch_size,
        "norm_type": "ada_norm_single",
        "attention_bias": True,
        "activation_fn": "gelu-approximate",
        "norm_elementwise_affine": False,
        "norm_num_groups": 32,
        "num_embeds_ada_norm": 1000,
        "enable_uvit": config.skips,
        "basic_block_type": "global_motionmodule",
        "motion_module_type": "Vanilla",
        "motion_module_kwargs_even": motion(config.motion_even),
        "motion_module_kwargs_odd": motion(config.motion_odd),
    } | other
    folder.mkdir()
    settings = {key: value for key, value in said.items() if value != "absent"}
    (folder / "config.json").write_text(json.dumps(settings))
    save_file(tensors, folder / "diffusion_pytorch_model.safetensors")
    return model


def same(one: Any, other: Any, config: EasyAnimateConfig) -> bool:
    torch.manual_seed(0)
    said: dict[str, Tensor] = inputs(config, (2, 4, 4), (5,))
    with torch.no_grad():
        return torch.equal(one(**said), other(**said))


@pytest.mark.parametrize("config", [V3, V2, PIXART], ids=["v3", "v2", "images"])
def test_a_released_folder_is_a_model_of_ours(config: EasyAnimateConfig, tmp_path: Path) -> None:
    model = publish(config, tmp_path / "released")
    loaded = generator.load(tmp_path / "released")
    assert loaded.config == config and same(loaded, model, config)
    again = generator.load(generator.export(loaded, tmp_path / "ours"))
    assert again.config == config and same(again, model, config)


def test_what_the_training_kept_to_itself_is_read_off_the_weights(tmp_path: Path) -> None:
    absent = dict.fromkeys(("enable_uvit", "basic_block_type", "motion_module_type"), "absent")
    absent |= dict.fromkeys(("motion_module_kwargs_even", "motion_module_kwargs_odd"), "absent")
    config = dataclasses.replace(V3, motion_heads=16)
    model = publish(config, tmp_path / "released", **absent)
    loaded = generator.load(tmp_path / "released")
    assert loaded.config == config and same(loaded, model, config)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"qk_norm": True}, "qk_norm is True; of EasyAnimate's transformers only versions 2 and 3 are known"),
        ({"basic_block_type": "kvcompression_motionmodule"}, "basic_block_type is 'kvcompression_motionmodule'"),
        ({"caption_channels": "absent"}, "caption_channels"),
        ({"num_layers": 8}, r"the configured model misses .*long_connect_fc\.2"),
        ({"attention_head_dim": 32}, "has another shape for"),
    ],
)
def test_other_versions_are_named(change: dict[str, Any], sentence: str, tmp_path: Path) -> None:
    publish(V3, tmp_path / "released", **change)
    with pytest.raises(ValueError, match=rf"{tmp_path}/released.*{sentence}"):
        generator.load(tmp_path / "released")

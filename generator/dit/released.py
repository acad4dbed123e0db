"""EasyAnimate's released transformers (`Transformer3DModel`, versions two and three) as configurations of ours.

Their parameter names are kept; their settings are many, of which these versions use few, and their weights carry
tables of sinusoids that are computed here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from generator.dit.easyanimate import EasyAnimateConfig

CLASS = "Transformer3DModel"
_TABLE = ".pos_encoder.pe"
_KINDS = {"Temporal_Self": "temporal", "Global_Self": "global"}
# Settings whose other values these versions do not have, and what they must be.
_FIXED: dict[str, tuple[Any, ...]] = {
    "norm_type": ("ada_norm_single",),
    "activation_fn": ("gelu-approximate",),
    "attention_bias": (True,),
    "norm_elementwise_affine": (False,),
    "basic_block_type": ("motionmodule", "global_motionmodule", "basic"),
    "motion_module_type": ("Vanilla",),
    "patch_3d": (False,),
    "fake_3d": (False,),
    "casual_3d": (False,),
    "time_position_encoding_before_transformer": (False,),
    "qk_norm": (False,),
    "after_norm": (False,),
}


def weights(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Without the tables of positions."""
    return {name: tensor for name, tensor in tensors.items() if not name.endswith(_TABLE)}


def settings(said: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """The fields of `EasyAnimateConfig` that a released config.json and its weights mean.

    What config.json leaves to the training's own settings is read off the weights; what the motion modules attend to
    cannot be, and is then the third version's. Raises ValueError for settings of other versions.
    """
    for key, allowed in _FIXED.items():
        if said.get(key, allowed[0]) not in allowed:
            raise ValueError(f"{key} is {said[key]!r}; of EasyAnimate's transformers only versions 2 and 3 are known.")
    channels = int(said["in_channels"])
    clip = tensors.get("clip_projection.linear_1.weight")
    found = {
        "num_layers": said["num_layers"],
        "num_attention_heads": said["num_attention_heads"],
        "attention_head_dim": said["attention_head_dim"],
        "latent_channels": 4,
        "condition_channels": channels - 4,
        "out_channels": said.get("out_channels") or channels,
        "patch_size": said["patch_size"],
        "caption_width": said["caption_channels"],
        "clip_width": 0 if clip is None else clip.shape[1],
        "sample_size": said["sample_size"],
        "skips": any(name.startswith("long_connect_fc.") for name in tensors),
    }
    return found | _motion(said, tensors)


def _motion(said: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    if not any(".attn_temporal." in name for name in tensors):
        return {"motion_even": (), "motion_odd": ()}
    third = {field.name: field.default for field in dataclasses.fields(EasyAnimateConfig)}
    both = said.get("motion_module_kwargs")
    even, odd = (said.get(f"motion_module_kwargs_{which}") or both for which in ("even", "odd"))
    if not even or not odd:
        return {key: third[key] for key in ("motion_even", "motion_odd", "motion_heads", "motion_blocks")}
    return {
        "motion_even": tuple(_KINDS[kind] for kind in even["attention_block_types"]),
        "motion_odd": tuple(_KINDS[kind] for kind in odd["attention_block_types"]),
        "motion_heads": even["num_attention_heads"],
        "motion_blocks": even["num_transformer_block"],
    }

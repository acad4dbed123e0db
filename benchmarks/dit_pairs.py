"""The transformers that diffusers has too, for `benchmarks.models`."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import diffusers
import torch
from diffusers.models.embeddings import get_3d_rotary_pos_embed
from torch import Tensor, nn

from benchmarks.pairs import Pair, Work, same_weights
from generator.dit import sizes
from generator.dit.cogvideox import CogVideoXTransformer, DitConfig
from generator.dit.easyanimate import EasyAnimateConfig, EasyAnimateTransformer

# Latents (frames, rows, columns) and text tokens: 1,024 tokens of video for a CPU; 480 x 720, 49 or 17 frames.
_SMALL, _TEXT = (4, 32, 32), 64


def _small(config: Any) -> Any:
    """Eight heads and four layers, so that a CPU is done in a minute."""
    fields = {"num_attention_heads": 8, "num_layers": 4}
    if isinstance(config, DitConfig):
        fields |= {"text_embed_dim": 512, "max_text_seq_length": _TEXT}
    else:
        fields |= {"caption_width": 512, "motion_heads": 8}
    return dataclasses.replace(config, **fields)


def _of(published: Callable[[], Any], size: str) -> Any:
    return published() if size == "published" else _small(published())


def _cogvideox(name: str, published: Callable[[], DitConfig], latents: tuple[int, int, int]) -> Pair:
    def models(size: str) -> tuple[nn.Module, nn.Module]:
        config = _of(published, size)
        return same_weights(
            CogVideoXTransformer(config), diffusers.CogVideoXTransformer3DModel(**dataclasses.asdict(config))
        )

    def inputs(size: str) -> dict[str, Tensor]:
        config, draw = _of(published, size), torch.Generator().manual_seed(0)
        video = latents if size == "published" else _SMALL
        return {
            "x": torch.randn(1, config.in_channels, *video, generator=draw),
            "text": torch.randn(1, config.max_text_seq_length, config.text_embed_dim, generator=draw),
            "t": torch.tensor([500]),
        }

    rotary = published().use_rotary_positional_embeddings

    def theirs(model: Any, given: dict[str, Tensor]) -> Tensor:
        x = given["x"]
        angles = _rotary(tuple(x.shape[2:]), x.device) if rotary else None
        return model(x.transpose(1, 2), given["text"], given["t"], image_rotary_emb=angles).sample

    return Pair(name, models, inputs, _both(lambda model, given: model(**given), theirs))


@functools.cache
def _rotary(size: tuple[int, int, int], device: torch.device) -> tuple[Tensor, Tensor]:
    space = (size[1] // 2, size[2] // 2)
    return get_3d_rotary_pos_embed(64, None, space, size[0], grid_type="slice", max_size=space, device=device)


def _pixart() -> Pair:
    def models(size: str) -> tuple[nn.Module, nn.Module]:
        config: EasyAnimateConfig = _of(sizes.pixart_alpha, size)
        theirs = diffusers.PixArtTransformer2DModel(
            num_attention_heads=config.num_attention_heads,
            attention_head_dim=config.attention_head_dim,
            num_layers=config.num_layers,
            cross_attention_dim=config.width,
            caption_channels=config.caption_width,
            sample_size=config.sample_size,
        )
        return same_weights(EasyAnimateTransformer(config), theirs)

    def inputs(size: str) -> dict[str, Tensor]:
        config, draw = _of(sizes.pixart_alpha, size), torch.Generator().manual_seed(0)
        return {
            "x": torch.randn(4, 4, 1, *((64, 64) if size == "published" else (32, 32)), generator=draw),
            "text": torch.randn(4, 120 if size == "published" else _TEXT, config.caption_width, generator=draw),
            "t": torch.full((4,), 500),
        }

    def theirs(model: Any, given: dict[str, Tensor]) -> Tensor:
        sizes_of_none = {"resolution": None, "aspect_ratio": None}
        return model(given["x"][:, :, 0], given["text"], given["t"], added_cond_kwargs=sizes_of_none).sample

    return Pair("PixArt DiT", models, inputs, _both(lambda model, given: model(**given), theirs))


def _both(ours: Callable[[Any, Any], Tensor], theirs: Callable[[Any, Any], Tensor]) -> tuple[Work, ...]:
    def squared(do: Callable[[Any, Any], Tensor]) -> Callable[[Any, Any], Tensor]:
        return lambda model, given: do(model, given).float().square().mean()

    return (
        Work("forward", ours, theirs),
        Work("forward + backward", squared(ours), squared(theirs), grad=True),
    )


PAIRS = (
    _cogvideox("CogVideoX-2B DiT", sizes.cogvideox_2b, (13, 60, 90)),
    _cogvideox("CogVideoX-5B DiT", sizes.cogvideox_5b, (5, 60, 90)),
    _pixart(),
)

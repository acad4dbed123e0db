"""Weights from one stage to the next: the same where shapes are, grown or inflated where the next model is larger."""

# mypy: disable-error-code="no-any-return, no-untyped-call"

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import nn

from generator.dit.easyanimate import EasyAnimateTransformer, upgraded
from generator.dit.moviegen import MovieGenTransformer, conditioned, grown
from generator.dit.stiv import StivTransformer, inflated
from generator.systems.base import System


@torch.no_grad()
def carried(old: System, config: Any, grow: str = "interpolate") -> System:
    """A system of `config` that starts from the weights of `old`, its text encoders too.

    An image model becomes an upsampler whose new channels say nothing yet (`dit.moviegen.conditioned`).
    Position tables are grown as `grow` says (`dit.moviegen.grown`); an image model becomes a video model whose new
    temporal parts start anew (`dit.stiv.inflated`) or say nothing yet (`dit.easyanimate.upgraded`). Positions that have
    no weights need nothing: rotary ones go on at integers, or are interpolated where the configuration has a
    `trained_size`.
    Raises ValueError where the two do not fit together.
    """
    new = config.build()
    if not isinstance(new, type(old)):
        raise ValueError(f"{type(old.config).__name__} cannot go on as {type(config).__name__}.")  # type: ignore[union-attr]
    transformer = _transformer(old.transformer, config.dit, grow)
    try:
        new.transformer.load_state_dict(transformer.state_dict())
        new.towers.load_state_dict(old.towers.state_dict())
    except RuntimeError as error:
        raise ValueError(f"the weights of the stage before do not fit: {str(error).splitlines()[-1].strip()}") from None
    new.scale = old.scale
    return new.to(next(old.parameters()))


def _transformer(model: nn.Module, config: Any, grow: str) -> nn.Module:
    if isinstance(model, MovieGenTransformer):
        more = config.condition_channels - model.config.condition_channels
        model = conditioned(model, more) if more > 0 else model
        return grown(model, config.max_size, grow) if model.config.max_size != config.max_size else model
    if isinstance(model, StivTransformer) and config.temporal and not model.config.temporal:
        return inflated(model, config)
    if isinstance(model, EasyAnimateTransformer) and model.config != config:
        return upgraded(model, dataclasses.replace(config, sample_size=model.config.sample_size))
    return model


@torch.no_grad()
def transplant(into: System, donor: System, word: str = ".temporal.") -> None:
    """Puts the weights of `donor` whose names contain `word` into `into`: STIV's dual initialisation takes everything
    from a text-to-image model of high resolution and temporal attention from a text-to-video model of low resolution.

    Source: arXiv 2412.07730, section 2.5. Raises ValueError where there are none, or they do not fit.
    """
    mine = into.transformer.state_dict()
    given = {name: tensor for name, tensor in donor.transformer.state_dict().items() if word in name}
    odd = [name for name, tensor in given.items() if name not in mine or mine[name].shape != tensor.shape]
    if not given or odd:
        raise ValueError(f"the donor's weights named like {word!r} do not fit: {', '.join(odd[:3]) or 'it has none'}.")
    into.transformer.load_state_dict(given, strict=False)

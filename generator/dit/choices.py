"""Which transformers are open to the choices that papers compare."""

from __future__ import annotations

import dataclasses
from typing import Any

from generator.dit.cogvideox import DitConfig
from generator.dit.stiv import StivConfig
from generator.dit.stiv_variants import StivVariantConfig
from generator.dit.variants import VariantConfig

VARIANTS: dict[type, type] = {DitConfig: VariantConfig, StivConfig: StivVariantConfig}
"""By a model's configuration, the one that is open to choices. Movie Gen's and EasyAnimate's hold their own."""


def opened(config: Any, name: str) -> Any:
    """The same model, open to the choice of that name; None where it has no such choice, or has it already."""
    variant = VARIANTS.get(type(config))
    if variant is None or name not in own(variant):
        return None
    return variant(**dataclasses.asdict(config))


def own(variant: type) -> list[str]:
    """Names of the choices that only the variant has."""
    plain = next(known for known, open_to in VARIANTS.items() if open_to is variant)
    before = {field.name for field in dataclasses.fields(plain)}
    return [field.name for field in dataclasses.fields(variant) if field.name not in before]

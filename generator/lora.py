"""LoRA (arXiv 2106.09685) by peft: small matrices beside the frozen ones are trained, written and merged.

What is written is diffusers' layout, with rank and alpha inside, so `load_lora_adapter` scales it as it was trained.
"""

# mypy: disable-error-code="no-any-return, no-untyped-call"

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import nn

from generator.files import beside, plain

FILE = "pytorch_lora_weights.safetensors"
_PREFIX = "transformer"


@dataclass(frozen=True, slots=True)
class Lora:
    """rank, alpha: the product is scaled by alpha / rank. targets: ends of the names of linear maps; the defaults are
    the attention of all four systems (CogVideoX's released trainer: rank 128, alpha 64).

    Raises ValueError for a rank or alpha below 1 and for no targets.
    """

    rank: int = 128
    alpha: int = 64
    targets: tuple[str, ...] = ("to_q", "to_k", "to_v", "to_out.0")

    def __post_init__(self) -> None:
        if self.rank < 1 or self.alpha < 1 or not self.targets:
            raise ValueError("a LoRA needs a rank and an alpha of at least 1 and at least one target.")


WORDS = ("lora_A", "lora_B")
"""In the names of all parameters that a LoRA trains."""


class Adapter:
    """A LoRA inside a transformer: from now on its own weights count, and the frozen ones are called base_layer.

    Raises ValueError where peft is missing or no linear map has such a name.
    """

    def __init__(self, transformer: nn.Module, settings: Lora) -> None:
        try:
            import peft
        except ImportError as error:
            raise ValueError("LoRA needs peft: pip install 'vidcurate[lora]'.") from error
        self.settings = settings
        self.config = peft.LoraConfig(
            r=settings.rank, lora_alpha=settings.alpha, target_modules=list(settings.targets), lora_dropout=0.0
        )
        linear = [name for name, module in transformer.named_modules() if isinstance(module, nn.Linear)]
        if not any(name.endswith(tuple(f".{target}" for target in settings.targets)) for name in linear):
            raise ValueError(f"LoRA: no linear map of the transformer is named {', '.join(settings.targets)}.")
        self._tuner: Any = peft.tuners.lora.LoraModel(transformer, self.config, "default")

    def write(self, folder: Path) -> Path:
        """Raises nothing; returns the file."""
        from peft import get_peft_model_state_dict

        found = get_peft_model_state_dict(self._tuner, adapter_name="default")
        tensors = {f"{_PREFIX}.{name.removeprefix('model.')}": tensor for name, tensor in found.items()}
        said = {f"{_PREFIX}.{name}": value for name, value in self.config.to_dict().items()}
        said = {name: sorted(value) if isinstance(value, set) else value for name, value in said.items()}
        folder.mkdir(parents=True, exist_ok=True)
        fresh = beside(folder / FILE)
        save_file(plain(tensors), fresh, metadata={"format": "pt", "lora_adapter_metadata": json.dumps(said, indent=1)})
        fresh.replace(folder / FILE)
        return folder / FILE

    def merge(self) -> None:
        """Adds the products to the frozen weights; names are as before the LoRA."""
        self._tuner.merge_and_unload()

"""What the named sizes cost, counted once and kept beside the code; `python -m generator.counted` counts again.

A size whose settings are not those that were counted is counted when it is asked for. A test counts all of them.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from pathlib import Path
from typing import Any

from generator.dit import costs
from generator.dit import sizes as transformers
from generator.vae import sizes as vaes
from manifests.ids import fingerprint

FILE = Path(__file__).with_name("costs.json")

Size = transformers.Size | vaes.Size
Cost = costs.Cost | vaes.Cost


def cost_of(size: Size) -> Any:
    """As `costs.cost_of` and `vae.sizes.cost_of`, without building anything where it is known."""
    record = _known().get(_key(size))
    return count(size) if record is None else type_of(size)(**record)


def count(size: Size) -> Cost:
    return vaes.cost_of(size) if isinstance(size, vaes.Size) else costs.cost_of(size)


def type_of(size: Size) -> Any:
    return vaes.Cost if isinstance(size, vaes.Size) else costs.Cost


def _key(size: Size) -> str:
    """Of the model's settings and of what it is run on."""
    return f"{size.name} {fingerprint(dataclasses.asdict(size) | {'config': size.config()})}"


@functools.cache
def _known() -> dict[str, dict[str, Any]]:
    said: dict[str, dict[str, Any]] = json.loads(FILE.read_text()) if FILE.exists() else {}
    return {key: {n: tuple(v) if isinstance(v, list) else v for n, v in each.items()} for key, each in said.items()}


def main() -> None:
    sizes: list[Size] = [*transformers.SIZES, *vaes.SIZES]
    FILE.write_text(json.dumps({_key(size): dataclasses.asdict(count(size)) for size in sizes}, indent=1) + "\n")


if __name__ == "__main__":
    main()

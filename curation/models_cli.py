"""`vidcurate models`: the sizes of VAEs and transformers that the generator can build, and what each costs."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table


def models(
    names: Annotated[list[str] | None, typer.Argument(help="Parts of names; all models if none is given.")] = None,
) -> None:
    """Print parameters, tokens and floating-point operations of every published and debug model.

    Nothing is downloaded and no memory is used for weights. Operations are of one video (VAEs) or one forward pass on
    one video (transformers), attention counted whole; a training step takes three times as many.

    Examples:

      vidcurate models

      vidcurate models cogvideox stiv_m
    """
    from generator import torch_needed  # noqa: F401  (raises the sentence that names the extra)

    # isort: split
    from generator import counted
    from generator.dit import sizes as transformers
    from generator.vae import sizes as vaes

    known = dict.fromkeys([s.name for s in transformers.SIZES] + [s.name for s in vaes.SIZES])

    def wanted(name: str) -> bool:
        return not names or any(part in name for part in names)

    if not any(map(wanted, known)):
        raise ValueError(f"no model is called like {', '.join(names or [])}; there are {', '.join(known)}.")
    console, waiting = Console(width=110), Console(stderr=True)
    table = Table("transformer", "video", "weights", "video tokens", "text tokens", "forward pass")
    for size in (s for s in transformers.SIZES if wanted(s.name)):
        with waiting.status(f"counting {size.name}"):
            cost = counted.cost_of(size)
        table.add_row(
            size.name,
            size.video,
            _short(cost.parameters),
            f"{cost.video_tokens:,}",
            " + ".join(map(str, size.text)),
            f"{_short(cost.forward)}FLOP",
        )
    _print(console, table)
    table = Table("VAE", "video", "weights", "latent (C, T, h, w)", "encode", "decode")
    for vae in (s for s in vaes.SIZES if wanted(s.name)):
        with waiting.status(f"counting {vae.name}"):
            price = counted.cost_of(vae)
        frames, height, width = vae.video
        table.add_row(
            vae.name,
            f"{height} x {width}, {frames} frames",
            _short(price.parameters),
            " x ".join(map(str, price.latent)),
            f"{_short(price.encode)}FLOP",
            f"{_short(price.decode)}FLOP",
        )
    _print(console, table)


def _print(console: Console, table: Table) -> None:
    for column in table.columns[2:]:
        column.justify = "right"
    if table.rows:
        console.print(table, highlight=False)


def _short(number: float) -> str:
    """Four digits and a unit: 1.694 G."""
    for unit in ("", "k", "M", "G", "T", "P"):
        if number < 1000:
            return f"{number:.4g} {unit}"
        number /= 1000
    return f"{number:.4g} E"

"""What of a recipe cannot be had before anything is decoded: weights that are missing, packages that are not installed.

A signal with weights has a `prepare()` that loads them and raises ValueError with one sentence when it cannot.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from distributed import Client

from curation.job import unpack
from curation.recipe import Recipe


def unready(recipe: Recipe) -> Iterator[tuple[str, str]]:
    """Each learned signal that cannot measure here, with one sentence why. Loads models."""
    for signal in _learned(recipe):
        try:
            signal.prepare()
        except Exception as error:
            yield type(signal).__name__, str(error)


def unready_there(client: Client, packed: bytes, recipe: Recipe) -> list[tuple[str, str]]:
    """The same on one of the workers, where the weights have to be; a recipe without learned signals costs nothing."""
    if not _learned(recipe):
        return []
    found: list[tuple[str, str]] = client.submit(_unready, packed, pure=False).result()
    return found


def _learned(recipe: Recipe) -> list[Any]:
    return [one for one in (*recipe.walk, *recipe.costly, *recipe.derived) if hasattr(one, "prepare")]


def _unready(packed: bytes) -> list[tuple[str, str]]:
    job, _ = unpack(packed)
    return list(unready(job.recipe))

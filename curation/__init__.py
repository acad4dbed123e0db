"""Recipes, the Dask driver, the report and the command line: `curate` is all of it in one call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from curation import recipes
    from curation.run import curate

__all__ = ["curate", "recipes"]


def __getattr__(name: str) -> Any:
    """Loads what is asked for: the command line wants to start its workers before everything is loaded."""
    import importlib

    if name == "curate":
        return importlib.import_module("curation.run").curate
    if name == "recipes":
        return importlib.import_module("curation.recipes")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

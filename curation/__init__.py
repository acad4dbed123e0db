"""Recipes, the Dask driver, the report and the command line: `curate` is all of it in one call."""

from curation import recipes
from curation.run import curate

__all__ = ["curate", "recipes"]

"""The recipes that ship with vidcurate, and how a user's own is found.

Every recipe of the four systems comes in two forms. As it stands, it needs no download: embedded measures stand in for
learned ones, with thresholds of ours. With `learned=True` (`+learned` behind its name) it uses the models that the
system names, whose weights are fetched when they are first needed.
"""

from __future__ import annotations

import importlib.util
import inspect
import sys
from collections.abc import Callable
from pathlib import Path

from curation.recipe import RECIPE_MODULE, Recipe
from curation.recipes.cogvideox import cogvideox
from curation.recipes.easyanimate import easyanimate
from curation.recipes.embedded import embedded
from curation.recipes.moviegen import moviegen
from curation.recipes.stiv import stiv

__all__ = ["cogvideox", "easyanimate", "embedded", "find", "moviegen", "stiv"]

_NAMED: dict[str, Callable[..., Recipe]] = {
    "embedded": embedded,
    "cogvideox": cogvideox,
    "moviegen": moviegen,
    "stiv": stiv,
    "easyanimate": easyanimate,
}


def find(reference: str) -> Recipe:
    """A recipe by name, `NAME[:variant][+learned]` such as `moviegen:sft+learned`, or from a Python file: `FILE.py`
    (its function `recipe`) or `FILE.py:function`.

    A file is run, as any Python file is: use your own. Raises ValueError when there is no such recipe.
    """
    path, _, function = reference.partition(":")
    if path.endswith(".py"):
        if not Path(path).is_file():
            raise ValueError(f"recipe file {path} does not exist; check the path.")
        return _from_file(Path(path), function or "recipe")
    plain, _, suffix = reference.partition("+")
    name, _, variant = plain.partition(":")
    if name not in _NAMED:
        raise ValueError(
            f"there is no recipe {reference!r}; choose from {', '.join(_NAMED)}, or give FILE.py[:function]."
        )
    takes = inspect.signature(_NAMED[name]).parameters
    if suffix not in ("", "learned") or (suffix and "learned" not in takes):
        raise ValueError(f"recipe {reference}: there is no +{suffix} form of {name}.")
    if variant and next(iter(takes), "learned") == "learned":
        raise ValueError(f"recipe {reference}: {name} has no variants.")
    return _NAMED[name](*([variant] if variant else []), **({"learned": True} if suffix else {}))


def _from_file(path: Path, name: str) -> Recipe:
    spec = importlib.util.spec_from_file_location(f"{RECIPE_MODULE}{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses and pickling look their module up
    try:
        spec.loader.exec_module(module)
        made = getattr(module, name)()
    except Exception as error:
        raise ValueError(f"recipe {path}:{name} does not load: {type(error).__name__}: {error}.") from error
    if not isinstance(made, Recipe):
        raise ValueError(f"recipe {path}:{name} returned {type(made).__name__}; return a curation.recipe.Recipe.")
    return made

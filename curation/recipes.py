"""The recipes that ship with vidcurate, and how a user's own is found."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path

from curation.recipe import RECIPE_MODULE, Recipe
from filters.aesthetics import PhotographicQuality
from filters.blockiness import Blockiness
from filters.borders import Letterbox
from filters.camera import CameraMotion
from filters.colorfulness import Colorfulness
from filters.contrast import Contrast
from filters.exposure import Exposure
from filters.jitter import Jitter
from filters.motion import FlowMotion
from filters.noise import Noise
from filters.palette import Palette
from filters.rules import Rule
from filters.shake import Shake
from filters.sharpness import Sharpness
from filters.stillness import Stillness
from filters.text import Text
from filters.vmaf import VmafMotion


def embedded() -> Recipe:
    """The default: everything that can be measured without downloading a model, and without a GPU.

    Command:  vidcurate run VIDEOS --out DIR
    Cost:     about two to two and a half times a plain decode of the same files on the same cores
    Expect:   most hand-made footage survives; frozen, shaking, blurred, dark, flat, blocky, bordered and
              text-dominated clips do not, nor do copies
    Numbers:  every threshold is ours, set on a small labelled collection so that clips that a person would reject fail
              and clips that a person would keep pass; the recipes of the four systems bring the published ones
    """
    return Recipe(
        name="embedded",
        signals=(
            VmafMotion(),
            FlowMotion(),
            Stillness(),
            CameraMotion(),
            Shake(),
            Jitter(),
            Sharpness(),
            Exposure(),
            Contrast(),
            Colorfulness(),
            Palette(),
            Noise(),
            Blockiness(),
            Letterbox(),
            PhotographicQuality(),
        ),
        costly=(Text(),),
        rules=(
            Rule(
                "min_duration", "duration_s", low=0.4, why="shorter shots are flashes; nothing can be learned from them"
            ),
            Rule("damaged", "corrupt_frames", high=0, why="the decoder flagged a frame of it as damaged"),
            Rule(
                "still", "static_fraction", high=0.5, why="frozen pictures and slides teach a generator to stand still"
            ),
            Rule("shaky", "shake", high=40.0, why="a hand gives 5 to 30; more cannot be watched"),
            Rule("jumpy", "cuts_per_s", high=0.85, why="Movie Gen B.1: over-segmented clips are jittery"),
            Rule("dark_or_burnt", "exposure", low=0.1, high=0.93, why="too dark or too bright to see"),
            Rule("flat", "contrast", low=0.12, why="blank pages, fog and plain screens"),
            Rule("blurred", "sharpness", low=0.4, why="out of focus or scaled up"),
            Rule("blocky", "blockiness", high=1.0, why="coding blocks are seen"),
            Rule("noisy", "noise", high=8.0, why="grain hides the picture"),
            Rule("letterbox", "letterbox_fraction", high=0.35, why="more border than a cinema format explains"),
            Rule("unsightly", "aesthetic_photo", low=0.45, why="several photographic measures are poor at once"),
            Rule("text", "text_area", high=0.05, why="titles, credits, pages, slides and burnt-in subtitles"),
        ),
    )


_NAMED: dict[str, Callable[[], Recipe]] = {"embedded": embedded}


def find(reference: str) -> Recipe:
    """A recipe by name, or from a Python file: `FILE.py` (its function `recipe`) or `FILE.py:function`.

    A file is run, as any Python file is: use your own. Raises ValueError when there is no such recipe.
    """
    if reference in _NAMED:
        return _NAMED[reference]()
    path, _, name = reference.partition(":")
    if not path.endswith(".py"):
        raise ValueError(
            f"there is no recipe {reference!r}; choose from {', '.join(_NAMED)}, or give FILE.py[:function]."
        )
    if not Path(path).is_file():
        raise ValueError(f"recipe file {path} does not exist; check the path.")
    return _from_file(Path(path), name or "recipe")


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

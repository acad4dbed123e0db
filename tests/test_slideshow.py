"""Slideshow: still pictures however they are moved about, and honest footage that is none."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np
import pytest

from curation import recipes
from filters.motion.flow import TENTHS
from filters.motion.slideshow import Slideshow
from manifests.films import depth, living, shots
from manifests.films.depth import Stage
from manifests.films.living import Scene
from manifests.films.photos import photo
from manifests.films.shots import Shot
from manifests.media.container import open_film
from manifests.media.scan import Scan, Span
from manifests.types import Clip, Frames, Image
from tests.conftest import read_lines

CLIP = Clip("v_0_1", "v", "v.mp4", 0, 2_000_000)
SIZE = (320, 180)


def score(pictures: Iterable[Image]) -> float | None:
    gray = [np.asarray(cv2.cvtColor(p, cv2.COLOR_BGR2GRAY), np.uint8) for p in pictures]
    given = Frames(gray, [k * 100_000 for k in range(len(gray))], list(range(len(gray))), (640, 360), 10.0)
    return Slideshow()([CLIP], [given])["slideshow"][0]  # type: ignore[no-any-return]


def panned(shot: Shot) -> float:
    found = score(shots.frames(shot, *SIZE, 10.0))
    assert found is not None
    return found


MOVES = [
    ("pan_left", 0.1),
    ("pan_right", 0.3),
    ("tilt_up", 0.06),
    ("zoom_in", 0.1),
    ("zoom_out", 0.12),
    ("roll_cw", 0.05),
]


@pytest.mark.parametrize(("move", "speed"), MOVES)
def test_pictures_that_are_moved_about(move: str, speed: float) -> None:
    scores = [panned(Shot(backdrop, 2.5, move, speed, seed=3)) for backdrop in ("cat", "dahlia", "coffee")]
    assert min(scores) > 0.5 and np.median(scores) > 0.95, scores


@pytest.mark.parametrize(("move", "speed"), MOVES)
def test_the_same_with_something_that_moves_in_it(move: str, speed: float) -> None:
    scores = [panned(Shot(backdrop, 2.5, move, speed, actors=2, seed=3)) for backdrop in ("cat", "dahlia", "coffee")]
    assert max(scores) < 0.35, scores


def test_stills_one_after_the_other() -> None:
    pictures = [cv2.resize(photo(name), SIZE) for name in ("cat", "temple", "dahlia")]
    assert score(pictures[:1] * 15) == 1.0
    one, half = np.float32(1), 10
    fades = [(a * (1 - t) + b * t).astype(np.uint8) for a, b in itertools.pairwise(pictures)
             for t in (one * k / half for k in range(half))]  # fmt: skip
    faded = score([*pictures[:1] * 5, *fades, *pictures[2:] * 5])
    assert faded is not None and faded > 0.6
    once_frozen = score([*shots.frames(Shot("temple", 4.0, actors=2, freeze=2.0, seed=1), *SIZE, 10.0)])
    assert once_frozen is not None and 0.2 < once_frozen < 0.8


def test_honest_footage_is_no_slideshow() -> None:
    """Depth, people, leaves, a hand: each of them alone gives it away, and so does a tripod before a live scene."""
    scenes = [
        Scene("temple", pan=0.1, seed=1),
        Scene("grass", tilt=0.08, hand=0.0, actors=0, seed=3),
        Scene("rocket", pan=0.15, hand=0.0, actors=0, sway=0.0, seed=4),
        Scene("coffee", depth=0.0, hand=0.0, seed=5),
        Scene("dahlia", zoom=0.1, depth=0.0, actors=0, hand=0.0, sway=0.01, seed=6),
    ]
    assert [s for s in scenes if (score(living.frames(s, *SIZE, 10.0)) or 0.0) > 0.35] == []
    walks = [Stage(move, 0.2, 1.5, seed=seed) for seed, move in enumerate(("truck_left", "push_in", "tracking"), 60)]
    wide = Stage("pan_right", 0.25, 1.5, lens=0.7, seed=70)  # the keystone of a wide lens
    assert [s for s in (*walks, wide) if (score(depth.frames(s, *SIZE, 10.0)) or 0.0) > 0.35] == []


def test_a_shaken_picture_is_no_slideshow() -> None:
    assert panned(Shot("cat", 2.5, "shake", 0.01, seed=2)) < 0.2


def test_clips_that_say_nothing() -> None:
    assert score([]) is None
    assert score([cv2.resize(photo("cat"), SIZE)]) is None
    assert score([np.zeros((8, 8, 3), np.uint8)] * 4) is None, "too small to be followed"


@pytest.mark.footage
@pytest.mark.slow
def test_real_slideshows_and_real_footage(footage: Path) -> None:
    """Slideshows and frozen clips against footage; what is a recording of a screen or a talk of slides may be both."""
    neither = {"laion400m_talk.mp4", "hamilton_vscode_demo.gif", "flutter_tabs_ui.mp4", "flutter_scrollview_ui.mp4"}
    tags = read_lines(footage / "public_truth" / "tags.jsonl")
    made = {footage / "public_truth" / r["file"] for r in tags if r["tag"] in ("slideshow", "frozen")}
    real = [path for path in (footage / "public").iterdir() if path.suffix != ".jsonl" and path.name not in neither]
    recipe = dataclasses.replace(recipes.embedded(), signals=())
    values: dict[bool, list[tuple[float, str]]] = {True: [], False: []}
    for path in (*made, *real):
        with open_film(str(path)) as film:
            for span in Scan(film, recipe.cuts.start(film.fps), [TENTHS], recipe.pieces):
                if isinstance(span, Span) and span.end - span.start >= 1_000_000:
                    (value,) = Slideshow()([CLIP], [span.frames[TENTHS]])["slideshow"]
                    values[path in made].append((value or 0.0, path.name))
    print(f"\nslideshows {sorted(values[True])[:4]}...; footage ...{sorted(values[False])[-4:]}")
    assert min(values[True])[0] > 0.75 and max(values[False])[0] < 0.5

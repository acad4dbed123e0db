"""Sets of synthetic films: what the demo curates, and copies of a film."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np

from manifests.films.film import Film, Then, Truth, render, write
from manifests.films.shots import Shot
from manifests.media.container import decode, open_film
from manifests.types import Image

Change = Callable[[Image], Image]


def demo_films() -> list[Film]:
    """About two minutes of film: every camera move, cuts, fades, a dissolve, and one of every common defect."""
    cut, fade, dissolve = Then(), Then("fade", 0.8), Then("dissolve", 0.6)
    return [
        Film(
            "travel",
            (
                Shot("temple", 4.0, "pan_right", actors=1, seed=1),
                Shot("dahlia", 3.5, "zoom_in", 0.15, seed=2),
                Shot("cat", 3.5, "static", actors=2, seed=3),
                Shot("rocket", 4.0, "tilt_up", 0.15, seed=4),
            ),
            (cut, cut, fade),
            fade_in=0.8,
        ),
        Film(
            "studio",
            (
                Shot("coffee", 3.5, "zoom_out", 0.15, actors=1, seed=5),
                Shot("motorcycle", 4.0, "pan_left", seed=6),
                Shot("astronaut", 3.0, "roll_cw", 0.25, seed=7),
                Shot("temple", 3.5, "tilt_down", 0.15, actors=1, seed=8),
            ),
            (cut, cut, cut),
            fade_out=0.8,
        ),
        Film(
            "nature",
            (
                Shot("grass", 3.5, "pan_right", 0.2, actors=2, seed=9),
                Shot("dahlia", 4.0, "roll_ccw", 0.25, actors=1, seed=10),
                Shot("gravel", 3.0, "tilt_up", 0.2, actors=2, seed=11),
                Shot("cat", 4.0, "pan_left", 0.1, seed=12),
            ),
            (cut, fade, cut),
        ),
        Film(
            "space",
            (
                Shot("galaxies", 4.0, "zoom_in", 0.2, gain=2.5, seed=13),
                Shot("rocket", 3.5, "pan_right", actors=1, seed=14),
                Shot("tissue", 3.5, "pan_left", 0.15, seed=15),
                Shot("coffee", 3.5, "static", actors=3, seed=16),
            ),
            (cut, dissolve, cut),
            flashes=(40,),
        ),
        Film(
            "street",
            (
                Shot("bricks", 3.0, "pan_right", 0.2, actors=2, seed=17),
                Shot("motorcycle", 3.5, "zoom_in", 0.12, actors=1, seed=18),
                Shot("astronaut", 3.5, "static", actors=2, seed=19),
            ),
        ),
        Film(
            "rejects",
            (
                Shot("temple", 3.0, "pan_left", freeze=0.2, seed=20),
                Shot("page", 3.0, "pan_right", 0.02),
                Shot("cat", 3.0, "shake", 0.03, seed=21),
                Shot("dahlia", 3.0, "pan_right", gain=0.08, seed=22),
                Shot("coffee", 3.0, "zoom_in", blur=9.0, seed=23),
                Shot(
                    "rocket",
                    3.0,
                    "pan_left",
                    caption=("and every frame of this one", "carries a long subtitle"),
                    seed=24,
                ),
                Shot("temple", 3.0, "pan_right", letterbox=0.55, seed=25),
                Shot("astronaut", 0.3, "static", actors=1, seed=26),
            ),
        ),
    ]


def write_demo(folder: str | os.PathLike[str]) -> list[Truth]:
    """Renders the demo's films, near copies of two of them, a byte-identical copy, and a file that is broken off."""
    folder = Path(folder)
    truths = [render(film, folder) for film in demo_films()]
    copy_film(folder / "street.mp4", folder / "street_small_grey.mp4", lambda p: _grey(_scale(p, 0.5)), crf=30)
    copy_film(folder / "studio.mp4", folder / "studio_trimmed.mp4", _brighter, skip=20)
    shutil.copyfile(folder / "space.mp4", folder / "space_again.mp4")
    whole = (folder / "nature.mp4").read_bytes()
    (folder / "broken_off.mp4").write_bytes(whole[: len(whole) // 3])  # its index is at the end, so nothing can be read
    return truths


def copy_film(
    source: str | os.PathLike[str], target: str | os.PathLike[str], change: Change, skip: int = 0, crf: int = 26
) -> int:
    """Re-encodes a film with every picture changed and the first `skip` left out; returns how many were written."""

    def pictures() -> Iterator[Image]:
        with open_film(os.fspath(source)) as film:
            for decoded in decode(film):
                if decoded.index >= skip:
                    yield change(np.asarray(decoded.frame.to_ndarray(format="bgr24"), np.uint8))

    with open_film(os.fspath(source)) as film:
        fps = film.fps
    return write(target, pictures(), fps, crf)


def _scale(picture: Image, factor: float) -> Image:
    width, height = (round(side * factor / 2) * 2 for side in (picture.shape[1], picture.shape[0]))
    return np.asarray(cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA), np.uint8)


def _grey(picture: Image) -> Image:
    return np.asarray(cv2.cvtColor(cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR), np.uint8)


def _brighter(picture: Image) -> Image:
    return np.clip(picture * 1.1 + 8, 0, 255).astype(np.uint8)

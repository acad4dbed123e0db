"""Labelled films for the six negative tags of CogVideoX, and clean ones, rendered in any number.

Every tag has several kinds of films, with random parameters; every film has a label for every tag: true, false,
or none where a person could say either. `python -m benchmarks.tag_films` writes them.
"""

from __future__ import annotations

import csv
import functools
import os
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from manifests.films import living, speakers
from manifests.films.film import write
from manifests.films.living import Scene
from manifests.films.photos import NAMES, photo
from manifests.films.screens import KINDS, WORDS, Filming, Screen, card, filmed, plain, recorded, sentence
from manifests.films.speakers import Speaker
from manifests.films.tricks import TRICKS
from manifests.films.voice import dub, voice, wind
from manifests.schema import TAG_NAMES
from manifests.types import Image

WIDTH, HEIGHT = 640, 360
Make = Callable[[], Iterator[Image]]
Labels = dict[str, bool | None]

_BACKDROPS = tuple(n for n in NAMES if n != "galaxies")


@dataclass(frozen=True, slots=True)
class Tagged:
    """name: of the file; kind: what was done; labels: by tag; make: its pictures."""

    name: str
    kind: str
    labels: Labels
    make: Make
    fps: float
    crf: int = 20


def tagged_films(each: int, clean: int, seed: int = 0) -> list[Tagged]:
    """`each` films of every tag, its kinds in turn, and `clean` ones."""
    films = [_clean(k, _luck(seed, "clean", k)) for k in range(clean)]
    for tag, kinds in _KINDS.items():
        names = [*kinds, *_OFTEN] if tag == "editing" else list(kinds)
        for k in range(each):
            kind = names[k % len(names)]
            films.append(kinds[kind](f"{tag}_{k:03d}_{kind}", tag, kind, _luck(seed, tag, k)))
    return films


def _luck(seed: int, what: str, k: int) -> np.random.Generator:
    """Its own for every film, so that a film stays the same however many there are."""
    return np.random.default_rng([seed, zlib.crc32(what.encode()), k])


def write_tagged(folder: str | os.PathLike[str], films: list[Tagged]) -> Path:
    """Renders the films that are not there yet; writes `labels.csv` (uri, kind, one column per tag) beside them."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    for film in films:
        path = Path(folder).resolve() / f"{film.name}.mp4"
        if not path.exists():
            whole = path.with_suffix(".part.mp4")
            count = write(whole, film.make(), film.fps, film.crf)
            _give_sound(whole, film, count / film.fps)
            whole.rename(path)
        said = {t: "" if film.labels[t] is None else str(film.labels[t]).lower() for t in TAG_NAMES}
        rows.append({"uri": str(path), "kind": film.kind} | said)
    table = Path(folder) / "labels.csv"
    with table.open("w", newline="") as file:
        writer = csv.DictWriter(file, ["uri", "kind", *TAG_NAMES])
        writer.writeheader()
        writer.writerows(rows)
    return table


def _give_sound(path: Path, film: Tagged, seconds: float) -> None:
    """A voice to most lectures and some others, wind to some, nothing to the rest."""
    seed = zlib.crc32(film.name.encode())
    luck = np.random.default_rng(seed).random()
    voiced = 0.85 if film.labels["lecture"] else 0.2
    if luck < voiced:
        dub(path, voice(seconds, seed))
    elif luck < voiced + 0.4:
        dub(path, wind(seconds, seed))


def _labels(tag: str = "", either: str = "") -> Labels:
    """`tag` true, the tags named in `either` open, all others false."""
    unknown = either.split()
    return {t: True if t == tag else None if t in unknown else False for t in TAG_NAMES}


def _fps(rng: np.random.Generator) -> float:
    return float(rng.choice([24, 25, 30]))


def _scene(rng: np.random.Generator, **given: Any) -> Scene:
    """Honest footage of any kind."""
    moves = rng.choice(["pan", "tilt", "zoom", "tripod", "hand"])
    signed = rng.choice([-1, 1])
    settings: dict[str, Any] = {
        "backdrop": "cartoon" if rng.random() < 0.15 else str(rng.choice(_BACKDROPS)),
        "seconds": float(rng.uniform(2.0, 2.8)),
        "pan": signed * rng.uniform(0.03, 0.2) if moves == "pan" else 0.0,
        "tilt": signed * rng.uniform(0.03, 0.2) if moves == "tilt" else 0.0,
        "zoom": signed * rng.uniform(0.03, 0.12) if moves == "zoom" else 0.0,
        "hand": 0.0 if moves == "tripod" else float(rng.uniform(0.001, 0.006)),
        "sway": float(rng.uniform(0.002, 0.01)),
        "depth": float(rng.uniform(0.6, 1.6)),
        "actors": int(rng.integers(1, 4)),
        "size": float(rng.uniform(0.06, 0.25)),
        "defocus": float(rng.choice([0, 0, 0, 1.5, 3])),
        "grain": float(rng.uniform(0.5, 3.0)),
        "gamma": float(rng.uniform(0.8, 1.4)),
        "saturation": float(rng.choice([0.0, 0.6, 1.0, 1.0, 1.0, 1.3])),
        "mirror": bool(rng.random() < 0.5),
        "seed": int(rng.integers(1 << 30)),
    }
    return Scene(**(settings | given))


def _living(scene: Scene, fps: float) -> Iterator[Image]:
    return living.frames(scene, WIDTH, HEIGHT, fps)


def _clean(k: int, rng: np.random.Generator) -> Tagged:
    """Mostly scenes; some dark, boxed, of people who move about, or with a line or two of text."""
    fps, scene, kind = _fps(rng), _scene(rng), ("plain", "dark", "boxed", "person", "plain", "lettered", "plain")[k % 7]
    make: Make = functools.partial(_living, scene, fps)
    labels = _labels()
    if kind == "dark":
        # A dim place whose lights are as bright as ever; without any the picture is poor.
        make = functools.partial(_living, _scene(rng, gamma=1.5, gain=float(rng.uniform(0.85, 1.0))), fps)
    elif kind == "boxed":
        make = functools.partial(_boxed, scene, fps, float(rng.uniform(0.12, 0.26)), bool(rng.random() < 0.5))
    elif kind == "person":
        face = int(rng.integers(0, speakers.FACES))
        walks = Speaker(face, 2.5, float(rng.uniform(0.15, 0.35)), 0.15, float(rng.uniform(0.08, 0.3)),
                        gestures=float(rng.uniform(0.8, 1.6)), seed=k)  # fmt: skip
        make = functools.partial(speakers.frames, walks, WIDTH, HEIGHT, fps)
        labels = _labels(either="lecture")
    elif kind == "lettered":
        if rng.random() < 0.5:  # a subtitle, or a title of one or two large lines
            lines, size, down = (
                [sentence(rng, int(rng.integers(4, 7))) for _ in range(int(rng.integers(1, 3)))],
                0.06,
                0.36,
            )
        else:
            lines = [" ".join(rng.choice(WORDS, 2)).upper() for _ in range(int(rng.integers(1, 3)))]
            size, down = float(rng.uniform(0.11, 0.16)), 0.0
        make = functools.partial(_lettered, scene, fps, lines, size, down)
        labels = _labels(either="editing")
    return Tagged(f"clean_{k:03d}_{kind}", kind, labels, make, fps, int(rng.choice([18, 23, 28])))


def _boxed(scene: Scene, fps: float, share: float, wide: bool) -> Iterator[Image]:
    """Black bars: of a cinema format above and below, or of an old one at the sides."""
    for picture in _living(scene, fps):
        bar = round((HEIGHT if wide else WIDTH) * share / 2)
        shown = picture.copy()
        if wide:
            shown[:bar] = shown[HEIGHT - bar :] = 0
        else:
            shown[:, :bar] = shown[:, WIDTH - bar :] = 0
        yield shown


def _lettered(scene: Scene, fps: float, lines: list[str], size: float, down: float = 0.0) -> Iterator[Image]:
    """Lines of text over a scene; down: how far below the middle, as a share of the height."""
    blank = plain(WIDTH, HEIGHT, (0, 0, 0))
    ink = card(lines, WIDTH, HEIGHT, (255, 255, 255), blank, size)
    ink = np.roll(ink, round(down * HEIGHT), 0)
    rim = cv2.dilate(ink, np.ones((3, 3), np.uint8))
    for picture in _living(scene, fps):
        shown = np.where(rim > 60, 0, picture)
        yield np.where(ink > 60, ink, shown).astype(np.uint8)


# -- editing ----------------------------------------------------------------------------------------------------------

UNSEEN = ("posterised", "tinted", "stickers")
"""Edits of which no measure shows a trace: they are left open, for all that they can teach is to doubt every film."""


def _trick(name: str, tag: str, kind: str, rng: np.random.Generator) -> Tagged:
    trick, count = TRICKS[kind]
    fps, seed = _fps(rng), int(rng.integers(1 << 30))
    scenes = [_scene(rng, seconds=2.5) for _ in range(count)]

    def make() -> Iterator[Image]:
        return trick([_living(scene, fps) for scene in scenes], np.random.default_rng(seed))

    either = "low_quality no_motion_connectivity" if kind in ("posterised", "tinted", "flashing") else "low_quality"
    return Tagged(name, kind, _labels(tag, either) | ({tag: None} if kind in UNSEEN else {}), make, fps)


# -- no motion connectivity -------------------------------------------------------------------------------------------


def _frozen(name: str, tag: str, kind: str, rng: np.random.Generator) -> Tagged:
    fps, scene, after = _fps(rng), _scene(rng), 0.0 if kind == "frozen" else float(rng.uniform(0.3, 0.8))

    def make() -> Iterator[Image]:
        last: Image | None = None
        for k, picture in enumerate(_living(scene, fps)):
            last = picture if last is None or k / fps < after else last
            yield last

    return Tagged(name, kind, _labels(tag), make, fps)


def _slides(name: str, tag: str, kind: str, rng: np.random.Generator) -> Tagged:
    """Photographs one after the other: still, or with a camera that moves over them; cuts or dissolves."""
    fps, blend = _fps(rng), 0.4 if "dissolve" in kind else 0.0
    hold = float(rng.uniform(1.4, 2.2) if blend else rng.uniform(1.0, 2.0))
    names = [str(n) for n in rng.choice(_BACKDROPS, 3, replace=False)]
    moves = rng.uniform(-0.06, 0.06, (3, 3)) if "moving" in kind else np.zeros((3, 3))

    def slide(k: int, t: float) -> Image:
        image = photo(names[k])
        scale = max(WIDTH / image.shape[1], HEIGHT / image.shape[0]) * (1.2 + moves[k, 0] * t)
        x = (WIDTH - image.shape[1] * scale) / 2 + moves[k, 1] * WIDTH * t
        y = (HEIGHT - image.shape[0] * scale) / 2 + moves[k, 2] * HEIGHT * t
        way = np.array([[scale, 0, x], [0, scale, y]])
        return np.asarray(cv2.warpAffine(image, way, (WIDTH, HEIGHT), borderMode=cv2.BORDER_REFLECT_101), np.uint8)

    def make() -> Iterator[Image]:
        for frame in range(round(3 * hold * fps)):
            k, t = divmod(frame / fps, hold)
            shown = slide(int(k), t)
            if blend and k < 2 and t > hold - blend:
                share = (t - hold + blend) / blend
                shown = np.asarray(cv2.addWeighted(shown, 1 - share, slide(int(k) + 1, t - hold), share, 0), np.uint8)
            yield shown

    return Tagged(name, kind, _labels(tag, "editing"), make, fps)


# -- low quality ------------------------------------------------------------------------------------------------------


def _poor(name: str, tag: str, kind: str, rng: np.random.Generator) -> Tagged:
    fps, scene, crf = _fps(rng), _scene(rng, defocus=0.0), 20
    if kind == "dark":
        scene = _scene(rng, gamma=float(rng.uniform(3.0, 4.5)), gain=float(rng.uniform(0.4, 0.8)))
    elif kind == "dim":  # as dark a camera in a pale room
        scene = _scene(rng, gamma=float(rng.uniform(2.0, 2.8)), gain=float(rng.uniform(0.45, 0.65)))
    elif kind == "burnt":
        scene = _scene(rng, gain=float(rng.uniform(2.6, 4.0)), gamma=0.7)
    elif kind == "noisy":
        scene = _scene(rng, grain=float(rng.uniform(18, 35)), gamma=1.2)
    elif kind == "starved":
        crf = int(rng.integers(46, 52))
    amount = float(rng.uniform(0, 1))

    def make() -> Iterator[Image]:
        for picture in _living(scene, fps):
            yield _spoilt(picture, kind, amount)

    shaken = functools.partial(_shaken, scene, fps, float(rng.uniform(0.012, 0.045)), int(rng.integers(1 << 30)))
    unclear = {"shaken": "editing"} | dict.fromkeys(("starved", "dark", "dim", "burnt"), "no_motion_connectivity")
    return Tagged(name, kind, _labels(tag, unclear.get(kind, "")), shaken if kind == "shaken" else make, fps, crf)


def _spoilt(picture: Image, kind: str, amount: float) -> Image:
    if kind == "blurred":
        return np.asarray(cv2.GaussianBlur(picture, (0, 0), 4 + 6 * amount), np.uint8)
    if kind == "enlarged":
        small = cv2.resize(picture, None, fx=0.1 + 0.08 * amount, fy=0.1 + 0.08 * amount, interpolation=cv2.INTER_AREA)
        return np.asarray(cv2.resize(small, (WIDTH, HEIGHT), interpolation=cv2.INTER_LINEAR), np.uint8)
    return picture


def _shaken(scene: Scene, fps: float, strength: float, seed: int) -> Iterator[Image]:
    """A camera that jumps from frame to frame."""
    rng, turn = np.random.default_rng(seed), 0.0
    for picture in _living(scene, fps):
        turn = 0.5 * turn + rng.normal(0, 0.6)
        way = cv2.getRotationMatrix2D((WIDTH / 2, HEIGHT / 2), turn, 1 + 5 * strength)
        way = way + np.append(np.zeros((2, 2)), rng.normal(0, strength * WIDTH, (2, 1)), axis=1)
        yield np.asarray(cv2.warpAffine(picture, way, (WIDTH, HEIGHT), borderMode=cv2.BORDER_REFLECT_101), np.uint8)


# -- lecture ----------------------------------------------------------------------------------------------------------


def _lecture(name: str, tag: str, kind: str, rng: np.random.Generator) -> Tagged:
    """A head before a wall, or one in the corner of a slide."""
    fps, face = _fps(rng), int(rng.integers(0, speakers.FACES))
    still = float(rng.uniform(0.005, 0.05))
    if kind == "head":
        person = Speaker(face, 2.5, float(rng.uniform(0.22, 0.5)), still, x=float(rng.uniform(0.35, 0.65)),
                         grain=float(rng.uniform(0, 2)), seed=int(rng.integers(1 << 30)))  # fmt: skip
        return Tagged(name, kind, _labels(tag), functools.partial(speakers.frames, person, WIDTH, HEIGHT, fps), fps)
    person = Speaker(face, 2.5, float(rng.uniform(0.4, 0.6)), still, seed=int(rng.integers(1 << 30)))
    screen = Screen("slide", 2.5, bool(rng.random() < 0.4), cursor=False, seed=int(rng.integers(1 << 30)))
    share, right, low = float(rng.uniform(0.22, 0.34)), bool(rng.random() < 0.7), bool(rng.random() < 0.7)

    def make() -> Iterator[Image]:
        pages = recorded(screen, WIDTH, HEIGHT, fps)
        return speakers.beside_slide(pages, speakers.frames(person, WIDTH, HEIGHT, fps), share, right, low)

    return Tagged(name, kind, _labels(tag), make, fps)


# -- text -------------------------------------------------------------------------------------------------------------


def _text(name: str, tag: str, kind: str, rng: np.random.Generator) -> Tagged:
    fps, scene = _fps(rng), _scene(rng)
    if kind.endswith("over"):
        rows = int(rng.integers(13, 17)) if kind == "page_over" else int(rng.integers(7, 10))
        size = 0.045 if kind == "page_over" else 0.05
        lines = [sentence(rng, int(rng.integers(7, 10))) for _ in range(rows)]
        make: Make = functools.partial(_lettered, scene, fps, lines, size, 0.0 if kind == "page_over" else 0.15)
        return Tagged(name, kind, _labels(tag, "editing"), make, fps)
    dark = bool(rng.random() < 0.6)
    paper = plain(WIDTH, HEIGHT, rng.uniform(0, 40, 3) if dark else rng.uniform(220, 255, 3))
    ink = (240, 240, 240) if dark else (25, 25, 25)
    seed, speed = int(rng.integers(1 << 30)), float(rng.uniform(0.15, 0.5))
    make = functools.partial(_cards, kind, fps, paper, ink, seed, speed)
    return Tagged(name, kind, _labels(tag, "" if kind == "credits" else "no_motion_connectivity"), make, fps)


def _cards(kind: str, fps: float, paper: Image, ink: tuple[int, ...], seed: int, speed: float) -> Iterator[Image]:
    """Credits that roll, a page or slide that stands, or words that change."""
    rng = np.random.default_rng(seed)
    few = kind == "slide"
    lines = [sentence(rng, int(rng.integers(3, 7))).title() for _ in range(int(rng.integers(3, 6)) if few else 8)]
    tall = np.vstack(
        [card([sentence(rng, 3).title() for _ in range(8)], WIDTH, HEIGHT, ink, paper, 0.07) for _ in "123"]
    )
    shown = card(lines, WIDTH, HEIGHT, ink, paper, 0.06 if few else 0.075)
    for k in range(round(2.5 * fps)):
        top = round(speed * k / fps * HEIGHT)
        if kind == "words" and k % round(fps / 2) == 0:
            shown = card([str(w).upper() for w in rng.choice(WORDS, 3)], WIDTH, HEIGHT, ink, paper, 0.16)
        yield tall[top : top + HEIGHT] if kind == "credits" else shown


# -- screenshots ------------------------------------------------------------------------------------------------------


def _screenshot(name: str, tag: str, kind: str, rng: np.random.Generator) -> Tagged:
    fps = _fps(rng)
    moving = rng.choice(["scroll", "jump", "rest"])
    screen = Screen(
        str(rng.choice(KINDS)), 2.5, bool(rng.random() < 0.5),
        scroll=float(rng.uniform(0.5, 4)) if moving == "scroll" else 0.0,
        jumps=float(rng.uniform(0.5, 1.5)) if moving == "jump" else 0.0,
        cursor=bool(rng.random() < 0.7), seed=int(rng.integers(1 << 30)),
    )  # fmt: skip
    how = Filming(
        float(rng.uniform(0.02, 0.08)), float(rng.uniform(6, 22)), float(np.exp(rng.uniform(1.2, 3.8))),
        float(rng.uniform(0, 0.5)), float(rng.uniform(0.001, 0.01)), float(rng.uniform(0.5, 1.2)),
        float(rng.uniform(0.8, 1.05)), int(rng.integers(1 << 30)),
    )  # fmt: skip

    def make() -> Iterator[Image]:
        pictures = recorded(screen, WIDTH, HEIGHT, fps)
        return filmed(pictures, how, fps) if kind == "filmed" else pictures

    labels = _labels(tag, "no_motion_connectivity text_dominated")
    if screen.kind == "slide" and kind == "recorded":
        labels[tag] = None  # what is recorded of a slide is a slide
    return Tagged(name, kind, labels, make, fps)


_OFTEN = ("border", "blurred_sides", "negative", "inset", "mirrored", "split")
"""Edits that are seen more often than the others."""

_Maker = Callable[[str, str, str, np.random.Generator], Tagged]
_KINDS: dict[str, dict[str, _Maker]] = {
    "editing": dict.fromkeys(TRICKS, _trick),
    "no_motion_connectivity": {
        "frozen": _frozen, "frozen_later": _frozen, "slides": _slides, "slides_moving": _slides,
        "slides_moving_dissolve": _slides,
    },
    "low_quality": dict.fromkeys(("shaken", "blurred", "starved", "dark", "dim", "enlarged", "burnt", "noisy"), _poor),
    "lecture": {"head": _lecture, "inset": _lecture},
    "text_dominated": dict.fromkeys(("page_over", "half_over", "credits", "page", "words", "slide"), _text),
    "noisy_screenshot": {"filmed": _screenshot, "recorded": _screenshot},
}  # fmt: skip

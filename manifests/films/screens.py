"""What computer and phone screens show, recorded or filmed: lists, editors, pages, windows, slides; and text cards."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image as Pictures
from PIL import ImageDraw, ImageFont

from manifests.films.photos import NAMES, photo
from manifests.types import Image

KINDS = ("list", "editor", "page", "windows", "table", "slide")

_PROSE = """the first reel shows harbour at dawn and second market in rain under a bright lamp people cross river open
file value total return import result number of every frame holds some light count each word on page long takes are rare
while short cuts carry most story night train leaves north station before noon with seven letters"""
WORDS = tuple(_PROSE.split())


@dataclass(frozen=True, slots=True)
class Screen:
    """kind: one of KINDS; dark: theme; scroll: lines a second; jumps: seconds between changes of what is shown (0:
    none); cursor: an arrow wanders about."""

    kind: str
    seconds: float = 2.5
    dark: bool = False
    scroll: float = 0.0
    jumps: float = 0.0
    cursor: bool = True
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Filming:
    """A camera in front of a screen: tilt of the screen as a share of the width; moiré: strength in grey levels and
    period in pixels; glare, hand and blur; the screen's share of the width."""

    tilt: float = 0.08
    moire: float = 14.0
    period: float = 9.0
    glare: float = 0.3
    hand: float = 0.004
    blur: float = 0.7
    share: float = 0.85
    seed: int = 0


def sentence(rng: np.random.Generator, words: int) -> str:
    return " ".join(str(w) for w in rng.choice(WORDS, words))


def recorded(screen: Screen, width: int, height: int, fps: float) -> Iterator[Image]:
    """BGR pictures of a screen as a recorder takes them: no grain, no blur."""
    rng = np.random.default_rng(screen.seed)
    page = _page(screen, rng, width, height)
    path = rng.uniform(0.1, 0.9, (5, 2)) * (width, height)
    pace, last = rng.uniform(0.3, 0.8), -1
    for k in range(round(screen.seconds * fps)):
        t = k / fps
        if screen.jumps and int(t / screen.jumps) != last:
            last = int(t / screen.jumps)
            page = _page(screen, np.random.default_rng(screen.seed + last), width, height)
        top = int(screen.scroll * t * height / 12) % max(1, page.shape[0] - height)
        shown = page[top : top + height].copy()
        if screen.cursor:
            leg, within = divmod(t * pace, 1)
            smooth = min(1.0, 2.5 * within)  # moves, then rests
            at = path[int(leg) % 5] * (1 - smooth) + path[(int(leg) + 1) % 5] * smooth
            _arrow(shown, at, height)
        yield shown


def filmed(screen: Iterator[Image], how: Filming, fps: float) -> Iterator[Image]:
    """The same screen through a camera: keystone, moiré, glare, unrest, a dark room around it."""
    rng = np.random.default_rng(how.seed)
    lean, direction = rng.uniform(-1, 1, (4, 2)), rng.uniform(0.3, 1.2)
    room = rng.uniform(5, 45, 3)
    light: npt.NDArray[np.float32] | None = None
    for k, picture in enumerate(screen):
        t = k / fps
        height, width = picture.shape[:2]
        if light is None:
            light = _glare(rng, width, height, how.glare)
            xs, ys = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
        edge = (1 - how.share) / 2
        corners = np.array([[edge, edge], [1 - edge, edge], [1 - edge, 1 - edge], [edge, 1 - edge]])
        unrest = how.hand * np.array([math.sin(2.1 * t + 1), math.sin(2.9 * t)])
        corners = (corners + how.tilt * lean + unrest) * (width, height)
        whole = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
        warp = cv2.getPerspectiveTransform(whole, corners.astype(np.float32))
        flat = np.asarray(
            cv2.warpPerspective(picture, warp, (width, height), borderValue=room.tolist()), np.float32
        )  # fmt: skip
        inside = np.zeros((height, width), np.float32)
        cv2.fillConvexPoly(inside, corners.astype(np.int32), (1.0,), cv2.LINE_AA)
        bent = 0.0006 * (xs - width / 2) * (ys - height / 2) / how.period
        wave = np.sin(2 * np.pi / how.period * (xs * math.cos(direction) + ys * math.sin(direction) + bent) + 3 * t)
        flat += (how.moire * wave * inside)[..., None] + (light * inside)[..., None]
        soft = cv2.GaussianBlur(flat, (0, 0), how.blur) + rng.normal(0, 1.5, (height, width, 1))
        yield np.clip(soft, 0, 255).astype(np.uint8)


def card(lines: list[str], width: int, height: int, ink: tuple[int, ...], paper: Image, size: float) -> Image:
    """Lines of text, centred, over a picture or a plain colour; size: height of a line as a share of the picture."""
    canvas = Pictures.fromarray(np.ascontiguousarray(paper[..., ::-1]))
    draw = ImageDraw.Draw(canvas)
    font = ImageFont.load_default(max(8.0, size * height))
    step = 1.25 * size * height
    for k, line in enumerate(lines):
        y = height / 2 + (k - len(lines) / 2) * step
        draw.text(((width - draw.textlength(line, font=font)) / 2, y), line, font=font, fill=ink[::-1])
    return np.ascontiguousarray(np.asarray(canvas)[..., ::-1])


def plain(width: int, height: int, color: tuple[int, ...] | npt.NDArray[np.float64]) -> Image:
    return np.full((height, width, 3), color).astype(np.uint8)


def _page(screen: Screen, rng: np.random.Generator, width: int, height: int) -> Image:
    """Twice as tall as the screen, for scrolling."""
    tall = 2 * height
    paper = rng.uniform(20, 50) * np.ones(3) if screen.dark else rng.uniform(232, 255, 3)
    canvas = Pictures.new("RGB", (width, tall), tuple(int(c) for c in paper))
    draw = ImageDraw.Draw(canvas)
    ink = (225, 225, 230) if screen.dark else (25, 25, 35)
    font = ImageFont.load_default(height * rng.uniform(0.035, 0.055))
    draw_kind = {
        "list": _list, "editor": _editor, "page": _article, "windows": _windows, "table": _table, "slide": _slide,
    }[screen.kind]  # fmt: skip
    draw_kind(draw, rng, width, tall, ink, font)
    page = np.ascontiguousarray(np.asarray(canvas)[..., ::-1])
    if screen.kind in ("page", "windows"):
        _picture(page, rng, width, height)
    return page


def _bright(rng: np.random.Generator) -> tuple[int, ...]:
    return tuple(int(c) for c in rng.uniform(30, 230, 3))


def _list(
    draw: ImageDraw.ImageDraw, rng: np.random.Generator, w: int, h: int, ink: tuple[int, ...], font: object
) -> None:
    rows, color = int(rng.integers(14, 26)), _bright(rng)
    draw.rectangle((0, 0, w, h // 22), fill=color)
    for k in range(rows):
        y = h * (k + 1.2) / (rows + 1)
        if rng.random() < 0.5:
            shade = tuple(int(c * (0.5 + 0.5 * k / rows)) for c in color)
            draw.rectangle((w * 0.04, y, w * 0.96, y + h / rows * 0.7), fill=shade)
        draw.text((w * 0.1, y + 4), sentence(rng, int(rng.integers(1, 5))), font=font, fill=ink)  # type: ignore[arg-type]


def _editor(
    draw: ImageDraw.ImageDraw, rng: np.random.Generator, w: int, h: int, ink: tuple[int, ...], font: object
) -> None:
    rows = int(rng.integers(30, 48))
    side = w * rng.uniform(0.05, 0.25)
    draw.rectangle((0, 0, side, h), fill=tuple(max(0, c - 60) for c in ink) if sum(ink) < 300 else (45, 45, 52))
    for k in range(rows):
        x = side + 10 + 18 * int(rng.integers(0, 4))
        for word in sentence(rng, int(rng.integers(0, 7))).split():
            draw.text((x, h * (k + 0.2) / rows), word, font=font, fill=_bright(rng) if rng.random() < 0.5 else ink)  # type: ignore[arg-type]
            x += draw.textlength(word + " ", font=font)  # type: ignore[arg-type]


def _article(
    draw: ImageDraw.ImageDraw, rng: np.random.Generator, w: int, h: int, ink: tuple[int, ...], font: object
) -> None:
    rows, left = int(rng.integers(24, 36)), w * rng.uniform(0.04, 0.3)
    draw.rectangle((0, 0, w, h // 20), fill=_bright(rng))
    for k in range(2, rows):
        if rng.random() < 0.85:
            draw.text((left, h * k / rows), sentence(rng, int(rng.integers(3, 8))), font=font, fill=ink)  # type: ignore[arg-type]


def _windows(
    draw: ImageDraw.ImageDraw, rng: np.random.Generator, w: int, h: int, ink: tuple[int, ...], font: object
) -> None:
    draw.rectangle((0, 0, w, h), fill=_bright(rng))
    for _ in range(int(rng.integers(2, 6))):
        x, y = rng.uniform(0, 0.55) * w, rng.uniform(0, 0.75) * h
        right, low = x + w * rng.uniform(0.3, 0.6), y + h * rng.uniform(0.12, 0.3)
        draw.rectangle((x, y, right, low), fill=(245, 245, 245), outline=(90, 90, 90))
        draw.rectangle((x, y, right, y + h * 0.02), fill=_bright(rng))
        for k in range(5):
            draw.text((x + 8, y + h * (0.025 + 0.022 * k)), sentence(rng, 3), font=font, fill=(30, 30, 30))  # type: ignore[arg-type]


def _table(
    draw: ImageDraw.ImageDraw, rng: np.random.Generator, w: int, h: int, ink: tuple[int, ...], font: object
) -> None:
    rows, columns = int(rng.integers(20, 36)), int(rng.integers(4, 8))
    draw.rectangle((0, 0, w, h / rows), fill=_bright(rng))
    for k in range(rows):
        draw.line((0, h * k / rows, w, h * k / rows), fill=(150, 150, 150))
        for c in range(columns):
            if rng.random() < 0.7:
                draw.text((w * c / columns + 4, h * k / rows + 2), str(int(rng.integers(0, 9999))), font=font, fill=ink)  # type: ignore[arg-type]
    for c in range(columns):
        draw.line((w * c / columns, 0, w * c / columns, h), fill=(150, 150, 150))


def _slide(
    draw: ImageDraw.ImageDraw, rng: np.random.Generator, w: int, h: int, ink: tuple[int, ...], font: object
) -> None:
    """A title and bullet points on each half of the page."""
    for half in range(2):
        title = ImageFont.load_default(h * 0.045)
        draw.text((w * 0.05, h * (half / 2 + 0.03)), sentence(rng, 4).title(), font=title, fill=ink)
        for k in range(int(rng.integers(3, 7))):
            line = "- " + sentence(rng, int(rng.integers(3, 7)))
            draw.text((w * 0.08, h * (half / 2 + 0.11 + 0.055 * k)), line, font=font, fill=ink)  # type: ignore[arg-type]


def _picture(page: npt.NDArray[np.uint8], rng: np.random.Generator, width: int, height: int) -> None:
    """A photograph somewhere on the page."""
    w, h = round(width * rng.uniform(0.2, 0.4)), round(height * rng.uniform(0.2, 0.4))
    x, y = int(rng.uniform(0, width - w)), int(rng.uniform(0.1 * height, height - h))
    page[y : y + h, x : x + w] = cv2.resize(photo(str(rng.choice(NAMES))), (w, h), interpolation=cv2.INTER_AREA)


def _arrow(picture: npt.NDArray[np.uint8], at: npt.NDArray[np.float64], height: int) -> None:
    points = at + np.array([[0, 0], [0, 16], [4, 12], [10, 12]]) * height / 360
    cv2.fillPoly(picture, [points.astype(np.int32)], (255, 255, 255), cv2.LINE_AA)
    cv2.polylines(picture, [points.astype(np.int32)], True, (0, 0, 0), 1, cv2.LINE_AA)


def _glare(rng: np.random.Generator, width: int, height: int, strength: float) -> npt.NDArray[np.float32]:
    spot = np.zeros((height, width), np.float32)
    cv2.circle(spot, (int(rng.uniform(0, width)), int(rng.uniform(0, height))), height // 4, (255.0,), -1)
    return np.asarray(cv2.GaussianBlur(spot, (0, 0), height / 6) * strength, np.float32)

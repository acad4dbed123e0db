"""Coordinates of inline drawings: lines over steps, and intervals beside a zero line. Templates only place them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

WIDTH, HEIGHT = 560, 210
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 10, 10, 24
_POINTS = 400
COLOURS = ("#1f4e9e", "#d9663d", "#2a9d6f", "#8e5bb5", "#b08a1e", "#3c8fa3", "#a03c5c", "#5c6773")


@dataclass(frozen=True, slots=True)
class Tick:
    at: float
    label: str


@dataclass(frozen=True, slots=True)
class Line:
    """points: of an SVG polyline. last: the value at its end, in short. dots: draw each point, too."""

    name: str
    points: str
    colour: str
    last: str
    dots: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Plot:
    """Ticks are in the drawing's units, WIDTH by HEIGHT."""

    title: str
    lines: tuple[Line, ...]
    across: tuple[Tick, ...]
    up: tuple[Tick, ...]
    width: int = WIDTH
    height: int = HEIGHT


Series = Sequence[tuple[float, float]]


def line_plot(title: str, series: Mapping[str, Series], log: bool = False, most: int = 8) -> Plot | None:
    """Of named (x, y) points, sorted by x; None where there is nothing finite to draw. log: the upward scale is
    logarithmic, if all is above zero. Of more than 400 points, the means of neighbours are drawn."""
    finite = {name: [(x, y) for x, y in points if math.isfinite(y)] for name, points in series.items()}
    drawn = {name: _thinned(points) for name, points in list(finite.items())[:most] if points}
    if not drawn:
        return None
    xs = [x for points in drawn.values() for x, _ in points]
    ys = [y for points in drawn.values() for _, y in points]
    log = log and min(ys) > 0 and max(ys) > 2 * min(ys)
    low_x, high_x = min(xs), max(xs)
    low, high = _bounds(min(ys), max(ys), log)

    def place(x: float, y: float) -> tuple[float, float]:
        across = (x - low_x) / ((high_x - low_x) or 1)
        up = (_scaled(y, log) - low) / (high - low)
        return (
            round(_LEFT + across * (WIDTH - _LEFT - _RIGHT), 1),
            round(HEIGHT - _BOTTOM - up * (HEIGHT - _TOP - _BOTTOM), 1),
        )

    lines = []
    for number, (name, points) in enumerate(drawn.items()):
        placed = [place(*point) for point in points]
        path = " ".join(f"{x:g},{y:g}" for x, y in placed)
        dots = tuple(placed) if len(placed) <= 12 else ()
        lines.append(Line(name, path, COLOURS[number % len(COLOURS)], _said(finite[name][-1][1], 4), dots))
    bottom = 10**low if log else low
    across = tuple(Tick(place(x, bottom)[0], f"{x:,.0f}") for x in _ticks(low_x, high_x))
    up = tuple(Tick(place(low_x, y)[1], _said(y, 3)) for y in _up_ticks(low, high, log))
    return Plot(title, tuple(lines), across, up)


@dataclass(frozen=True, slots=True)
class Span:
    """One interval: from low to high with its mean, in the drawing's units."""

    name: str
    low: float
    mean: float
    high: float
    good: bool | None


@dataclass(frozen=True, slots=True)
class Spans:
    spans: tuple[Span, ...]
    zero: float
    ticks: tuple[Tick, ...]


def span_plot(found: Sequence[tuple[str, float, float, float, bool | None]], unit: str = "%") -> Spans:
    """Of (name, low, mean, high, whether it is good, None where that is not clear), 0..WIDTH wide."""
    low = min([0.0, *(row[1] for row in found)])
    high = max([0.0, *(row[3] for row in found)])
    margin = 0.06 * (high - low) or 1.0
    low, high = low - margin, high + margin

    def place(value: float) -> float:
        return round((value - low) / (high - low) * WIDTH, 1)

    spans = tuple(Span(name, place(a), place(m), place(b), good) for name, a, m, b, good in found)
    return Spans(spans, place(0.0), tuple(Tick(place(v), f"{v:g}{unit}") for v in _ticks(low, high, 4)))


def _thinned(points: Series) -> Series:
    if len(points) <= _POINTS:
        return points
    parts = np.array_split(np.array(points), _POINTS)
    return [(float(part[:, 0].mean()), float(part[:, 1].mean())) for part in parts]


def _said(value: float, digits: int) -> str:
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e7 else f"{value:.{digits}g}"


def _scaled(y: float, log: bool) -> float:
    return math.log10(y) if log else y


def _bounds(low: float, high: float, log: bool) -> tuple[float, float]:
    low, high = _scaled(low, log), _scaled(high, log)
    if not log and 0 <= low < 0.5 * high:
        low = 0.0
    spread = (high - low) or abs(high) or 1.0
    return (low if low == 0 and not log else low - 0.04 * spread), high + 0.04 * spread


def _ticks(low: float, high: float, wanted: int = 4) -> list[float]:
    """Round numbers between two."""
    if high <= low:
        return [low]
    rough = (high - low) / wanted
    power = 10 ** math.floor(math.log10(rough))
    step = next(power * k for k in (1, 2, 5, 10) if power * k >= rough)
    return [round(k * step, 12) for k in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def _up_ticks(low: float, high: float, log: bool) -> list[float]:
    if not log:
        return _ticks(low, high)
    powers = range(math.floor(low), math.ceil(high) + 1)
    found = [k * 10.0**power for power in powers for k in (1, 2, 5) if low <= math.log10(k * 10.0**power) <= high]
    return found[:: max(len(found) // 5, 1)] if len(found) > 1 else _ticks(10**low, 10**high)

"""Shots put together: cuts, fades, dissolves and flashes, the truth about them, and the file."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any

import av
import numpy as np

from manifests.films.shots import Shot, frames
from manifests.types import Image


@dataclass(frozen=True, slots=True)
class Then:
    """How a shot goes over into the next: cut, fade (through black), white (through white), or dissolve; `seconds` of
    it."""

    kind: str = "cut"
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Film:
    """shots, and one transition fewer; `fade_in`, `fade_out`: seconds; `flashes`: frames of white inside a shot."""

    name: str
    shots: tuple[Shot, ...]
    then: tuple[Then, ...] = ()
    width: int = 640
    height: int = 360
    fps: float = 24.0
    fade_in: float = 0.0
    fade_out: float = 0.0
    flashes: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Event:
    """A boundary; a cut has start = end = first frame of the new shot, anything else its first and last unclean
    frame."""

    kind: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Truth:
    """What is known of a rendered film: its boundaries, and for each shot its clean frames and how it was made."""

    path: str
    frames: int
    fps: float
    events: tuple[Event, ...]
    shots: tuple[tuple[int, int, Shot], ...]

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def render(film: Film, folder: str | os.PathLike[str], crf: int = 20) -> Truth:
    """Writes `folder/name.mp4` (H.264) and returns the truth about it."""
    then = film.then or (Then(),) * (len(film.shots) - 1)
    assert len(then) == len(film.shots) - 1, "one transition fewer than shots"
    path = Path(folder) / f"{film.name}.mp4"
    path.parent.mkdir(parents=True, exist_ok=True)
    events: list[Event] = []
    spans: list[tuple[int, int]] = []
    pictures = _edit(film, then, events, spans)
    count = write(path, pictures, film.fps, crf)
    shots = tuple((start, end, shot) for (start, end), shot in zip(spans, film.shots, strict=True))
    return Truth(str(path), count, film.fps, tuple(events), shots)


def write(
    path: str | os.PathLike[str], pictures: Iterable[Image], fps: float, crf: int = 20, codec: str = "libx264"
) -> int:
    """Encodes BGR pictures of even size; returns how many."""
    count = 0
    rate = Fraction(fps).limit_denominator(1001)
    with av.open(os.fspath(path), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        assert isinstance(stream, av.VideoStream)
        stream.options = {"crf": str(crf), "preset": "veryfast"}
        stream.pix_fmt = "yuv420p"
        for picture in pictures:
            if not count:
                stream.height, stream.width = picture.shape[:2]
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="bgr24")
            container.mux(stream.encode(frame))
            count += 1
        container.mux(stream.encode(None))
    return count


def repeat(source: str | os.PathLike[str], target: str | os.PathLike[str], times: int) -> Path:
    """The film over and over, without encoding it again: a long film in a moment."""
    with av.open(os.fspath(source)) as inside, av.open(os.fspath(target), "w") as outside:
        stream = outside.add_stream_from_template(inside.streams.video[0])
        packets = [p for p in inside.demux(inside.streams.video[0]) if p.size and None not in (p.pts, p.dts)]
        length = max(p.pts + (p.duration or 0) for p in packets if p.pts is not None)
        kept = [(bytes(p), p.pts or 0, p.dts or 0, p.duration, p.is_keyframe, p.time_base) for p in packets]
        for k in range(times):
            for content, pts, dts, duration, key, base in kept:
                packet = av.Packet(content)
                packet.pts, packet.dts, packet.duration = pts + k * length, dts + k * length, duration
                packet.time_base, packet.is_keyframe, packet.stream = base, key, stream
                outside.mux(packet)
    return Path(target)


def _edit(film: Film, then: Sequence[Then], events: list[Event], spans: list[tuple[int, int]]) -> Iterator[Image]:
    """All pictures in order; fills `events` and the clean `spans` of the shots on the way."""
    at, carried = 0, 0.0  # frame number; seconds of this shot that the last dissolve has shown already
    carry: Iterator[Image] | None = None
    for k, shot in enumerate(film.shots):
        source = carry or frames(shot, film.width, film.height, film.fps)
        total = round(shot.seconds * film.fps) - round(carried * film.fps)
        leaving = then[k] if k < len(then) else Then("fade", film.fade_out) if film.fade_out else None
        entering = then[k - 1] if k else Then("fade", film.fade_in) if film.fade_in else None
        lead = _steps(entering, film.fps) if entering and entering.kind in ("fade", "white") else 0
        tail = _steps(leaving, film.fps) if leaving and leaving.kind != "cut" else 0
        start = at
        for n, picture in enumerate(islice(source, total - (tail if leaving and leaving.kind == "dissolve" else 0))):
            level = 1.0
            if n < lead:
                level = n / lead  # begins on plain black, or white
            if leaving and leaving.kind in ("fade", "white") and n >= total - tail:
                level = min(level, (total - 1 - n) / tail)
            white = (entering if n < lead else leaving) if level < 1 else None
            yield _toward(picture, level, white is not None and white.kind == "white", at in film.flashes)
            at += 1
        spans.append((start + lead, at - (tail if leaving and leaving.kind != "dissolve" else 0)))
        carry, carried = None, 0.0
        if leaving is None:
            break
        if k == len(then):  # the fade that ends the film
            events.append(Event("fade", at - tail, at - 1))
        elif leaving.kind == "cut":
            events.append(Event("cut", at, at))
        elif leaving.kind == "dissolve":
            carry = frames(film.shots[k + 1], film.width, film.height, film.fps)
            carried = leaving.seconds
            events.append(Event("dissolve", at, at + tail - 1))
            for n, (old, new) in enumerate(zip(islice(source, tail), islice(carry, tail), strict=True)):
                share = (n + 1) / (tail + 1)
                yield (old * (1 - share) + new * share + 0.5).astype(np.uint8)
                at += 1
        else:
            events.append(Event("fade", at - tail, at + tail - 1))
        if k == 0 and film.fade_in:
            events.insert(0, Event("fade", 0, lead - 1))


def _steps(then: Then, fps: float) -> int:
    """Frames on one side of a fade, or in the whole of a dissolve."""
    share = then.seconds if then.kind == "dissolve" else then.seconds / 2
    return max(1, round(share * fps))


def _toward(picture: Image, level: float, white: bool, flash: bool) -> Image:
    if flash:
        return np.full_like(picture, 250)
    if level == 1:
        return picture
    goal = 255.0 if white else 0.0
    return (picture * level + goal * (1 - level) + 0.5).astype(np.uint8)

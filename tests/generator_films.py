"""Small films of moving shapes, and manifests of them, for the tests of training."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pyarrow as pa
import pytest

from manifests.store import Store

COLOURS = {"red": (220, 40, 40), "green": (40, 190, 60), "blue": (50, 80, 230), "yellow": (235, 215, 50)}
MOVES = {"right": (1, 0), "left": (-1, 0), "down": (0, 1), "up": (0, -1)}
SECONDS = 2.25
FPS = 16


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Models this small gain nothing from a second thread, and lose much where another process has the core.

    Holds for the modules that import it.
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def draw_clip(number: int, seconds: float = SECONDS) -> tuple[str, list[np.ndarray]]:
    """A caption and the RGB frames (72 x 96) of one moving shape on a background that its number decides.

    Of 64 in a row, every colour moves every way in every shape on every background once.
    """
    colour = list(COLOURS)[number % 4]
    move = list(MOVES)[number // 4 % 4]
    shape = ("circle", "square")[(number ^ number // 16) % 2]
    tone = ("dark", "light")[(number // 8 ^ number // 32) % 2]
    rng = np.random.default_rng(number)
    background = np.full((72, 96, 3), 40 if tone == "dark" else 190, np.uint8)
    background += rng.integers(0, 12, 3, dtype=np.uint8)
    background[54:] //= 2
    start, count = rng.uniform(-4, 4, 2), round(seconds * FPS)
    frames = []
    for k in range(count):
        frame = background.copy()
        along = 36 * (k / count - 0.5)
        x, y = (round(float(v)) for v in (48, 36) + start + along * np.array(MOVES[move]))
        if shape == "circle":
            cv2.circle(frame, (x, y), 11, COLOURS[colour], -1, cv2.LINE_AA)
        else:
            cv2.rectangle(frame, (x - 10, y - 10), (x + 10, y + 10), COLOURS[colour], -1)
        frames.append(frame)
    return f"A {colour} {shape} moves {move} on a {tone} background.", frames


def write_film(file: Path, frames: list[np.ndarray]) -> None:
    with av.open(str(file), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(FPS))
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt, stream.options = "yuv420p", {"crf": "12", "preset": "ultrafast"}
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def write_manifest(folder: Path, rows: list[dict[str, Any]]) -> Path:
    kinds = {"clip_id": pa.string(), "uri": pa.string(), "start_us": pa.int64(), "end_us": pa.int64()}
    kinds |= {"fps": pa.float64(), "caption": pa.string(), "sampled": pa.bool_()}
    Store(folder).replace_table("clips.parquet", [pa.Table.from_pylist(rows, schema=pa.schema(list(kinds.items())))])
    return folder


def make_manifest(folder: Path, clips: int, per_film: int = 6) -> Path:
    """Films of several clips each, and a manifest that samples all of them."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for first in range(0, clips, per_film):
        frames: list[np.ndarray] = []
        film = folder / f"film-{first:03d}.mp4"
        for number in range(first, min(first + per_film, clips)):
            caption, drawn = draw_clip(number)
            start = round(len(frames) / FPS * 1e6)
            frames += drawn
            row = {"clip_id": f"clip-{number:03d}", "uri": str(film), "start_us": start, "caption": caption}
            rows.append(row | {"end_us": round(len(frames) / FPS * 1e6), "fps": float(FPS), "sampled": True})
        write_film(film, frames)
    return write_manifest(folder, rows)

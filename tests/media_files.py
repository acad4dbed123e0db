"""Odd videos made on the spot: their every frame says which one it is."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from manifests.types import Image


def numbered(index: int, width: int = 160, height: int = 96) -> Image:
    """A grey picture whose eight vertical bars spell `index` in binary."""
    picture = np.full((height, width, 3), 60, np.uint8)
    for bit in range(8):
        if index >> bit & 1:
            picture[:, bit * width // 8 : (bit + 1) * width // 8] = 200
    return picture


def number_of(picture: Image) -> int:
    """The index that `numbered` drew, from BGR, RGB or luma of any size."""
    gray = picture if picture.ndim == 2 else picture.mean(axis=2)
    bars = [float(bar.mean()) for bar in np.array_split(gray, 8, axis=1)]
    return sum(1 << bit for bit, level in enumerate(bars) if level > 130)


def write_video(
    path: Path,
    frames: int = 30,
    fps: int = 10,
    size: tuple[int, int] = (160, 96),
    times: Sequence[float] | None = None,
    codec: str = "libx264",
    pixel_format: str = "yuv420p",
    gop: int = 10,
    start: float = 0.0,
) -> Path:
    """Numbered frames at a steady rate, or at the given times in seconds."""
    clock = Fraction(1, fps) if codec == "mpeg4" else Fraction(1, 90_000)  # MPEG-4 part 2 counts in frames
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=fps)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height = size
        stream.pix_fmt = pixel_format
        stream.codec_context.gop_size = gop
        if codec == "libx264":
            stream.options = {"preset": "veryfast", "bf": "2"}
        stream.codec_context.time_base = clock
        for k in range(frames):
            frame = av.VideoFrame.from_ndarray(numbered(k, *size), format="bgr24")
            seconds = start + (k / fps if times is None else times[k])
            frame.pts, frame.time_base = round(seconds / clock), clock
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def rotate(path: Path, degrees: int) -> Path:
    """Writes a display matrix into an MP4's track header, as a phone does: the picture is to be turned clockwise."""
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4 + 40
    assert data[at - 40] == 0, "version 0 of the track header"
    one = 1 << 16
    turns = {
        90: (0, one, -one, 0),
        180: (-one, 0, 0, -one),
        270: (0, -one, one, 0),
    }
    a, b, c, d = turns[degrees]
    data[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    return path

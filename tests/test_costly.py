"""Costly signals: frames of a span decoded once more, its sound, batches and what fails in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import av
import numpy as np
import pyarrow as pa
import pytest

from curation.measure import measure
from filters.shots.cuts import Cuts
from manifests import packs
from manifests.films.film import Truth
from manifests.media.again import look_again
from manifests.media.audio import read_audio
from manifests.media.container import open_film
from manifests.media.scan import Pieces, Scan, Span
from manifests.schema import column
from manifests.types import EVERY_FRAME, Clip, Frames, MediaError, Sampling

RATE = 16_000


def film_with_sound(path: Path, silence: float = 1.0, seconds: float = 3.0) -> str:
    """25 frames a second; sound at 44.1 kHz stereo: silence, then a tone of 1 kHz at half of full scale."""
    with av.open(str(path), "w") as out:
        video = out.add_stream("libx264", rate=25)
        video.width, video.height, video.pix_fmt = 96, 64, "yuv420p"
        audio = out.add_stream("aac", rate=44_100, layout="stereo")
        for k in range(round(seconds * 25)):
            picture = np.full((64, 96, 3), 3 * k % 256, np.uint8)
            out.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        t = np.arange(round(seconds * 44_100)) / 44_100
        tone = np.where(t < silence, 0, 0.5 * np.sin(2 * np.pi * 1000 * t)).astype(np.float32)
        frame = av.AudioFrame.from_ndarray(np.stack([tone, tone]), format="fltp", layout="stereo")
        frame.sample_rate, frame.pts = 44_100, 0
        out.mux(audio.encode(frame))
        out.mux(video.encode(None))
        out.mux(audio.encode(None))
    return str(path)


def test_sound_stands_at_its_own_times(tmp_path: Path) -> None:
    path = film_with_sound(tmp_path / "tone.mp4")
    sound = read_audio(path, 500_000, 2_500_000, RATE)
    assert sound is not None and sound.dtype == np.int16 and sound.shape == (2 * RATE,)
    loud = np.abs(sound.astype(float)).reshape(-1, 160).max(axis=1) > 4000  # by hundredths of a second
    assert abs(int(loud.argmax()) - 50) <= 5 and loud[60:].all()
    spectrum = np.abs(np.fft.rfft(sound[RATE:].astype(float)))
    assert abs(spectrum.argmax() - 1000) <= 1, "a second of samples: one hertz a bin"
    assert 0.4 < np.abs(sound[RATE:]).max() / 32768 < 0.6


def test_a_silent_film_and_a_missing_file(demo: tuple[Path, dict[str, Truth]], tmp_path: Path) -> None:
    assert read_audio(next(iter(demo[1].values())).path, 0, 1_000_000) is None
    with pytest.raises(MediaError, match="no such file"):
        read_audio(str(tmp_path / "gone.mp4"), 0, 1_000_000)


def test_looking_again_sees_what_the_scan_saw(demo: tuple[Path, dict[str, Truth]]) -> None:
    wants = [Sampling(4.0, 96, cap=5, color=True), Sampling(EVERY_FRAME, 48), Sampling(EVERY_FRAME, 0, coded="vectors")]
    path = demo[1]["studio"].path
    with open_film(path) as film:
        found = Scan(film, Cuts().start(film.fps), wants, Pieces())
        spans = [span for span in found if isinstance(span, Span)]
        first = film.first
    assert len(spans) > 2
    for span in spans:
        again = look_again(path, span.start, span.end, wants, span.start_frame, (span.start - first) / 1e6)
        for want in wants:
            once, twice = span.frames[want], again[want]
            assert list(once.indices) == list(twice.indices) and list(once.times) == list(twice.times)
            assert (once.size, once.fps) == (twice.size, twice.fps)
            assert all(np.array_equal(a, b) for a, b in zip(once.images, twice.images, strict=True))
    with pytest.raises(MediaError, match="no frame between"):
        look_again(path, 500_000_000, 501_000_000, wants)


def test_looking_again_brings_the_sound(tmp_path: Path) -> None:
    path = film_with_sound(tmp_path / "tone.mp4")
    heard, seen = Sampling(1.0, 0, audio=RATE), Sampling(2.0, 32)
    both = look_again(path, 1_000_000, 2_000_000, [heard, seen])
    assert both[heard].images[0].shape == (RATE,) and len(both[seen]) == 2
    assert look_again(path, 1_000_000, 2_000_000, [heard])[heard].images[0].shape == (RATE,)


@pytest.mark.parametrize(
    ("want", "held"),
    [
        (packs.DEFAULT, True),
        (Sampling(4.0, 224, cap=3, color=True), True),
        (Sampling(4.0, 720, cap=3, color=True), False),
        (Sampling(4.0, 360, color=True), False),
        (Sampling(8.0, 360, cap=8, color=True), False),
        (Sampling(4.0, 360, cap=8), False),
        (Sampling(4.0, 0, cap=4, crop=64, color=True), False),
        (Sampling(1.0, 0, audio=RATE), False),
    ],
)
def test_what_a_pack_holds(want: Sampling, held: bool) -> None:
    assert packs.holds(packs.DEFAULT, want) is held


@dataclass(frozen=True, slots=True)
class Fussy:
    """Fails on every batch that holds the clip called `bad`; says nothing of the one called `dull`."""

    wants = packs.DEFAULT
    schema: ClassVar[pa.Schema] = pa.schema(
        [column("length", pa.int64(), "of the name"), column("odd", pa.int64(), "odd ones", null="even")]
    )

    def __call__(self, clips: Sequence[Clip], frames: Sequence[Frames]) -> Mapping[str, Sequence[Any]]:
        names = [clip.id for clip in clips]
        if "bad" in names:
            raise RuntimeError("no more memory")
        lengths = [None if n == "dull" else len(n) for n in names]
        return {"length": lengths, "odd": [n if n and n % 2 else None for n in lengths]}


def test_one_bad_clip_does_not_spoil_its_batch() -> None:
    clips = [Clip(name, "v", "v.mp4", 0, 1) for name in ("good", "bad", "dull", "unread")]
    none = Frames([], [], [], (4, 4), 25.0)
    frames: list[dict[Sampling, Frames]] = [{packs.DEFAULT: none}] * 3 + [{}]
    rows = measure([Fussy()], clips, frames, [None, None, None, "v.mp4: gone; look for it."])
    assert [row["length"] for row in rows] == [4, None, None, None]
    assert [row["odd"] for row in rows] == [None] * 4
    assert rows[0]["measure_error"] is None, "null is an answer of that column"
    assert rows[1]["measure_error"] == "Fussy failed (RuntimeError: no more memory)"
    assert "length" in rows[2]["measure_error"] and "odd" not in rows[2]["measure_error"]
    assert rows[3]["measure_error"] == "v.mp4: gone; look for it."

"""A voice without words, and the noise of wind, for films with sound.

The voice is a train of pulses with a melody, shaped by the resonances of a few vowels, and hisses between them: enough
like speech for a detector of speech.

Source: the source-filter model, Fant 1960; formants after Peterson and Barney 1952.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt

RATE = 16_000
Samples = npt.NDArray[np.int16]

_VOWELS = ((730, 1090, 2440), (270, 2290, 3010), (300, 870, 2240), (530, 1840, 2480), (570, 840, 2410))
_WIDTHS = (80, 100, 140)


def voice(seconds: float, seed: int = 0) -> Samples:
    """Mono, 16 kHz."""
    rng = np.random.default_rng(seed)
    count = round(seconds * RATE)
    t = np.arange(count) / RATE
    pitch = rng.uniform(90, 230) * (1 + 0.15 * np.sin(2 * np.pi * 0.9 * t) + 0.03 * np.sin(2 * np.pi * 5 * t))
    pulses = np.diff(np.floor(np.cumsum(pitch) / RATE), prepend=0.0) + 0.01 * rng.normal(size=count)
    sound = np.zeros(count)
    at = 0
    while at < count:
        length = min(int(rng.uniform(0.09, 0.2) * RATE), count - at)
        source = 0.05 * rng.normal(size=length) if rng.random() < 0.25 else pulses[at : at + length]
        swell = np.sqrt(np.sin(np.linspace(0, np.pi, length)))
        sound[at : at + length] = swell * _resonate(source, _VOWELS[int(rng.integers(len(_VOWELS)))])
        at += length + int(rng.uniform(0, 0.05) * RATE)
    return _loud(sound)


def wind(seconds: float, seed: int = 0) -> Samples:
    """Mono, 16 kHz: low noise that swells."""
    rng = np.random.default_rng(seed)
    count = round(seconds * RATE)
    spectrum = np.fft.rfft(rng.normal(size=count))
    low = np.fft.irfft(spectrum / (1 + np.fft.rfftfreq(count, 1 / RATE) / 150), count)
    return _loud(low * (1.2 + np.sin(np.arange(count) / RATE * 2)))


def dub(path: str | os.PathLike[str], sound: Samples) -> None:
    """Puts sound to a film, in place; its pictures are not coded again."""
    path = Path(path)
    whole = path.with_suffix(".dub.mp4")
    with av.open(str(path)) as inside, av.open(str(whole), "w") as outside:
        pictures = inside.streams.video[0]
        video: Any = outside.add_stream_from_template(pictures)
        audio: Any = outside.add_stream("aac", rate=RATE, layout="mono")
        for packet in inside.demux(pictures):
            if packet.size:
                packet.stream = video
                outside.mux(packet)
        frame = av.AudioFrame.from_ndarray(sound[None], format="s16", layout="mono")
        frame.sample_rate, frame.pts = RATE, 0
        outside.mux(audio.encode(frame))
        outside.mux(audio.encode(None))
    whole.replace(path)


def _resonate(source: npt.NDArray[np.float64], formants: tuple[int, ...]) -> npt.NDArray[np.float64]:
    """The sum of what three resonators make of it."""
    size = 2 * len(source)
    z = np.exp(-2j * np.pi * np.arange(size // 2 + 1) / size)
    answer = np.zeros(len(z), complex)
    for formant, width in zip(formants, _WIDTHS, strict=True):
        pole = np.exp((-np.pi * width + 2j * np.pi * formant) / RATE)
        answer += 1 / ((1 - pole * z) * (1 - np.conj(pole) * z))
    return np.asarray(np.fft.irfft(np.fft.rfft(source, size) * answer, size)[: len(source)], np.float64)


def _loud(sound: npt.NDArray[np.float64]) -> Samples:
    return np.asarray(np.round(sound / max(np.abs(sound).max(), 1e-9) * 12_000), np.int16)

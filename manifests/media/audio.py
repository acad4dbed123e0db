"""The sound of a span."""

from __future__ import annotations

from typing import Any

import av
import numpy as np
import numpy.typing as npt
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream

from manifests.media.container import Limits, open_film

_EARLY = 1_000_000  # microseconds before the span at which reading starts: packets do not begin where we wish


def read_audio(
    uri: str, start: int, end: int, rate: int = 16_000, limits: Limits | None = None
) -> npt.NDArray[Any] | None:
    """Mono int16 samples (n,) of the span [start, end), microseconds on the film's clock, at `rate` samples a second.

    The samples stand at their own times: where sound begins late, breaks off or has gaps, there are zeros. None when
    the file has no sound, or none of it can be decoded. Raises MediaError when the file is no video.
    """
    sound = np.zeros(round((end - start) / 1e6 * rate), np.int16)
    heard = False
    with open_film(uri, limits) as film:
        stream = film.container.streams.best("audio")
        if not isinstance(stream, AudioStream):
            return None
        resampler = AudioResampler(format="s16", layout="mono", rate=rate)
        try:
            film.container.seek(max(0, start - _EARLY), backward=True)
            for frame in film.container.decode(stream):
                if frame.time is not None and frame.time * 1e6 >= end:
                    break
                for part in resampler.resample(frame):
                    heard |= _place(part, sound, start, rate)
        except (av.error.FFmpegError, OSError):
            pass  # what was heard until then counts; a file without one good packet has no sound
    return sound if heard else None


def _place(part: Any, sound: npt.NDArray[Any], start: int, rate: int) -> bool:
    """Writes one frame of sound where its time says."""
    if part.time is None:
        return False
    samples = part.to_ndarray().ravel()
    at = round((part.time - start / 1e6) * rate)
    first, last = max(0, at), min(len(sound), at + len(samples))
    if first >= last:
        return False
    sound[first:last] = samples[first - at : last - at]
    return True

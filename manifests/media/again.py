"""A clip's span, decoded once more: for costly signals that want what its frame pack does not hold."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from manifests.media import coded
from manifests.media.audio import read_audio
from manifests.media.buffer import Buffer, uncapped
from manifests.media.container import Limits, open_film
from manifests.media.pixels import Picture
from manifests.media.read import frames_from
from manifests.types import Frames, MediaError, Sampling


def look_again(
    uri: str,
    start: int,
    end: int,
    wants: Iterable[Sampling],
    first: int = 0,
    offset: float | None = None,
    limits: Limits | None = None,
) -> Mapping[Sampling, Frames]:
    """Frames of the span [start, end), microseconds, for every sampling: those that the scan saw.

    first: number of the span's first frame in the film; offset: seconds from the film's first frame to `start`, which
    places the grid of the frame rates.

    Raises MediaError when the video cannot be read or holds no frame in the span.
    """
    wants = list(dict.fromkeys(wants))
    seen = {uncapped(want): Buffer(want.fps) for want in wants if not want.audio}
    origin = start if offset is None else start - round(offset * 1e6)
    index = first
    with open_film(uri, limits) as film:
        coded.export(film, {want.coded for want in seen})
        for decoded in frames_from(film, start) if seen else ():
            if decoded.time >= end:
                break
            picture = Picture(decoded.frame, film.rotation, film.sar)
            within = decoded.time >= start
            for want, buffer in seen.items():
                if buffer.due((decoded.time - origin) / 1e6) and within:
                    buffer.add(index, decoded.time, picture.sample(want))
            index += within
        if seen and index == first:
            raise MediaError(
                f"{film.name}: no frame between {start / 1e6:.3f} s and {end / 1e6:.3f} s; was the file changed?"
            )
        frames = {want: seen[uncapped(want)].between(first, index, want.cap, film) for want in wants if not want.audio}
        size, fps = (film.width, film.height), film.fps
    for want in wants:
        if want.audio:
            sound = read_audio(uri, start, end, want.audio, limits)
            frames[want] = Frames([] if sound is None else [sound], [start][: sound is not None], [first], size, fps)
    return frames

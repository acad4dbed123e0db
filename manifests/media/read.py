"""Exact frames of one span, for training and export: the same frames that the scan counted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import av
import numpy as np
import numpy.typing as npt

from manifests.media.container import Decoded, Film, decode, open_film
from manifests.media.pixels import Picture
from manifests.types import MediaError, Sampling

_SETTLE = 2_000_000  # microseconds; an open-ended seek lands this much early, for containers whose index is coarse

_SLACK = 1_000_000  # microseconds; containers and decoders disagree about how long the last frame is shown


def read_frames(
    uri: str, start: int, end: int, times: Sequence[int] | None = None, short: int = 256
) -> npt.NDArray[np.uint8]:
    """RGB frames (F, H, W, 3) of the span [start, end), microseconds.

    times: for each wanted moment, the frame that is on screen then (the last one that began at or before it); without
    it, every frame of the span. short: short side in pixels; nothing is enlarged.

    Raises MediaError when the video cannot be read, holds no frame in the span, or ends before a wanted moment.
    """
    want = Sampling(float("inf"), short, color=True)
    with open_film(uri) as film:
        shown: list[tuple[int, npt.NDArray[np.uint8]]] = []
        wanted = None if times is None else sorted(set(times))
        pending: tuple[int, Picture] | None = None
        until = start
        for decoded in frames_from(film, start):
            if decoded.time >= end:
                until = end
                break
            until = decoded.end
            picture = Picture(decoded.frame, film.rotation, film.sar)
            if decoded.time < start:
                pending = (decoded.time, picture)
                continue
            if wanted is None:
                shown.append((decoded.time, picture.sample(want)))
                continue
            if pending and any(pending[0] <= t < decoded.time for t in wanted):
                shown.append((pending[0], pending[1].sample(want)))
            pending = (decoded.time, picture)
        if wanted is not None and pending:
            shown.append((pending[0], pending[1].sample(want)))
        if wanted and wanted[-1] > until + _SLACK:
            raise MediaError(
                f"{film.name}: ends at {until / 1e6:.3f} s, before {wanted[-1] / 1e6:.3f} s; was the file changed?"
            )
        if not shown:
            raise MediaError(
                f"{film.name}: no frame between {start / 1e6:.3f} s and {end / 1e6:.3f} s; was the file changed?"
            )
    if times is not None:
        began = np.array([t for t, _ in shown])
        picked = np.maximum(np.searchsorted(began, np.asarray(times), side="right") - 1, 0)
        shown = [shown[k] for k in picked]
    return np.ascontiguousarray(np.stack([image for _, image in shown])[..., ::-1])


def frames_from(film: Film, start: int) -> Iterator[Decoded]:
    """Frames from the last key frame before `start` on; from the beginning where the container cannot seek.

    A seek may land late (coarse index, missing index, edit lists): if the first frame is after `start`, the film is
    opened again and walked from its beginning.
    """
    origin = film.stream.start_time or 0
    base = film.stream.time_base
    target = start - _SETTLE
    if base is None or target <= origin * base * 1_000_000:
        yield from decode(film)
        return
    try:
        film.container.seek(round(target / 1_000_000 / base), stream=film.stream, backward=True)
        frames = decode(film)
        first = next(frames)
    except (av.error.FFmpegError, MediaError, StopIteration):
        first = None
    if first is not None and first.frame.pts is not None and first.time <= start:
        yield first
        yield from frames
        return
    with open_film(film.uri) as again:
        yield from decode(again)

"""One walk over a video: every frame is decoded once, for the splitter and for everything that is measured."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from manifests.media import coded
from manifests.media.buffer import Buffer, uncapped
from manifests.media.container import Decoded, Film, Limits, decode
from manifests.media.pixels import Picture
from manifests.types import Boundary, Frames, Image, Sampling, Splitter


@dataclass(frozen=True, slots=True)
class Pieces:
    """How shots become clips.

    longest:    seconds; a longer shot is cut in pieces of this length, the last two sharing what is left
    frames:     frames; the same for films of very high frame rate, because an open clip is held in memory
    shortest:   seconds that the last piece has at least
    trim_start: seconds at the start of the film that no clip should contain (Panda-70M, Movie Gen); a shot that ends
                before them keeps its row, for a rule on `film_offset_s` to reject
    trim_end:   seconds at the end of every shot that no clip contains, where the shot is long enough (EasyAnimate's
                scripts drop half a second)
    """

    longest: float = 20.0
    frames: int = 2400
    shortest: float = 2.0
    trim_start: float = 0.0
    trim_end: float = 0.0


@dataclass(frozen=True, slots=True)
class Span:
    """A clip that the walk has closed, with its frames for every sampling that was asked for."""

    start_frame: int
    end_frame: int
    start: int
    end: int
    corrupt: int
    frames: Mapping[Sampling, Frames]


@dataclass(frozen=True, slots=True)
class TimedBoundary:
    boundary: Boundary
    start: int
    end: int


class Scan:
    """The walk itself: iterate over it to receive spans and boundaries in film order.

    Memory is bounded by the open clip: frames are kept from the last boundary on, and a clip that grows beyond
    `pieces` is closed in pieces.
    """

    def __init__(
        self, film: Film, splitter: Splitter, wants: Iterable[Sampling], pieces: Pieces, limits: Limits | None = None
    ):
        self.film = film
        self._splitter = splitter
        self._pieces = pieces
        self._limits = limits or Limits()
        self._wants = tuple(dict.fromkeys(wants))
        self._buffers = {uncapped(w): Buffer(uncapped(w).fps) for w in self._wants}
        coded.export(film, {want.coded for want in self._wants})
        self._open = 0  # first frame of the open clip
        self._offset = 0  # number of the frame that self._frames starts with
        self._times: list[tuple[int, int, bool]] = []  # (time, end, corrupt) of every frame since the open clip began

    def __iter__(self) -> Iterator[Span | TimedBoundary]:
        trim_until: int | None = None
        for decoded in decode(self.film, self._limits):
            if trim_until is None:
                trim_until = decoded.time + round(self._pieces.trim_start * 1e6)
            self._take(decoded)
            for boundary in self._splitter.push(decoded.index, self._look(decoded)):
                yield from self._apply(boundary, trim_until)
            yield from self._split_long(trim_until)
        assert trim_until is not None, "decode yields a frame or raises"
        for boundary in self._splitter.flush():
            yield from self._apply(boundary, trim_until)
        yield from self._close(self._offset + len(self._times), trim_until)

    # -- taking frames in ------------------------------------------------------------------------------------------

    def _take(self, decoded: Decoded) -> None:
        self._times.append((decoded.time, decoded.end, decoded.corrupt))
        self._picture = Picture(decoded.frame, self.film.rotation, self.film.sar)
        elapsed = (decoded.time - self.film.first) / 1e6
        for want, buffer in self._buffers.items():
            if buffer.due(elapsed):
                buffer.add(decoded.index, decoded.time, self._picture.sample(want))

    def _look(self, decoded: Decoded) -> Image:
        return self._picture.sample(self._splitter.wants)

    # -- closing clips ---------------------------------------------------------------------------------------------

    def _apply(self, boundary: Boundary, trim_until: int) -> Iterator[Span | TimedBoundary]:
        start, end = self._at(boundary.start)[0], self._at(boundary.end)[0]
        yield from self._close(boundary.start, trim_until)
        yield TimedBoundary(boundary, start, end)
        self._forget(boundary.next_shot)

    def _split_long(self, trim_until: int) -> Iterator[Span]:
        """Closes a piece of an overlong clip as soon as no boundary can fall into it any more."""
        settled = min(self._splitter.settled, self._offset + len(self._times) - 1)
        if settled <= self._open:
            return
        start = self._trimmed(settled, trim_until)
        longest = round(self._pieces.longest * 1e6)
        seconds_over = self._at(settled)[0] - self._at(start)[0] >= longest + self._pieces.shortest * 1e6
        if seconds_over or settled - start > self._pieces.frames + 16:
            end = start + 1
            limit = self._at(start)[0] + longest
            while end < settled and self._at(end)[0] < limit and end - start < self._pieces.frames:
                end += 1
            yield self._span(start, end)
            self._forget(end)

    def _close(self, end: int, trim_until: int) -> Iterator[Span]:
        if self._pieces.trim_end and end > self._open:
            last = self._at(end - 1)[1] - round(self._pieces.trim_end * 1e6)
            while end > self._open + 1 and self._at(end - 1)[1] > last and self._at(self._open)[1] <= last:
                end -= 1
        for start, stop in self._halves(self._trimmed(end, trim_until), end):
            yield self._span(start, stop)

    def _trimmed(self, end: int, trim_until: int) -> int:
        start = self._open
        while start < end and self._at(start)[0] < trim_until:
            start += 1
        return start if start < end else self._open

    def _halves(self, start: int, end: int) -> list[tuple[int, int]]:
        """What is left of a long clip is less than longest + shortest; if it is over longest, two pieces share it."""
        if end <= start:
            return []
        seconds = (self._at(end - 1)[1] - self._at(start)[0]) / 1e6
        if (seconds <= self._pieces.longest and end - start <= self._pieces.frames) or end - start < 2:
            return [(start, end)]
        middle = start + (end - start) // 2
        return [(start, middle), (middle, end)]

    def _span(self, start: int, end: int) -> Span:
        rows = self._times[start - self._offset : end - self._offset]
        frames = {want: self._buffers[uncapped(want)].between(start, end, want.cap, self.film) for want in self._wants}
        # A clip ends where the next frame begins; only the film's last frame needs its own duration.
        after = end - self._offset
        stop = self._times[after][0] if after < len(self._times) else rows[-1][1]
        return Span(start, end, rows[0][0], stop, sum(r[2] for r in rows), frames)

    def _forget(self, until: int) -> None:
        del self._times[: until - self._offset]
        self._offset = self._open = until
        for buffer in self._buffers.values():
            buffer.forget(until)

    def _at(self, index: int) -> tuple[int, int, bool]:
        return self._times[min(index - self._offset, len(self._times) - 1)]

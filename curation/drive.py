"""Drives parts through their stages on Dask.

A part's stages are dependent futures, so the scheduler holds the graph; we keep about twice as many parts in flight as
there are slots, so that neither side waits and a hundred thousand parts do not sit in the scheduler. Where there are
few parts, several workers share the costly signals of each. Dask moves parts' names, receipts and measured values,
never pixels. A task whose worker dies is tried again elsewhere; a part that keeps killing workers
is taken apart to find the video that does it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from distributed import Client, Future, as_completed, wait
from distributed.scheduler import KilledWorker

from curation.cluster import slots
from curation.costly import join, measure_slice
from curation.identify import identify
from curation.job import Job, Part, Receipt, Video
from curation.scan import probe, scan_part
from manifests.media.container import base_name

_MOST_SLICES = 16

T = TypeVar("T")
R = TypeVar("R")

OnReceipt = Callable[[Receipt], None]


@dataclass(frozen=True, slots=True)
class Work:
    """What is left to do for one part."""

    part: Part
    scan: bool
    measure: bool
    attempts: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class _Flight:
    """Futures of one part; `last` is done when the part is."""

    work: Work
    scan: Future | None
    last: Future


class Driver:
    """Submits work in a bounded window and hands every receipt to `on_receipt`."""

    def __init__(self, client: Client, job: Job, on_receipt: OnReceipt):
        self._client = client
        self._packed = job.pack_up()
        self._on_receipt = on_receipt
        self._slots = slots(client)
        self._window = 2 * self._slots
        self._slices = 1

    def identify(self, uris: Sequence[str], chunk: int = 64) -> Iterator[list[Video]]:
        """Identifies inputs where the workers are: only they need to see the files."""
        return self.each(identify, [uris[k : k + chunk] for k in range(0, len(uris), chunk)])

    def each(self, function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
        """What the function makes of every item on the workers, as it is done. Raises what it raised."""
        waiting = iter(items)
        done = as_completed(with_results=True)
        for item in itertools.islice(waiting, self._window):
            done.add(self._client.submit(function, item, pure=False))
        for _, result in done:
            yield result
            for item in itertools.islice(waiting, 1):
                done.add(self._client.submit(function, item, pure=False))

    def run(self, work: Sequence[Work]) -> None:
        """Returns when every part is whole. The largest parts go first, so that no worker ends alone with one.

        Raises what a stage raised: a full disk, a bug. What is wrong with a video is no error here.
        """
        waiting = iter(sorted(work, key=lambda w: -w.part.bytes))
        self._slices = max(1, min(_MOST_SLICES, 8 * self._slots // max(1, len(work))))
        flights: dict[Future, _Flight] = {}
        done = as_completed()

        def submit(todo: Work) -> None:
            flight = self._submit(todo)
            for future in (flight.scan, flight.last):
                if future is not None and future not in flights:
                    flights[future] = flight
                    done.add(future)

        for todo in itertools.islice(waiting, self._window):
            submit(todo)
        for future in done:
            flight = flights.pop(future)
            if future.status == "finished":
                self._on_receipt(future.result())
            elif future is flight.last:
                submit(self._without_killers(flight))
                continue
            if future is flight.last:
                for todo in itertools.islice(waiting, 1):
                    submit(todo)

    def _submit(self, todo: Work) -> _Flight:
        scan = measure = None
        if todo.scan:
            scan = self._client.submit(scan_part, self._packed, todo.part, pure=False, priority=0)
        if todo.measure:  # later stages first
            measure = self._measure(todo.part, scan)
        last = measure or scan
        assert last is not None, "work that is nothing to do is not submitted"
        return _Flight(todo, scan, last)

    def _measure(self, part: Part, scan: Future | None) -> Future:
        slices = [
            self._client.submit(measure_slice, self._packed, part, n, self._slices, scan, pure=False, priority=10)
            for n in range(self._slices)
        ]
        return self._client.submit(join, self._packed, part, *slices, pure=False, priority=20)

    def _without_killers(self, flight: _Flight) -> Work:
        """The same work, with the videos marked that killed their worker when they were alone with it."""
        work, scan = flight.work, flight.scan
        error = flight.last.exception()
        if scan is None or not isinstance(error, KilledWorker) or work.attempts:
            raise error
        probes = {v.uri: self._client.submit(probe, self._packed, v, pure=False) for v in work.part.videos}
        wait(list(probes.values()))
        fatal = tuple(
            (
                uri,
                f"{base_name(uri)}: decoding it killed the worker process; re-encode it or take it out of the sources.",
            )
            for uri, future in probes.items()
            if isinstance(future.exception(), KilledWorker)
        )
        return replace(work, part=replace(work.part, fatal=fatal), attempts=work.attempts + 1)

"""Batches: which clips stand in which, a pure function of (seed, epoch, ids), and how they are read ahead of the steps.

A step's batch is a list of units. A unit is one clip or, in a frame pack, the clips of one sequence. Processes share a
batch unit by unit; the place of a clip in the whole batch, its slot, does not depend on who computes it.
"""

from __future__ import annotations

import hashlib
import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from generator.dit.packing import first_fit_decreasing

Unit = tuple[str, ...]
"""Clip ids."""

Plan = Callable[[int], Iterator[list[Unit]]]
"""Batches without end, from number `first` on."""

Fetch = Callable[[list[Unit], list[int], int], Any]
"""(units, slots of their clips, clips of the global batch) -> a batch"""

Deal = Callable[[int], Iterable[Sequence[int]]]
"""Number of units of a batch -> those that this process computes, pass by pass"""


@dataclass(frozen=True, slots=True)
class Loading:
    """How clips are read; it changes how fast a training is, not what it computes.

    workers: films that are decoded at a time. ahead: batches that are made before they are asked for. keep: decoded
    pixels are kept on disk; without it films are decoded again whenever their pixels are needed.
    """

    workers: int = 2
    ahead: int = 2
    keep: bool = True

    def __post_init__(self) -> None:
        if self.workers < 1 or self.ahead < 0:
            raise ValueError("workers must be at least 1 and ahead at least 0.")


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """What one process computes in one pass. slots: of its clips, of the `world` clips of the global batch."""

    slots: list[int]
    world: int
    batch: Any


def _whole(count: int) -> list[range]:
    """One process, in one pass."""
    return [range(count)]


@dataclass(frozen=True, slots=True)
class Feed:
    """Batches as they are planned and fetched. ahead: how many are fetched before they are asked for, by as many
    threads as `workers`; 0 fetches each when its step begins. The order is that of the plan in any case."""

    plan: Plan
    fetch: Fetch
    ahead: int = 2
    workers: int = 1

    def parts(self, first: int, last: int, deal: Deal = _whole) -> Iterator[list[Part]]:
        """Of the steps `first` to `last` - 1, each the passes of this process."""
        planned = itertools.islice(self.plan(first), last - first)
        if not self.ahead:
            for units in planned:
                yield self._parts(units, deal)
            return
        with ThreadPoolExecutor(max_workers=self.workers) as pool:
            coming: deque[Future[list[Part]]] = deque()
            try:
                for units in planned:
                    coming.append(pool.submit(self._parts, units, deal))
                    if len(coming) > self.ahead:
                        yield coming.popleft().result()
                while coming:
                    yield coming.popleft().result()
            finally:
                for future in coming:
                    future.cancel()

    def _parts(self, units: list[Unit], deal: Deal) -> list[Part]:
        starts = [0, *itertools.accumulate(len(unit) for unit in units)]
        found = []
        for mine in deal(len(units)):
            slots = [slot for k in mine for slot in range(starts[k], starts[k + 1])]
            found.append(Part(slots, starts[-1], self.fetch([units[k] for k in mine], slots, starts[-1])))
        return found


def order(ids: Sequence[str], seed: int, epoch: int) -> list[str]:
    """A permutation that depends on nothing but its arguments, as a set: the same on every machine and version."""
    return sorted(ids, key=lambda clip: hashlib.blake2b(f"{seed}/{epoch}/{clip}".encode(), digest_size=16).digest())


def batches(ids: Sequence[str], seed: int, size: int, first: int = 0) -> Iterator[list[str]]:
    """Batches of clip ids without end, from number `first` on; a batch may span two epochs, so none is ever empty."""
    assert ids, "somebody checked that there is data"
    epoch, place = -1, first * size
    ordered: list[str] = []
    while True:
        batch: list[str] = []
        for _ in range(size):
            if place // len(ids) != epoch:
                epoch = place // len(ids)
                ordered = order(ids, seed, epoch)
            batch.append(ordered[place % len(ids)])
            place += 1
        yield batch


@dataclass(frozen=True, slots=True)
class Grouped:
    """Batches of one group each, so that all clips of a batch have one shape.

    groups: clip ids by name; sizes: clips of a batch, likewise. In each epoch every group comes up as often as its
    clips fill batches, in an order drawn by (seed, epoch); what is left over stands first in the group's next batch. So
    each clip of a group is seen once before any is seen again. With one group this is `batches`.
    """

    groups: Mapping[str, Sequence[str]]
    sizes: Mapping[str, int]
    seed: int

    def __call__(self, first: int) -> Iterator[list[Unit]]:
        assert all(self.groups.values()) and self.groups, "somebody checked that there is data"
        done = dict.fromkeys(self.groups, 0)
        passed, epoch = 0, 0
        while passed + len(turns := self._turns(epoch)) <= first:
            for name in turns:
                done[name] += 1
            passed, epoch = passed + len(turns), epoch + 1
        for name in turns[: first - passed]:
            done[name] += 1
        streams = {name: batches(self.groups[name], self.seed, self.sizes[name], n) for name, n in done.items()}
        for name in turns[first - passed :]:
            yield [(clip,) for clip in next(streams[name])]
        for later in itertools.count(epoch + 1):
            for name in self._turns(later):
                yield [(clip,) for clip in next(streams[name])]

    def _turns(self, epoch: int) -> list[str]:
        """Names of the groups of an epoch's batches, in order."""
        turns = []
        for name, ids in self.groups.items():
            size = self.sizes[name]
            turns += [f"{k}/{name}" for k in range((epoch + 1) * len(ids) // size - epoch * len(ids) // size)]
        return [turn.split("/", 1)[1] for turn in order(turns, self.seed, epoch)]


@dataclass(frozen=True, slots=True)
class Mixed:
    """Batches of two plans: `share` of them, evenly spread, are those of `images`."""

    videos: Plan
    images: Plan
    share: float

    def __call__(self, first: int) -> Iterator[list[Unit]]:
        before = int(first * self.share)
        videos, images = self.videos(first - before), self.images(before)
        for step in itertools.count(first):
            yield next(images if of_images(step, self.share) else videos)


def of_images(step: int, share: float) -> bool:
    """Whether the batch of a step, counted from 0, is one of the images, where they are this share of all batches."""
    return int((step + 1) * share) > int(step * share)


_WINDOW = 256
"""Clips that are packed together; in a larger window sequences are fuller, and a resumed run plans longer."""


@dataclass(frozen=True, slots=True)
class Packs:
    """Batches of `batch` frame packs: sequences of at most `budget` tokens, first-fit decreasing within a window of the
    epoch's order. So each clip comes once an epoch, and what stands together changes from epoch to epoch.

    lengths: tokens of each clip. share: of the clips that are `images`, evenly spread.
    """

    films: Sequence[str]
    images: Sequence[str]
    lengths: Mapping[str, int]
    budget: int
    batch: int
    share: float
    seed: int

    def __call__(self, first: int) -> Iterator[list[Unit]]:
        packs = self._packs()
        yield from itertools.islice(iter(lambda: list(itertools.islice(packs, self.batch)), []), first, None)

    def _packs(self) -> Iterator[Unit]:
        clips = self._clips()
        window = min(_WINDOW, len(self.films))
        for number in itertools.count():
            now = list(itertools.islice(clips, window))
            rows = first_fit_decreasing([self.lengths[clip] for clip in now], self.budget)
            found = {",".join(unit): unit for unit in (tuple(now[k] for k in row) for row in rows)}
            for name in order(list(found), self.seed, number):
                yield found[name]

    def _clips(self) -> Iterator[str]:
        films = (clip for clips in batches(self.films, self.seed, 1) for clip in clips)
        if not self.images or not self.share:
            yield from films
        images = (clip for clips in batches(self.images, self.seed, 1) for clip in clips)
        for k in itertools.count():
            yield next(images if of_images(k, self.share) else films)

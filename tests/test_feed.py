"""Batches: of one shape each, every clip once an epoch, the same from any step on, fetched ahead in their order."""

from __future__ import annotations

import threading
import time
from collections import Counter
from itertools import islice

import pytest

from generator.dit.packing import first_fit_decreasing
from generator.feed import Feed, Grouped, Mixed, Packs, Unit, batches

GROUPS = {"wide/long": [f"wl{k}" for k in range(10)], "wide/short": [f"ws{k}" for k in range(7)], "tall": ["t0"]}
SIZES = {"wide/long": 2, "wide/short": 3, "tall": 2}
PLAN = Grouped(GROUPS, SIZES, seed=3)


def flat(units: list[Unit]) -> list[str]:
    return [clip for unit in units for clip in unit]


def test_a_batch_holds_clips_of_one_group_and_is_full() -> None:
    of = {clip: name for name, ids in GROUPS.items() for clip in ids}
    for units in islice(PLAN(0), 100):
        (name,) = {of[clip] for clip in flat(units)}
        assert len(units) == SIZES[name]


def test_each_clip_of_a_group_is_seen_once_before_any_is_seen_again() -> None:
    drawn = [flat(units) for units in islice(PLAN(0), 120)]
    for ids in GROUPS.values():
        stream = [clip for batch in drawn for clip in batch if clip in ids]
        for start in range(0, len(stream) - len(ids) + 1, len(ids)):
            assert sorted(stream[start : start + len(ids)]) == sorted(ids)
    seen = Counter(clip for batch in drawn for clip in batch)
    assert max(seen.values()) - min(seen.values()) <= 2, "no group is preferred"


def test_batches_are_the_same_from_any_step_on_and_whatever_the_order_of_ids() -> None:
    whole = list(islice(PLAN(0), 40))
    for first in range(0, 40, 3):
        assert list(islice(PLAN(first), 40 - first)) == whole[first:]
    turned = Grouped({name: ids[::-1] for name, ids in reversed(GROUPS.items())}, SIZES, seed=3)
    assert list(islice(turned(0), 40)) == whole
    assert list(islice(Grouped(GROUPS, SIZES, seed=4)(0), 40)) != whole


def test_one_group_is_the_simple_case() -> None:
    ids = GROUPS["wide/short"]
    plain = islice(batches(ids, 5, 3), 20)
    assert [flat(units) for units in islice(Grouped({"": ids}, {"": 3}, 5)(0), 20)] == list(plain)


@pytest.mark.parametrize("share", [0.25, 0.1, 1 / 3])
def test_images_come_at_their_share_evenly_spread(share: float) -> None:
    images = Grouped({"image": ["i0", "i1", "i2"]}, {"image": 2}, 0)
    plan = Mixed(PLAN, images, share)
    kinds = [flat(units)[0].startswith("i") for units in islice(plan(0), 300)]
    for end in range(10, 301, 10):
        assert abs(sum(kinds[:end]) - end * share) < 1
    assert list(islice(plan(17), 30)) == list(islice(plan(0), 47))[17:]
    assert [u for u, kind in zip(islice(plan(0), 300), kinds, strict=True) if not kind] == list(
        islice(PLAN(0), 300 - sum(kinds))
    )


def test_first_fit_decreasing_by_hand() -> None:
    assert first_fit_decreasing([5, 7, 3, 2, 4], 10) == [[1, 2], [0, 4], [3]]
    with pytest.raises(ValueError, match="a clip of 11 tokens is longer than a sequence of 10"):
        first_fit_decreasing([3, 11], 10)


def test_packs_hold_every_clip_once_within_the_budget() -> None:
    films = [f"c{k}" for k in range(40)]
    lengths = {clip: 10 + k * 7 % 60 for k, clip in enumerate(films)} | {"i0": 5, "i1": 5}
    plan = Packs(films, [], lengths, budget=100, batch=2, share=0.0, seed=1)
    steps = list(islice(plan(0), 30))
    units = [unit for batch in steps for unit in batch]
    assert all(len(batch) == 2 for batch in steps)
    assert all(sum(lengths[clip] for clip in unit) <= 100 for unit in units)
    first = [clip for unit in units for clip in unit][: len(films)]
    assert sorted(first) == sorted(films)
    used = sum(lengths[clip] for unit in units for clip in unit) / (100 * len(units))
    assert used > 0.85, "sequences are nearly full"
    assert list(islice(plan(7), 10)) == steps[7:17]
    mixed = Packs(films, ["i0", "i1"], lengths, 100, 2, share=0.2, seed=1)
    clips = [clip for batch in islice(mixed(0), 60) for unit in batch for clip in unit]
    assert sum(clip.startswith("i") for clip in clips) / len(clips) == pytest.approx(0.2, abs=0.03)


def test_parts_come_in_order_and_are_fetched_ahead() -> None:
    fetched: list[int] = []

    def fetch(units: list[Unit], slots: list[int], world: int) -> str:
        time.sleep(0.002 if units[0][0] == "a" else 0)
        fetched.append(threading.get_ident())
        return flat(units)[0]

    def plan(first: int) -> object:
        return (([(name,)]) for name in "abcdefgh"[first:])

    for ahead in (0, 3):
        feed = Feed(plan, fetch, ahead=ahead, workers=2)  # type: ignore[arg-type]
        assert [part.batch for (part,) in feed.parts(2, 8)] == list("cdefgh")
        fetched.clear()
        parts = feed.parts(0, 8)
        assert next(parts)[0].batch == "a"
        time.sleep(0.1)
        assert len(fetched) == (4 if ahead else 1)
        assert (threading.get_ident() in fetched) == (not ahead)
        parts.close()  # type: ignore[attr-defined]


def test_slots_do_not_depend_on_who_computes() -> None:
    units: list[Unit] = [("a",), ("b", "c", "d"), ("e",), ("f", "g")]
    feed = Feed(lambda first: iter([units]), lambda mine, slots, world: flat(mine), ahead=0)
    (alone,) = next(feed.parts(0, 1))
    assert alone.slots == list(range(7)) and alone.world == 7
    place = dict(zip(alone.batch, alone.slots, strict=True))
    for rank in range(2):
        passes = next(feed.parts(0, 1, lambda count, rank=rank: [[k] for k in range(rank, count, 2)]))
        assert [len(part.batch) for part in passes] == ([1, 1] if rank == 0 else [3, 2])
        for part in passes:
            assert part.world == 7 and [place[clip] for clip in part.batch] == part.slots


def test_a_fetch_that_fails_is_heard_at_its_step() -> None:
    def fetch(units: list[Unit], slots: list[int], world: int) -> str:
        if units[0][0] == "b":
            raise ValueError("gone")
        return units[0][0]

    feed = Feed(lambda first: iter([[("a",)], [("b",)], [("c",)]]), fetch, ahead=2)
    parts = feed.parts(0, 3)
    assert next(parts)[0].batch == "a"
    with pytest.raises(ValueError, match="gone"):
        next(parts)

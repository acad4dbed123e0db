"""The stage of copies: what was compared stays compared; descriptors; which copy is kept."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from curation import comparing, copying, recipes
from curation.decide import decide
from curation.job import Job, Part, Video
from curation.recipe import Recipe
from curation.relate import Relations, relate
from dedup.copies import Copies, Pairs, Track, groups, judge
from dedup.fingerprint import Fingerprint
from manifests.films.shots import Shot
from manifests.ids import clip_id
from manifests.schema import conform, merge
from manifests.store import Store
from manifests.types import Clip, Frames
from tests.test_copies import LIVELY, OTHERS, SCENE, crop, film, sampled

SECOND = Shot("cat", 4.0, "tilt_up", actors=1, seed=5)
FILMS = {
    "a": (LIVELY, SCENE),
    "b": (OTHERS[1], SECOND),
    "c": (LIVELY,),
    "d": (SECOND, SCENE),
    "e": (OTHERS[2], LIVELY),
}
"""Shots of each film; those of c, d and e that occurred before are cropped."""


@pytest.fixture(scope="module")
def scanned(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Part]]:
    folder = tmp_path_factory.mktemp("copying")
    store, recipe = Store(str(folder)), recipes.embedded()
    parts = {}
    for name, shots in FILMS.items():
        video = Video(f"{name}.mp4", 1000, name * 32)
        parts[name] = Part(f"part-{name}", (video,))
        rows = []
        for number, shot in enumerate(shots):
            pictures, times = sampled(list(film(shot)), start=0.03 * ord(name) % 0.1)
            if name in "cde":
                pictures = [crop(0.05, 0.9, 0.1, 0.95)(p) for p in pictures]
            micro = [round(t * 1e6) + number * 10**7 for t in times.tolist()]
            clip = Clip(clip_id(video.id or "", micro[0], micro[-1]), video.id or "", video.uri, micro[0], micro[-1])
            size = (pictures[0].shape[1], pictures[0].shape[0])
            signal = Fingerprint()([clip], [Frames(pictures, micro, list(range(len(micro))), size, 24.0)])
            rows.append({"clip_id": clip.id, "video_id": clip.video, "uri": clip.uri, "shot": number})
            rows[-1] |= {key: values[0] for key, values in signal.items()} | {"descriptor": [1.0, float(number)]}
        table = conform(pa.Table.from_pylist(rows), recipe.scan_schema)
        store.write_table(f"stages/{recipe.scan_stage}/clips/{parts[name].name}.parquet", table)
    return folder, parts


@pytest.fixture
def compared(monkeypatch: pytest.MonkeyPatch) -> list[frozenset[str]]:
    """Films whose clips were compared with each other, as it happens."""
    seen: list[frozenset[str]] = []

    def watched(candidates: Iterable[tuple[Track, Track]], settings: Copies) -> Pairs:
        found = list(candidates)
        seen.extend(frozenset(t.shot[0] for t in pair) for pair in found)
        return judge(found, settings)

    monkeypatch.setattr(comparing, "judge", watched)
    return seen


def jobs(folder: Path, recipe: Recipe | None = None) -> tuple[Job, Store]:
    return Job(str(folder), recipe or recipes.embedded()), Store(str(folder))


def films(pairs: Pairs, folder: Path, parts: Iterable[Part]) -> set[str]:
    job, store = jobs(folder)
    owner = {
        row["clip_id"]: row["uri"][0]
        for part in parts
        for row in store.read_table(f"stages/{job.recipe.scan_stage}/clips/{part.name}.parquet").to_pylist()
    }
    return {"".join(sorted(owner[clip] for clip in pair)) for pair in pairs}


ALL = {"ac", "ad", "bd", "ae", "ce"}


def test_new_clips_alone_are_compared(
    scanned: tuple[Path, dict[str, Part]], compared: list[frozenset[str]], tmp_path: Path
) -> None:
    folder, parts = _copied(scanned, tmp_path)
    job, store = jobs(folder)
    whole = copying.by_pictures(job, store, list(parts.values()))
    assert films(whole, folder, parts.values()) == ALL
    store.remove(f"stages/{copying.stage_of(job.recipe)}")
    compared.clear()
    first = copying.by_pictures(job, store, [parts[k] for k in "abc"])
    assert films(first, folder, parts.values()) == {"ac"} and {frozenset("ac")} <= set(compared)
    compared.clear()
    more = copying.by_pictures(job, store, [parts[k] for k in "abcde"])
    assert more == whole, "as if all had been there from the start"
    assert compared and all(pair & set("de") for pair in compared), "each with a new one"
    compared.clear()
    assert copying.by_pictures(job, store, [parts[k] for k in "edcba"]) == whole and not compared


def test_clips_that_left_leave_no_copies(
    scanned: tuple[Path, dict[str, Part]], compared: list[frozenset[str]], tmp_path: Path
) -> None:
    folder, parts = _copied(scanned, tmp_path)
    job, store = jobs(folder)
    copying.by_pictures(job, store, list(parts.values()))
    compared.clear()
    left = copying.by_pictures(job, store, [parts[k] for k in "abde"])
    assert films(left, folder, parts.values()) == {"ad", "bd", "ae"} and not compared
    changed = dataclasses.replace(parts["d"], videos=(*parts["d"].videos, Video("x.mp4", 1, "x" * 32)))
    again = copying.by_pictures(job, store, [*(parts[k] for k in "abe"), changed])
    assert again == left and all("d" in pair for pair in compared) and compared, "a part with other videos is another"


def test_what_was_compared_before_a_run_stopped_stays_compared(
    scanned: tuple[Path, dict[str, Part]],
    compared: list[frozenset[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder, parts = _copied(scanned, tmp_path)
    job, store = jobs(folder)
    whole = copying.by_pictures(job, store, list(parts.values()))
    store.remove(f"stages/{copying.stage_of(job.recipe)}")
    compared.clear()
    monkeypatch.setattr(copying, "_GROUP", 1)
    looked = comparing.judge

    def stopped(candidates: Iterable[tuple[Track, Track]], settings: Copies) -> Pairs:
        if len(compared) > 1:
            raise KeyboardInterrupt
        return looked(candidates, settings)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(comparing, "judge", stopped)
        copying.by_pictures(job, store, list(parts.values()))
    before = list(compared)
    assert copying.by_pictures(job, store, list(parts.values())) == whole
    assert len(before) > 1 and not set(before) & set(compared[len(before) :]), "nothing twice"


def test_descriptors_find_copies_too(scanned: tuple[Path, dict[str, Part]], tmp_path: Path) -> None:
    folder, parts = _copied(scanned, tmp_path)
    base = recipes.embedded()
    settings = Copies(pictures=False, vectors="descriptor", cosine=0.99)
    job, store = jobs(folder, dataclasses.replace(base, copies=settings))
    found = copying.copies(job, store, list(parts.values()))
    alike = groups(found, {clip: (0.0,) for pair in found for clip in pair})
    assert sorted(len(group.members) for group in alike) == [4, 5], (
        "the first shots of all, the second of those with two"
    )
    assert all(s == pytest.approx(1) for s in found.values())
    both, _ = jobs(folder, dataclasses.replace(base, copies=dataclasses.replace(settings, pictures=True)))
    assert found.keys() < copying.copies(both, store, list(parts.values())).keys()
    relations = relate(both, store, list(parts.values()))
    assert isinstance(relations, Relations) and len(relations.pairs) > 7


def test_no_descriptors_no_copies(scanned: tuple[Path, dict[str, Part]], tmp_path: Path) -> None:
    folder, _ = _copied(scanned, tmp_path)
    settings = Copies(pictures=False, vectors="descriptor")
    job, store = jobs(folder, dataclasses.replace(recipes.embedded(), copies=settings))
    assert copying.copies(job, store, []) == {}


def _copied(scanned: tuple[Path, dict[str, Part]], folder: Path) -> tuple[Path, dict[str, Part]]:
    """The same parts in a folder of its own, where nothing was compared yet."""
    shutil.copytree(scanned[0], folder / "out")
    return folder / "out", scanned[1]


# -- which is kept -----------------------------------------------------------------------------------------------------

FIRST = {
    "clip_id": "m",
    "width": 1280,
    "height": 720,
    "letterbox_fraction": 0.0,
    "bitrate": 2e6,
    "duration_s": 6.0,
    "aesthetic_photo": 0.6,
}


@pytest.mark.parametrize(
    ("change", "better"),
    [
        ({"width": 1920, "height": 1080, "bitrate": 1e5, "duration_s": 1.0}, True),
        ({"width": 1280, "height": 960, "letterbox_fraction": 0.25, "duration_s": 5.0}, False),
        ({"bitrate": 4e6, "duration_s": 3.0, "aesthetic_photo": 0.1}, True),
        ({"bitrate": 2.02e6, "duration_s": 5.0}, False),
        ({"duration_s": 7.0, "aesthetic_photo": 0.1}, True),
        ({"aesthetic_photo": 0.7}, True),
        ({"bitrate": None}, False),
        ({"width": 1920, "height": 1080, "corrupt_frames": 3}, False),
    ],
)
@pytest.mark.parametrize("name", ["a", "z"])
@pytest.mark.parametrize("swap", [False, True])
def test_the_better_copy_is_kept_whatever_the_order(change: dict, better: bool, name: str, swap: bool) -> None:
    recipe = recipes.embedded()
    recipe = dataclasses.replace(recipe, rules=tuple(r for r in recipe.rules if r.name == "damaged"), derived=())
    rows = [{"corrupt_frames": 0, **FIRST}, {"corrupt_frames": 0, **FIRST, **change, "clip_id": name}]
    rows += [{"corrupt_frames": 0, **FIRST, "clip_id": "other"}]
    table = conform(pa.Table.from_pylist(rows[::-1] if swap else rows), _schema(recipe))
    made = decide(table, recipe, Relations({(min("m", name), max("m", name)): 0.9}))
    of = dict(zip(table["clip_id"].to_pylist(), made["copy_of"].to_pylist(), strict=True))
    assert of == {"m": name if better else None, name: None if better else "m", "other": None}


def _schema(recipe: Recipe) -> pa.Schema:
    return merge(recipe.scan_schema, recipe.costly_schema)


def test_three_copies_have_one_keeper() -> None:
    rng = np.random.default_rng(0)
    recipe = dataclasses.replace(recipes.embedded(), rules=(), derived=())
    rows = [{**FIRST, "clip_id": k, "bitrate": b} for k, b in zip("pqr", (1e6, 9e6, 3e6), strict=True)]
    for _ in range(3):
        table = conform(pa.Table.from_pylist([rows[k] for k in rng.permutation(3)]), _schema(recipe))
        made = decide(table, recipe, Relations({("p", "q"): 0.9, ("p", "r"): 0.8}))
        of = dict(zip(table["clip_id"].to_pylist(), made["copy_of"].to_pylist(), strict=True))
        assert of == {"p": "q", "q": None, "r": "q"} and set(made["copy_group"].to_pylist()) == {"p"}

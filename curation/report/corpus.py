"""Corpus statistics: how many clips and hours there are, of which kind, before and after curation."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from manifests.buckets import Bucketing

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]

LARGEST = 20
"""Lines shown of a breakdown."""


@dataclass(frozen=True, slots=True)
class Corpus:
    """How much there is of clips that satisfy some condition. landscape, people: shares, 0..1; people is None where
    nothing looked for them."""

    name: str
    clips: int
    hours: float
    mean_s: float
    landscape: float
    people: float | None


def corpus(clips: pa.Table) -> list[Corpus]:
    """All clips, the kept, the sampled, and each subset."""
    seconds, wide = _floats(clips["duration_s"]), _floats(clips["aspect"]) >= 1
    looked = "person_score" in clips.column_names and clips["person_score"].null_count < clips.num_rows
    people = np.asarray(pc.fill_null(pc.greater_equal(clips["person_score"], 0.5), False)) if looked else None
    masks = {"all": np.ones(len(seconds), bool), "kept": _bools(clips["kept"]), "sampled": _bools(clips["sampled"])}
    members, which, subsets = _exploded(clips["subsets"])
    for k, name in sorted(enumerate(subsets), key=lambda named: named[1]):
        masks[name] = np.zeros(len(seconds), bool)
        masks[name][members[which == k]] = True
    return [
        Corpus(
            name,
            int(mask.sum()),
            float(seconds[mask].sum() / 3600),
            _mean(seconds[mask]),
            _mean(wide[mask]),
            None if people is None else _mean(people[mask]),
        )
        for name, mask in masks.items()
    ]


def films(videos: pa.Table) -> Corpus:
    """The inputs that could be used."""
    used = videos.filter(pc.equal(videos["status"], "ok"))
    seconds, wide = _floats(used["duration_s"]), _floats(used["width"]) >= _floats(used["height"])
    return Corpus("films", used.num_rows, float(np.nansum(seconds) / 3600), _mean(seconds), _mean(wide), None)


@dataclass(frozen=True, slots=True)
class Amount:
    """So many clips of so many hours together."""

    clips: int
    hours: float

    @property
    def mean_s(self) -> float:
        return 3600 * self.hours / self.clips if self.clips else 0.0


@dataclass(frozen=True, slots=True)
class Line:
    """One kind of clip: how much was found, kept and sampled of it. raw is None where only kept clips have a kind."""

    name: str
    raw: Amount | None
    kept: Amount
    sampled: Amount


@dataclass(frozen=True, slots=True)
class Breakdown:
    """Clips by one trait, the largest kinds first; `more` kinds are left out."""

    title: str
    lines: tuple[Line, ...]
    more: int


def breakdowns(clips: pa.Table, names: Mapping[int, str]) -> list[Breakdown]:
    """By subset, orientation, source (the folder of the film), category of the caption and concept. names: of concepts,
    where they have any."""
    everyone = np.arange(clips.num_rows)
    ratio = _floats(clips["aspect"])
    shape = np.where(ratio > 1, 0, np.where(ratio < 1, 2, 1))
    members, subset, subsets = _exploded(clips["subsets"])
    folder, folders = _folders(clips["uri"])
    with_concept = np.flatnonzero(np.asarray(pc.is_valid(clips["concept"])))
    numbers, concept = np.unique(np.asarray(clips["concept"].drop_null()), return_inverse=True)
    concepts = [names.get(int(n), f"concept {n}") for n in numbers]
    sorted_in = np.flatnonzero(np.asarray(pc.is_valid(clips["caption_category"])))
    categories = clips["caption_category"].combine_chunks().drop_null().dictionary_encode()
    made = [
        _breakdown("subset", clips, members, subset, subsets, raw=False),
        _breakdown("orientation", clips, everyone, shape, ["landscape", "square", "portrait"], raw=True),
        _breakdown("source", clips, everyone, folder, folders, raw=True),
        _breakdown(
            "category", clips, sorted_in, np.asarray(categories.indices), categories.dictionary.to_pylist(), raw=False
        ),
        _breakdown("concept", clips, with_concept, concept, concepts, raw=False),
    ]
    return [each for each in made if each.lines]


def _breakdown(title: str, clips: pa.Table, rows: Ints, kinds: Ints, names: Sequence[str], raw: bool) -> Breakdown:
    """rows: of the clips that are of some kind; kinds: which, by its place in `names`. A clip may be of several."""
    seconds = _floats(clips["duration_s"])[rows]
    masks = (np.ones(len(rows), bool), _bools(clips["kept"])[rows], _bools(clips["sampled"])[rows])
    totals = [
        (np.bincount(kinds[m], minlength=len(names)), np.bincount(kinds[m], seconds[m], len(names)) / 3600)
        for m in masks
    ]
    largest = np.lexsort((np.arange(len(names)), -totals[0][0]))
    largest = largest[totals[0][0][largest] > 0]
    lines = []
    for k in largest[:LARGEST]:
        every, kept, sampled = (Amount(int(n[k]), float(hours[k])) for n, hours in totals)
        lines.append(Line(names[k], every if raw else None, kept, sampled))
    return Breakdown(title, tuple(lines), max(0, len(largest) - LARGEST))


def _folders(uris: pa.ChunkedArray) -> tuple[Ints, list[str]]:
    """The folder that each film lies in, by its place in a list of folders, told from where these part."""
    folders = pc.replace_substring_regex(uris, r"/[^/]*$", "").combine_chunks().dictionary_encode()
    known = folders.dictionary.to_pylist()
    shared = posixpath.commonprefix([f"{name}/" for name in known]).rpartition("/")[0] if len(known) > 1 else ""
    return np.asarray(folders.indices, np.int64), [
        name[len(shared) :].strip("/") or posixpath.basename(name) or name for name in known
    ]


@dataclass(frozen=True, slots=True)
class Matrix:
    """How many kept and sampled clips each bucket holds: counts (rows, columns). `outside`: kept clips without one."""

    rows: tuple[str, ...]
    columns: tuple[str, ...]
    kept: tuple[tuple[int, ...], ...]
    sampled: tuple[tuple[int, ...], ...]
    outside: int


MOST_ROWS = 12


def matrix(clips: pa.Table, buckets: Bucketing) -> Matrix:
    """The bucket matrix. Of bucketings with many sizes, the rows and columns that hold nothing are left out."""
    rows, columns = buckets.axes
    names = [f"{row}/{column}" for row in rows for column in columns]
    place = np.asarray(pc.fill_null(pc.index_in(clips["bucket"], pa.array(names)), -1), np.int64)
    tables = []
    for name in ("kept", "sampled"):
        chosen = place[_bools(clips[name]) & (place >= 0)]
        tables.append(np.bincount(chosen, minlength=len(names)).reshape(len(rows), len(columns)))
    kept, sampled = tables
    down, across = np.arange(len(rows)), np.arange(len(columns))
    if len(rows) > MOST_ROWS:
        down, across = np.flatnonzero(kept.sum(axis=1)), np.flatnonzero(kept.sum(axis=0))
    at = np.ix_(down, across)
    return Matrix(
        tuple(rows[k] for k in down),
        tuple(columns[k] for k in across),
        tuple(map(tuple, kept[at].tolist())),
        tuple(map(tuple, sampled[at].tolist())),
        int((_bools(clips["kept"]) & (place < 0)).sum()),
    )


def _exploded(lists: pa.ChunkedArray) -> tuple[Ints, Ints, list[str]]:
    """For each value in a column of lists its row and its place among the distinct values, and these."""
    flat = lists.combine_chunks()
    values = pc.list_flatten(flat).dictionary_encode()
    rows = np.asarray(pc.list_parent_indices(flat), np.int64)
    return rows, np.asarray(values.indices, np.int64), values.dictionary.to_pylist()


def _floats(column: pa.ChunkedArray) -> npt.NDArray[np.float64]:
    return np.asarray(pc.fill_null(pc.cast(column, pa.float64()), float("nan")))


def _bools(column: pa.ChunkedArray) -> Bools:
    return np.asarray(pc.fill_null(column, False), bool)


def _mean(values: npt.NDArray[np.float64] | Bools) -> float:
    there = np.asarray(values, np.float64)
    there = there[np.isfinite(there)]
    return float(there.mean()) if len(there) else 0.0

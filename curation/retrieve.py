"""A set in which every entry of a taxonomy has its share: texts find clips, the best of these find their like.

Movie Gen's fine-tuning set is made so (arXiv 2410.13720, section on fine-tuning data). Only kept clips are looked at,
so the recipe's rules come first. The result stands in the columns `retrieved*`, for subsets to ask for.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from curation.embedding import Embedding, embedding_of
from curation.folder import Folder
from dedup.retrieval import Balanced, Found, balance_entries, centers, nearest, pick_seeds
from dedup.vectors import Floats
from filters.learned import taxonomy
from manifests import families
from manifests.reviews import KEEP

QUALITY = ("aesthetic_laion", "aesthetic_siglip", "aesthetic_photo")
"""Columns by which machines choose seeds: the first that was measured."""


@dataclass(frozen=True, slots=True)
class Retrieval:
    """How clips are searched.

    taxonomy:   file of entries (see filters.learned.taxonomy); "": our 600
    template:   a sentence around an entry, which takes the place of {}
    candidates: clips that a text finds
    seeds:      of them, clips by which more are looked for
    reviewed:   seeds are taken from clips that a person kept alone
    finds:      clips that the seeds of an entry find
    least:      cosine below which a clip is no find; it means something for one model only
    count:      size of the balanced set; 0: the largest in which every entry that found any has as many
    """

    taxonomy: str = ""
    template: str = "a photo of a person {}"
    candidates: int = 200
    seeds: int = 5
    reviewed: bool = False
    finds: int = 100
    least: float = 0.0
    count: int = 0


@dataclass(frozen=True, slots=True)
class Retrieved:
    """entries: names and how many clips of the balanced set stand for each; found: clips that any entry found."""

    entries: tuple[tuple[str, int], ...]
    found: int
    taken: int


def retrieve(folder: Folder, settings: Retrieval, picked: Sequence[tuple[str, str]] = ()) -> Retrieved:
    """Writes what was found beside the manifest, in place of an earlier search; judge the folder afterwards.

    picked: (entry, clip id) of seeds that people chose, from which the search goes on without any text.
    Raises ValueError when texts cannot be compared with the clips, no clip is kept, or a seed is unknown.
    """
    kept = folder.store.read_table("clips.parquet", ["clip_id"], pc.field("kept"))["clip_id"]
    if not len(kept):
        raise ValueError(f"{folder.store.root}: no clip is kept, so there is nothing to search; loosen the rules.")
    embedding = embedding_of(folder, among=kept.combine_chunks())
    entries, seeds = _picked(embedding, picked) if picked else _by_text(folder, embedding, settings)
    found = nearest(embedding, centers(seeds), settings.finds) if seeds else Found(*_NOTHING)
    near = found.similarity >= settings.least
    found = Found(np.where(near, found.similarity, -np.inf), np.where(near, found.row, -1))
    balanced = balance_entries(found, settings.count)
    rows = np.unique(found.row[found.row >= 0])
    ids = dict(zip(rows.tolist(), embedding.ids(rows), strict=True))
    families.replace(folder.store, families.RETRIEVED, _table(entries, found, balanced, ids))
    counts = zip(entries, balanced.counts.tolist(), strict=True)
    return Retrieved(tuple(counts), len(ids), len(balanced.chosen))


_NOTHING = (np.zeros((0, 0), np.float32), np.zeros((0, 0), np.int64))


def read_picked(path: Path) -> list[tuple[str, str]]:
    """Seeds that people chose, from a table with the columns entry and clip_id. Raises ValueError when it is none."""
    if not path.is_file():
        raise ValueError(f"{path}: there is no such table of seeds; give a CSV file with entry and clip_id.")
    with path.open(newline="", encoding="utf-8-sig") as file:
        lines = csv.DictReader(file)
        if not {"entry", "clip_id"} <= set(lines.fieldnames or ()):
            raise ValueError(f"{path}: the columns of a table of seeds are entry and clip_id.")
        found = [((line["entry"] or "").strip(), (line["clip_id"] or "").strip()) for line in lines]
    if not found or not all(entry and clip for entry, clip in found):
        raise ValueError(f"{path}: every line names an entry and a clip_id; there must be one at least.")
    return found


def _picked(embedding: Embedding, picked: Sequence[tuple[str, str]]) -> tuple[list[str], list[Floats]]:
    entries = list(dict.fromkeys(entry for entry, _ in picked))
    vectors = embedding.of([clip for _, clip in picked])
    names = np.array([entry for entry, _ in picked])
    return entries, [vectors[names == entry] for entry in entries]


def _by_text(folder: Folder, embedding: Embedding, settings: Retrieval) -> tuple[list[str], list[Floats]]:
    """Entries that found seeds, and these."""
    if "{}" not in settings.template:
        raise ValueError(f"template {settings.template!r}: write {{}} where the entry belongs.")
    phrases = taxonomy.phrases(settings.taxonomy)
    texts = embedding.read(tuple(settings.template.replace("{}", phrase) for phrase in phrases))
    pool = _reviewed(folder, embedding) if settings.reviewed else embedding
    found = nearest(pool, texts, settings.candidates)
    rows = np.unique(found.row[found.row >= 0])
    ids = pool.ids(rows)
    quality = np.full(int(rows.max(initial=-1)) + 1, np.nan)
    quality[rows] = _quality(folder, ids)
    seeds = pick_seeds(found, quality, settings.seeds)
    names = dict(zip(rows.tolist(), ids, strict=True))
    chosen = [(phrase, own) for phrase, own in zip(phrases, seeds, strict=True) if len(own)]
    vectors = pool.of([names[row] for _, own in chosen for row in own.tolist()])
    ends = np.cumsum([len(own) for _, own in chosen])[:-1]
    return [phrase for phrase, _ in chosen], np.split(vectors, ends) if chosen else []


def _reviewed(folder: Folder, embedding: Embedding) -> Embedding:
    """The clips that a person kept."""
    reviews = families.read(folder.store, families.REVIEWS)
    good = reviews.filter(pc.equal(reviews["review"], KEEP))["clip_id"].combine_chunks()
    assert embedding.among is not None
    good = good.filter(pc.is_in(good, value_set=embedding.among))
    if not len(good):
        raise ValueError(f"{folder.store.root}: nobody kept a clip in review yet; see vidcurate review.")
    return Embedding(folder, embedding.column, good)


def _quality(folder: Folder, ids: list[str]) -> npt.NDArray[np.float64]:
    """Of clips, by the first measure of looks that there is; not a number where none is."""
    there = folder.store.dataset("clips.parquet").schema.names
    columns = [name for name in QUALITY if name in there]
    table = folder.store.read_table(
        "clips.parquet", ["clip_id", *columns], pc.field("clip_id").isin(pa.array(ids, pa.string()))
    )
    place = pc.index_in(pa.array(ids, pa.string()), value_set=table["clip_id"].combine_chunks())
    for name in columns:
        if table[name].null_count < table.num_rows:
            return np.asarray(pc.fill_null(table[name].take(place).cast(pa.float64()), float("nan")))
    return np.full(len(ids), np.nan)


def _table(entries: Sequence[str], found: Found, balanced: Balanced, ids: dict[int, str]) -> pa.Table:
    """Rows of the family: every clip that was found."""
    query, row, similarity = found.pairs()
    order = np.lexsort((query, -similarity, row))
    query, row, similarity = query[order], row[order], similarity[order]
    clips, starts = np.unique(row, return_index=True)
    names = pa.array(entries, pa.string())
    offsets = pa.array([*starts.tolist(), len(row)], pa.int32())
    stands = dict(zip(balanced.chosen.tolist(), balanced.entry.tolist(), strict=True))
    columns = {
        "clip_id": [ids[int(clip)] for clip in clips],
        "retrieved_for": pa.ListArray.from_arrays(offsets, names.take(pa.array(query))),
        "retrieved_as": names.take(pa.array([stands.get(int(clip)) for clip in clips], pa.int64())),
        "retrieved_similarity": similarity[starts].astype(np.float64),
    }
    return pa.table(columns, families.schema_of(families.RETRIEVED))

"""Which clips are most like a given one, or fit a text best."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from curation.embedding import Embedding, embedding_of
from curation.folder import Folder
from dedup.retrieval import nearest

_SPARE = 16
"""Finds beyond those asked for: the clip itself, and clips of videos that have left the collection."""


@dataclass(frozen=True, slots=True)
class Neighbour:
    """One find: cosine similarity, -1..1, and the clip's row of the manifest."""

    similarity: float
    row: dict[str, Any]


def similar_to_clip(folder: Folder, clip: str, count: int = 20, column: str = "") -> list[Neighbour]:
    """The clips most like the one whose id begins with `clip`, nearest first, rejected ones and copies included.

    Raises ValueError when no clip, or more than one, has such an id, or there is no vector for it.
    """
    embedding = embedding_of(folder, column)
    whole = str(folder.clip(clip)["clip_id"][0])
    return _rows(embedding, embedding.of([whole]), count, without=whole)


def similar_to_text(folder: Folder, text: str, count: int = 20) -> list[Neighbour]:
    """The clips that fit a text best. Raises ValueError where texts cannot be compared with the folder's clips."""
    embedding = embedding_of(folder)
    return _rows(embedding, embedding.read((text,)), count)


def _rows(embedding: Embedding, question: npt.NDArray[np.float32], count: int, without: str = "") -> list[Neighbour]:
    """The nearest clips that are in the manifest; asks for more where too many finds are not."""
    wanted = count + _SPARE
    while True:
        found = nearest(embedding, question, wanted)
        _, numbers, similarity = found.pairs()
        ids = embedding.ids(numbers)
        rows = {
            row["clip_id"]: row
            for row in embedding.folder.store.read_table(
                "clips.parquet", where=pc.field("clip_id").isin(pa.array(ids, pa.string()))
            ).to_pylist()
        }
        here = [(s, rows[i]) for s, i in zip(similarity, ids, strict=True) if i in rows and i != without]
        if len(here) >= count or len(ids) < wanted:
            return [Neighbour(float(s), row) for s, row in here[:count]]
        wanted *= 4

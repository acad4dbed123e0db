"""Names for concepts, in words: the phrase that lies nearest to the middle of each, by CLIP.

A name is kept with the id of the concept's most typical clip, not with its number, which changes whenever clips are
judged anew: a concept is called what the clip in it is called.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curation.embedding import Embedding, embedding_of
from curation.folder import Folder
from curation.report.page import CONCEPT_NAMES
from dedup.concepts import name_concepts
from dedup.vectors import Floats, Rows, unit
from filters.learned import taxonomy

PEOPLE = "a person {}"
TEMPLATE = "a video of {}"


def name_them(folder: Folder, phrases: str = "") -> dict[str, str]:
    """Writes names of all concepts into the folder and returns them by clip id.

    phrases: file of phrases (see filters.learned.taxonomy); "": our places, things and animals, and the 600 things
    people do.
    Raises ValueError when the recipe measures no CLIP embedding, or no clip is kept.
    """
    clips = folder.store.read_table("clips.parquet", ["clip_id", "concept"], pc.field("kept"))
    if not clips.num_rows:
        raise ValueError(f"{folder.store.root}: no clip is kept, so there are no concepts to name; loosen the rules.")
    embedding = embedding_of(folder, among=clips["clip_id"].combine_chunks())
    words = taxonomy.phrases(phrases) if phrases else (*taxonomy.phrases(ours=taxonomy.SCENES), *_people())
    texts = embedding.read(tuple(TEMPLATE.replace("{}", word) for word in words))
    middles, typical = _middles(embedding, clips)
    names = name_concepts(middles, texts, words)
    found = {clip: name for clip, name in zip(typical, names, strict=True) if clip is not None and name is not None}
    folder.store.write_json(CONCEPT_NAMES, found)
    return found


def _people() -> tuple[str, ...]:
    return tuple(PEOPLE.replace("{}", phrase) for phrase in taxonomy.phrases())


def _middles(embedding: Embedding, clips: pa.Table) -> tuple[Floats, list[str | None]]:
    """Of every concept the mean direction of its clips (K, D), and the clip nearest to it; None where none has a
    vector. Walks all vectors twice."""
    numbers = clips["concept"].combine_chunks()
    count = (pc.max(numbers).as_py() or 0) + 1
    sums = np.zeros((count, embedding.size))
    for concept, _, vectors in _blocks(embedding, clips, numbers):
        np.add.at(sums, concept, vectors)
    middles, _ = unit(sums)
    best, typical = np.full(count, -np.inf), np.full(count, None, object)
    for concept, ids, vectors in _blocks(embedding, clips, numbers):
        near = np.einsum("nd,nd->n", vectors, middles[concept])
        order = np.argsort(near, kind="stable")  # of several clips of one concept, the last assignment counts
        better = order[near[order] > best[concept[order]]]
        best[concept[better]] = near[better]
        typical[concept[better]] = np.array(ids.to_pylist(), object)[better]
    return middles, typical.tolist()


def _blocks(embedding: Embedding, clips: pa.Table, numbers: pa.Array) -> Iterator[tuple[Rows, pa.Array, Floats]]:
    """Concept (n,), clip ids and unit vectors (n, D) of blocks of clips that have a vector."""
    known = clips["clip_id"].combine_chunks()
    for ids, block in embedding.named():
        vectors, good = unit(block)
        concept: Rows = np.asarray(numbers.take(pc.index_in(ids, value_set=known)), np.int64)
        yield concept[good], ids.filter(pa.array(good)), vectors[good]

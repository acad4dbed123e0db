"""The vector that a folder keeps for every clip: CLIP's where it was measured, else the embedded descriptor."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from curation.folder import Folder
from curation.recipe import Recipe
from dedup.vectors import Floats, from_arrow
from filters.learned.clip import ClipEmbedding, ClipModel

CLIP, EMBEDDED = "clip_embedding", "descriptor"
_BATCH = 16384


@dataclass(frozen=True, slots=True, eq=False)
class Embedding:
    """Vectors of the clips of one folder, read from its stages' parts a block at a time.

    among: ids of the clips that are looked at; None looks at all, those of videos that were taken out since included.
    """

    folder: Folder
    column: str
    among: pa.Array | None = None

    def __iter__(self) -> Iterator[Floats]:
        """Blocks (n, D); rows of clips without a vector are zeros. The same rows in the same order every time."""
        return (vectors for _, vectors in self.named())

    def named(self) -> Iterator[tuple[pa.Array, Floats]]:
        """The same with the clips' ids."""
        size = self.size
        for batch in self._batches("clip_id", self.column):
            yield batch["clip_id"], from_arrow(batch[self.column], size, f"column {self.column}")

    def ids(self, rows: npt.NDArray[np.int64]) -> list[str]:
        """Clip ids of rows by their numbers in the walk."""
        wanted, inverse = np.unique(rows, return_inverse=True)
        found: list[str] = []
        first = 0
        for batch in self._batches("clip_id"):
            here = wanted[(wanted >= first) & (wanted < first + len(batch))] - first
            found += batch["clip_id"].take(pa.array(here)).to_pylist()
            first += len(batch)
        return [found[k] for k in inverse]

    def of(self, clip_ids: list[str]) -> Floats:
        """Vectors (n, D) of these clips. Raises ValueError when one has none."""
        table = self._dataset().to_table(
            columns=["clip_id", self.column],
            filter=pc.field("clip_id").isin(pa.array(clip_ids, pa.string())) & pc.field(self.column).is_valid(),
        )
        vectors = from_arrow(table[self.column], self.size, f"column {self.column}")
        place = {clip: k for k, clip in enumerate(table["clip_id"].to_pylist())}
        if missing := [clip for clip in clip_ids if clip not in place]:
            raise ValueError(f"{missing[0]}: column {self.column} was not measured for this clip; choose another.")
        return vectors[[place[clip] for clip in clip_ids]]

    @property
    def size(self) -> int:
        """Numbers in a vector. Raises ValueError when no clip has one."""
        for batch in self._dataset().to_batches(columns=[self.column], batch_size=_BATCH):
            lengths = pc.list_value_length(batch[self.column].drop_null())
            if len(lengths):
                return int(lengths[0].as_py())
        raise ValueError(f"{self.folder.store.root}: no clip has a value in column {self.column}; run again with it.")

    @property
    def model(self) -> ClipModel | None:
        """That reads texts into the same space; None where texts have no place in it."""
        recipe = self.folder.recipe
        signals = [s for s in (*recipe.signals, *recipe.costly) if isinstance(s, ClipEmbedding)]
        return signals[0].model if signals and self.column == CLIP else None

    def read(self, texts: tuple[str, ...]) -> Floats:
        """Vectors (n, D) of texts. Raises ValueError when texts cannot be compared with these clips."""
        if self.model is None:
            raise ValueError(
                f"{self.folder.store.root}: texts are compared with the column {CLIP}, which this recipe does not "
                "measure; add filters.learned.clip.ClipEmbedding() to its costly signals and run again."
            )
        return self.model.read(texts)

    def _batches(self, *columns: str) -> Iterator[pa.RecordBatch]:
        for batch in self._dataset().to_batches(
            columns=list(columns), batch_size=_BATCH, fragment_readahead=1, batch_readahead=4
        ):
            if self.among is not None:
                batch = batch.filter(pc.is_in(batch["clip_id"], value_set=self.among))
            if len(batch):
                yield batch

    def _dataset(self) -> ds.Dataset:
        recipe, store = self.folder.recipe, self.folder.store
        stage = f"stages/{recipe.measure_stage if _is_costly(recipe, self.column) else recipe.scan_stage}/clips"
        if not store.names(stage, ".parquet"):
            raise ValueError(f"{store.root}: the parts of {stage} are gone; run again to measure them anew.")
        return store.dataset(stage)


def embedding_of(folder: Folder, column: str = "", among: pa.Array | None = None) -> Embedding:
    """The folder's vectors; column: which, "" for the best there is. Raises ValueError when there is no such column."""
    recipe = folder.recipe
    known = [c for c in (CLIP, EMBEDDED) if c in {*recipe.walk_schema.names, *recipe.costly_schema.names}]
    if column and column not in {*recipe.walk_schema.names, *recipe.costly_schema.names}:
        raise ValueError(f"column {column}: this recipe does not measure it; choose from {', '.join(known)}.")
    return Embedding(folder, column or known[0], among)


def _is_costly(recipe: Recipe, column: str) -> bool:
    return column in recipe.costly_schema.names

"""Pairs of clips worth comparing: those with a window of one that looks like the whole of the other.

Hashes of whole pictures are kept in a FAISS index, hashes of windows are asked for. Up to 200,000 hashes (some 20,000
clips of five seconds) every question is compared with every hash; beyond that, with those in the 64 nearest of cells,
an inverted file, which answers 20 times as quickly at a million and finds 9 of 10 hashes at the very edge of the
reach. A copy usually has several within. Memory: 16 bytes a hash and 8 for its clip, 240 bytes for five seconds; a
collection that is larger than one index is searched in stretches.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import faiss
import numpy as np
import numpy.typing as npt

from dedup.vectors import one_thread
from dedup.windows import BITS, Hashes, mirrored

Rows = npt.NDArray[np.int64]

NEAR, STRICT = 28, 22
"""Bits in which hashes may differ: where every hash is compared, and in large collections, where 1 in 100 million
unrelated ones at 28 bits would be too many."""

FLAT = 200_000
"""Hashes from which on an inverted file is used."""

MOST = 20_000_000
"""Hashes of one index: half a gigabyte."""

_CELLS, _LOOKED_INTO = 4096, 64
_AT_ONCE = 4096


@dataclass(frozen=True, slots=True, eq=False)
class Hashed:
    """Hashes (N, 16) and for each the number of the clip (N,) it is of."""

    hashes: Hashes
    clips: Rows

    def __len__(self) -> int:
        return len(self.clips)

    @classmethod
    def of(cls, clip: int, hashes: Hashes) -> Hashed:
        return cls(hashes, np.full(len(hashes), clip, np.int64))

    @classmethod
    def gather(cls, several: Iterable[Hashed]) -> Hashed:
        several = [*several, cls(np.zeros((0, BITS // 8), np.uint8), np.zeros(0, np.int64))]
        return cls(np.concatenate([h.hashes for h in several]), np.concatenate([h.clips for h in several]))


class Wholes:
    """Hashes of whole pictures, to be asked."""

    def __init__(self, known: Hashed):
        self._clips = known.clips
        self._reach = NEAR if len(known) < FLAT else STRICT
        self._index: faiss.IndexBinary = faiss.IndexBinaryFlat(BITS)
        if len(known) >= FLAT:
            self._centres = self._index  # FAISS does not keep it alive
            self._index = _inverted(self._centres, known.hashes)
        with one_thread():
            self._index.add(known.hashes)

    def __len__(self) -> int:
        return len(self._clips)

    def near(self, asked: Hashed, mirror: bool = False) -> npt.NDArray[np.int64]:
        """Pairs of clips (P, 2), each once: the one that is asked for, and one that has a hash near one of its own.
        mirror: look for its mirror image too."""
        found = [np.zeros((0, 2), np.int64)]
        if not len(self):
            return found[0]
        for hashes in [asked.hashes, mirrored(asked.hashes)] if mirror else [asked.hashes]:
            for start in range(0, len(hashes), _AT_ONCE):
                with one_thread():
                    ends, _, at = self._index.range_search(hashes[start : start + _AT_ONCE], self._reach + 1)
                asker = np.repeat(asked.clips[start : start + _AT_ONCE], np.diff(ends.astype(np.int64)))
                found.append(np.unique(np.stack([asker, self._clips[at]], axis=1), axis=0))
        return np.unique(np.concatenate(found), axis=0)


def _inverted(centres: faiss.IndexBinary, hashes: Hashes) -> faiss.IndexBinary:
    """Hashes drawn at random are the centres of cells: k-means has no means of bits."""
    drawn = np.random.default_rng(0).choice(len(hashes), _CELLS, replace=False)
    centres.add(np.unique(hashes[drawn], axis=0))
    index = faiss.IndexBinaryIVF(centres, BITS, centres.ntotal)
    index.is_trained = True
    index.nprobe = _LOOKED_INTO
    return index


def stretches(hashed: Iterable[Hashed], most: int = MOST) -> Iterator[Hashed]:
    """The same in pieces of about `most` hashes."""
    gathered: list[Hashed] = []
    for one in hashed:
        gathered.append(one)
        if sum(map(len, gathered)) >= most:
            yield Hashed.gather(gathered)
            gathered = []
    if gathered:
        yield Hashed.gather(gathered)

"""Sign codes: on which side of 512 random planes a vector lies, a bit each. They rule out most pairs cheaply.

Two vectors at angle x differ in a share x / pi of their bits on average, whatever the vectors (Charikar 2002). Planes
at right angles to one another make the share less noisy (Ji et al. 2012); its spread is then at most that of
independent coins, which `reach` assumes.
"""

from __future__ import annotations

import math

import faiss
import numpy as np
import numpy.typing as npt

from dedup.vectors import Floats, Rows, one_thread

BITS = 512
BYTES = BITS // 8
Codes = npt.NDArray[np.uint8]

_SPREADS = 3.0
"""Of pairs exactly at a threshold, 1 in 1,000 at most differ in more bits than `reach` allows; of closer ones fewer."""

AT_ONCE = 1 << 24
"""Comparisons after which results are looked at, so that they never fill the memory."""


def planes(size: int, seed: int) -> Floats:
    """Normals (512, size) of random planes, in groups of `size` that are at right angles to one another."""
    rng = np.random.default_rng((seed, BITS))
    turns = [np.linalg.qr(rng.standard_normal((size, size)))[0] for _ in range(-(-BITS // size))]
    return np.ascontiguousarray(np.concatenate(turns)[:BITS], np.float32)


def codes(vectors: Floats, normals: Floats) -> Codes:
    """Unit rows (N, D) -> (N, 64)."""
    return np.packbits(vectors @ normals.T > 0, axis=1)


def reach(cosine: float) -> int:
    """Bits in which vectors of that cosine differ at most, but for rare exceptions."""
    share = math.acos(min(max(cosine, -1.0), 1.0)) / math.pi
    return min(BITS, math.ceil(BITS * share + _SPREADS * math.sqrt(BITS * share * (1 - share))))


def near(a: Codes, b: Codes, bits: int) -> tuple[Rows, Rows]:
    """Rows of a (N, 64) and of b (M, 64) that differ in at most `bits` bits; at most AT_ONCE comparisons."""
    assert len(a) * len(b) <= max(AT_ONCE, len(b)), "that many results might not fit into memory"
    index = faiss.IndexBinaryFlat(BITS)
    index.add(b)
    with one_thread():
        ends, _, at = index.range_search(a, bits + 1)  # FAISS leaves out the radius itself
    return np.repeat(np.arange(len(a)), np.diff(ends.astype(np.int64))), at

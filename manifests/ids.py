"""Names made of content: the same bytes get the same id on any machine and under any path."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Sequence
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

BLOCK = 1 << 20
BLOCKS = 16
WHOLE_BELOW = (BLOCKS + 2) * BLOCK


def video_id(file: BinaryIO, size: int) -> str:
    """Hash of size, head, tail and 16 evenly spaced 1 MiB blocks; of all bytes for files below 18 MiB.

    file: opened for binary reading, seekable. Returns 32 hexadecimal digits (BLAKE2b, 128 bits).
    """
    digest = hashlib.blake2b(size.to_bytes(8, "little"), digest_size=16)
    if size < WHOLE_BELOW:
        for block in iter(lambda: file.read(BLOCK), b""):
            digest.update(block)
        return digest.hexdigest()
    spread = [BLOCK + (size - 3 * BLOCK) * k // (BLOCKS - 1) for k in range(BLOCKS)]
    for offset in [0, *spread, size - BLOCK]:
        file.seek(offset)
        digest.update(file.read(BLOCK))
    return digest.hexdigest()


def clip_id(video: str, start: int, end: int) -> str:
    """Video id and span in microseconds; sorts by video, then by time."""
    return f"{video}_{start:012d}_{end:012d}"


def part_id(members: Iterable[str]) -> str:
    """Name of a part that holds these videos, whatever their order."""
    return hashlib.blake2b("\n".join(sorted(members)).encode(), digest_size=8).hexdigest()


def luck(names: Sequence[str], seed: int = 0) -> npt.NDArray[np.float64]:
    """A number in [0, 1) for every name (N,), evenly spread, that depends on nothing but seed and name: what is drawn
    by it is not reshuffled when names are added."""
    drawn = (hashlib.blake2b(f"{seed}:{name}".encode(), digest_size=8).digest() for name in names)
    return np.fromiter((int.from_bytes(d, "big") / 2**64 for d in drawn), np.float64, len(names))


def fingerprint(*settings: Any) -> str:
    """Twelve hexadecimal digits that change when any setting changes.

    Dataclasses count by their qualified name and their fields, so a renamed or re-parametrised operator is another
    operator; anything else must be JSON or print itself completely.
    """
    text = json.dumps([describe(s) for s in settings], sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()


def describe(value: Any) -> Any:
    """A JSON value that says all there is to know about a setting."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: describe(getattr(value, f.name)) for f in dataclasses.fields(value) if f.compare}
        version = getattr(value, "version", None)
        extra = {} if version is None else {"version": version}
        return {"is": f"{type(value).__module__}.{type(value).__qualname__}", **extra, **fields}
    if isinstance(value, dict):
        return {str(k): describe(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [describe(v) for v in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return str(value)

"""Video fingerprint: the PDQ hash of four frames a second.

Kept out of the manifest proper; copy detection reads it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import pyarrow as pa

from dedup.pdq import pdq
from manifests.schema import column
from manifests.types import Clip, Frames, Sampling


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """PDQ hashes of luma at 180-pixel short side, with time and quality of each."""

    wants = Sampling(fps=4.0, short=180)
    schema: ClassVar[pa.Schema] = pa.schema(
        [
            column("fingerprint", pa.binary(), "PDQ hashes, 32 bytes a frame", internal=True),
            column("fingerprint_quality", pa.list_(pa.uint8()), "PDQ quality of each", range="0..100", internal=True),
            column("fingerprint_us", pa.list_(pa.int64()), "time of each", unit="microsecond", internal=True),
        ]
    )

    def __call__(self, clips: Sequence[Clip], frames: Sequence[Frames]) -> dict[str, list[Any]]:
        hashed = [pdq(f.images) for f in frames]
        return {
            "fingerprint": [hashes.tobytes() if len(hashes) else None for hashes, _ in hashed],
            "fingerprint_quality": [quality.tolist() if len(quality) else None for _, quality in hashed],
            "fingerprint_us": [list(f.times) if len(f) else None for f in frames],
        }

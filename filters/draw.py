"""Which of several clips of one shot, and which of several shots of one video, a chance picks first.

Movie Gen takes one or two scenes of a video and one clip of each, so that long films do not fill the set. Here every
clip gets its place in a random order instead, and a rule keeps the first: the others stay in the manifest.

Source: Movie Gen section on visual filtering; appendix B.1 ("one clip from one scene").
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from dataclasses import dataclass
from typing import Any, ClassVar

import pyarrow as pa

from manifests.schema import column


@dataclass(frozen=True, slots=True)
class Draw:
    """Places in a random order, among clips of `shortest` to `longest` seconds alone; by a hash of seed and clip id."""

    shortest: float = 4.0
    longest: float = 16.0
    seed: int = 0
    early: ClassVar[bool] = True
    reads: ClassVar[tuple[str, ...]] = ("clip_id", "video_id", "shot", "duration_s")
    schema: ClassVar[pa.Schema] = pa.schema(
        [
            column("draw_in_shot", pa.int32(), "place among the clips of its shot", range=">= 0", null="wrong length"),
            column("draw_of_shot", pa.int32(), "place of its shot in the video", range=">= 0", null="wrong length"),
        ]
    )

    def __call__(self, clips: pa.Table) -> dict[str, list[Any]]:
        shots: dict[str, dict[int, list[tuple[str, int]]]] = defaultdict(lambda: defaultdict(list))
        for row, (clip, video, shot, seconds) in enumerate(
            zip(*(clips[name].to_pylist() for name in self.reads), strict=True)
        ):
            if self.shortest <= seconds <= self.longest:
                shots[video][shot].append((self._luck(clip), row))
        in_shot: list[int | None] = [None] * clips.num_rows
        of_shot: list[int | None] = [None] * clips.num_rows
        for of_video in shots.values():
            for place, members in enumerate(sorted(sorted(m) for m in of_video.values())):
                for k, (_, row) in enumerate(members):
                    in_shot[row], of_shot[row] = k, place
        return {"draw_in_shot": in_shot, "draw_of_shot": of_shot}

    def _luck(self, clip: str) -> str:
        return hashlib.blake2b(f"{self.seed}:{clip}".encode(), digest_size=8).hexdigest()

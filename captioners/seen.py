"""What a captioner is given of a clip: its frames as JPEG files, out of the frame pack, and its columns."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from captioners.ask import Picture
from manifests.media.cut import cut

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """jpegs, times: frames in order and their seconds from the clip's beginning; row: its columns in the manifest."""

    clip: str
    jpegs: Sequence[bytes]
    times: Sequence[float]
    row: Row

    @property
    def seconds(self) -> float:
        return float(self.row.get("duration_s") or 0.0)

    def picture(self, k: int) -> Picture:
        return Picture(self.jpegs[k], self.times[k])

    def pictures(self, most: int = 0) -> list[Picture]:
        """All frames, or `most` of them spread evenly."""
        count = len(self.jpegs)
        if most and count > most:
            return [self.picture(int((k + 0.5) * count / most)) for k in range(most)]
        return [self.picture(k) for k in range(count)]

    def nearest(self, times: Sequence[float]) -> list[Picture]:
        """The frames nearest to these times, each at most once, in order."""
        places = {min(range(len(self.times)), key=lambda k: abs(self.times[k] - t)) for t in times if self.times}
        return [self.picture(k) for k in sorted(places)]

    def film(self, short: int) -> bytes:
        """The clip as an MP4 file, encoded anew at this short side. Raises MediaError when it cannot be read."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "clip.mp4"
            cut(self.row["uri"], self.row["start_us"], self.row["end_us"], path, short, crf=26)
            return path.read_bytes()


def seen(row: Row, packed: Row) -> Seen:
    """row: of the manifest; packed: of the clip's frame pack."""
    times = [(time - row["start_us"]) / 1e6 for time in packed["times_us"]]
    return Seen(row["clip_id"], packed["jpegs"], times, row)

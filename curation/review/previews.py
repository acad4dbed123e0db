"""What a reviewer sees of a clip: a small silent video of it, and its middle frame."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from curation.report import pictures
from manifests.media.cut import cut
from manifests.store import Store
from manifests.types import MediaError

SHORT = 240
_QUALITY = 30  # of x264: small files, good enough to judge by


@dataclass(frozen=True, slots=True)
class Preview:
    """video: the file, None where the film cannot be read any more; frames, thumb: a strip of frames and the middle one
    as data URIs, "" where the frame pack is gone."""

    video: Path | None
    frames: str
    thumb: str

    def embedded(self) -> str:
        """The video as a data URI; "" without one."""
        if self.video is None:
            return ""
        return "data:video/mp4;base64," + base64.b64encode(self.video.read_bytes()).decode()


def make_previews(
    store: Store, rows: Sequence[dict[str, Any]], folder: Path, tick: Callable[[], None] = lambda: None
) -> dict[str, Preview]:
    """For each clip id what is shown; videos go to `folder`, and those that are there already are not made again."""
    folder.mkdir(parents=True, exist_ok=True)
    strips, thumbs = pictures.strips(store, rows, frames=6), pictures.strips(store, rows, frames=1)
    made = {}
    for row in rows:
        clip = row["clip_id"]
        made[clip] = Preview(_video(row, folder / f"{clip}.mp4"), strips.get(clip, ""), thumbs.get(clip, ""))
        tick()
    return made


def _video(row: dict[str, Any], target: Path) -> Path | None:
    if target.exists():
        return target
    half = target.with_suffix(".part")
    try:
        cut(row["uri"], row["start_us"], row["end_us"], half, SHORT, _QUALITY)
    except (MediaError, OSError):
        half.unlink(missing_ok=True)
        return None
    half.replace(target)
    return target

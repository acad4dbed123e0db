"""Thumbnails for the report, from the frame packs."""

from __future__ import annotations

import base64
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from manifests import packs
from manifests.store import Store

Row = dict[str, Any]

_HEIGHT = 84


class Rows:
    """Rows of the manifest as dictionaries, made only for what is shown."""

    def __init__(self, clips: pa.Table, columns: Sequence[str]) -> None:
        self._clips = clips.select([c for c in columns if c in clips.column_names])

    def at(self, places: npt.NDArray[np.int64]) -> list[Row]:
        return self._clips.take(pa.array(places, pa.int64())).to_pylist()  # type: ignore[no-any-return]

    def some(self, places: npt.NDArray[np.int64], limit: int) -> list[Row]:
        """At most so many, evenly spread, so that neither the first film nor the last fills the sheet."""
        if len(places) > limit:
            places = places[((np.arange(limit) + 0.5) * len(places) / limit).astype(np.int64)]
        return self.at(places)


def strips(store: Store, rows: Sequence[Row], frames: int = 3) -> dict[str, str]:
    """For each clip a strip of so many evenly spread pack frames (the middle one of 1), as a data URI; clips without
    frames are left out."""
    by_pack: dict[str, list[str]] = {}
    for row in rows:
        by_pack.setdefault(row["pack"], []).append(row["clip_id"])
    there = [(pack, sorted(set(ids))) for pack, ids in by_pack.items() if store.exists(pack)]
    found = [row for pack, ids in there for row in packs.load(store, pack, ids).to_pylist() if row["jpegs"]]
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        drawn = list(threads.map(lambda row: _strip(row["jpegs"], frames), found))
    return {str(row["clip_id"]): strip for row, strip in zip(found, drawn, strict=True)}


def _strip(jpegs: Sequence[bytes], frames: int) -> str:
    chosen = [jpegs[int((k + 0.5) * len(jpegs) / frames)] for k in range(min(frames, len(jpegs)))]
    small = []
    for jpeg in chosen:
        image = packs.decode_image(jpeg, half=True)
        width = max(1, round(image.shape[1] * _HEIGHT / image.shape[0]))
        small.append(cv2.resize(image, (width, _HEIGHT), interpolation=cv2.INTER_AREA))
    _, data = cv2.imencode(".jpg", cv2.hconcat(small), (cv2.IMWRITE_JPEG_QUALITY, 78))
    return "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode()

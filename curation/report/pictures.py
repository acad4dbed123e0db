"""Thumbnails for the report, from the frame packs."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

import cv2
import pyarrow as pa

from manifests import packs
from manifests.store import Store

Row = dict[str, Any]

_HEIGHT = 84
_FRAMES = 3


def pick(rows: Sequence[Row], limit: int) -> list[Row]:
    """At most so many rows, evenly spread, so that neither the first film nor the last fills the sheet."""
    if len(rows) <= limit:
        return list(rows)
    return [rows[int((k + 0.5) * len(rows) / limit)] for k in range(limit)]


def strips(store: Store, rows: Sequence[Row]) -> dict[str, str]:
    """For each clip a strip of an early, a middle and a late pack frame, as a data URI; clips without frames are left
    out."""
    by_pack: dict[str, list[str]] = {}
    for row in rows:
        by_pack.setdefault(row["pack"], []).append(row["clip_id"])
    made = {}
    for pack, ids in by_pack.items():
        if not store.exists(pack):
            continue
        for row in packs.load(store, pack, sorted(set(ids))).to_pylist():
            if row["jpegs"]:
                made[row["clip_id"]] = _strip(row["jpegs"])
    return made


def _strip(jpegs: Sequence[bytes]) -> str:
    chosen = [jpegs[int((k + 0.5) * len(jpegs) / _FRAMES)] for k in range(min(_FRAMES, len(jpegs)))]
    small = []
    for jpeg in chosen:
        image = packs.decode_image(jpeg)
        width = max(1, round(image.shape[1] * _HEIGHT / image.shape[0]))
        small.append(cv2.resize(image, (width, _HEIGHT), interpolation=cv2.INTER_AREA))
    _, data = cv2.imencode(".jpg", cv2.hconcat(small), (cv2.IMWRITE_JPEG_QUALITY, 78))
    return "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode()


def rows_of(clips: pa.Table, columns: Sequence[str]) -> list[Row]:
    return clips.select([c for c in columns if c in clips.column_names]).to_pylist()  # type: ignore[no-any-return]

"""Runs signals on clips; whatever one of them does, the others and the other clips go on."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from manifests.schema import column, may_be_null
from manifests.types import Clip, Derived, Frames, Sampling, Signal

log = logging.getLogger("vidcurate")

MEASURE_ERROR = column("measure_error", pa.string(), "why a signal of this clip is null")

Row = dict[str, Any]


def measure(
    signals: Sequence[Signal],
    clips: Sequence[Clip],
    frames: Sequence[Mapping[Sampling, Frames]],
    unread: Sequence[str | None] | None = None,
) -> list[Row]:
    """Columns of all signals, one row per clip, with `measure_error`.

    A signal that fails on a batch is given the clips one by one; where it still fails, its values are null and the
    reason is noted. unread: per clip, why the frames that are missing from `frames` could not be read.
    """
    rows: list[Row] = [{} for _ in clips]
    reasons: list[list[str]] = [[reason] if reason else [] for reason in unread or [None] * len(clips)]
    for signal in signals:
        there = [k for k, seen in enumerate(frames) if signal.wants in seen]
        for k in set(range(len(clips))).difference(there):
            rows[k] |= dict.fromkeys(signal.schema.names)
        for k, values in zip(
            there, _values(signal, [clips[k] for k in there], [frames[k] for k in there]), strict=True
        ):
            if isinstance(values, Exception):
                reasons[k].append(f"{type(signal).__name__} failed ({type(values).__name__}: {values})")
                values = dict.fromkeys(signal.schema.names)
            else:
                reasons[k] += _missing(signal, values, len(frames[k][signal.wants]))
            rows[k] |= values
    return [row | {"measure_error": "; ".join(why) or None} for row, why in zip(rows, reasons, strict=True)]


def derive(clips: pa.Table, derived: Sequence[Derived]) -> pa.Table:
    """`clips` with the derived columns; each may build upon those before it."""
    for one in derived:
        values = one(clips)
        for field in one.schema:
            column = pa.array(values[field.name], field.type)
            at = clips.schema.get_field_index(field.name)
            clips = clips.append_column(field, column) if at < 0 else clips.set_column(at, field, column)
    return clips


def _values(
    signal: Signal, clips: Sequence[Clip], frames: Sequence[Mapping[Sampling, Frames]]
) -> Sequence[Row | Exception]:
    """Per clip its values, or what went wrong."""
    if not clips:
        return []
    try:
        columns = signal(clips, [seen[signal.wants] for seen in frames])
        return [{name: _plain(column[k]) for name, column in columns.items()} for k in range(len(clips))]
    except Exception as error:
        if len(clips) > 1:
            return [_values(signal, [clip], [seen])[0] for clip, seen in zip(clips, frames, strict=True)]
        log.exception("%s: %s failed", clips[0].id, type(signal).__name__)
        return [error]


def _missing(signal: Signal, values: Row, frames: int) -> list[str]:
    """Why values are null without a failure: as the signal's own `*_error` column says, or for lack of frames."""
    names = [f.name for f in signal.schema if values[f.name] is None and not may_be_null(f)]
    names = [name for name in names if not name.endswith("_error")]
    if not names or any(values.get(name) for name in values if name.endswith("_error")):
        return []
    what = "sound" if signal.wants.audio else f"{frames} frames of use to it"
    return [f"{', '.join(names)}: the clip has {'no ' if signal.wants.audio else ''}{what}"]


def _plain(value: Any) -> Any:
    """Not a number is not a measurement."""
    return None if isinstance(value, float) and not math.isfinite(value) else value

"""Frame packs: a few small JPEGs of every clip, in one Parquet part per scan part.

OCR, embedders, captioners and the report read these instead of opening the video again; a captioner forwards the very
bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from manifests.schema import column
from manifests.store import Store
from manifests.types import Frames, Image, Sampling

SCHEMA = pa.schema(
    [
        column("clip_id", pa.string(), "key"),
        column("times_us", pa.list_(pa.int64()), "presentation times of the frames", unit="microsecond"),
        column("indices", pa.list_(pa.int64()), "frame numbers of the frames"),
        column("jpegs", pa.list_(pa.binary()), "the frames, as JPEG files"),
        column("width", pa.int32(), "of the film after rotation", unit="pixel"),
        column("height", pa.int32(), "of the film after rotation", unit="pixel"),
        column("fps", pa.float64(), "of the film"),
    ]
)
ROWS_PER_GROUP = 16
"""Small row groups: one clip's frames can be fetched without reading its neighbours'."""

DEFAULT = Sampling(fps=4.0, short=360, cap=8, color=True)


def encode(frames: Frames, quality: int = 88) -> list[bytes]:
    """The frames as JPEG files."""
    return [cv2.imencode(".jpg", image, (cv2.IMWRITE_JPEG_QUALITY, quality))[1].tobytes() for image in frames.images]


def decode_image(jpeg: bytes, half: bool = False) -> Image:
    """BGR (H, W, 3); half: half as high and as wide, for less than half of the work."""
    how = cv2.IMREAD_REDUCED_COLOR_2 if half else cv2.IMREAD_COLOR
    image = cv2.imdecode(np.frombuffer(jpeg, np.uint8), how)
    if image is None:
        raise ValueError("a frame pack holds bytes that are no JPEG; remove the stage's folder and run again.")
    return np.asarray(image, np.uint8)


def table(clip_ids: Sequence[str], packed: Sequence[tuple[Frames, list[bytes]]]) -> pa.Table:
    rows = {
        "clip_id": list(clip_ids),
        "times_us": [list(f.times) for f, _ in packed],
        "indices": [list(f.indices) for f, _ in packed],
        "jpegs": [jpegs for _, jpegs in packed],
        "width": [f.size[0] for f, _ in packed],
        "height": [f.size[1] for f, _ in packed],
        "fps": [f.fps for f, _ in packed],
    }
    return pa.table(rows, schema=SCHEMA)


def holds(pack: Sampling, want: Sampling) -> bool:
    """Whether `want` can be served from a pack made under the sampling `pack`: its frames, or evenly spread ones of
    them, possibly larger than asked for."""
    plain = want.color and not (want.crop or want.coded or want.audio)
    few = not pack.cap or (want.cap and want.cap <= pack.cap)
    return plain and want.fps == pack.fps and 0 < want.short <= pack.short and bool(few)


def frames(row: Mapping[str, object], cap: int = 0, decoded: dict[int, Image] | None = None) -> Frames:
    """One row of a pack as frames; `cap` keeps at most so many, evenly spread. decoded: pictures by their place in the
    row; those that are there are not decoded again, others are added."""
    jpegs, times, indices = list(row["jpegs"]), list(row["times_us"]), list(row["indices"])  # type: ignore[call-overload]
    places = list(range(len(jpegs)))
    if cap and len(jpegs) > cap:
        places = [int((i + 0.5) * len(jpegs) / cap) for i in range(cap)]
        times, indices = ([values[k] for k in places] for values in (times, indices))
    known = {} if decoded is None else decoded
    known.update({k: decode_image(jpegs[k]) for k in places if k not in known})
    size = (int(row["width"]), int(row["height"]))  # type: ignore[call-overload]
    return Frames([known[k] for k in places], times, indices, size, float(row["fps"]))  # type: ignore[arg-type]


def load(store: Store, pack: str, clip_ids: Sequence[str] | None = None) -> pa.Table:
    """Rows of one pack part, of the named clips only if given."""
    if clip_ids is None:
        return store.read_table(pack)
    return pa.concat_tables([SCHEMA.empty_table(), *groups(store, pack, clip_ids)])


def groups(store: Store, pack: str, clip_ids: Sequence[str]) -> Iterator[pa.Table]:
    """Rows of the named clips in the pack's order, those of one row group at a time; each group is read once.

    Ids are hashes, so the bounds of a row group's ids rule nothing out: where a clip stands is looked up in the column.
    Clips that are not in the pack are left out. Raises FileNotFoundError.
    """
    with pq.ParquetFile(store.full(pack), filesystem=store.fs) as file:
        there = file.read(["clip_id"])["clip_id"]
        places = np.unique(pc.index_in(pa.array(clip_ids, pa.string()), value_set=there).drop_null().to_numpy())
        ends = np.cumsum([file.metadata.row_group(k).num_rows for k in range(file.num_row_groups)], dtype=np.int64)
        group = np.searchsorted(ends, places, side="right")
        for k in np.unique(group).tolist():
            table = file.read_row_group(k)
            yield table.take(pa.array(places[group == k] - (ends[k] - table.num_rows)))

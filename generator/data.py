"""From the manifest to frames: which clips, which frames of them, in which shape, with which text.

Everything is keyed by clip id: pixels, latents and captions meet by it and by nothing else.
"""

from __future__ import annotations

import math
import os
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from manifests.buckets import Bucketing, Shape
from manifests.ids import fingerprint
from manifests.media.read import read_frames
from manifests.reviews import READS, as_reviewed
from manifests.store import read_clips
from manifests.types import MediaError

_NUMBERS = ("height", "width", "fps", "aspect")
_OPTIONAL = (*READS, *_NUMBERS, "start_frame", "end_frame", "bucket", "subsets", "video_id")
_RATE = re.compile(r" ?FPS-\d+$")
_LONG = 1e6
"""Seconds that an image is said to last, so that every length has room for it."""

STILL = ":still"
"""Ends the id of a clip's middle frame, which is an image to train on."""


@dataclass(frozen=True, slots=True)
class DataConfig:
    """What is trained on. The simple case: `frames` frames at `fps` from the middle of each sampled clip, scaled and
    cut to `size` pixels of height and as many of width, or `width` of them.

    fill: a clip must last at least this share of frames / fps seconds; what is missing repeats its last frame.
    buckets: clips become tensors of several shapes, at an area of size x width, and of several lengths and rates; the
        text of a clip then ends in the rate of its frames. `frames`, `size`, `width` and `fps` are those of samples.
    tokens: of transformer and text in a batch; each bucket has batches of as many clips as that allows. 0: batches have
        as many clips as the training says.
    pack: clips of all buckets stand in one sequence of at most `tokens`, and a batch is so many sequences.
    subset: only clips of this subset of the manifest.
    images: share of the batches that are images, as one-frame videos: those of the manifest, or else the middle frame
        of each clip. Of a frame pack: share of the clips. (All images is `frames=1`.)
    """

    frames: int = 17
    size: int = 64
    fps: float = 8.0
    fill: float = 0.5
    width: int = 0
    buckets: Bucketing | None = None
    tokens: int = 0
    pack: bool = False
    subset: str = ""
    images: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.images < 1:
            raise ValueError(f"images must be a share from 0 to below 1, got {self.images}; all images is frames=1.")
        if self.pack and not self.tokens:
            raise ValueError("a frame pack needs tokens, the budget of one sequence.")

    @property
    def shown(self) -> Shape:
        """Of samples, and of all clips where there are no buckets."""
        return Shape(self.size, self.width or self.size, self.frames, self.frames / self.fps)

    @property
    def area(self) -> float:
        """Side of a square picture with as many pixels."""
        return math.sqrt(self.size * (self.width or self.size))

    @property
    def geometry(self) -> str:
        """Fingerprint of what decides the pixels of a clip; subsets, shares and budgets do not."""
        return fingerprint(replace(self, tokens=0, pack=False, subset="", images=0.0))

    def shape(self, row: Row) -> Shape:
        """Of what a clip becomes. Raises ValueError for a bucket that is none of `buckets`."""
        shape = self.buckets.shape(row.bucket, self.area) if self.buckets and row.bucket else self.shown
        return replace(shape, frames=1) if row.still else shape

    def rate(self, row: Row) -> float:
        """Frames a second of what a clip becomes; 0 for an image."""
        shape, seconds = self.shape(row), (row.end - row.start) / 1e6
        if shape.frames == 1:
            return 0.0
        if not self.buckets:
            return self.fps
        return shape.frames / (min(seconds, shape.seconds) if shape.seconds else seconds)


@dataclass(frozen=True, slots=True)
class Row:
    """One clip to train on. start, end: microseconds, half open. height, width, fps, aspect (width to height as shown):
    of the film; 0 where the manifest does not say. film: id of the video that it is cut from. still: it is an image."""

    id: str
    uri: str
    start: int
    end: int
    caption: str
    height: int = 0
    width: int = 0
    fps: float = 0.0
    aspect: float = 0.0
    bucket: str = ""
    subsets: tuple[str, ...] = ()
    film: str = ""
    still: bool = False

    @property
    def group(self) -> str:
        """Clips of one group have one shape."""
        return f"{self.bucket.partition('/')[0]}/image" if self.still else self.bucket

    def micro(self, config: DataConfig) -> list[float]:
        """The numbers of `generator.dit.stiv.MICRO`: what is known of how the frames came about."""
        shape = config.shape(self)
        height, width = self.height or shape.height, self.width or shape.width
        scale = max(shape.height / height, shape.width / width)
        top, left = (round(height * scale) - shape.height) // 2, (round(width * scale) - shape.width) // 2
        rate = config.rate(self) or config.fps
        return [height, width, top, left, max(self.fps, rate) / rate, shape.frames]


def read_rows(folder: str | os.PathLike[str]) -> list[Row]:
    """The rows of the manifest that are `sampled`, sorted by clip id; a missing caption is the empty text. Where people
    reviewed clips, their part of a clip and their caption count; a part has an id of its own, so that nothing that was
    cached of the whole clip is taken for it.

    Raises ValueError when there is no manifest, it was not judged yet, or no row is sampled. Warns of missing captions.
    """
    columns = ["clip_id", "uri", "start_us", "end_us", "caption"]
    try:
        table = read_clips(folder, columns, where=pc.field("sampled"), optional=_OPTIONAL)
    except pa.ArrowInvalid as error:
        raise ValueError(
            f"{folder}: the manifest lacks one of the columns that training reads, {', '.join(columns)} and sampled; "
            "`vidcurate run` writes them all."
        ) from error
    rows = [
        Row(
            _part_id(whole, r),
            r["uri"],
            r["start_us"],
            r["end_us"],
            r["caption"] or "",
            height=r.get("height") or 0,
            width=r.get("width") or 0,
            fps=r.get("fps") or 0.0,
            aspect=r.get("aspect") or 0.0,
            bucket=r.get("bucket") or "",
            subsets=tuple(r.get("subsets") or ()),
            film=r.get("video_id") or r["uri"],
            still=r.get("start_frame") is not None and r.get("end_frame") == r["start_frame"] + 1,
        )
        for whole, r in zip(table.to_pylist(), as_reviewed(table).to_pylist(), strict=True)
    ]
    if not rows:
        raise ValueError(f"no row is sampled in {folder}; loosen the rules with `vidcurate judge {folder}`.")
    silent = sum(not row.caption for row in rows)
    if silent:
        warnings.warn(
            f"{silent} of {len(rows)} clips have no caption and are trained on with the empty text; "
            f"`vidcurate caption {folder}` writes captions.",
            stacklevel=2,
        )
    return sorted(rows, key=lambda row: row.id)


def chosen(rows: Sequence[Row], config: DataConfig) -> list[Row]:
    """What a stage trains on: the rows of its subset that have a bucket, and its images, with the texts it is told.

    Raises ValueError where nothing is left. Warns, once, of clips without a bucket.
    """
    there = sorted({name for row in rows for name in row.subsets})
    found = [row for row in rows if not config.subset or config.subset in row.subsets]
    if not found:
        raise ValueError(
            f"none of the {len(rows)} sampled clips is in the subset {config.subset!r}; the manifest has "
            f"{', '.join(there) or 'no subsets'}."
        )
    if config.frames == 1:
        found = [replace(row, still=True) for row in found]
    if config.buckets:
        found = _bucketed(found, config.buckets)
    films = [row for row in found if not row.still or config.frames == 1]
    if not films:
        raise ValueError(f"all {len(found)} sampled clips are images; train on them with frames=1.")
    stills: list[Row] = []
    if config.images:
        stills = [row for row in found if row.still] or [_middle(row) for row in films]
    return [replace(row, caption=with_rate(row.caption, config, row)) for row in [*films, *stills]]


def _bucketed(rows: Sequence[Row], buckets: Bucketing) -> list[Row]:
    """Of the rows that have a bucket. The manifest's names count where all of them are names of these buckets."""
    known = {f"{picture}/{length}" for picture in buckets.axes[0] for length in buckets.axes[1]}
    names: Iterable[str | None]
    if {row.bucket for row in rows} <= known:
        names = [row.bucket for row in rows]
    else:
        names = buckets.assign(_measures(rows)).to_pylist()
    found = [replace(row, bucket=name) for row, name in zip(rows, names, strict=True) if name]
    if not found:
        raise ValueError(
            f"none of the {len(rows)} sampled clips fits a bucket: pictures {_some(buckets.axes[0])}; lengths "
            f"{_some(buckets.axes[1])}."
        )
    if len(found) < len(rows):
        without = len(rows) - len(found)
        warnings.warn(f"{without} of {len(rows)} clips fit no bucket and are left out of training.", stacklevel=3)
    return found


def _measures(rows: Sequence[Row]) -> pa.Table:
    """The columns that buckets look at."""
    aspects = [row.aspect or (row.width / row.height if row.height and row.width else None) for row in rows]
    return pa.table(
        {
            "clip_id": pa.array([row.id for row in rows], pa.string()),
            "aspect": pa.array(aspects, pa.float64()),
            "height": pa.array([row.height or None for row in rows], pa.int32()),
            "duration_s": pa.array([_LONG if row.still else (row.end - row.start) / 1e6 for row in rows], pa.float64()),
        }
    )


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:6]) + (", ..." if len(names) > 6 else "")


def _middle(row: Row) -> Row:
    """The image in the middle of a clip."""
    return replace(row, id=row.id + STILL, still=True)


def with_rate(caption: str, config: DataConfig, row: Row) -> str:
    """The caption, whose last word is the rate of the frames, where it tells one or rates vary; none of an image."""
    rate, plain = round(config.rate(row)), _RATE.sub("", caption)
    if plain == caption and not config.buckets:
        return caption
    return f"{plain} FPS-{rate}".strip() if rate else plain


def _part_id(whole: Mapping[str, object], part: Mapping[str, object]) -> str:
    """Of a part of a clip; of the whole clip its own."""
    span = (part["start_us"], part["end_us"])
    if span == (whole["start_us"], whole["end_us"]):
        return str(whole["clip_id"])
    return f"{whole['clip_id']}_{span[0]:012d}_{span[1]:012d}"


def frame_times(row: Row, config: DataConfig) -> list[int]:
    """Microseconds of the wanted frames: of a bucket, evenly spread over what its shape shows; else a window in the
    middle of the clip, or all of it and its last frame again. Of an image, its middle.

    Raises MediaError for a clip that is too short.
    """
    if row.still:
        return [(row.start + row.end) // 2]
    if config.buckets:
        return [int(time) for time in config.shape(row).times(row.start, row.end)]
    window = config.frames / config.fps * 1e6
    length = row.end - row.start
    if length < config.fill * window:
        raise MediaError(
            f"{row.uri}: {length / 1e6:.2f} s is too short, training needs {config.fill * window / 1e6:.2f} s"
        )
    start = row.start + max(0, int(length - window) // 2)
    return [min(start + round(k * 1e6 / config.fps), row.end - 1) for k in range(config.frames)]


def read_clip(row: Row, config: DataConfig) -> npt.NDArray[np.uint8]:
    """(F, H, W, 3) RGB, the middle of the picture that has the shape's aspect ratio. Raises MediaError when the clip is
    too short or cannot be read."""
    shape, times = config.shape(row), frame_times(row, config)
    return fitted(read_frames(row.uri, times[0], times[-1] + 1, times, short=_short_side(row, shape)), shape)


def fitted(frames: npt.NDArray[np.uint8], shape: Shape) -> npt.NDArray[np.uint8]:
    """The middle of frames (F, h, w, 3) that has the shape's aspect ratio, scaled to its height and width."""
    height, width = frames.shape[1:3]
    scale = max(shape.height / height, shape.width / width)
    rows, columns = min(round(shape.height / scale), height), min(round(shape.width / scale), width)
    rows, columns = max(rows, 1), max(columns, 1)
    top, left = (height - rows) // 2, (width - columns) // 2
    frames = frames[:, top : top + rows, left : left + columns]
    if (rows, columns) != (shape.height, shape.width):  # the reader does not enlarge
        size = (shape.width, shape.height)
        frames = np.stack([cv2.resize(f, size, interpolation=cv2.INTER_AREA) for f in frames])  # type: ignore[misc]
    return np.ascontiguousarray(frames)


def _short_side(row: Row, shape: Shape) -> int:
    """Of a film's picture that just covers the shape; enough of it where the film's aspect ratio is not known."""
    aspect = row.aspect or (row.width / row.height if row.height and row.width else 0)
    if not aspect:
        return max(shape.height, shape.width)
    height = max(shape.height, shape.width / aspect)
    return math.ceil(min(height, height * aspect) - 1e-6)

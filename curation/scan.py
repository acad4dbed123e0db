"""The first stage: videos in, clips with their signals, frame packs, boundaries and one row per video out.

Every video is opened and decoded once. A video that cannot be used is quarantined with its reason; the others go on.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import tempfile

import pyarrow as pa
import pyarrow.parquet as pq

from curation.job import Job, Part, Receipt, Stopwatch, Video, peak_memory_mb, pin_threads, unpack
from curation.measure import Row, measure
from manifests import packs
from manifests.ids import clip_id
from manifests.media.container import Film, base_name, open_film
from manifests.media.scan import Scan, Span, TimedBoundary
from manifests.schema import SHOTS, VIDEOS
from manifests.types import Clip, Frames, MediaError

log = logging.getLogger("vidcurate")


def scan_part(packed: bytes, part: Part) -> Receipt:
    """Scans all videos of a part and writes its tables; the receipt comes last and makes the part whole."""
    while True:
        try:
            return _scan_part(packed, part)
        except _Spoilt as spoilt:  # what was written of it cannot be taken back, so it is left out of a second try
            part = dataclasses.replace(part, fatal=(*part.fatal, (spoilt.uri, spoilt.reason)))


class _Spoilt(Exception):
    """A video failed of which rows were written already."""

    def __init__(self, uri: str, reason: str):
        super().__init__(uri, reason)
        self.uri, self.reason = uri, reason


def _scan_part(packed: bytes, part: Part) -> Receipt:
    pin_threads()
    job, store = unpack(packed)
    recipe, stage, watch = job.recipe, job.recipe.scan_stage, Stopwatch()
    fatal = dict(part.fatal)
    pack = f"stages/{stage}/packs/{part.name}.parquet"
    clips = f"stages/{stage}/clips/{part.name}.parquet"
    with store.writer(pack, packs.SCHEMA) as writer, store.writer(clips, recipe.scan_schema) as rows:
        tables, collector = Tables(ClipWriter(rows), [], []), PackWriter(writer)
        for video in part.videos:
            before = tables.clips.mark(), len(tables.shots), collector.mark()
            if video.uri in fatal:
                tables.videos.append(quarantined(video, fatal[video.uri]))
                continue
            try:
                scan_video(job, video, pack, tables, collector)
            except MediaError as error:
                reason = str(error)
            except Exception as error:  # nothing that one video does may take its neighbours along
                log.exception("%s: scan failed", video.uri)
                name = base_name(video.uri)
                reason = f"{name}: scanning failed ({type(error).__name__}: {error}); please report this file."
            else:
                continue
            if not tables.clips.rewind(before[0]):
                raise _Spoilt(video.uri, reason)
            del tables.shots[before[1] :]
            collector.rewind(before[2])
            tables.videos.append(quarantined(video, reason))
        collector.flush()
        tables.clips.flush()
    store.write_table(f"stages/{stage}/shots/{part.name}.parquet", pa.Table.from_pylist(tables.shots, SHOTS))
    store.write_table(f"stages/{stage}/videos/{part.name}.parquet", pa.Table.from_pylist(tables.videos, VIDEOS))
    receipt = Receipt(
        stage=stage,
        part=part.name,
        videos=tuple(v.id or "" for v in part.videos),
        rows=len(tables.clips),
        seconds=watch.seconds,
        video_seconds=round(sum(row["duration_s"] or 0.0 for row in tables.videos), 3),
        opens=tables.opens,
        failures=sum(row["status"] == "quarantined" for row in tables.videos),
        memory_mb=round(peak_memory_mb(), 1),
    )
    receipt.save(store)
    return receipt


@dataclasses.dataclass(slots=True)
class Tables:
    clips: ClipWriter
    shots: list[Row]
    videos: list[Row]
    opens: int = 0


class ClipWriter:
    """Writes rows of clips some at a time: of a long film, fingerprints alone take a hundred megabytes."""

    def __init__(self, writer: pq.ParquetWriter, rows: int = 64):
        self._writer, self._most = writer, rows
        self._rows: list[Row] = []
        self._written = 0

    def __len__(self) -> int:
        return self._written + len(self._rows)

    def append(self, row: Row) -> None:
        self._rows.append(row)
        if len(self._rows) >= self._most:
            self.flush()

    def mark(self) -> int:
        return len(self)

    def rewind(self, mark: int) -> bool:
        """Forgets the rows since then; False if some of them are written already."""
        if mark < self._written:
            return False
        del self._rows[mark - self._written :]
        return True

    def flush(self) -> None:
        if self._rows:
            self._writer.write_table(pa.Table.from_pylist(self._rows, self._writer.schema))
            self._written, self._rows = len(self), []


class PackWriter:
    """Writes packs a row group at a time, so that a film's JPEGs never lie in memory together."""

    def __init__(self, writer: pq.ParquetWriter):
        self._writer = writer
        self._ids: list[str] = []
        self._packed: list[tuple[Frames, list[bytes]]] = []

    def add(self, clip: str, frames: Frames) -> None:
        # The pixels are dropped here; only the files and their times wait for the row group to fill.
        jpegs = packs.encode(frames)
        self._ids.append(clip)
        self._packed.append((dataclasses.replace(frames, images=(), _shared={}), jpegs))
        if len(self._ids) >= packs.ROWS_PER_GROUP:
            self.flush()

    def mark(self) -> int:
        return len(self._ids)

    def rewind(self, mark: int) -> None:
        """Forgets what a failed video added; rows that were written already stay, and nothing refers to them."""
        del self._ids[mark:], self._packed[mark:]

    def flush(self) -> None:
        if self._ids:
            self._writer.write_table(packs.table(self._ids, self._packed))
            self._ids, self._packed = [], []


def scan_video(job: Job, video: Video, pack: str, tables: Tables, collector: PackWriter) -> None:
    """One walk over one video. Raises MediaError when it cannot be used."""
    recipe = job.recipe
    tables.opens += 1
    with open_film(video.uri, recipe.limits) as film:
        wants = [*(signal.wants for signal in recipe.walk), recipe.pack]
        shot, first = 0, len(tables.clips)
        for found in Scan(film, recipe.cuts.start(film.fps), wants, recipe.pieces, recipe.limits):
            if isinstance(found, TimedBoundary):
                tables.shots.append(_shot_row(video, found))
                shot += 1
                continue
            clip = Clip(
                clip_id(video.id or "", found.start, found.end), video.id or "", video.uri, found.start, found.end
            )
            row = _identity(film, video, clip, found, shot, pack)
            row |= measure(recipe.walk, [clip], [found.frames])[0]
            tables.clips.append(row)
            collector.add(clip.id, found.frames[recipe.pack])
        tables.videos.append(_video_row(video, film, len(tables.clips) - first))


def probe(packed: bytes, video: Video) -> None:
    """Walks over one video and keeps nothing: does it kill the process?"""
    pin_threads()
    job, _ = unpack(packed)
    with (
        contextlib.suppress(Exception),
        tempfile.NamedTemporaryFile() as file,
        tempfile.NamedTemporaryFile() as other,
        pq.ParquetWriter(file, packs.SCHEMA) as w,
        pq.ParquetWriter(other, job.recipe.scan_schema) as rows,
    ):
        scan_video(job, video, "", Tables(ClipWriter(rows), [], []), PackWriter(w))


def _identity(film: Film, video: Video, clip: Clip, span: Span, shot: int, pack: str) -> Row:
    return {
        "clip_id": clip.id,
        "video_id": clip.video,
        "uri": clip.uri,
        "start_us": span.start,
        "end_us": span.end,
        "start_frame": span.start_frame,
        "end_frame": span.end_frame,
        "fps": film.fps,
        "duration_s": clip.seconds,
        "width": film.width,
        "height": film.height,
        "short_side": min(film.width, film.height),
        "sample_aspect_ratio": film.sar,
        "aspect": film.width * film.sar / film.height,
        "has_audio": film.has_audio,
        "bitrate": 8 * video.bytes / film.stated_seconds if film.stated_seconds and video.bytes else None,
        "film_duration_s": film.stated_seconds,
        "film_offset_s": (span.start - film.first) / 1e6,
        "corrupt_frames": span.corrupt,
        "shot": shot,
        "pack": pack,
    }


def _shot_row(video: Video, found: TimedBoundary) -> Row:
    boundary = found.boundary
    return {
        "uri": video.uri,
        "video_id": video.id,
        "kind": boundary.kind,
        "start_frame": boundary.start,
        "end_frame": boundary.end,
        "start_us": found.start,
        "end_us": found.end,
        "score": boundary.score,
    }


def _video_row(video: Video, film: Film, clips: int) -> Row:
    return {
        "uri": video.uri,
        "video_id": video.id,
        "status": "ok",
        "error": None,
        "bytes": video.bytes,
        "container": film.container.format.name,
        "codec": film.stream.codec_context.name,
        "pixel_format": film.pixel_format,
        "width": film.width,
        "height": film.height,
        "rotation": film.rotation,
        "fps": film.fps,
        "duration_s": (film.end - film.first) / 1e6,
        "frames": film.frames,
        "decode_errors": film.errors,
        "corrupt_frames": film.corrupt,
        "has_audio": film.has_audio,
        "clips": clips,
    }


def quarantined(video: Video, reason: str) -> Row:
    return {
        "uri": video.uri,
        "video_id": video.id,
        "status": "quarantined",
        "error": reason,
        "bytes": video.bytes,
        "duration_s": None,
        "clips": 0,
    }

"""Opening a video safely, what it says of itself, and its frames in presentation order."""

from __future__ import annotations

import contextlib
import os
import posixpath
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import fsspec
from av.container import InputContainer
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from manifests.types import MediaError

# Demuxers that read one file and nothing else. Playlists (hls, dash, concat) and image sequences are left out: a
# script under a video's name must not make us read other files or the network.
DEMUXERS = (
    "asf,av1,avi,dv,flv,gif,h263,h264,hevc,ivf,m4v,matroska,mjpeg,mov,mpeg,mpegts,mpegtsraw,mpegvideo,mxf,nut,obu,ogg,"
    "rm,vc1,webm,wtv,y4m,yuv4mpegpipe"
)
REMEDY = "re-encode it with ffmpeg or take it out of the sources"


@dataclass(frozen=True, slots=True)
class Limits:
    """What a video may cost before it is quarantined.

    pixels:       of one coded frame
    seconds:      of the whole film
    error_share:  of the packets after the first good frame, that may fail to decode
    read_timeout: seconds that one blocking read may take
    """

    pixels: int = 1 << 26
    seconds: float = 12 * 3600.0
    error_share: float = 0.5
    read_timeout: float = 60.0


@dataclass(slots=True)
class Film:
    """An open video: its container, the stream that is watched, what is known of it, and counts of what was read.

    width, height: as coded, after rotation; rotation: degrees counter-clockwise that the display matrix asks for;
    sar: width of a pixel over its height, after rotation; fps: nominal; stated_seconds: duration in the container's
    words, 0 where it has none; times in microseconds. Sizes and counts are complete only when the film was decoded.
    """

    uri: str
    container: InputContainer
    stream: VideoStream
    fps: float
    has_audio: bool
    stated_seconds: float = 0.0
    width: int = 0
    height: int = 0
    rotation: int = 0
    sar: float = 1.0
    pixel_format: str = ""
    packets: int = 0
    frames: int = 0
    errors: int = 0
    corrupt: int = 0
    first: int = 0
    end: int = 0

    @property
    def name(self) -> str:
        return base_name(self.uri)


@dataclass(frozen=True, slots=True)
class Decoded:
    """One frame in presentation order; it is shown from `time` to `end`, in microseconds."""

    index: int
    time: int
    end: int
    corrupt: bool
    frame: VideoFrame = field(repr=False)


def is_remote(uri: str) -> bool:
    return "://" in uri


def base_name(uri: str) -> str:
    return posixpath.basename(uri) if is_remote(uri) else Path(uri).name


def open_bytes(uri: str) -> Any:
    """The file's bytes, seekable, from a path or any fsspec URL."""
    return fsspec.open(uri, "rb").open() if is_remote(uri) else Path(uri).open("rb")


@contextlib.contextmanager
def open_film(uri: str, limits: Limits | None = None) -> Iterator[Film]:
    """Opens a video for one walk. Raises MediaError when it is no video, has no picture, or is beyond the limits."""
    limits = limits or Limits()
    name = base_name(uri)
    with contextlib.ExitStack() as stack:
        try:
            if is_remote(uri):
                source: Any = stack.enter_context(open_bytes(uri))
            else:
                if Path(uri).stat().st_size == 0:
                    raise MediaError(f"{name}: the file is empty; copy it again or take it out of the sources.")
                source = "file:" + os.path.abspath(uri)  # noqa: PTH100 - links stay; the prefix tames odd names
            container = stack.enter_context(
                av.open(
                    source,
                    mode="r",
                    container_options={"format_whitelist": DEMUXERS, "protocol_whitelist": "file"},
                    metadata_errors="replace",
                    timeout=limits.read_timeout,
                )
            )
        except FileNotFoundError:
            raise MediaError(f"{name}: there is no such file; check the path {uri}.") from None
        except PermissionError:
            raise MediaError(f"{name}: the file may not be read; check its permissions.") from None
        except (av.error.FFmpegError, OSError) as error:
            reason = getattr(error, "strerror", None) or type(error).__name__
            raise MediaError(f"{name}: not a video that can be read ({reason}); {REMEDY}.") from error
        yield _film(uri, container, limits)


def _film(uri: str, container: InputContainer, limits: Limits) -> Film:
    name = base_name(uri)
    stream = container.streams.best("video")
    # The cover picture of a music file is a video stream too, of one still.
    if not isinstance(stream, VideoStream) or stream.disposition & Disposition.attached_pic:
        raise MediaError(f"{name}: has no video stream; take it out of the sources.")
    context = stream.codec_context
    if context is None or not (context.width and context.height):
        raise MediaError(f"{name}: its video stream names no known codec or picture size; {REMEDY}.")
    if context.width * context.height > limits.pixels:
        raise MediaError(
            f"{name}: frames of {context.width}x{context.height} exceed {limits.pixels} pixels; "
            "scale it down or raise limits.pixels."
        )
    seconds = _stated_seconds(container, stream)
    if seconds > limits.seconds:
        raise MediaError(
            f"{name}: lasts {seconds / 3600:.1f} h, over {limits.seconds / 3600:.1f} h; cut it or raise limits.seconds."
        )
    context.options = {"max_pixels": str(limits.pixels)}
    context.thread_count = 1  # one worker process per core: the threads of one decoder would only fight the others
    rate = stream.average_rate or stream.guessed_rate or stream.base_rate or Fraction(25)
    return Film(uri, container, stream, float(rate), bool(container.streams.audio), seconds)


def _stated_seconds(container: InputContainer, stream: VideoStream) -> float:
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    return (container.duration or 0) / av.time_base


def decode(film: Film, limits: Limits | None = None) -> Iterator[Decoded]:
    """Every frame the decoder emits, once, in presentation order, at strictly increasing times.

    Packets that do not decode are counted and passed over. Raises MediaError when nothing decodes, or when more than
    the allowed share of the packets after the first good frame fails.
    """
    limits = limits or Limits()
    step = max(1, round(1e6 / film.fps))
    previous = None
    for frame in _frames(film):
        if previous is None:
            _learn_geometry(film, frame)
        scale = (frame.time_base or film.stream.time_base or Fraction(1, 1_000_000)) * 1_000_000
        time = film.end if frame.pts is None else round(frame.pts * scale)
        if previous is None:
            film.first = time
        elif time <= previous:  # a clock that stands still or jumps back would make spans without length
            time = max(film.end, previous + 1)
        lasts = round(frame.duration * scale) if frame.duration else step
        previous, film.end = time, time + max(1, lasts)
        if film.end - film.first > limits.seconds * 1e6:
            raise MediaError(
                f"{film.name}: goes on after {limits.seconds / 3600:.1f} h; cut it or raise limits.seconds."
            )
        corrupt = bool(frame.is_corrupt)
        film.corrupt += corrupt
        film.frames += 1
        yield Decoded(film.frames - 1, time, film.end, corrupt, frame)
    if not film.frames:
        raise MediaError(f"{film.name}: not one frame of it can be decoded; {REMEDY}.")
    if film.errors > limits.error_share * film.packets:
        raise MediaError(f"{film.name}: {film.errors} of {film.packets} packets cannot be decoded; {REMEDY}.")


def _frames(film: Film) -> Iterator[VideoFrame]:
    """Frames of all packets that decode; a file that breaks off simply ends."""
    packets = film.container.demux(film.stream)
    while True:
        try:
            packet = next(packets)
        except StopIteration:
            return
        except (av.error.FFmpegError, OSError):
            film.errors += 1
            return
        film.packets += packet.size > 0
        try:
            yield from packet.decode()
        except av.error.FFmpegError:
            film.errors += film.frames > 0  # before the first key frame nothing can decode, and that is no damage


def _learn_geometry(film: Film, frame: VideoFrame) -> None:
    film.rotation = round(frame.rotation / 90) * 90
    film.pixel_format = frame.format.name
    sar = float(film.stream.sample_aspect_ratio or 1) or 1.0
    turned = film.rotation % 180 != 0
    film.width, film.height = (frame.height, frame.width) if turned else (frame.width, frame.height)
    film.sar = 1 / sar if turned else sar

"""What the encoder chose, as the decoder hands it out: motion vectors and quantisers."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
from av.codec.context import Flags2
from av.video.frame import VideoFrame

from manifests.media.container import Film

_HEADER, _H264 = "=I4xQQii", 1  # struct AVVideoEncParams as far as `qp`; its `type` for H.264
_BLOCK = np.dtype([(name, "<i4") for name in ("x", "y", "width", "height", "delta")])
_NOTHING = np.zeros(0, np.float32)


def export(film: Film, kinds: Iterable[str]) -> None:
    """Makes the decoder hand out `Sampling.coded`, before the first frame. Vectors cost about a third of the decoding,
    quantisers nothing to speak of."""
    context = film.stream.codec_context
    if "vectors" in kinds:
        context.flags2 |= Flags2.export_mvs
    if "quantizer" in kinds:
        context.options = {**context.options, "export_side_data": "venc_params"}


def read(frame: VideoFrame, kind: str) -> npt.NDArray[Any]:
    """(1,) float32: the mean length of motion vectors, or the mean quantiser; empty where the frame has none."""
    return {"vectors": _vectors, "quantizer": _quantizer}[kind](frame)


def _vectors(frame: VideoFrame) -> npt.NDArray[Any]:
    """Pixels of the coded picture, over the predicted area.

    Places with two vectors count with both. Frames of MPEG-family codecs have vectors, but for those coded by
    themselves; VP9, AV1 and FFmpeg's HEVC decoder give none.
    """
    data: Any = frame.side_data.get("MOTION_VECTORS")
    if data is None or not len(data):
        return _NOTHING
    vectors = data.to_ndarray()
    scale = np.maximum(vectors["motion_scale"].astype(np.float32), 1)
    length = np.hypot(vectors["motion_x"] / scale, vectors["motion_y"] / scale)
    area = vectors["w"].astype(np.float32) * vectors["h"]
    return np.array([(length * area).sum() / area.sum()], np.float32)


def _quantizer(frame: VideoFrame) -> npt.NDArray[Any]:
    """H.264's QP, 0..51 at 8 bits, over the macroblocks; other codecs count in other steps."""
    data: Any = frame.side_data.get("VIDEO_ENC_PARAMS")
    if data is None:
        return _NOTHING
    raw = memoryview(data)
    count, start, size, kind, base = struct.unpack_from(_HEADER, raw)
    if kind != _H264 or not count or size < _BLOCK.itemsize or start + count * size > raw.nbytes:
        return _NOTHING
    at = start + _BLOCK.fields["delta"][1]  # type: ignore[index]
    deltas = np.ndarray(count, "<i4", raw, at, (size,))
    return np.array([base + deltas.mean()], np.float32)

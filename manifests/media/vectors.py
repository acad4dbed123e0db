"""Motion vectors, as the codec's encoder chose them."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from av.codec.context import Flags2
from av.video.frame import VideoFrame

from manifests.media.container import Film


def export(film: Film) -> None:
    """Makes the decoder hand vectors out; before the first frame. Costs about a third of the decoding."""
    film.stream.codec_context.flags2 |= Flags2.export_mvs


def magnitude(frame: VideoFrame) -> npt.NDArray[Any]:
    """Mean length over the predicted area, pixels of the coded picture: (1,) float32; empty where the frame has none.

    Places with two vectors count with both. Frames of MPEG-family codecs have vectors, but for those coded by
    themselves; VP9, AV1 and FFmpeg's HEVC decoder give none.
    """
    data: Any = frame.side_data.get("MOTION_VECTORS")
    if data is None or not len(data):
        return np.zeros(0, np.float32)
    vectors = data.to_ndarray()
    scale = np.maximum(vectors["motion_scale"].astype(np.float32), 1)
    length = np.hypot(vectors["motion_x"] / scale, vectors["motion_y"] / scale)
    area = vectors["w"].astype(np.float32) * vectors["h"]
    return np.array([(length * area).sum() / area.sum()], np.float32)

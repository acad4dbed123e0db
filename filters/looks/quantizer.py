"""Quantiser: how coarsely the film was coded, by the encoder's own account.

`quantizer` is the mean QP of H.264's macroblocks, over two frames a second: 0 (nothing lost) to 51. Usual footage lies
between 15 and 35; from 40 on blocks show, whatever the picture is. Lower is better. It speaks of the last coding alone:
what was starved before, `grid_steps` and `sharpness` may still see. Null for other codecs, whose decoders tell none.

Source: ITU-T H.264, 7.4.5 (QP_Y); FFmpeg `AV_FRAME_DATA_VIDEO_ENC_PARAMS`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import pyarrow as pa

from filters.coded import mean
from manifests.schema import column
from manifests.types import Clip, Frames, Sampling


@dataclass(frozen=True, slots=True)
class Quantizer:
    """Mean over the sampled frames."""

    wants = Sampling(2.0, 0, coded="quantizer")
    schema: ClassVar[pa.Schema] = pa.schema(
        [column("quantizer", pa.float64(), "mean H.264 quantiser (QP)", range="0..51", better="lower")]
    )

    def __call__(self, clips: Sequence[Clip], frames: Sequence[Frames]) -> dict[str, list[Any]]:
        return {"quantizer": [mean(f) for f in frames]}

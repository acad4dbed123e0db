"""LAION aesthetic score: a published head on the CLIP embeddings of frames. About 1 to 10; 5.5 is fair, 6.5 high.

Movie Gen scores the middle frame and keeps 4.0 and more; EasyAnimate's code the mean of 4 evenly spread frames, 4.0;
CogVideoX 4.5 at least; Open-Sora the mean of first, middle and last. The frames are those of the pack, the evenly
spread ones among up to eight.

Sources: LAION-AI/aesthetic-predictor (V1, linear); christophschuhmann/improved-aesthetic-predictor (V2, of which
`sac+logos+ava1-l14-linearMSE.pth` is the one in common use, and the default). Either is downloaded when first used.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pyarrow as pa

from filters.learned.clip import ClipModel
from filters.learned.embeddings import check_pick, embed, pick
from filters.learned.heads import Head, read_head
from filters.looks.frames import LOOKS
from filters.weights import find, once
from manifests.schema import column
from manifests.types import Clip, Frames

V1_LINEAR = "https://github.com/LAION-AI/aesthetic-predictor/raw/main/sa_0_4_vit_l_14_linear.pth"
V2_MLP = (
    "https://github.com/christophschuhmann/improved-aesthetic-predictor/raw/main/sac%2Blogos%2Bava1-l14-linearMSE.pth"
)
_CHECKSUMS = {V2_MLP: "sha256:21dd590f3ccdc646f0d53120778b296013b096a035a2718c9cb0d511bff0f1e0"}


@dataclass(frozen=True, slots=True)
class LaionAesthetics:
    """Mean score of the chosen frames.

    model:    the CLIP model for which the head was trained
    head:     file or address of a linear or V2 head
    checksum: "sha256:..." or "md5:..." of the head
    which:    the frames: "middle", "uniform" (`count` of them), "ends" (first, middle, last) or "all"
    """

    model: ClipModel = field(default_factory=ClipModel)
    head: str = V2_MLP
    checksum: str = ""
    which: str = "middle"
    count: int = 4
    wants = LOOKS
    schema: ClassVar[pa.Schema] = pa.schema(
        [column("aesthetic_laion", pa.float64(), "LAION aesthetic score", range="about 1..10", better="higher")]
    )

    def __post_init__(self) -> None:
        check_pick(self.which, self.count)

    def prepare(self) -> None:
        """Loads what it needs. Raises ValueError with one sentence when that cannot be had."""
        _head(self.head, self.checksum or _CHECKSUMS.get(self.head, ""), self.model)

    def __call__(self, clips: Sequence[Clip], frames: Sequence[Frames]) -> dict[str, list[Any]]:
        """Raises ValueError when model or head cannot be had."""
        head = _head(self.head, self.checksum or _CHECKSUMS.get(self.head, ""), self.model)
        of_clips = embed(self.model, frames, [pick(f, self.which, self.count) for f in frames])
        return {"aesthetic_laion": [float(head(e).mean()) if len(e) else None for e in of_clips]}


@once
def _head(source: str, checksum: str, model: ClipModel) -> Head:
    return read_head(find(source, checksum), model.size, model.architecture)

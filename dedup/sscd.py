"""SSCD, a learned descriptor of pictures that copies share: the published TorchScript models, or any other that takes
and gives the same.

Pictures at 288 pixels' short side, in RGB with ImageNet's mean and deviation taken out, give 512 numbers. Copies are
clips whose mean descriptors have a cosine of 0.75 or more, as the authors advise (9 of 10 such pairs of pictures are
copies in their data); Movie Gen drops clips at 0.99, that is the nearly identical alone.

A TorchScript file is a program, if one with little power: name only files and addresses you trust.

Source: Pizzi et al. 2022 (arXiv 2202.10261), facebookresearch/sscd-copy-detection.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dedup.vectors import unit
from manifests.schema import column
from manifests.types import Clip, Frames, Image, Sampling
from manifests.weights import find, first_line, once

PUBLISHED = "https://dl.fbaipublicfiles.com/sscd-copy-detection/sscd_disc_mixup.torchscript.pt"

_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True, slots=True)
class Sscd:
    """Mean descriptor of the sampled frames; `copies.vectors=sscd` finds copies by it.

    model: TorchScript file or its address. checksum: "sha256:..." or "md5:..." of it. side: short side of the pictures
    """

    model: str = PUBLISHED
    checksum: str = ""
    side: int = 288
    batch: int = 32
    wants = Sampling(fps=4.0, short=360, cap=8, color=True)
    schema: ClassVar[pa.Schema] = pa.schema(
        [column("sscd", pa.list_(pa.float32()), "mean SSCD descriptor, unit length", internal=True)]
    )

    def prepare(self) -> None:
        """Loads the model. Raises ValueError with one sentence when it cannot be had."""
        _load(self.model, self.checksum)

    def __call__(self, clips: Sequence[Clip], frames: Sequence[Frames]) -> dict[str, list[Any]]:
        """Raises ValueError when the model cannot be had, or gives something else."""
        return {"sscd": [self._mean(f.images) if len(f) else None for f in frames]}

    def _mean(self, images: Sequence[Image]) -> list[float] | None:
        batches = [self.describe(images[k : k + self.batch]) for k in range(0, len(images), self.batch)]
        mean, good = unit(np.concatenate(batches).mean(axis=0, keepdims=True))
        return [float(value) for value in mean[0]] if good[0] else None

    def describe(self, images: Sequence[Image]) -> npt.NDArray[np.float32]:
        """BGR pictures (H, W, 3) of one size -> descriptors (N, D) of unit length; zeros where the model gives none."""
        import torch

        model = _load(self.model, self.checksum)
        place = next((p.device for p in model.parameters()), torch.device("cpu"))
        rgb = torch.from_numpy(np.stack(images)[..., ::-1].copy()).to(place).permute(0, 3, 1, 2).float() / 255
        short = min(rgb.shape[2:])
        size = [max(1, int(self.side * length / short)) for length in rgb.shape[2:]]
        small = torch.nn.functional.interpolate(rgb, size, mode="bilinear", antialias=True, align_corners=False)
        mean, deviation = (torch.tensor(v, device=place)[:, None, None] for v in (_MEAN, _DEVIATION))
        try:
            with torch.inference_mode():
                made = model((small - mean) / deviation)
        except RuntimeError as error:
            raise ValueError(
                f"{self.model} does not take pictures ({first_line(error)}); give an SSCD model."
            ) from error
        if not isinstance(made, torch.Tensor) or made.ndim != 2 or len(made) != len(images):
            raise ValueError(f"{self.model} gives no descriptor for each picture; give an SSCD model.")
        return unit(made.float().cpu().numpy())[0]


@once
def _load(source: str, checksum: str) -> Any:
    try:
        import torch
    except ImportError:
        raise ValueError("SSCD needs torch; install it with: pip install 'vidcurate[learned]'") from None
    path = find(source, checksum)
    place = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.jit.load(str(path), map_location=place).eval()
    except (RuntimeError, ValueError) as error:
        raise ValueError(
            f"{path} is no TorchScript file ({first_line(error)}); give one of SSCD's that end in .torchscript.pt."
        ) from error

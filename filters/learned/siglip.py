"""Aesthetic Predictor V2.5: a head on the SigLIP embeddings of frames. About 1 to 10; 5.5 and more is good.

EasyAnimate's code keeps the mean of 4 evenly spread frames at 4.0 and more. The scale is not that of the LAION heads.

The image tower is transformers' `SiglipVisionModel` (google/siglip-so400m-patch14-384: embeddings of 1152 numbers),
the embedding its pooled output. Tower and head are downloaded when first used; both can be local. Mind the head's
licence (AGPL-3.0).

Source: discus0434/aesthetic-predictor-v2-5, whose head is downloaded and not part of this package.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pyarrow as pa

from filters.batches import halving
from filters.learned.embeddings import Preparation, Vectors, check_pick, embed, pick
from filters.learned.heads import Head, read_head
from filters.looks.frames import LOOKS
from filters.weights import device, find, first_line, once
from manifests.offline import is_offline
from manifests.schema import column
from manifests.types import Clip, Frames, Image

V2_5 = "https://github.com/discus0434/aesthetic-predictor-v2-5/raw/main/models/aesthetic_predictor_v2_5.pth"
_CHECKSUMS = {V2_5: "md5:c46eb8c29f714c9231dc630b8226842a"}  # as EasyAnimate's code has it


@dataclass(frozen=True, slots=True)
class SiglipModel:
    """source: a repository of the Hugging Face hub, or a folder in transformers' layout (`config.json`, safetensors,
    `preprocessor_config.json`) of a whole SigLIP model or its image tower."""

    source: str = "google/siglip-so400m-patch14-384"

    @property
    def size(self) -> int:
        """Numbers in an embedding."""
        return int(_load(self).network.config.hidden_size)

    def encode(self, images: Sequence[Image]) -> list[Vectors]:
        """One unit vector (D,) per BGR picture. In half precision on a GPU."""
        loaded = _load(self)
        return halving(loaded.see, images, 64 if loaded.device.type == "cuda" else 4)


@dataclass(frozen=True, slots=True, eq=False)
class _Loaded:
    network: Any
    preparation: Preparation
    device: Any

    def see(self, images: Sequence[Image]) -> list[Vectors]:
        import torch

        with torch.inference_mode():
            pixels = self.preparation(images, self.device).to(self.network.dtype)
            vectors = self.network(pixel_values=pixels).pooler_output.float()
            return list(vectors.div(vectors.norm(dim=-1, keepdim=True)).cpu().numpy())


@once
def _load(model: SiglipModel) -> _Loaded:
    try:
        import torch
        from transformers import AutoImageProcessor, SiglipVisionModel
    except (ImportError, RuntimeError) as error:
        raise ValueError(f"SigLIP needs transformers ({first_line(error)}): pip install transformers.") from error
    place = device()
    loader: Any = SiglipVisionModel  # its annotation knows nothing of output_loading_info
    try:
        network, report = loader.from_pretrained(
            model.source,
            dtype=torch.float16 if place.type == "cuda" else torch.float32,
            local_files_only=is_offline(),
            use_safetensors=True,
            output_loading_info=True,
        )
        if report["missing_keys"]:  # transformers would go on with random numbers
            raise ValueError(f"its weights lack {len(report['missing_keys'])} tensors of the image tower")
        processor = AutoImageProcessor.from_pretrained(model.source, local_files_only=is_offline())
    except Exception as error:
        raise ValueError(
            f"SigLIP model {model.source} cannot be loaded ({first_line(error)}); give a repository's name, or a "
            "folder that holds its config.json, model.safetensors and preprocessor_config.json."
        ) from error
    preparation = Preparation(
        (processor.size["height"], processor.size["width"]),
        tuple(processor.image_mean),
        tuple(processor.image_std),
        mode="squash",
    )
    return _Loaded(network.eval().requires_grad_(False).to(place), preparation, place)


@dataclass(frozen=True, slots=True)
class SiglipAesthetics:
    """Mean score of the chosen frames.

    head:     file or address of a head in the layout of Aesthetic Predictor V2.5
    checksum: "sha256:..." or "md5:..." of the head
    which:    the frames: "middle", "uniform" (`count` of them), "ends" (first, middle, last) or "all"
    """

    model: SiglipModel = field(default_factory=SiglipModel)
    head: str = V2_5
    checksum: str = ""
    which: str = "uniform"
    count: int = 4
    wants = LOOKS
    schema: ClassVar[pa.Schema] = pa.schema(
        [column("aesthetic_siglip", pa.float64(), "Aesthetic Predictor V2.5", range="about 1..10", better="higher")]
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
        return {"aesthetic_siglip": [float(head(e).mean()) if len(e) else None for e in of_clips]}


@once
def _head(source: str, checksum: str, model: SiglipModel) -> Head:
    return read_head(find(source, checksum), model.size, model.source)

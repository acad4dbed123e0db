"""CLIP image and text embeddings with open_clip's models, and the clip's embedding as a column.

Weights come from open_clip's list (architecture and tag; downloaded to the Hugging Face cache when first used), from a
local file or address beside a named architecture or a JSON file in open_clip's model format, or from a folder in the
layout in which open_clip models are published (`open_clip_config.json` and weights; with
`hf download REPOSITORY --local-dir FOLDER`). OpenAI's weights need a `-quickgelu` architecture.

Sources: Radford et al. 2021 (arXiv 2103.00020); open_clip (Ilharco et al. 2021).
"""

from __future__ import annotations

import functools
import hashlib
import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from filters.batches import halving
from filters.learned.embeddings import Preparation, Vectors, embed, pick
from filters.looks.frames import LOOKS
from filters.weights import device, find, first_line, is_url, once
from manifests.offline import is_offline
from manifests.schema import column
from manifests.types import Clip, Frames, Image

_FILES = (".safetensors", ".pt", ".pth", ".bin")


@dataclass(frozen=True, slots=True)
class ClipModel:
    """architecture: a name of open_clip's, a JSON file in its model format, or a folder that holds a published model
    weights:      a tag of open_clip's for that architecture, or a .safetensors, .pt, .pth or .bin file or its address;
                  not looked at for a folder
    checksum:     "sha256:..." or "md5:..." of a weights file
    """

    architecture: str = "ViT-L-14-quickgelu"
    weights: str = "openai"
    checksum: str = ""

    def prepare(self) -> None:
        """Loads the model. Raises ValueError with one sentence when it cannot be had."""
        _load(self)

    @property
    def size(self) -> int:
        """Numbers in an embedding."""
        return _load(self).size

    @property
    def logit_scale(self) -> float:
        """What cosines are multiplied with before a softmax over texts."""
        return _load(self).logit_scale

    def encode(self, images: Sequence[Image]) -> list[Vectors]:
        """One unit vector (D,) per BGR picture. In half precision on a GPU."""
        loaded = _load(self)
        return halving(loaded.see, images, loaded.batch)

    def read(self, texts: tuple[str, ...]) -> Vectors:
        """Unit vectors (N, D) of N texts."""
        return _read(self, texts)


VIT_L_14 = ClipModel()
"""OpenAI's ViT-L/14, for which the LAION aesthetic heads were trained."""

VIT_L_14_336 = ClipModel("ViT-L-14-336-quickgelu")
"""OpenAI's ViT-L/14 at 336 pixels, with which EasyAnimate measures consistency."""


@dataclass(frozen=True, slots=True, eq=False)
class _Loaded:
    network: Any
    preparation: Preparation
    tokenizer: Callable[[], Any]
    device: Any
    dtype: Any
    size: int

    @property
    def batch(self) -> int:
        return 256 if self.device.type == "cuda" else 16

    @property
    def logit_scale(self) -> float:
        return float(self.network.logit_scale.exp())

    def see(self, images: Sequence[Image]) -> list[Vectors]:
        import torch

        with torch.inference_mode():
            pixels = self.preparation(images, self.device).to(self.dtype)
            return _units(self.network.encode_image(pixels))

    def understand(self, tokens: Sequence[Any]) -> list[Vectors]:
        import torch

        with torch.inference_mode():
            return _units(self.network.encode_text(torch.stack(list(tokens)).to(self.device)))


def _units(vectors: Any) -> list[Vectors]:
    """Scaled to length 1 in single precision, whatever the network computes in."""
    return list(np.asarray((v := vectors.float()).div(v.norm(dim=-1, keepdim=True)).cpu().numpy(), np.float32))


@once
def _read(model: ClipModel, texts: tuple[str, ...]) -> Vectors:
    loaded = _load(model)
    try:
        tokens = loaded.tokenizer()(list(texts))
    except Exception as error:
        raise ValueError(
            f"the tokenizer of {model.architecture} cannot be had ({first_line(error)}); choose a model with "
            "open_clip's own tokenizer, or a folder that holds the tokenizer's files."
        ) from error
    return np.stack(halving(loaded.understand, list(tokens), loaded.batch))


@once
def _load(model: ClipModel) -> _Loaded:
    """The model, ready on its device; once per process."""
    try:
        import open_clip
        import torch
    except (ImportError, RuntimeError) as error:  # RuntimeError: a torchvision that does not fit torch
        raise ValueError(
            f"CLIP needs open_clip ({first_line(error)}): pip install 'vidcurate[learned]', then vidcurate doctor."
        ) from error
    place = device()
    precision = "fp16" if place.type == "cuda" else "fp32"
    name, settings = _source(model)
    try:
        network = open_clip.create_model(
            name, device=place, precision=precision, require_pretrained=True, weights_only=True, **settings
        )
    except Exception as error:
        raise ValueError(
            f"CLIP model {model.architecture} with weights {model.weights!r} cannot be loaded ({first_line(error)}); "
            "see `architecture` and `weights` in filters.learned.clip.ClipModel."
        ) from error
    network.eval().requires_grad_(False)
    preparation = _preparation(open_clip.get_model_preprocess_cfg(network))
    with torch.inference_mode():
        blank = torch.zeros((1, 3, *preparation.size), device=place, dtype=open_clip.get_input_dtype(precision))
        size = int(network.encode_image(blank).shape[-1])
    tokenizer = functools.partial(open_clip.get_tokenizer, name)
    return _Loaded(network, preparation, tokenizer, place, blank.dtype, size)


def _preparation(config: dict[str, Any]) -> Preparation:
    size = config["size"]
    return Preparation(
        (size, size) if isinstance(size, int) else (size[0], size[1]),
        tuple(config["mean"]),
        tuple(config["std"]),
        config["resize_mode"],
        "bilinear" if config["interpolation"] == "bilinear" else "bicubic",  # "random" is a matter of training
        config["fill_color"],
    )


def _source(model: ClipModel) -> tuple[str, dict[str, Any]]:
    """Name and settings with which open_clip makes the model; downloads the weights where they have an address."""
    import open_clip

    if is_offline():
        _stay_offline()
    architecture = Path(model.architecture).expanduser()
    if architecture.is_dir():
        if not (architecture / "open_clip_config.json").is_file():
            raise ValueError(f"folder {architecture} holds no open_clip_config.json; give a published model's folder.")
        return f"local-dir:{architecture}", {}
    name, preprocess = model.architecture, None
    if architecture.suffix == ".json":
        name, preprocess = _register(architecture)
    elif name not in open_clip.list_models():
        raise ValueError(
            f"open_clip has no architecture {name!r}; give one of open_clip.list_models(), a JSON file, or a folder."
        )
    if is_url(model.weights) or model.weights.endswith(_FILES):
        weights = str(find(model.weights, model.checksum))
        return name, {"pretrained": weights, "force_preprocess_cfg": preprocess}
    tags = open_clip.list_pretrained_tags_by_model(name)
    if model.weights not in tags:
        known = f"tags {', '.join(tags)} or " if tags else ""
        raise ValueError(f"there are no weights {model.weights!r} for {name}; give {known}a {', '.join(_FILES)} file.")
    listed = open_clip.get_pretrained_cfg(name, model.weights)
    if is_offline() and not listed.get("hf_hub"):
        raise ValueError(f"weights {model.weights!r} need a download, which is switched off; give a file instead.")
    return name, {"pretrained": model.weights, "force_quick_gelu": bool(listed.get("quick_gelu"))}


def _register(path: Path) -> tuple[str, dict[str, Any] | None]:
    """Makes a JSON file's architecture known to open_clip, under a name that no other has."""
    import open_clip

    try:
        config = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ValueError(f"architecture {path} cannot be read as JSON ({first_line(error)}).") from error
    config = config if isinstance(config, dict) else {}
    architecture, preprocess = config.get("model_cfg", config), config.get("preprocess_cfg")
    if missing := {"embed_dim", "vision_cfg", "text_cfg"} - set(architecture):
        raise ValueError(f"architecture {path} lacks {', '.join(sorted(missing))}; use open_clip's model format.")
    name = f"{path.stem}-{hashlib.sha256(json.dumps(architecture).encode()).hexdigest()[:8]}"
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"{name}.json"
        file.write_text(json.dumps(architecture))
        open_clip.add_model_config(file)
    return name, preprocess


def _stay_offline() -> None:
    """The hub reads its switch when it is imported, which may have been before ours was set."""
    from huggingface_hub import constants

    constants.HF_HUB_OFFLINE = True


@dataclass(frozen=True, slots=True)
class ClipEmbedding:
    """Mean embedding of the sampled frames: what a clip is about, for concepts and retrieval."""

    model: ClipModel = field(default_factory=ClipModel)
    wants = LOOKS
    schema: ClassVar[pa.Schema] = pa.schema(
        [column("clip_embedding", pa.list_(pa.float32()), "mean CLIP embedding, unit length", internal=True)]
    )

    def prepare(self) -> None:
        self.model.prepare()

    def __call__(self, clips: Sequence[Clip], frames: Sequence[Frames]) -> dict[str, list[Any]]:
        """Raises ValueError when the model cannot be had."""
        of_clips = embed(self.model, frames, [pick(f, "all") for f in frames])
        return {"clip_embedding": [mean(e).tolist() if len(e) else None for e in of_clips]}


def mean(embeddings: Vectors) -> npt.NDArray[np.float32]:
    """Unit vector (D,) in the direction of the mean of (n, D), n > 0."""
    total = embeddings.sum(axis=0)
    return np.asarray(total / max(float(np.linalg.norm(total)), 1e-12), np.float32)

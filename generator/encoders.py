"""Published text and image encoders, by name or folder, and a cache of what they say.

T5, UL2 and ByT5 (all of T5's architecture) and CLIP run through transformers, open_clip's CLIP through open_clip. Only
safetensors weights are read and no code from a model's folder is run. `generator.text` holds the encoder that needs
none of this and stays the default.

    texts = t5_xxl("models/CogVideoX-2b/text_encoder")      # or its name on the hub
    said = Cached(texts.load(), Path("cache"))(["a red circle moves right"])
    model(x, t, said.sequence)
"""

# mypy: disable-error-code="no-any-return, no-untyped-call"

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from generator.caches import TensorCache
from generator.dit.positions import stretched
from generator.text import Embedding
from manifests.offline import is_offline

_QUOTED = re.compile("[\"“”]([^\"“”]+)[\"“”]|‘([^’]+)’|(?<!\\w)'([^']+)'(?!\\w)|「([^」]+)」|《([^》]+)》")


@dataclass(frozen=True, slots=True)
class Encoder:
    """A published text encoder, not yet loaded.

    source: a name on the hub, or a folder in the layout in which it is published. kind: "t5", "clip" or "open_clip".
    length: tokens per text; shorter texts are padded, longer ones cut. blind: padding is seen by the encoder as if it
    were text, as CogVideoX does. quoted: only what stands in quotation marks is encoded, as Movie Gen's ByT5.
    pretrained: the tag of open_clip's weights, for a name. width: numbers of a token's embedding, for systems.

    Raises ValueError for another kind.
    """

    source: str
    kind: str
    length: int
    blind: bool = False
    quoted: bool = False
    pretrained: str = ""
    width: int = 0

    def __post_init__(self) -> None:
        if self.kind not in _LOAD:
            raise ValueError(f"text encoders are {', '.join(_LOAD)}; {self.kind!r} is not one of them.")

    def load(self, device: str = "cpu", dtype: torch.dtype = torch.float32) -> LoadedEncoder:
        """Raises ValueError in one sentence where a library is missing or the model cannot be had."""
        return _LOAD[self.kind](self, device, dtype)


def t5_xxl(source: str = "google/t5-v1_1-xxl", length: int = 226) -> Encoder:
    """CogVideoX's: 4096 wide. The folder `text_encoder` of a CogVideoX pipeline serves as source too."""
    return Encoder(source, "t5", length, blind=True, width=4096)


def t5_xxl_masked(source: str = "google/t5-v1_1-xxl", length: int = 120) -> Encoder:
    """EasyAnimate's and PixArt's: the same encoder, with padding masked."""
    return Encoder(source, "t5", length, width=4096)


def ul2(source: str = "google/ul2", length: int = 256) -> Encoder:
    """Movie Gen's for reasoning about the text: 4096 wide; its length is ours."""
    return Encoder(source, "t5", length, width=4096)


def byt5(source: str = "google/byt5-small", length: int = 100) -> Encoder:
    """Movie Gen's for text to be shown in the picture: bytes, 1472 wide; its length is ours."""
    return Encoder(source, "t5", length, quoted=True, width=1472)


def metaclip(source: str = "facebook/metaclip-h14-fullcc2.5b", length: int = 256) -> Encoder:
    """Movie Gen's for looks. The published model knows 77 tokens; positions are stretched to 256, as theirs were before
    they were fine-tuned on long captions.
    """
    return Encoder(source, "clip", length, width=1024)


def clip_big_g(source: str = "ViT-bigG-14", pretrained: str = "laion2b_s39b_b160k") -> Encoder:
    """STIV's shape of encoder: causal, 32 layers, 1280 wide, pooled at the last token; its weights are not public."""
    return Encoder(source, "open_clip", 77, pretrained=pretrained, width=1280)


def quoted(text: str) -> str:
    """What stands in quotation marks, joined by spaces; empty if nothing does."""
    return " ".join(next(filter(None, found)) for found in _QUOTED.findall(text))


class LoadedEncoder:
    """Called with texts, gives an `Embedding` on the CPU; `fingerprint` names its weights and settings."""

    def __init__(self, settings: Encoder, network: nn.Module, read: Any, run: Any) -> None:
        self.settings, self.network = settings, network.eval().requires_grad_(False)
        self._read, self._run = read, run

    @functools.cached_property
    def fingerprint(self) -> str:
        s = self.settings
        return f"{sampled_fingerprint(self.network)}-{s.kind}-{s.length}{'-blind' * s.blind}{'-quoted' * s.quoted}"

    @torch.no_grad()
    def __call__(self, texts: Sequence[str]) -> Embedding:
        """B texts -> (B, length, D)."""
        wanted = [quoted(text) if self.settings.quoted else text for text in texts]
        ids, mask = self._read(wanted)
        place = next(self.network.parameters()).device
        sequence, pooled = self._run(ids.to(place), mask.to(place))
        return Embedding(sequence.cpu(), mask.bool().cpu(), None if pooled is None else pooled.cpu())


class Cached:
    """An encoder that remembers, by content: of the text, and of the encoder's weights and settings.

    The folder holds safetensors parts. Raises ValueError where it was filled by another encoder, or is damaged.
    """

    def __init__(self, encoder: LoadedEncoder, folder: Path, batch: int = 8) -> None:
        self.encoder, self.batch = encoder, batch
        self.cache = TensorCache(folder, f"text encoder {encoder.fingerprint}", "text embeddings")

    def __call__(self, texts: Sequence[str]) -> Embedding:
        """B texts -> (B, length, D), reading what is known and encoding the rest."""
        lacking = [text for text in dict.fromkeys(texts) if text_key(text) not in self.cache]
        for start in range(0, len(lacking), self.batch):
            self._remember(lacking[start : start + self.batch])
        keys = [text_key(text) for text in texts]
        pooled = None
        if keys and f"{keys[0]}/pooled" in self.cache:
            pooled = torch.stack([self.cache[f"{key}/pooled"] for key in keys])
        mask = torch.stack([self.cache[f"{key}/mask"] for key in keys])
        return Embedding(torch.stack([self.cache[key] for key in keys]), mask, pooled)

    def _remember(self, texts: Sequence[str]) -> None:
        said = self.encoder(texts)
        part: dict[str, Tensor] = {}
        for number, text in enumerate(texts):
            key = text_key(text)
            part |= {key: said.sequence[number].clone(), f"{key}/mask": said.mask[number].clone()}
            if said.pooled is not None:
                part[f"{key}/pooled"] = said.pooled[number].clone()
        self.cache.add(part)


def text_key(text: str) -> str:
    """Thirty-two hexadecimal digits of a text."""
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def sampled_fingerprint(network: nn.Module) -> str:
    """Twelve hexadecimal digits of every tensor's name, shape and up to 256 evenly spaced numbers of it.

    A full digest of eighteen gigabytes would take longer than the texts; a model that was trained further differs
    nearly everywhere.
    """
    digest = hashlib.blake2b(digest_size=6)
    for name, tensor in sorted(network.state_dict().items()):
        flat = tensor.detach().flatten()
        some = flat[:: max(len(flat) // 256, 1)][:256].cpu()
        digest.update(f"{name} {tuple(tensor.shape)}".encode())
        digest.update(some.double().numpy().tobytes())
    return digest.hexdigest()


def _t5(settings: Encoder, device: str, dtype: torch.dtype) -> LoadedEncoder:
    transformers = _library("transformers")
    tokenizer = _tokenizer(transformers, settings.source)
    network = _pretrained(transformers.T5EncoderModel, settings.source, device, dtype)

    def read(texts: list[str]) -> tuple[Tensor, Tensor]:
        said = tokenizer(texts, padding="max_length", max_length=settings.length, truncation=True, return_tensors="pt")
        return said.input_ids, said.attention_mask

    def run(ids: Tensor, mask: Tensor) -> tuple[Tensor, None]:
        return network(ids, attention_mask=None if settings.blind else mask).last_hidden_state, None

    return LoadedEncoder(settings, network, read, run)


def _clip(settings: Encoder, device: str, dtype: torch.dtype) -> LoadedEncoder:
    transformers = _library("transformers")
    tokenizer = _tokenizer(transformers, settings.source)
    network = _pretrained(transformers.CLIPTextModel, settings.source, device, dtype)
    positions = next(m for name, m in network.named_modules() if name.endswith("position_embedding"))
    if settings.length > len(positions.weight):
        positions.weight = nn.Parameter(stretched(positions.weight.detach(), settings.length), requires_grad=False)
        positions.num_embeddings = settings.length

    def read(texts: list[str]) -> tuple[Tensor, Tensor]:
        said = tokenizer(texts, padding="max_length", max_length=settings.length, truncation=True, return_tensors="pt")
        return said.input_ids, said.attention_mask

    def run(ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        places = torch.arange(ids.shape[1], device=ids.device)[None]
        said = network(ids, attention_mask=mask, position_ids=places)
        return said.last_hidden_state, said.pooler_output

    return LoadedEncoder(settings, network, read, run)


def _open_clip(settings: Encoder, device: str, dtype: torch.dtype) -> LoadedEncoder:
    open_clip = _library("open_clip")
    folder = Path(settings.source).expanduser()
    name = f"local-dir:{folder}" if folder.is_dir() else settings.source
    if is_offline() and not folder.is_dir():
        raise ValueError(f"downloads are switched off; give a folder that holds {settings.source} instead of its name.")
    try:
        tag = {} if folder.is_dir() else {"pretrained": settings.pretrained}
        network = open_clip.create_model(name, device=device, require_pretrained=True, weights_only=True, **tag)
        tokenize = open_clip.get_tokenizer(name)
    except Exception as error:
        raise ValueError(f"text encoder {settings.source} cannot be loaded ({_first_line(error)}).") from error
    tower = getattr(network, "text", network).to(dtype)  # two classes: with a text tower of its own, and all in one

    def read(texts: list[str]) -> tuple[Tensor, Tensor]:
        ids = tokenize(texts, context_length=settings.length)
        # The end token has the highest number; what follows it is padding.
        return ids, torch.arange(ids.shape[1]) <= ids.argmax(dim=1, keepdim=True)

    def run(ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        x = tower.token_embedding(ids).to(dtype) + tower.positional_embedding.to(dtype)[: ids.shape[1]]
        sees = tower.attn_mask[: ids.shape[1], : ids.shape[1]] if tower.attn_mask is not None else None
        x = tower.ln_final(tower.transformer(x, attn_mask=sees))
        return x, x[torch.arange(len(x)), ids.argmax(dim=1)]

    return LoadedEncoder(settings, network, read, run)


_LOAD = {"t5": _t5, "clip": _clip, "open_clip": _open_clip}


@dataclass(frozen=True, slots=True)
class ImageEncoder:
    """EasyAnimate's image guidance: the projected embedding of a CLIP vision model, 768 numbers for ViT-L/14."""

    source: str = "openai/clip-vit-large-patch14"

    def load(self, device: str = "cpu", dtype: torch.dtype = torch.float32) -> LoadedImageEncoder:
        """Raises ValueError in one sentence where a library is missing or the model cannot be had."""
        transformers = _library("transformers")
        return LoadedImageEncoder(_pretrained(transformers.CLIPVisionModelWithProjection, self.source, device, dtype))


class LoadedImageEncoder:
    MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)

    def __init__(self, network: Any) -> None:
        self.network = network.eval().requires_grad_(False)

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """images: (B, 3, H, W) in [-1, 1], any size: the short side is scaled, the centre cut out. Returns (B, D)."""
        side = self.network.config.image_size
        height, width = images.shape[2:]
        scale = side / min(height, width)
        size = (max(round(height * scale), side), max(round(width * scale), side))
        x = F.interpolate((images.float() + 1) / 2, size, mode="bicubic", antialias=True).clamp(0, 1)
        top, left = (size[0] - side) // 2, (size[1] - side) // 2
        x = x[:, :, top : top + side, left : left + side]
        mean, std = (x.new_tensor(said).view(3, 1, 1) for said in (self.MEAN, self.STD))
        first = next(self.network.parameters())
        return self.network(((x - mean) / std).to(first)).image_embeds.cpu()


def _library(name: str) -> Any:
    import importlib

    try:
        return importlib.import_module(name)
    except (ImportError, RuntimeError) as error:  # RuntimeError: a torchvision that does not fit torch
        raise ValueError(
            f"this text encoder needs {name} ({_first_line(error)}): pip install 'vidcurate[learned]', then vidcurate "
            "doctor."
        ) from error


def _pretrained(kind: Any, source: str, device: str, dtype: torch.dtype) -> Any:
    settings: dict[str, Any] = {"use_safetensors": True, "local_files_only": is_offline()}
    try:
        return kind.from_pretrained(_place(source), dtype=dtype, **settings).to(device)
    except Exception as error:
        raise ValueError(
            f"encoder {source} cannot be loaded ({_first_line(error)}); give a name on the hub, or a folder with "
            "config.json and safetensors weights."
        ) from error


def _tokenizer(transformers: Any, source: str) -> Any:
    """Of the folder itself or, as in diffusers' pipelines, of the folder `tokenizer` beside it."""
    place = Path(source).expanduser()
    if place.is_dir() and not (place / "tokenizer_config.json").exists():
        beside = place.parent / place.name.replace("text_encoder", "tokenizer")
        place = beside if beside != place and beside.is_dir() else place
    name = str(place) if place.is_dir() else source
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(name, local_files_only=is_offline())
    except Exception as error:
        raise ValueError(f"the tokenizer of {source} cannot be loaded ({_first_line(error)}).") from error
    if len(tokenizer) - len(tokenizer.all_special_ids) < 8:
        # What transformers makes of a spiece.model without the library that reads it: a vocabulary of nothing.
        raise ValueError(
            f"the tokenizer of {source} knows no words; where it is a spiece.model, pip install sentencepiece."
        )
    return tokenizer


def _place(source: str) -> str:
    folder = Path(source).expanduser()
    return str(folder) if folder.is_dir() else source


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)

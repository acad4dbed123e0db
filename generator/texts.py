"""The text encoders of a system: ones that are trained with it, or published ones that are asked once for each text."""

# mypy: disable-error-code="no-any-return, no-untyped-call"

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from generator.encoders import Cached, Encoder, LoadedEncoder
from generator.text import Embedding, HashedWordEncoder, TextConfig
from manifests.ids import fingerprint

Text = TextConfig | Encoder
"""Settings of a text encoder; both have a `length` and a `width`."""

_BATCH = 8


class Waiting:
    """A published encoder that is loaded when it is first asked, and again after it was let go."""

    def __init__(self, settings: Encoder, device: str) -> None:
        self.settings, self.device = settings, device
        self._loaded: LoadedEncoder | None = None
        self._fingerprint = ""

    @property
    def fingerprint(self) -> str:
        if not self._fingerprint:
            self._fingerprint = self._here().fingerprint
        return self._fingerprint

    def __call__(self, texts: Sequence[str]) -> Embedding:
        said = self._here()(texts)
        if said.sequence.shape[2] != self.settings.width:
            raise ValueError(
                f"text encoder {self.settings.source} says {said.sequence.shape[2]} numbers a token, not the "
                f"{self.settings.width} of the recipe; give the recipe that width."
            )
        return said

    def let_go(self) -> None:
        """Frees its memory."""
        self._loaded = None

    def _here(self) -> LoadedEncoder:
        if self._loaded is None:
            dtype = torch.float32 if self.device == "cpu" else torch.bfloat16
            self._loaded = self.settings.load(self.device, dtype)
        return self._loaded


class Published(nn.Module):
    """A published text encoder as a system's: frozen, and no part of the system's weights."""

    here: Tensor

    def __init__(self, config: Encoder) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("here", torch.empty(0), persistent=False)  # says where the system is
        self._waiting: Waiting | None = None
        self._cached: Cached | None = None

    def settings(self) -> dict[str, Any]:
        """As JSON; `Encoder(**settings)` is the encoder again."""
        return dataclasses.asdict(self.config)

    def remember(self, texts: Sequence[str], folder: Path, tick: Callable[[int, int], None]) -> None:
        """Encodes what is not yet in the cache below `folder`, and lets the encoder go.

        Raises ValueError where the cache was filled by another encoder.
        """
        if self._cached is None:
            self._cached = Cached(self._encoder(), folder / f"texts-{fingerprint(self.config)}")  # type: ignore[arg-type]
        wanted = list(dict.fromkeys(texts))
        for start in range(0, len(wanted), _BATCH):
            self._cached(wanted[start : start + _BATCH])
            tick(min(start + _BATCH, len(wanted)), len(wanted))
        self._encoder().let_go()

    def embed(self, texts: Sequence[str]) -> Embedding:
        """B texts -> (B, length, width), float32, on the system's device."""
        said = (self._cached or self._encoder())(texts)
        place = self.here.device
        pooled = None if said.pooled is None else said.pooled.float().to(place)
        return Embedding(said.sequence.float().to(place), said.mask.to(place), pooled)

    def forward(self, texts: Sequence[str]) -> Tensor:
        return self.embed(texts).sequence

    def _encoder(self) -> Waiting:
        if self._waiting is None:
            self._waiting = Waiting(self.config, str(self.here.device))
        return self._waiting


def tower(settings: Text) -> HashedWordEncoder | Published:
    """The encoder that the settings describe."""
    return Published(settings) if isinstance(settings, Encoder) else HashedWordEncoder(settings)

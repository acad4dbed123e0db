"""Text encoders. The one here needs no download: it is trained together with the diffusion model."""

# mypy: disable-error-code="no-any-return, no-untyped-call"

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_WORD = re.compile(r"[぀-ヿ㐀-鿿가-힣]|[^\W_]+")
_PAD = 0


@dataclass(frozen=True, slots=True)
class Embedding:
    """What any text encoder says.

    sequence: (B, L, D). mask: (B, L) bool, true where a token is text. pooled: (B, D) where the encoder has one.
    """

    sequence: Tensor
    mask: Tensor
    pooled: Tensor | None = None


@dataclass(frozen=True, slots=True)
class TextConfig:
    """buckets: rows of the embedding table that words are hashed to. length: tokens per text; longer texts are cut.

    width: of an embedding. layers, heads: of the transformer on top.
    """

    buckets: int = 4096
    length: int = 16
    width: int = 32
    layers: int = 1
    heads: int = 2

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} must be a multiple of heads {self.heads}.")


def words(text: str) -> list[str]:
    """Lower-case words and numbers; a Chinese, Japanese or Korean character is a word. Punctuation is dropped."""
    return _WORD.findall(text.lower())


def bucket(word: str, buckets: int) -> int:
    """1 .. buckets, the same on every machine and in every process (0 is padding)."""
    return 1 + int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "little") % buckets


class Layer(nn.Module):
    """Pre-norm transformer layer, bidirectional."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norm1(x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        x = x + self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class HashedWordEncoder(nn.Module):
    """Words hashed to an embedding table, plus positions, plus a few transformer layers.

    It knows nothing before it is trained: no vocabulary, no language. Two words that share a bucket are the same word
    to it. The empty text is the null text of classifier-free guidance.
    """

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.config = config
        self.table = nn.Embedding(config.buckets + 1, config.width)
        self.positions = nn.Parameter(torch.randn(config.length, config.width) * 0.1)
        self.layers = nn.ModuleList([Layer(config.width, config.heads) for _ in range(config.layers)])
        self.norm = nn.LayerNorm(config.width)

    def tokens(self, texts: Sequence[str]) -> Tensor:
        """(B, length) int64 on the encoder's device, padded with 0."""
        ids = torch.full((len(texts), self.config.length), _PAD)
        for row, text in zip(ids, texts, strict=True):
            found = [bucket(word, self.config.buckets) for word in words(text)[: self.config.length]]
            row[: len(found)] = torch.tensor(found, dtype=torch.long)
        return ids.to(self.table.weight.device)

    def forward(self, texts: Sequence[str]) -> Tensor:
        """B texts -> (B, length, width)."""
        return self._said(self.tokens(texts))

    def embed(self, texts: Sequence[str]) -> Embedding:
        """As the published encoders of `generator.encoders` answer; pooled at the last word.

        The empty text is one token of padding, so that attention always has something to see.
        """
        ids = self.tokens(texts)
        mask = ids != _PAD
        mask[:, 0] = True
        sequence = self._said(ids)
        return Embedding(sequence, mask, sequence[torch.arange(len(ids)), mask.sum(1) - 1])

    def _said(self, ids: Tensor) -> Tensor:
        x = self.table(ids) + self.positions
        for layer in self.layers:
            x = layer(x)
        return self.norm(x)

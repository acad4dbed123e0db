"""Frame pack: clips of different lengths and sizes, each with its text, in one sequence (CogVideoX, arXiv 2408.06072,
section 3, after Patch n' Pack, arXiv 2307.06304).

Every token knows its clip. It sees the tokens of that clip alone, is modulated at that clip's time and stands at that
clip's coordinates; so a clip computes in a pack what it computes alone. The paper gives neither how clips are put
together nor the mask: first-fit decreasing and a block-diagonal mask are ours.
"""

# mypy: disable-error-code="no-any-return, no-untyped-call"

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from generator.dit.sequence import Parts

Rows = Sequence[Sequence[int]]
"""Sequences of a batch, each as the numbers of its clips."""


def first_fit_decreasing(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Numbers of the clips of each sequence, so that none is longer than `budget`. lengths: of the clips, in tokens.

    The longest goes first, each into the first sequence that has room; at most 11/9 of the fewest sequences, and one.
    Raises ValueError for a clip that is longer than the budget.
    """
    rows: list[list[int]] = []
    room: list[int] = []
    for clip in sorted(range(len(lengths)), key=lambda k: (-lengths[k], k)):
        length = lengths[clip]
        if length > budget:
            raise ValueError(f"a clip of {length} tokens is longer than a sequence of {budget}.")
        place = next((k for k, left in enumerate(room) if left >= length), len(rows))
        if place == len(rows):
            rows.append([])
            room.append(budget)
        rows[place].append(clip)
        room[place] -= length
    return rows


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """Whose the tokens are: words (B, L) and video (B, N) hold the number of a token's clip, -1 for padding. attend:
    which tokens see each other, (B, 1, L + N, L + N) bool, or FlexAttention's block mask of the same."""

    words: Tensor
    video: Tensor
    attend: Any

    @classmethod
    def of(cls, rows: Rows, words: Sequence[Tensor], video: Sequence[Tensor], flex: bool = False) -> Layout:
        """words, video: tokens of each clip, (L, width) and (N, width)."""
        text, pixels = (_padded([_whose(row, tokens) for row in rows], -1) for tokens in (words, video))
        clip = torch.cat([text, pixels], dim=1)
        if not flex:
            return cls(text, pixels, clip[:, None, :, None] == clip[:, None, None, :])
        from torch.nn.attention.flex_attention import create_block_mask

        def same(b: Tensor, h: Tensor, query: Tensor, key: Tensor) -> Tensor:
            return clip[b, query] == clip[b, key]

        size = clip.shape[1]
        return cls(text, pixels, create_block_mask(same, len(clip), None, size, size, device=str(clip.device)))

    def divided(self, parts: Parts) -> Layout:
        """Of a process's tokens, and of those that its attention queries with.

        Raises ValueError for a block mask."""
        if not isinstance(self.attend, Tensor):
            raise ValueError("frame packs under FlexAttention cannot be divided with --context and --tensor.")
        words, video = parts.my_words(self.words, 1), parts.mine(self.video, 1)
        return dataclasses.replace(self, words=words, video=video, attend=parts.queried(self.attend, 2))

    def of_words(self, values: Tensor) -> Tensor:
        """(clips, width) -> (B, L, width)."""
        return values[self.words.clamp(min=0)]

    def of_video(self, values: Tensor) -> Tensor:
        """(clips, width) -> (B, N, width)."""
        return values[self.video.clamp(min=0)]


def together(rows: Rows, tokens: Sequence[Tensor]) -> Tensor:
    """Tokens (N, ...) of each clip -> (B, longest, ...), filled up with zeros."""
    return _padded([torch.cat([tokens[clip] for clip in row]) for row in rows], 0)


def apart(rows: Rows, tokens: Tensor, lengths: Sequence[int]) -> list[Tensor]:
    """The reverse of `together`: those of each clip, in the order of clips."""
    found: dict[int, Tensor] = {}
    for row, sequence in zip(rows, tokens, strict=True):
        used = [lengths[clip] for clip in row]
        found |= dict(zip(row, sequence[: sum(used)].split(used), strict=True))
    return [found[clip] for clip in range(len(lengths))]


def attention(q: Tensor, k: Tensor, v: Tensor, attend: Any) -> Tensor:
    """q, k, v: (B, heads, N, head_dim). attend: None for everything to everything, a mask, or a block mask."""
    if attend is None or isinstance(attend, Tensor):
        return F.scaled_dot_product_attention(q, k, v, attend)
    return _flex(q.is_cuda)(q, k, v, block_mask=attend)


@functools.cache
def _flex(compiled: bool) -> Any:
    """Without a compiler it makes the whole matrix of scores: right, for tests, and no use for training."""
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention) if compiled else flex_attention


def _whose(row: Sequence[int], tokens: Sequence[Tensor]) -> Tensor:
    counts = torch.tensor([len(tokens[clip]) for clip in row])
    return torch.tensor(list(row)).repeat_interleave(counts).to(tokens[0].device)


def _padded(sequences: list[Tensor], value: int) -> Tensor:
    return pad_sequence(sequences, batch_first=True, padding_value=value)

"""EasyAnimate's hybrid motion module (arXiv 2405.18991, section 3.2): what turns an image transformer into a video one.

Group norm, a small transformer, and a zero-initialised projection added to the input, so that a fresh module changes
nothing. Its attention sees either one place at all times ("temporal") or all places at all times ("global").

Parameter names are those of the released motion modules, which descend from AnimateDiff's.
"""

# mypy: disable-error-code="no-any-return, no-untyped-call"

from __future__ import annotations

from torch import Tensor, nn

from generator.dit.layers import Attention, FeedForward, GatedProjection, zeroed
from generator.dit.positions import interleaved_sinusoid
from generator.dit.sequence import Parts

KINDS = ("temporal", "global")


class MotionAttention(Attention):
    """Self-attention with the frame's number added to it; no biases but the last."""

    def __init__(self, width: int, heads: int, kind: str) -> None:
        super().__init__(width, heads, bias=False)
        self.kind = kind

    def forward(self, x: Tensor, frames: Tensor, parts: Parts | None = None) -> Tensor:  # type: ignore[override]
        """x: (B, T, S, width), in which T may be divided. frames: (T, width)."""
        x = x + frames[:, None]
        if self.kind == "global":
            return super().forward(x.flatten(1, 2), parts=parts).view_as(x)
        seen = super().forward(x.transpose(1, 2).flatten(0, 1), parts=parts)
        return seen.unflatten(0, (x.shape[0], x.shape[2])).transpose(1, 2)


class MotionBlock(nn.Module):
    def __init__(self, width: int, heads: int, kinds: tuple[str, ...]) -> None:
        super().__init__()
        self.attention_blocks = nn.ModuleList([MotionAttention(width, heads, kind) for kind in kinds])
        self.norms = nn.ModuleList([nn.LayerNorm(width) for _ in kinds])
        self.ff = FeedForward(width, GatedProjection)
        self.ff_norm = nn.LayerNorm(width)

    def forward(self, x: Tensor, frames: Tensor, parts: Parts | None = None) -> Tensor:
        for attention, norm in zip(self.attention_blocks, self.norms, strict=True):
            x = x + attention(norm(x), frames, parts)
        return x + self.ff(self.ff_norm(x))


class TemporalTransformer(nn.Module):
    def __init__(self, width: int, heads: int, kinds: tuple[str, ...], blocks: int, groups: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(groups, width, eps=1e-6)
        self.proj_in, self.proj_out = nn.Linear(width, width), nn.Linear(width, width)
        self.transformer_blocks = nn.ModuleList([MotionBlock(width, heads, kinds) for _ in range(blocks)])

    def forward(self, x: Tensor, parts: Parts | None = None) -> Tensor:
        """x: (B, T, S, width)."""
        each = self.norm(x.flatten(0, 1).transpose(1, 2)).transpose(1, 2)  # statistics of one frame each
        y = self.proj_in(each).view_as(x)
        count = x.shape[1] if parts is None else parts.tokens
        frames = interleaved_sinusoid(count, x.shape[3], x.device).to(x.dtype)
        frames = frames if parts is None else parts.mine(frames, 0)
        for block in self.transformer_blocks:
            y = block(y, frames, parts)
        return x + self.proj_out(y)


class MotionModule(nn.Module):
    """kinds: of each block's attentions, in their order. groups: of the group norm.

    Raises ValueError for an unknown kind.
    """

    def __init__(self, width: int, heads: int, kinds: tuple[str, ...], blocks: int = 1, groups: int = 32) -> None:
        super().__init__()
        if not kinds or set(kinds) - set(KINDS):
            raise ValueError(f"a motion module attends {' or '.join(KINDS)}, got {kinds}.")
        self.temporal_transformer = TemporalTransformer(width, heads, kinds, blocks, groups)
        zeroed(self.temporal_transformer.proj_out)

    def forward(self, x: Tensor, parts: Parts | None = None) -> Tensor:
        """x: (B, T, S, width), S places of T frames, which may be divided."""
        return self.temporal_transformer(x, parts)


def motion_parameters(model: nn.Module) -> list[nn.Parameter]:
    """Those of the motion modules alone, for the stage of training in which the rest is frozen."""
    return [p for module in model.modules() if isinstance(module, MotionModule) for p in module.parameters()]

"""The CogVideoX VAE over several ranks: each has a part of the frames (arXiv 2408.06072, section 2.1, figure 3).

As convolutions are causal, a rank needs of the others no more than the last k - 1 frames of its left neighbour, for
every convolution; rank 0 repeats its first frame, as a single rank does. Group norms pool over the frames of all ranks
(`gather_norms`), so the result equals that of one rank given the whole video at once, gradients included; without, each
rank pools over its own, as the released code does by default.

    frames = spans(161, ranks, step=4)[rank]
    mean, logvar = encode_moments(vae, x[:, :, slice(*frames)], group)

Gradients of weights are those of a rank's own frames: sum them over the ranks.

`SharedVae` is this for training: every rank gives and gets whole videos, and norms pool over the chunks that one rank
codes one after the other, so the result equals its.
"""

# mypy: disable-error-code="no-any-return, no-untyped-call"

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from generator.vae.cogvideox import FRAMES_PER_CHUNK, LATENTS_PER_CHUNK, CogVideoXVae
from generator.vae.stream import Stream, Video


def spans(frames: int, ranks: int, step: int) -> list[tuple[int, int]]:
    """Which frames each rank has, half open: rank 0 the first frame besides, all of them about equally many.

    step: frames per latent (1 to divide latents themselves). Raises ValueError where a rank would have less than two
    latents, which is what its neighbour needs of it.
    """
    count, alone = divmod(frames - 1, step)
    if frames < 1 or alone:
        raise ValueError(f"{frames} frames cannot be divided: their number must be {step}k + 1.")
    if count < 2 * ranks:
        most = max(count // 2, 1)
        raise ValueError(f"{frames} frames are too few for {ranks} ranks; {most} can share them, two latents each.")
    ends = [1 + step * (count * (rank + 1) // ranks) for rank in range(ranks)]
    return list(zip([0, *ends], ends, strict=False))


def encode_moments(
    vae: CogVideoXVae, x: Video, group: dist.ProcessGroup | None = None, gather_norms: bool = True
) -> tuple[Tensor, Tensor]:
    """This rank's part of the video -> its part of mean and log variance; see `CogVideoXVae.encode_moments`."""
    mean, logvar = vae.encoder(x, RankStream(group, gather_norms)).chunk(2, dim=1)
    return mean, logvar.clamp(-30.0, 20.0)


def decode(vae: CogVideoXVae, z: Tensor, group: dist.ProcessGroup | None = None, gather_norms: bool = True) -> Video:
    """This rank's part of the latent -> its part of the frames; see `CogVideoXVae.decode`."""
    return vae.decoder(z, RankStream(group, gather_norms))


class SharedVae:
    """A VAE whose work on a video the ranks of a group share; all of them ask for the same. Gradients of weights are
    to be averaged over them. A video of fewer chunks than ranks is coded by each of them."""

    def __init__(self, vae: CogVideoXVae, group: dist.ProcessGroup) -> None:
        self.vae, self.group = vae, group

    def encode_moments(self, x: Video) -> tuple[Tensor, Tensor]:
        """As the VAE's."""
        self.vae.latent_shape(*x.shape[-3:])
        mine = self._pieces(x.shape[2], FRAMES_PER_CHUNK)
        if mine is None:
            return self.vae.encode_moments(x)
        start, sizes = mine
        moments = self.vae.encoder(x.narrow(2, start, sum(sizes)), RankStream(self.group, False, sizes))
        ratio = self.vae.config.temporal_compression_ratio
        mean, logvar = self._whole(moments, -(-start // ratio), (x.shape[2] - 1) // ratio + 1).chunk(2, dim=1)
        return mean, logvar.clamp(-30.0, 20.0)

    def decode(self, z: Tensor) -> Video:
        """As the VAE's."""
        mine = self._pieces(z.shape[2], LATENTS_PER_CHUNK)
        if mine is None:
            return self.vae.decode(z)
        start, sizes = mine
        video = self.vae.decoder(z.narrow(2, start, sum(sizes)), RankStream(self.group, False, sizes))
        ratio = self.vae.config.temporal_compression_ratio
        return self._whole(video, max(ratio * (start - 1) + 1, 0), ratio * (z.shape[2] - 1) + 1)

    def _pieces(self, frames: int, size: int) -> tuple[int, list[int]] | None:
        """Where this rank's frames start, and the lengths of its chunks; see `generator.vae.stream.chunks`."""
        count, rank, ranks = max(frames // size, 1), dist.get_rank(self.group), dist.get_world_size(self.group)
        if count < ranks:
            return None
        sizes = [frames - (count - 1) * size, *[size] * (count - 1)]
        first, last = count * rank // ranks, count * (rank + 1) // ranks
        return sum(sizes[:first]), sizes[first:last]

    def _whole(self, part: Video, start: int, frames: int) -> Video:
        """Everybody's frames. Back goes the sum of everybody's gradients."""
        return _Sum.apply(F.pad(part, (0, 0, 0, 0, start, frames - start - part.shape[2])), self.group)


class RankStream(Stream):
    """The frames before these are on the rank to the left. chunks: lengths of those that norms pool over, at the
    beginning; None is all of them."""

    def __init__(
        self, group: dist.ProcessGroup | None, gather_norms: bool, chunks: Sequence[int] | None = None
    ) -> None:
        super().__init__()
        self.leads, self.chunks = dist.get_rank(group) == 0, chunks
        self.group = group if group is not None else dist.group.WORLD
        self.first = dist.get_rank(self.group) == 0
        self.gather_norms = gather_norms

    def extended(self, layer: nn.Module, x: Video, repeat: int, keep: int) -> Video:
        if x.shape[2] < keep:
            raise ValueError(f"a rank with {x.shape[2]} frames cannot give its neighbour {keep}; use fewer ranks.")
        return _WithNeighbour.apply(x, repeat, keep, self.group)

    def normed(self, norm: nn.GroupNorm, x: Video) -> Video:
        if self.chunks is not None:
            return torch.cat([norm(chunk) for chunk in x.split(self._lengths(x.shape[2]), dim=2)], dim=2)
        if not self.gather_norms:
            return norm(x)
        grouped = x.unflatten(1, (norm.num_groups, -1))
        places, wide = (2, 3, 4, 5), torch.promote_types(x.dtype, torch.float32)
        count = torch.tensor(float(grouped[0, 0].numel()), device=x.device)
        dist.all_reduce(count, group=self.group)
        mean = _Sum.apply(grouped.sum(places, keepdim=True, dtype=wide), self.group) / count
        centred = grouped - mean.to(x.dtype)
        variance = _Sum.apply((centred**2).sum(places, keepdim=True, dtype=wide), self.group) / count
        whole = (centred * (variance + norm.eps).rsqrt().to(x.dtype)).flatten(1, 2)
        shape = (1, -1, 1, 1, 1)
        return whole * norm.weight.view(shape) + norm.bias.view(shape)

    def _lengths(self, frames: int) -> list[int]:
        """Of the chunks, where there are so many frames: all but the video's first stand for equally many."""
        assert self.chunks is not None, "somebody checked"
        one = int(self.leads)
        scale = Fraction(frames - one, sum(self.chunks) - one)
        first, *others = self.chunks
        return [int((first - one) * scale) + one, *(int(length * scale) for length in others)]


class _WithNeighbour(torch.autograd.Function):
    """x with the last frames of the left neighbour's x in front; gradients go back to where the frames are from."""

    @staticmethod
    def forward(ctx: Any, x: Video, repeat: int, keep: int, group: dist.ProcessGroup) -> Video:
        ctx.keep, ctx.repeat, ctx.group = keep, repeat, group
        before = _passed(x[:, :, x.shape[2] - keep :], group, to_right=True)
        if before is None:
            before = x[:, :, :1].expand(-1, -1, repeat, -1, -1)
        return torch.cat([before, x], dim=2)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        first = dist.get_rank(ctx.group) == 0
        borrowed = ctx.repeat if first else ctx.keep
        own = grad[:, :, borrowed:].clone()
        lent = _passed(grad[:, :, :borrowed], ctx.group, to_right=False)
        if first:
            own[:, :, :1] += grad[:, :, :borrowed].sum(dim=2, keepdim=True)
        if lent is not None:
            own[:, :, own.shape[2] - ctx.keep :] += lent
        return own, None, None, None


def _passed(x: Tensor, group: dist.ProcessGroup, to_right: bool) -> Tensor | None:
    """Hands x to one neighbour and returns what the other hands over, of the same shape; None at the end of the row."""
    rank, ranks = dist.get_rank(group), dist.get_world_size(group)
    receiver, giver = (rank + 1, rank - 1) if to_right else (rank - 1, rank + 1)
    work = []
    if 0 <= receiver < ranks:
        work.append(dist.P2POp(dist.isend, x.contiguous(), dist.get_global_rank(group, receiver), group))
    got = None
    if 0 <= giver < ranks:
        got = torch.empty_like(x, memory_format=torch.contiguous_format)
        work.append(dist.P2POp(dist.irecv, got, dist.get_global_rank(group, giver), group))
    for handle in dist.batch_isend_irecv(work) if work else []:
        handle.wait()
    return got


class _Sum(torch.autograd.Function):
    """Over all ranks, which all go on with it: so its gradient is the sum of theirs."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: dist.ProcessGroup) -> Tensor:
        ctx.group = group
        total = x.contiguous().clone()
        dist.all_reduce(total, group=group)
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        total = grad.contiguous().clone()
        dist.all_reduce(total, group=ctx.group)
        return total, None

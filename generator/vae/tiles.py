"""Coding pictures tile by tile, so that memory grows with the tile and not with the picture.

Tiles overlap and are blended linearly, first with the one above, then with the one to the left, as diffusers and
EasyAnimate do it. Group norms pool over the tile, so the result is near that of the whole picture, not equal to it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from generator.vae.stream import Video

Place = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Tiling:
    """height, width: of a tile in pixels. overlap_height, overlap_width: share of a tile that the next one repeats.

    Raises ValueError for shares outside 0 .. 0.5.
    """

    height: int
    width: int
    overlap_height: float = 0.25
    overlap_width: float = 0.25

    def __post_init__(self) -> None:
        if not (0 <= self.overlap_height <= 0.5 and 0 <= self.overlap_width <= 0.5):
            raise ValueError(f"tiles may overlap by 0 to 0.5, got {self.overlap_height} and {self.overlap_width}.")

    def code(self, code: Callable[[Video, Place], Video], x: Video, space: int, decode: bool) -> Video:
        """`code` of each tile of x, put together; of x itself where that is no larger than a tile.

        x: a video, or with `decode` a latent whose places are `space` x `space` pixels. code: given a tile and its
        place, what becomes of it. Raises ValueError where a tile is not made of whole latents.
        """
        if self.height % space or self.width % space or min(self.height, self.width) < space:
            raise ValueError(f"tiles of {self.height} x {self.width} pixels must be multiples of {space}.")
        tile = self.height // space, self.width // space
        overlap = int(tile[0] * self.overlap_height), int(tile[1] * self.overlap_width)
        unit_in, unit_out = (1, space) if decode else (space, 1)
        if x.shape[-2] <= tile[0] * unit_in and x.shape[-1] <= tile[1] * unit_in:
            return code(x, (0, 0))
        return _tiled(code, x, tile, overlap, unit_in, unit_out)


def _tiled(
    code: Callable[[Video, Place], Video], x: Video, tile: Place, overlap: Place, unit_in: int, unit_out: int
) -> Video:
    """tile, overlap: (height, width) in latents, which are unit_in pixels of x and unit_out pixels of the result."""
    steps = [size - shared for size, shared in zip(tile, overlap, strict=True)]
    blend, keep = [shared * unit_out for shared in overlap], [step * unit_out for step in steps]
    whole: Tensor | None = None
    above: list[Tensor] = []
    right: Tensor | None = None
    for row, top in enumerate(range(0, x.shape[-2], steps[0] * unit_in)):
        bottoms: list[Tensor] = []
        for column, start in enumerate(range(0, x.shape[-1], steps[1] * unit_in)):
            part = x[..., top : top + tile[0] * unit_in, start : start + tile[1] * unit_in]
            done = code(part, (row, column))
            if row:
                done = _faded(above[column], done, dim=-2)
            if column and right is not None:
                done = _faded(right, done, dim=-1)
            bottoms.append(_end(done, blend[0], dim=-2))
            right = _end(done, blend[1], dim=-1)
            if whole is None:
                sides = [side // unit_in * unit_out for side in x.shape[-2:]]
                whole = done.new_empty(*done.shape[:3], *sides)
            y0, x0 = row * keep[0], column * keep[1]
            done = done[..., : keep[0], : keep[1]]
            whole[..., y0 : y0 + done.shape[-2], x0 : x0 + done.shape[-1]] = done
        above = bottoms
    assert whole is not None, "a picture has at least one tile"
    return whole


def _end(x: Tensor, count: int, dim: int) -> Tensor:
    count = min(count, x.shape[dim])
    return x.narrow(dim, x.shape[dim] - count, count).clone()


def _faded(before: Tensor, after: Tensor, dim: int) -> Tensor:
    """`after`, whose beginning is blended with the end of the one before it."""
    shared = min(before.shape[dim], after.shape[dim])
    if not shared:
        return after
    begin, rest = after.split([shared, after.shape[dim] - shared], dim=dim)
    return torch.cat([crossfade(_end(before, shared, dim), begin, dim), rest], dim=dim)


def crossfade(before: Tensor, after: Tensor, dim: int) -> Tensor:
    """Goes over from one to the other along `dim`: the weight of `after` is j / n at place j of n."""
    count = after.shape[dim]
    weight = torch.arange(count, dtype=after.dtype, device=after.device) / count
    weight = weight.view([-1 if axis == dim % after.ndim else 1 for axis in range(after.ndim)])
    return before * (1 - weight) + after * weight

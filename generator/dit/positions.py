"""Where a token is: grids of coordinates, rotary angles, sinusoids, and how they stretch to other sizes.

A grid is (N, axes) float32: a row per token, in the order of the sequence (columns turn fastest), a column per axis.
Sources: rotary positions arXiv 2104.09864; CogVideoX (arXiv 2408.06072), section 2.2; sinusoids arXiv 1706.03762;
timestep features of DDPM, arXiv 2006.11239.
"""

# mypy: disable-error-code="no-any-return"

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

Rotation = tuple[Tensor, Tensor]
"""Cosine and sine of each channel pair's angle, (N, head_dim / 2) or (B, 1, N, head_dim / 2)."""


def grid_of(*axes: Tensor) -> Tensor:
    """Coordinates along each axis -> those of every token, (product of lengths, axes)."""
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).reshape(-1, len(axes))


def integer_grid(*size: int, device: torch.device | None = None) -> Tensor:
    """0, 1, 2, ... along each axis. At a size above that of training this extrapolates."""
    return grid_of(*(torch.arange(n, dtype=torch.float32, device=device) for n in size))


def interpolated_grid(size: Sequence[int], trained: Sequence[int], device: torch.device | None = None) -> Tensor:
    """`size` tokens spread over the coordinates 0 .. trained of each axis: position k is k * trained / size.

    At the size of training it is the integer grid. Source: STIV (arXiv 2412.07730), section 2.4.
    """
    axes = [
        torch.arange(n, dtype=torch.float32, device=device) * (known / n)
        for n, known in zip(size, trained, strict=True)
    ]
    return grid_of(*axes)


def cropped_grid(size: tuple[int, int, int], base: tuple[int, int], device: torch.device | None = None) -> Tensor:
    """The grid of CogVideoX 1.0's released pipeline at a size that is not `base` (rows, columns of tokens trained on).

    The picture is scaled to fit into `base` and laid on its centre; time stays integer.
    """
    frames, height, width = size
    base_height, base_width = base
    if height / width > base_height / base_width:
        rows, columns = base_height, round(base_height / height * width)
    else:
        rows, columns = round(base_width / width * height), base_width
    axes = [torch.arange(frames, dtype=torch.float32, device=device)]
    for n, whole, part in ((height, base_height, rows), (width, base_width, columns)):
        start = round((whole - part) / 2)
        axes.append(torch.linspace(start, (start + part) * (n - 1) / n, n, dtype=torch.float32, device=device))
    return grid_of(*axes)


def axial_angles(grid: Tensor, dims: Sequence[int], theta: float = 10000.0) -> Tensor:
    """Angle of each channel pair, (N, sum(dims) / 2): axis k turns `dims[k]` channels with frequencies theta^(-2i/dim).

    grid: (N, axes), or (B, N, axes) for (B, N, sum(dims) / 2).
    """
    parts = []
    for axis, dim in enumerate(dims):
        frequency = 1.0 / theta ** (torch.arange(0, dim, 2, dtype=torch.float32, device=grid.device) / dim)
        parts.append(grid[..., axis : axis + 1] * frequency)
    return torch.cat(parts, dim=-1)


def rotary_angles(grid: Tensor, head_dim: int, theta: float = 10000.0) -> Tensor:
    """CogVideoX's split: 2/8 of the pairs turn with time, 3/8 each with row and column. grid: (N, 3)."""
    return axial_angles(grid, (head_dim // 4, head_dim // 8 * 3, head_dim // 8 * 3), theta)


def rotation(angles: Tensor) -> Rotation:
    """What `rotate` takes; computed once for all layers."""
    return angles.cos(), angles.sin()


def rotate(x: Tensor, by: Rotation) -> Tensor:
    """x: (B, heads, N, head_dim), whose channels are interleaved pairs; turns each pair by its angle, in float32."""
    cos, sin = by
    pairs = x.float().unflatten(-1, (-1, 2))
    if x.device.type == "cpu" and not torch.compiler.is_compiling():
        # One pass over memory, a third of the time. Compilers do not fuse complex numbers.
        return torch.view_as_real(torch.view_as_complex(pairs) * torch.complex(cos, sin)).flatten(-2).type_as(x)
    even, odd = pairs.unbind(-1)
    return torch.stack([even * cos - odd * sin, odd * cos + even * sin], dim=-1).flatten(-2).type_as(x)


def sinusoid(positions: Tensor, dim: int) -> Tensor:
    """(N,) -> (N, dim), sines then cosines, computed in float64."""
    frequency = 1.0 / 10000.0 ** (torch.arange(dim // 2, dtype=torch.float64, device=positions.device) / (dim / 2))
    angles = torch.outer(positions.double(), frequency)
    return torch.cat([angles.sin(), angles.cos()], dim=1).float()


def interleaved_sinusoid(length: int, dim: int, device: torch.device | None = None) -> Tensor:
    """(length, dim) for positions 0 .. length - 1, sine and cosine of a frequency side by side."""
    frequency = torch.exp(torch.arange(0, dim, 2, device=device) * (-math.log(10000.0) / dim))
    angles = torch.arange(length, device=device)[:, None] * frequency
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)


def sincos_table(grid: Tensor, dim: int) -> Tensor:
    """(N, 3) -> (N, dim): a quarter for time, then 3/8 for columns and 3/8 for rows (columns first, as published)."""
    time, space = dim // 4, 3 * dim // 8
    return torch.cat([sinusoid(grid[:, 0], time), sinusoid(grid[:, 2], space), sinusoid(grid[:, 1], space)], dim=1)


def sincos_box(time: Tensor, rows: Tensor, columns: Tensor, dim: int) -> Tensor:
    """`sincos_table` of `grid_of(time, rows, columns)`, with a sine per coordinate instead of one per token."""
    shape = (len(time), len(rows), len(columns), -1)
    of_time = sinusoid(time, dim // 4)[:, None, None].expand(shape)
    of_rows, of_columns = (
        sinusoid(rows, 3 * dim // 8)[:, None].expand(shape),
        sinusoid(columns, 3 * dim // 8).expand(shape),
    )
    return torch.cat([of_time, of_columns, of_rows], dim=-1).flatten(0, 2)


def timestep_features(t: Tensor, dim: int) -> Tensor:
    """(B,) -> (B, dim), cosines then sines, float32."""
    half = dim // 2
    exponent = -math.log(10000.0) * torch.arange(half, dtype=torch.float32, device=t.device) / half
    angles = t.float()[:, None] * torch.exp(exponent)
    return torch.cat([angles.cos(), angles.sin()], dim=1)


def stretched(table: Tensor, length: int) -> Tensor:
    """A learned table (n, D) with `length` rows, linearly interpolated; its first and last rows stay what they are."""
    return F.interpolate(table.T[None], size=length, mode="linear", align_corners=True)[0].T.contiguous()

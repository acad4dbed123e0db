"""Which pixels EasyAnimate's model is shown while it trains on images as guidance (arXiv 2405.18991, section 3.3).

A mask is (F, 1, H, W) float32: 1 where the model has to invent, 0 where it sees the film. Kinds and their shares are
those of the released training code.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

VIDEO_SHARES = {
    "block": 0.05,
    "all": 0.2,
    "after the first": 0.2,
    "between first and last": 0.2,
    "block for a while": 0.05,
    "bits": 0.05,
    "boxes": 0.05,
    "ellipse": 0.1,
    "circle": 0.05,
    "frames": 0.05,
}
IMAGE_SHARES = {"block": 0.2, "all": 0.8}
DROPPED = 0.9  # of masks that hide everything: the guidance is then zeros, as it is without an image
HIDDEN = -1.0  # value of masked pixels
CLIP_DROPPED = 0.5  # of the image's tokens
FIRST_FRAME = 0.5  # how often the frame that guides is the first; else any


def random_mask(
    frames: int, height: int, width: int, generator: torch.Generator | None = None, kind: str | None = None
) -> Tensor:
    """A mask of a random kind, or of the kind given.

    Raises ValueError for an unknown kind, or for one that needs more frames than there are.
    """
    shares = VIDEO_SHARES if frames > 1 else IMAGE_SHARES
    if kind is None:
        kind = list(shares)[int(torch.multinomial(torch.tensor(list(shares.values())), 1, generator=generator))]
    if kind not in shares:
        raise ValueError(f"masks of {frames} frames are {', '.join(shares)}; {kind!r} is not one of them.")

    def draw(low: int, high: int) -> int:
        return int(torch.randint(low, max(high, low + 1), (), generator=generator))

    mask = torch.zeros(frames, 1, height, width)
    _PAINT[kind](mask, draw, generator)
    return mask


Draw = Callable[[int, int], int]
"""A whole number from low to high - 1."""


def _box(height: int, width: int, draw: Draw) -> tuple[slice, slice]:
    """A quarter to three quarters of each side, anywhere, cut at the border."""
    sides = []
    for side in (height, width):
        middle, size = draw(0, side), draw(max(side // 4, 1), side // 4 * 3)
        sides.append(slice(max(middle - size // 2, 0), min(middle + (size + 1) // 2, side)))
    return sides[0], sides[1]


def _block(mask: Tensor, draw: Draw, generator: torch.Generator | None) -> None:
    rows, columns = _box(mask.shape[2], mask.shape[3], draw)
    mask[..., rows, columns] = 1


def _all(mask: Tensor, draw: Draw, generator: torch.Generator | None) -> None:
    mask[:] = 1


def _after_the_first(mask: Tensor, draw: Draw, generator: torch.Generator | None) -> None:
    mask[draw(1, min(5, len(mask))) :] = 1


def _between_first_and_last(mask: Tensor, draw: Draw, generator: torch.Generator | None) -> None:
    known = draw(1, min(5, (len(mask) - 1) // 2 + 1))
    mask[known : len(mask) - known] = 1


def _block_for_a_while(mask: Tensor, draw: Draw, generator: torch.Generator | None) -> None:
    rows, columns = _box(mask.shape[2], mask.shape[3], draw)
    half = len(mask) // 2
    mask[draw(0, half) : draw(half, len(mask)) + 1, :, rows, columns] = 1


def _bits(mask: Tensor, draw: Draw, generator: torch.Generator | None) -> None:
    mask.copy_(torch.randint(0, 2, mask.shape, generator=generator))


def _boxes(mask: Tensor, draw: Draw, generator: torch.Generator | None) -> None:
    height, width = mask.shape[2:]
    chosen = torch.randperm(len(mask), generator=generator)[: draw(1, len(mask) // 2 + 1)]
    for frame in chosen.tolist():
        rows, columns = draw(1, height // 4 + 1), draw(1, width // 4 + 1)
        top, left = draw(0, height - rows + 1), draw(0, width - columns + 1)
        mask[frame, :, top : top + rows, left : left + columns] = 1


def _ellipse(mask: Tensor, draw: Draw, generator: torch.Generator | None) -> None:
    short = min(mask.shape[2:])
    a, b = (draw(max(short // 8, 1), short // 4) for _ in range(2))
    _disc(mask, draw, a, b)


def _circle(mask: Tensor, draw: Draw, generator: torch.Generator | None) -> None:
    radius = draw(max(min(mask.shape[2:]) // 8, 1), min(mask.shape[2:]) // 4)
    _disc(mask, draw, radius, radius)


def _disc(mask: Tensor, draw: Draw, a: int, b: int) -> None:
    height, width = mask.shape[2:]
    y, x = torch.arange(height)[:, None] - draw(0, height), torch.arange(width) - draw(0, width)
    mask[..., (y / b) ** 2 + (x / a) ** 2 < 1] = 1


def _frames(mask: Tensor, draw: Draw, generator: torch.Generator | None) -> None:
    mask[torch.rand(len(mask), generator=generator) > 0.5] = 1


_PAINT: dict[str, Callable[[Tensor, Draw, torch.Generator | None], None]] = {
    "block": _block,
    "all": _all,
    "after the first": _after_the_first,
    "between first and last": _between_first_and_last,
    "block for a while": _block_for_a_while,
    "bits": _bits,
    "boxes": _boxes,
    "ellipse": _ellipse,
    "circle": _circle,
    "frames": _frames,
}


def masked_video(video: Tensor, mask: Tensor) -> Tensor:
    """video (3, F, H, W) in [-1, 1] with hidden pixels at -1; mask (F, 1, H, W)."""
    return torch.where(mask.transpose(0, 1) > 0.5, HIDDEN, video)


def mask_video(mask: Tensor) -> Tensor:
    """A mask (F, 1, H, W) as a film for the VAE, (3, F, H, W): white where hidden, black elsewhere."""
    return (mask.transpose(0, 1) * 2 - 1).expand(3, -1, -1, -1)


def condition(
    mask_latents: Tensor, masked_latents: Tensor, mask: Tensor, generator: torch.Generator | None = None
) -> Tensor:
    """What `EasyAnimateTransformer` takes as condition: both latents (C, F, H, W) on top of each other.

    Where the mask hides everything they are zeros with probability 0.9, as at text-to-video. Give none of the generator
    at inference and call this with a mask that leaves something to see.
    """
    both = torch.cat([mask_latents, masked_latents])
    hidden = bool((mask > 0.5).all()) and float(torch.rand((), generator=generator)) < DROPPED
    return torch.zeros_like(both) if hidden else both


def guiding_frame(frames: int, generator: torch.Generator | None = None) -> int:
    """The frame whose CLIP embedding guides: the first in half of all cases, else any."""
    first = float(torch.rand((), generator=generator)) < FIRST_FRAME
    return 0 if first else int(torch.randint(0, frames, (), generator=generator))

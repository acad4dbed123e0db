"""Which videos and latents a VAE can take, and the nearest that it can."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor


def nearest(number: int, step: int, rest: int = 0) -> int:
    """The multiple of `step`, plus `rest`, that is at least 1 and nearest to `number`; of two, the larger."""
    below = (number - rest) // step * step + rest
    near = below if number - below < below + step - number else below + step
    return near if near >= 1 else near + step


def check_channels(what: str, x: Tensor, channels: int) -> None:
    """Raises ValueError unless x is (B, channels, F, H, W) and not empty."""
    if x.ndim != 5 or x.shape[1] != channels or not x.numel():
        raise ValueError(f"{what} of this VAE is (B, {channels}, frames, height, width), got {tuple(x.shape)}.")


def check_video(
    shape: Sequence[int], space: int, frames: Sequence[tuple[int, int]] = ((1, 0),), rule: str = ""
) -> None:
    """Raises ValueError, naming the nearest that fits, unless height and width are multiples of `space` and F obeys.

    shape: (F, H, W). frames: pairs (step, rest); F must be one of step * k + rest. rule: the same in words.
    """
    count, *sides = shape
    allowed = [nearest(count, step, rest) for step, rest in frames]
    if count in allowed and not any(side % space for side in sides):
        return
    best = min(allowed, key=lambda found: (abs(found - count), -found))
    said = f"the number of frames must be {rule}, " if rule else ""
    fits = f"{best} frame{'s' * (best > 1)} of {' x '.join(str(nearest(side, space)) for side in sides)}"
    raise ValueError(
        f"a video of {count} frames of {' x '.join(map(str, sides))} does not fit this VAE: {said}height and width "
        f"multiples of {space}; the nearest that fits is {fits}."
    )


def check_chunk(frames: int, ratio: int) -> int:
    """`frames`. Raises ValueError unless they are whole latents of `ratio` frames."""
    if frames < 1 or frames % ratio:
        raise ValueError(f"chunks of {frames} frames must be multiples of {ratio}.")
    return frames


def check_piece(x: Tensor, first: bool, ratio: int, space: int) -> None:
    """Raises ValueError unless x can come next in a stream: first ratio * k + 1 frames, then ratio * k of them."""
    rest = 1 % ratio if first else 0
    rule = f"{ratio}k + 1 in the first piece" if first else f"{ratio}k in a later piece"
    check_video(x.shape[-3:], space, [(ratio, rest)], rule)

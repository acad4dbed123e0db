"""Movie Gen's spatial upsampler (arXiv 2410.13720, section 3.1.5): a video made twice as large, frame by frame encoded.

The small video is enlarged bilinearly and encoded by a VAE that looks at single frames; its latents stand beside the
noisy ones at every step of a flow. Films longer than the model's window are sampled in windows that overlap, and at
every step the overlapping latents become their weighted mean (MultiDiffusion, arXiv 2302.08113).

The transformer is `MovieGenTransformer` with `condition_channels`; `generator.dit.moviegen.conditioned` makes one of a
text-to-image model, and `generator.dit.degrade` the small videos to train on.
"""

# mypy: disable-error-code="no-any-return, no-untyped-call"

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from generator.dit.moviegen import MovieGenTransformer
from generator.guidance import Branch, joint
from generator.samplers import euler, linear_times

WINDOW, OVERLAP, STEPS = 14, 4, 20


class FrameVae(Protocol):
    """`encode_moments` (B, 3, F, H, W) -> mean, logvar (B, C, F, H / 8, W / 8), and `decode` back, frame by frame, as
    `generator.vae.image.ImageVae`. config: has `scaling_factor` and `shift_factor`.
    """

    config: Any

    def encode_moments(self, x: Tensor, /) -> tuple[Tensor, Tensor]: ...

    def decode(self, z: Tensor, /) -> Tensor: ...


def windows(frames: int, size: int = WINDOW, overlap: int = OVERLAP) -> list[slice]:
    """Windows of `size` frames, each `overlap` or more into the one before; one shorter window for a short film.

    Raises ValueError unless 0 <= overlap < size.
    """
    if not 0 <= overlap < size:
        raise ValueError(f"windows of {size} frames cannot overlap by {overlap}.")
    if frames <= size:
        return [slice(0, frames)]
    starts = [*range(0, frames - size, size - overlap), frames - size]
    return [slice(start, start + size) for start in starts]


def weights(size: int, form: str = "uniform") -> Tensor:
    """(size,) of a window's frames: all 1, or "triangular", falling towards both ends. Raises ValueError otherwise."""
    if form == "uniform":
        return torch.ones(size)
    if form == "triangular":
        near = torch.arange(1, size + 1)
        return torch.minimum(near, near.flip(0)).float()
    raise ValueError(f"windows are weighted 'uniform' or 'triangular', not {form!r}.")


def windowed(
    branch_of: Callable[[slice], Branch], size: int = WINDOW, overlap: int = OVERLAP, form: str = "uniform"
) -> Branch:
    """A branch for films of any length: the weighted mean of what the branches of its windows say.

    branch_of: the branch of a window, with its part of the conditions. Because a step of `euler` is linear in what the
    branch says, the mean of the windows' next latents, which MultiDiffusion asks for, is the step along their mean.
    """

    def branch(x: Tensor, t: Tensor) -> Tensor:
        total, count = torch.zeros_like(x), x.new_zeros(x.shape[2])
        for part in windows(x.shape[2], size, overlap):
            share = weights(part.stop - part.start, form).to(x)
            total[:, :, part] += branch_of(part)(x[:, :, part], t) * share.view(-1, 1, 1)
            count[part] += share
        return total / count.view(-1, 1, 1)

    return branch


@torch.no_grad()
def upsample(
    model: MovieGenTransformer,
    vae: FrameVae,
    video: Tensor,
    size: tuple[int, int],
    text: Tensor | Sequence[Tensor],
    null: Tensor | Sequence[Tensor] | None = None,
    guidance: float = 1.0,
    steps: int = STEPS,
    window: int = WINDOW,
    overlap: int = OVERLAP,
    form: str = "uniform",
    seed: int = 0,
) -> Tensor:
    """video (B, 3, F, h, w) in [-1, 1] -> (B, 3, F, H, W) in [-1, 1], H x W = `size`.

    model: a `MovieGenTransformer` whose condition is as wide as its latents. vae: of single frames. text, null: what
    the model takes as text; null only for guidance other than 1.
    Raises ValueError for guidance without null, or a model of other channels than the VAE's.
    """
    if guidance != 1.0 and null is None:
        raise ValueError("guidance needs the embedding of the empty text.")
    unit = 8 * model.config.patch[1]
    large = F.interpolate(video.transpose(1, 2).flatten(0, 1), size, mode="bilinear", align_corners=False)
    large = F.pad(large, (0, -size[1] % unit, 0, -size[0] % unit), mode="replicate")
    large = large.unflatten(0, (len(video), -1)).transpose(1, 2)
    shift, scale = vae.config.shift_factor or 0.0, vae.config.scaling_factor
    low = (vae.encode_moments(large)[0] - shift) * scale
    if low.shape[1] != model.config.condition_channels or low.shape[1] != model.config.in_channels:
        raise ValueError(
            f"the VAE's latents have {low.shape[1]} channels; this upsampler takes {model.config.in_channels} and "
            f"{model.config.condition_channels}."
        )

    def branch_of(part: slice) -> Branch:
        def branch(words: Tensor | Sequence[Tensor]) -> Branch:
            return lambda x, t: model(x, t, words, condition=low[:, :, part])

        return branch(text) if null is None or guidance == 1.0 else joint(branch(text), branch(null), guidance)

    # A generator of our own on the CPU: the same seed gives the same noise on every device.
    noise = torch.randn(low.shape, generator=torch.Generator().manual_seed(seed)).to(low)
    z = euler(windowed(branch_of, window, overlap, form), noise, linear_times(steps))
    return vae.decode(z / scale + shift)[..., : size[0], : size[1]].clamp(-1, 1)

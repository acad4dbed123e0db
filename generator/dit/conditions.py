"""Images, known frames and kept tokens: what a transformer is given besides noise, time and text."""

from __future__ import annotations

import torch
from torch import Tensor


def first_frame(image: Tensor, frames: int) -> Tensor:
    """The latent of an image, (B, C, 1, H, W) -> (B, C, frames, H, W): the image first, zeros after it.

    Joined to the noisy latents along the channels it makes CogVideoX image-to-video (arXiv 2408.06072, appendix).
    """
    return torch.cat([image, image.new_zeros(*image.shape[:2], frames - 1, *image.shape[3:])], dim=2)


def noised_image(image: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """The conditioning image as CogVideoX trains on it: plus normal noise of strength exp(N(-3, 0.5^2)) per image.

    image: (B, ...) in [-1, 1]. Source: the released trainer, after Stable Video Diffusion (arXiv 2311.15127).
    """
    strength = torch.exp(torch.randn(len(image), generator=generator) * 0.5 - 3.0).to(image)
    noise = torch.randn(image.shape, generator=generator).to(image)
    return image + strength.view(-1, *(1,) * (image.ndim - 1)) * noise


def whole_patches(latents: Tensor, patch: int) -> tuple[Tensor, int]:
    """Latents (..., F, H, W) with the first frame repeated in front until F is a multiple of `patch`.

    Returns them and the number of frames to drop from the front of the result. Source: CogVideoX 1.5.
    """
    more = -latents.shape[-3] % patch
    return torch.cat([latents[..., :1, :, :]] * more + [latents], dim=-3), more


def replaced(noisy: Tensor, clean: Tensor, known: Tensor) -> Tensor:
    """Frame replacement of STIV: `clean` where a frame is known, `noisy` elsewhere.

    noisy, clean: (B, C, F, H, W). known: bool, (F,) or (B, F). No frame is text-to-video, the first image-to-video, the
    first k prediction, first and last interpolation.
    """
    return torch.where(_frames(known), clean, noisy)


def masked_mean(loss: Tensor, unknown: Tensor) -> Tensor:
    """The mean of an elementwise loss (B, C, F, H, W) over the frames that were not given. unknown: (F,) or (B, F).

    Raises ValueError where every frame was given.
    """
    weight = _frames(unknown).expand(loss.shape[0], 1, -1, 1, 1).to(loss)
    if not bool(weight.any()):
        raise ValueError("every frame is given, so there is nothing to learn; leave at least one frame unknown.")
    return (loss * weight).sum() / (weight.sum() * loss[0, :, 0].numel())


def _frames(which: Tensor) -> Tensor:
    which = which if which.ndim == 2 else which[None]
    return which[:, None, :, None, None]


def random_keep(batch: int, tokens: int, share: float, generator: torch.Generator | None = None) -> Tensor:
    """MaskDiT: which of a frame's tokens stay, (batch, floor(tokens * (1 - share))) ascending int64.

    Drawn anew per sample, the same for all of its frames. Source: arXiv 2306.09305; STIV drops a share of 0.5.
    Raises ValueError unless at least one token stays.
    """
    count = int(tokens * (1 - share))
    if not 0 <= share < 1 or count < 1:
        raise ValueError(f"a share of {share} of {tokens} tokens leaves none; choose a smaller share.")
    noise = torch.rand(batch, tokens, generator=generator)
    return noise.argsort(dim=1)[:, :count].sort(dim=1).values


def kept_places(keep: Tensor, rows: int, columns: int, patch: int) -> Tensor:
    """The places of a latent that kept tokens cover, bool (B, 1, 1, rows * patch, columns * patch)."""
    tokens = torch.zeros(len(keep), rows * columns, dtype=torch.bool, device=keep.device).scatter_(1, keep, True)
    places = tokens.view(-1, 1, 1, rows, columns)
    return places.repeat_interleave(patch, -2).repeat_interleave(patch, -1)

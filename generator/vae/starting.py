"""Weights that a VAE begins with where it is trained from nothing, and where it goes on from single frames to clips."""

from __future__ import annotations

import torch
from torch import nn

from generator.vae.slice_vae import SliceVae
from generator.vae.tae import Tae


@torch.no_grad()
def calm(vae: nn.Module) -> nn.Module:
    """Residual blocks begin as their shortcuts: the last convolution of each gives nothing (arXiv 1706.02677, 5.1).

    Changes `vae` in place, and returns it.
    """
    for block in vae.modules():
        if hasattr(block, "conv1") and hasattr(block, "conv2"):
            assert isinstance(block.conv2, nn.Module)
            for weight in block.conv2.parameters():
                weight.zero_()
    return vae


@torch.no_grad()
def inflate(vae: nn.Module) -> None:
    """Makes of a VAE that has seen single frames alone one that codes every frame of a clip as it would code a still.

    A still is to a 3D convolution a frame among its own copies, so only the sum of the weights along time has been
    trained; all of it goes to the frame itself (as I3D's inflation, arXiv 1705.07750, but without the blur in time of
    equal shares). Stills are coded as before. Changes `vae` in place.
    Raises ValueError for a VAE without 3D convolutions, and for the Slice VAE, to which a still has no copies.
    """
    own = 1 if isinstance(vae, Tae) else -1  # the frame itself is in the middle, or the last of causal convolutions
    convolutions = [conv for conv in vae.modules() if isinstance(conv, nn.Conv3d) and conv.kernel_size[0] > 1]
    if not convolutions or isinstance(vae, SliceVae):
        raise ValueError(f"inflate is for VAEs to which a still is a clip of itself, not for {type(vae).__name__}.")
    for conv in convolutions:
        total = conv.weight.sum(2)
        conv.weight.zero_()
        conv.weight[:, :, own] = total

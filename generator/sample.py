"""From noise to pixels to a file."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import numpy.typing as npt

from generator import torch_needed  # noqa: F401  (raises the sentence that names the extra)

# isort: split
import torch
from torch import Tensor

from generator.data import DataConfig, Row
from generator.dit.conditions import whole_patches
from generator.dit.costs import patch_of
from generator.systems.base import Known, System

_STRIDE, _FRAMES = 4, 5  # in `generator.dit.stiv.MICRO`


@torch.no_grad()
def sample_videos(
    vae: Any,
    system: System,
    prompts: Sequence[str],
    data: DataConfig,
    steps: int,
    guidance: float,
    seed: int,
    known: Known | None = None,
    stride: float = 1.0,
) -> npt.NDArray[np.uint8]:
    """One video per prompt, (B, F, H, W, 3) RGB, as `data` says. known: what of the latents is given, from
    `System.see`. stride: how many times further apart the frames are than in the clips the model was trained on.

    Raises ValueError for sizes the VAE cannot make.
    """
    device = next(system.transformer.parameters()).device
    latents = vae.latent_shape(data.frames, data.shown.height, data.shown.width)
    patch = patch_of(system.transformer.config)[0]
    repeated = -latents[0] % patch  # frames in front, as in training
    shape = (vae.config.latent_channels, latents[0] + repeated, *latents[1:])
    # A generator of our own on the CPU: the same seed gives the same noise on every device.
    noise = torch.randn(len(prompts), *shape, generator=torch.Generator().manual_seed(seed))
    micro = torch.tensor([_micro(system, data, stride)] * len(prompts), device=device)
    if known is not None and repeated:
        given = torch.cat([known.given[:, :1]] * repeated + [known.given], dim=1)
        known = replace(known, clean=whole_patches(known.clean, patch)[0], given=given)
    found = system.sample(noise.to(device), prompts, micro, steps, guidance, known)[:, :, repeated:]
    return to_pixels(vae.decode(found / system.scale)[:, :, : data.frames])


def _micro(system: System, data: DataConfig, stride: float) -> list[float]:
    """What a sample says of itself: what the training's clips did, where that is known."""
    numbers = list(system.typical or Row("", "", 0, 0, "").micro(data))
    numbers[_STRIDE] *= stride
    numbers[_FRAMES] = data.frames
    return numbers


def to_pixels(video: Tensor) -> npt.NDArray[np.uint8]:
    """(B, 3, F, H, W) in [-1, 1] -> (B, F, H, W, 3) uint8."""
    scaled = (video.clamp(-1, 1) + 1) * 127.5
    return scaled.round().to(torch.uint8).permute(0, 2, 3, 4, 1).contiguous().cpu().numpy()


def check_name(file: str | os.PathLike[str]) -> str:
    """How it ends. Raises ValueError for what a sample cannot be written as."""
    ending = Path(file).suffix.lower()
    if ending not in (".mp4", ".png"):
        raise ValueError(f"{file}: a sample is written as .mp4 or .png; give a name that ends so.")
    return ending


def write(file: str | os.PathLike[str], frames: npt.NDArray[np.uint8], fps: float) -> Path:
    """frames: (F, H, W, 3) RGB. An .mp4 film, or as .png a picture, of several frames side by side."""
    if check_name(file) == ".mp4":
        return write_mp4(file, frames, fps)
    file = Path(file)
    file.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(file), np.hstack(list(frames))[..., ::-1]):
        raise ValueError(f"{file} could not be written.")
    return file


def write_mp4(file: str | os.PathLike[str], frames: npt.NDArray[np.uint8], fps: float) -> Path:
    """frames: (F, H, W, 3) RGB of even height and width. H.264, 4:2:0. Folders are made as needed."""
    file = Path(file)
    file.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(file), "w", format="mp4") as container:
        rate = Fraction(fps).limit_denominator(1001)
        stream = container.add_stream("libx264", rate=rate)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.options = {"crf": "16"}
        for number, frame in enumerate(frames):
            picture = av.VideoFrame.from_ndarray(cv2.cvtColor(frame, cv2.COLOR_RGB2YUV_I420), format="yuv420p")
            picture.pts, picture.time_base = number, 1 / rate  # without them x264 guesses how long a frame lasts
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    return file

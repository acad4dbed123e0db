"""From a prompt to an mp4."""

from __future__ import annotations

import json
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

from generator import systems
from generator.data import DataConfig, Row
from generator.interop import load
from generator.systems.base import System
from generator.vae.sizes import BUILD as VAES

_GUIDANCE = 6.0  # CogVideoX's, for folders without train.json


def generate(
    checkpoint: str | os.PathLike[str],
    prompt: str,
    out_file: str | os.PathLike[str],
    image: str | os.PathLike[str] | None = None,
    steps: int = 50,
    guidance: float | None = None,
    seed: int = 0,
    frames: int | None = None,
    fps: float | None = None,
) -> Path:
    """Samples one video with DDIM and writes it as H.264.

    checkpoint: a folder that `generator.train.train` finished. steps: of the sampler, 1 to 1000. guidance: weight of
    the prompt against no prompt, 1 for none, as the training recipe says if not given. frames: 4k + 1, as trained if
    not given. fps: of the file, as trained if not given. The same arguments give the same pixels.

    Returns the file. Raises ValueError for a folder without the models, a wrong number of frames, steps or fps, or an
    image: no image-conditioned model is trained yet.
    """
    folder = Path(checkpoint)
    if not (folder / "transformer").is_dir() or not (folder / "vae").is_dir():
        raise ValueError(f"{folder}: there is no trained model here; run `vidcurate train` with this folder as --out.")
    vae = load(folder / "vae")
    if type(vae) not in VAES.values():
        raise ValueError(f"{folder / 'vae'} does not hold a VAE.")
    system = systems.load(folder)
    system.use(vae)
    if image is not None:
        raise ValueError(
            f"{folder} was trained to make videos from text alone and cannot start from an image; leave out --image."
        )
    trained = folder / "train.json"
    recipe = json.loads(trained.read_text())["recipe"] if trained.exists() else {}
    last = (recipe.get("stages") or [{}])[-1].get("data") or recipe.get("data", {})
    data = DataConfig(**{name: last[name] for name in ("frames", "size", "fps", "width") if name in last})
    if frames is not None:
        data = replace(data, frames=frames)
    fps = data.fps if fps is None else fps
    if not 0.1 <= fps <= 1000:
        raise ValueError(f"fps must be between 0.1 and 1000, got {fps}.")
    guidance = recipe.get("guidance", _GUIDANCE) if guidance is None else guidance
    videos = sample_videos(vae, system, [prompt], data, steps, float(guidance), seed)
    return write_mp4(out_file, videos[0], float(fps))


@torch.no_grad()
def sample_videos(
    vae: Any,
    system: System,
    prompts: Sequence[str],
    data: DataConfig,
    steps: int,
    guidance: float,
    seed: int,
) -> npt.NDArray[np.uint8]:
    """One video per prompt, (B, F, H, W, 3) RGB, as `data` says. Raises ValueError for sizes the VAE cannot make."""
    device = next(system.transformer.parameters()).device
    shape = (vae.config.latent_channels, *vae.latent_shape(data.frames, data.shown.height, data.shown.width))
    # A generator of our own on the CPU: the same seed gives the same noise on every device.
    noise = torch.randn(len(prompts), *shape, generator=torch.Generator().manual_seed(seed))
    micro = torch.tensor([Row("", "", 0, 0, "").micro(data)] * len(prompts), device=device)
    latents = system.sample(noise.to(device), prompts, micro, steps, guidance)
    return to_pixels(vae.decode(latents / system.scale)[:, :, : data.frames])


def to_pixels(video: Tensor) -> npt.NDArray[np.uint8]:
    """(B, 3, F, H, W) in [-1, 1] -> (B, F, H, W, 3) uint8."""
    scaled = (video.clamp(-1, 1) + 1) * 127.5
    return scaled.round().to(torch.uint8).permute(0, 2, 3, 4, 1).contiguous().cpu().numpy()


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

"""From a prompt to an mp4."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt

from generator import torch_needed  # noqa: F401  (raises the sentence that names the extra)

# isort: split
import torch
from torch import Tensor

from generator.checkpoint import load_schedule
from generator.dit.cogvideox import CogVideoXTransformer
from generator.interop import load
from generator.objectives import Schedule
from generator.samplers import ddim, guided
from generator.text import HashedWordEncoder
from generator.vae.cogvideox import CogVideoXVae

_FPS, _GUIDANCE = 8.0, 6.0  # CogVideoX's, for folders without train.json


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
    vae, transformer, encoder = load(folder / "vae"), load(folder / "transformer"), load(folder / "text_encoder")
    if not isinstance(vae, CogVideoXVae) or not isinstance(transformer, CogVideoXTransformer):
        raise ValueError(f"{folder}: vae/ or transformer/ does not hold a CogVideoX model.")
    if not isinstance(encoder, HashedWordEncoder):
        raise ValueError(f"{folder}: text_encoder/ does not hold a text encoder that this version can run.")
    if image is not None:
        raise ValueError(
            f"{folder} was trained to make videos from text alone and cannot start from an image; leave out --image."
        )
    trained = folder / "train.json"
    recipe = json.loads(trained.read_text())["recipe"] if trained.exists() else {}
    fps = recipe.get("data", {}).get("fps", _FPS) if fps is None else fps
    if not 0.1 <= fps <= 1000:
        raise ValueError(f"fps must be between 0.1 and 1000, got {fps}.")
    guidance = recipe.get("guidance", _GUIDANCE) if guidance is None else guidance
    schedule = load_schedule(folder / "scheduler")
    videos = sample_videos(vae, transformer, encoder, schedule, [prompt], steps, float(guidance), seed, frames)
    return write_mp4(out_file, videos[0], float(fps))


@torch.no_grad()
def sample_videos(
    vae: CogVideoXVae,
    transformer: CogVideoXTransformer,
    encoder: HashedWordEncoder,
    schedule: Schedule,
    prompts: Sequence[str],
    steps: int,
    guidance: float,
    seed: int,
    frames: int | None = None,
) -> npt.NDArray[np.uint8]:
    """One video per prompt, (B, F, H, W, 3) RGB, of the size trained on. Raises ValueError unless F = 4k + 1."""
    config, ratio = transformer.config, vae.config.temporal_compression_ratio
    frames = config.sample_frames if frames is None else frames
    if frames < 1 or (frames - 1) % ratio:
        raise ValueError(f"the number of frames must be {ratio}k + 1, got {frames}.")
    shape = ((frames - 1) // ratio + 1, config.sample_height, config.sample_width)
    device = next(transformer.parameters()).device
    # A generator of our own on the CPU: the same seed gives the same noise on every device.
    noise = torch.randn(len(prompts), config.out_channels, *shape, generator=torch.Generator().manual_seed(seed))
    text, null = encoder(prompts), encoder([""] * len(prompts))
    denoise = guided(transformer, schedule, text, null, steps, guidance)
    latents = ddim(denoise, noise.to(device), schedule, steps)
    return to_pixels(vae.decode(latents / vae.config.scaling_factor))


def to_pixels(video: Tensor) -> npt.NDArray[np.uint8]:
    """(B, 3, F, H, W) in [-1, 1] -> (B, F, H, W, 3) uint8."""
    scaled = (video.clamp(-1, 1) + 1) * 127.5
    return scaled.round().to(torch.uint8).permute(0, 2, 3, 4, 1).contiguous().cpu().numpy()


def write_mp4(file: str | os.PathLike[str], frames: npt.NDArray[np.uint8], fps: float) -> Path:
    """frames: (F, H, W, 3) RGB of even height and width. H.264, 4:2:0. Folders are made as needed."""
    file = Path(file)
    file.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(file), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001))
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.options = {"crf": "16"}
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return file

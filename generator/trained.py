"""A trained model, loaded once, and what one is asked for: a video of which some frames are given."""

# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from generator import torch_needed  # noqa: F401  (raises the sentence that names the extra)

# isort: split
import numpy as np
import torch

from generator import systems
from generator.caches import to_video
from generator.data import DataConfig
from generator.inputs import Pixels
from generator.interop import load
from generator.sample import sample_videos
from generator.systems.upsampler import UpsamplerSystem
from generator.vae.sizes import BUILD as VAES

_GUIDANCE = 6.0  # CogVideoX's, for folders without train.json
_RATE = re.compile(r"FPS-\d+$")
_KINDS = {
    "text": "videos from text",
    "image": "videos from a first frame",
    "prediction": "going on from the first frames of a film",
    "interpolation": "the frames between two pictures",
    "upsampling": "more frames between those of a film",
    "views": "views of an object",
    "enlarging": "making films larger",
}


@dataclass(frozen=True, slots=True)
class Wish:
    """What is to be made.

    images: the first frame, or the first and the last. video: a film whose frames are given.
    task: of `applications.TASKS`; "" is what images and video suggest.
    given: how many frames of the film prediction starts from, 0 for as many as trained.
    between: frames that upsampling puts between two of the film, 0 for as many as trained, or one.
    frames, fps: of the file, as trained where not said; models that were trained on several rates are told theirs.
    steps: of the sampler, 1 to 1000. guidance: weight of the conditions against none, 1 for none; None is the recipe's.
    """

    prompt: str = ""
    images: tuple[Path, ...] = ()
    video: Path | None = None
    task: str = ""
    given: int = 0
    between: int = 0
    frames: int | None = None
    fps: float | None = None
    steps: int = 50
    guidance: float | None = None
    seed: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Film:
    """frames: (F, H, W, 3) RGB."""

    frames: Pixels
    fps: float


class Trained:
    """A model that `generator.train.train` finished, loaded once for any number of samples.

    Raises ValueError for a folder without the models.
    """

    def __init__(self, checkpoint: str | os.PathLike[str], device: str = "cpu") -> None:
        self.folder = folder = Path(checkpoint)
        if not (folder / "transformer").is_dir() or not (folder / "vae").is_dir():
            raise ValueError(
                f"{folder}: there is no trained model here; run `vidcurate train` with this folder as --out."
            )
        self.vae = load(folder / "vae", device)
        if type(self.vae) not in VAES.values():
            raise ValueError(f"{folder / 'vae'} does not hold a VAE.")
        self.system = systems.load(folder).to(device)
        self.system.use(self.vae)
        said = folder / "train.json"
        recipe = json.loads(said.read_text())["recipe"] if said.exists() else {}
        last = (recipe.get("stages") or [{}])[-1].get("data") or recipe.get("data", {})
        self.data = DataConfig(**{name: last[name] for name in ("frames", "size", "fps", "width") if name in last})
        self.several_rates = bool(last.get("buckets"))
        self.guidance = float(recipe.get("guidance", _GUIDANCE))

    def need(self, task: str) -> None:
        """Raises ValueError unless the model was trained for the task, of `systems.given.TASKS`."""
        tasks = self.system.tasks
        if task not in tasks:
            can = ", ".join(_KINDS.get(name, name) for name in tasks)
            raise ValueError(
                f"{self.folder} was trained for {can}, not for {_KINDS[task]}; train a recipe whose tasks have "
                f"{task!r}."
            )

    def complete(
        self, wish: Wish, given: Mapping[int, Pixels], frames: int, fps: float, apart: int = 1, part: int = 0
    ) -> Pixels:
        """A video (F, H, W, 3) of which some pictures (H, W, 3) are given, by their numbers. apart: how many times
        further apart its frames are than usual. part: of several videos of one wish, which have noises of their own."""
        data, known = replace(self.data, frames=frames), None
        self.vae.latent_shape(frames, data.shown.height, data.shown.width)
        if given:
            nothing = f"nothing is left to make of {frames} frames where {len(given)} are given; ask for more --frames."
            if len(given) >= frames or max(given) >= frames:
                raise ValueError(nothing)
            there = torch.zeros(frames, dtype=torch.bool)
            there[list(given)] = True
            video = np.zeros((frames, data.shown.height, data.shown.width, 3), np.uint8)
            for number, picture in given.items():
                video[number] = picture
            device = next(self.system.parameters()).device
            known = self.system.see(to_video(torch.from_numpy(video).to(device)), there.to(device))
            if bool(known.given.all()):
                raise ValueError(nothing)
        prompt, stride = self._told(wish.prompt, frames, fps, apart)
        guidance = self.guidance if wish.guidance is None else wish.guidance
        seed = wish.seed + (part << 32)
        return sample_videos(
            self.vae, self.system, [prompt], data, wish.steps, guidance, seed, known=known, stride=stride
        )[0]

    def enlarge(self, wish: Wish, film: Pixels, size: tuple[int, int]) -> Pixels:
        """film (F, h, w, 3) -> (F, *size, 3), by an upsampler."""
        data = replace(self.data, frames=len(film), size=size[0], width=size[1])
        device = next(self.system.parameters()).device
        assert isinstance(self.system, UpsamplerSystem), "need() was asked"
        known = self.system.enlarge(to_video(torch.from_numpy(film[None]).to(device)), *size)
        guidance = self.guidance if wish.guidance is None else wish.guidance
        return sample_videos(self.vae, self.system, [wish.prompt], data, wish.steps, guidance, wish.seed, known)[0]

    def _told(self, prompt: str, frames: int, fps: float, apart: int) -> tuple[str, float]:
        """The prompt and the stride, which say the rate where the model was trained on several."""
        if not self.several_rates or frames == 1:
            return prompt, 1.0
        rate = fps / apart
        told = prompt if _RATE.search(prompt) else f"{prompt} FPS-{round(rate)}".strip()
        return told, self.data.fps / rate

    def latents_of(self, frames: int) -> int:
        """Raises ValueError, naming the nearest that fits, where the VAE does not take so many frames."""
        return int(self.vae.latent_shape(frames, self.data.shown.height, self.data.shown.width)[0])

    def fewest(self, frames: int, latents: int = 1) -> int:
        """The fewest frames, but so many, that the VAE takes and that are so many latents."""
        while True:
            with contextlib.suppress(ValueError):
                if self.latents_of(frames) >= latents:
                    return frames
            frames += 1

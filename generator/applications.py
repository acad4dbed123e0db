"""What a trained model can be asked for: videos and images from text, from a first frame, from the first frames of a
film, between two pictures, between the frames of a film, long ones, and views of one object.

All are videos of which some frames are given (STIV, arXiv 2412.07730, section 2.4, and its applications). A system says
which of them it was trained for; another is refused.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from generator.inputs import Pixels, read_ends, read_film, read_image, read_whole
from generator.sample import check_name, write
from generator.trained import Film, Trained, Wish

Picture = str | os.PathLike[str]
"""A file."""

_PREDICTED_FROM = 4  # frames, as STIV's prediction


def make(model: Trained, wish: Wish) -> Film:
    """The same wish gives the same pixels. Raises ValueError where the model was not trained for it, or where what is
    given cannot be read, does not suffice or does not fit."""
    fps = model.data.fps if wish.fps is None else wish.fps
    if not 0.1 <= fps <= 1000:
        raise ValueError(f"fps must be between 0.1 and 1000, got {fps}.")
    task = task_of(wish, model.system.tasks)
    for need in ("image" if wish.images else "text", "interpolation") if task == "long" else (task,):
        model.need(need)
    return TASKS[task](model, wish)


def from_text(model: Trained, wish: Wish) -> Film:
    return _film(model, wish, {})


def from_image(model: Trained, wish: Wish) -> Film:
    return _film(model, wish, {0: read_image(wish.images[0], model.data.shown)})


def views(model: Trained, wish: Wish) -> Film:
    """Of an object in an image; the text says nothing (STIV)."""
    if wish.prompt:
        raise ValueError("views are made from the image alone; leave out --prompt.")
    return from_image(model, wish)


def prediction(model: Trained, wish: Wish) -> Film:
    """The first frames of a film, at the model's rate, and how it goes on."""
    first, _ = read_film(_video(wish), model.data.shown, _predicted_from(model, wish), wish.fps or model.data.fps)
    return _film(model, wish, dict(enumerate(first)))


def _predicted_from(model: Trained, wish: Wish) -> int:
    always = model.system.tasks["prediction"]
    if model.system.sees_frames:
        return wish.given or _PREDICTED_FROM
    usual = model.fewest(1, always) if always else model.fewest(_PREDICTED_FROM)
    if wish.given and model.latents_of(wish.given) != (always or model.latents_of(wish.given)):
        raise ValueError(f"{model.folder} was trained to go on from {usual} frames, not {wish.given}; give --given 0.")
    return wish.given or usual


def interpolation(model: Trained, wish: Wish) -> Film:
    """Between two pictures, or the first and the last frame of a film."""
    shape, frames = model.data.shown, _frames(model, wish)
    ends = [read_image(file, shape) for file in wish.images] or read_ends(_video(wish), shape)
    return _film(model, wish, {0: ends[0], frames - 1: ends[1]})


def upsampling(model: Trained, wish: Wish) -> Film:
    """All frames of a film, with others between them, in windows that share a frame (STIV's temporal upsampler)."""
    always, most = model.system.tasks["upsampling"], model.data.frames
    step = wish.between + 1 if wish.between else always or 2
    if always and step != always:
        raise ValueError(f"{model.folder} was trained to put {always - 1} frames between two; leave out --between.")
    if not model.system.sees_frames and model.latents_of(most) != most:
        raise ValueError(f"{model.folder}: its VAE codes several frames as one, so that single ones cannot be given.")
    reach = (most - 1) // step
    if not reach:
        raise ValueError(
            f"{model.folder} makes {most} frames at a time, and not {step - 1} between two; ask for fewer."
        )
    wanted = 0 if wish.frames is None else max(-(-(wish.frames - 1) // step) + 1, 2)
    film, rate = read_film(_video(wish), model.data.shown, wanted)
    if len(film) < 2:
        raise ValueError(f"{wish.video} has one frame, and so nothing between two; give a longer film.")
    fps, last = wish.fps or rate * step, len(film) - 1
    frames = np.empty((last * step + 1, *film.shape[1:]), np.uint8)
    for part, start in enumerate(range(0, last, reach)):
        start = max(min(start, last - reach), 0)
        window = film[start : start + reach + 1]
        made = model.complete(wish, {k * step: one for k, one in enumerate(window)}, most, fps, part=part)
        length = (len(window) - 1) * step + 1
        frames[start * step : start * step + length] = made[:length]
    return Film(frames[: wish.frames], fps)


def long(model: Trained, wish: Wish) -> Film:
    """Key frames first, far apart, then what is between each two of them (STIV's hierarchical generation).

    There are as many key frames as the model makes frames, and as many frames from one to the next, both counted.
    """
    many, step = model.data.frames, model.data.frames - 1
    frames, fps = wish.frames or step * step + 1, wish.fps or model.data.fps
    if not 1 < frames <= step * step + 1:
        raise ValueError(f"a long video of {model.folder} has 2 to {step * step + 1} frames, got {frames}.")
    first = dict(enumerate(read_image(file, model.data.shown) for file in wish.images))
    keys = model.complete(wish, first, many, fps, apart=step)[: -(-(frames - 1) // step) + 1]
    for number, picture in first.items():
        keys[number] = picture  # rather than what the VAE made of it
    parts = [
        model.complete(wish, {0: start, step: end}, many, fps, part=1 + number)[:-1]
        for number, (start, end) in enumerate(itertools.pairwise(keys))
    ]
    return Film(np.concatenate([*parts, keys[-1:]])[:frames], fps)


def enlarging(model: Trained, wish: Wish) -> Film:
    """A film made larger, as much of it as `frames` says."""
    film, fps = read_whole(_video(wish), wish.frames or 0)
    return Film(enlarged(model, wish, film), wish.fps or fps)


def enlarged(model: Trained, wish: Wish, film: Pixels) -> Pixels:
    """film (F, H, W, 3) at the size that an upsampler makes of it, under the wish's prompt, steps and seed."""
    model.need("enlarging")
    config: Any = model.system.config
    factor = config.factor
    height, width = (side * factor for side in film.shape[1:3])
    unit = model.vae.config.spatial_compression_ratio * config.dit.patch[1]
    padded = np.pad(film, ((0, 0), *((0, -side % unit // factor) for side in (height, width)), (0, 0)), mode="edge")
    size = tuple(side + -side % unit for side in (height, width))
    return model.enlarge(wish, padded, size)[:, :height, :width]


TASKS: dict[str, Callable[[Trained, Wish], Film]] = {
    "text": from_text,
    "image": from_image,
    "prediction": prediction,
    "interpolation": interpolation,
    "upsampling": upsampling,
    "long": long,
    "views": views,
    "enlarging": enlarging,
}

_TAKES = {
    "text": ("no image and no video", {(0, False)}),
    "image": ("one image", {(1, False)}),
    "prediction": ("a video", {(0, True)}),
    "interpolation": ("two images, or a video", {(2, False), (0, True)}),
    "upsampling": ("a video", {(0, True)}),
    "long": ("at most one image", {(0, False), (1, False)}),
    "views": ("one image", {(1, False)}),
    "enlarging": ("a video", {(0, True)}),
}
"""How many images, and whether a video."""


def task_of(wish: Wish, trained_for: Iterable[str]) -> str:
    """The task that is asked for, or else the first that takes what is given, of those trained for if there is one.

    Raises ValueError where what is given does not fit the task, or any.
    """
    if wish.task and wish.task not in TASKS:
        raise ValueError(f"there is no task {wish.task!r}; choose one of {', '.join(TASKS)}.")
    what = (len(wish.images), wish.video is not None)
    fitting = [task for task in TASKS if what in _TAKES[task][1] and wish.task in ("", task)]
    if not fitting:
        takes = _TAKES[wish.task][0] if wish.task else "one image, two images or a video"
        raise ValueError(f"the task {wish.task} takes {takes}." if wish.task else f"give {takes}, not more.")
    task = next((task for task in fitting if task in trained_for), fitting[0])
    for name, own, count in (("given", "prediction", wish.given), ("between", "upsampling", wish.between)):
        if count < 0 or (count and task != own):
            raise ValueError(f"--{name} is a number from 1 on, and for the task {own} alone.")
    return task


def _film(model: Trained, wish: Wish, given: Mapping[int, Pixels]) -> Film:
    fps = wish.fps or model.data.fps
    return Film(model.complete(wish, given, _frames(model, wish), fps), fps)


def _frames(model: Trained, wish: Wish) -> int:
    return model.data.frames if wish.frames is None else wish.frames


def _video(wish: Wish) -> Path:
    assert wish.video is not None, "task_of() saw one"
    return wish.video


def generate(
    checkpoint: str | os.PathLike[str],
    prompt: str,
    out_file: str | os.PathLike[str],
    image: Picture | Sequence[Picture] | None = None,
    steps: int = 50,
    guidance: float | None = None,
    seed: int = 0,
    frames: int | None = None,
    fps: float | None = None,
    video: str | os.PathLike[str] | None = None,
    task: str = "",
    given: int = 0,
    between: int = 0,
    upsampler: str | os.PathLike[str] | None = None,
) -> Path:
    """Samples one video and writes it as H.264, or as .png: an image, or all frames side by side.

    checkpoint: a folder that `generator.train.train` finished. image: the first frame, or the first and the last.
    upsampler: a folder of a model of `enlarging`, which makes the result larger. The rest as in `Wish`. The same
    arguments give the same pixels. Returns the file.

    Raises ValueError for a folder without the models, a task that the model was not trained for, what cannot be read
    or does not suffice for the task, or a wrong number of frames, steps or fps.
    """
    check_name(out_file)
    images = () if image is None else (image,) if isinstance(image, str | os.PathLike) else tuple(image)
    wish = Wish(
        prompt,
        tuple(Path(one) for one in images),
        None if video is None else Path(video),
        task,
        given,
        between,
        frames,
        fps,
        steps,
        guidance,
        seed,
    )
    larger = None if upsampler is None else Trained(upsampler)
    if larger is not None:
        larger.need("enlarging")
    film = make(Trained(checkpoint), wish)
    frames_made = film.frames if larger is None else enlarged(larger, wish, film.frames)
    return write(out_file, frames_made, film.fps)

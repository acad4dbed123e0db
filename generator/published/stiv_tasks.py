"""STIV's applications (arXiv 2412.07730, its section on them): models of `stiv` that go on to learn a task.

Each begins with the stages of STIV at 256 pixels. Batches of the last stage are ours, those of the stage before.
"""

from __future__ import annotations

from dataclasses import replace

from generator.data import DataConfig
from generator.dit import sizes
from generator.dit.stiv import StivConfig
from generator.published.stiv import HOW, VIDEO, low, of_stages, systems_of
from generator.recipe import Recipe, Stage
from generator.systems.base import Dropping
from manifests.buckets import Buckets, Length

KEYS = (Length("keys", 20, 47.5, crop=47.5), Length("2.5s", 20, 2.5, 47.5, crop=2.5))
"""20 frames that are 19 times as far apart as usual, from clips of 47.5 s; else 20 at 8 a second."""


def stiv_prediction() -> Recipe:
    """Video prediction: goes on from the first four frames.

    Command:   torchrun ... -m curation train DIR --recipe stiv_prediction --vae-from VAE --out CKPT
    Use:       vidcurate generate CKPT --video FILM -o NEXT.mp4
    Stages:    those of STIV-XXL at 256 pixels, then 400 k steps with four frames given.
    Published: the model, the steps, the frames; FVD on MSR-VTT falls from 536.2 to 183.7, theirs.
    Cost:      about 37.2 k GPU hours on H100s, an estimate, less what masking saves.
    """
    return _task("stiv_prediction", sizes.stiv_xxl(), {"prediction:4": 1.0}, VIDEO)


def stiv_tup() -> Recipe:
    """The temporal upsampler: every second frame is given. It follows another model ("+TUP") or a film.

    Command:   torchrun ... -m curation train DIR --recipe stiv_tup --vae-from VAE --out CKPT
    Use:       vidcurate generate CKPT --video FILM --task upsampling -o TWICE.mp4
    Stages:    those of STIV-XL at 256 pixels, then 400 k steps with every second frame given.
    Published: the model, the steps, the frames; FVD 6.3 without and 5.9 with text, theirs.
    Cost:      about 15.8 k GPU hours on H100s, an estimate, less what masking saves.
    """
    return _task("stiv_tup", sizes.stiv_xl(), {"upsampling:2": 1.0}, VIDEO)


def stiv_views() -> Recipe:
    """Views of an object: from one, the six of Zero123++ (azimuths 30 to 330 by 60, elevations 30 and -20 in turn).

    Command:   torchrun ... -m curation train DIR --recipe stiv_views --vae-from VAE --out CKPT
    Use:       vidcurate generate CKPT --task views --image VIEW.png -o VIEWS.png
    Data:      renderings of 3D objects as clips of seven frames, one a second, the given view first.
    Stages:    those of STIV-XL at 256 pixels, then 110 k steps at 320 pixels without text.
    Published: the model, the steps, size, views, guidance 3.5; PSNR 21.64 on Google Scanned Objects, theirs.
    Ours:      what stands for the given view in the unconditional pass of guidance is its noised latent, as in STIV's
               other tasks; the paper puts zeros there.
    Cost:      about 12.2 k GPU hours on H100s, an estimate, less what masking saves.
    """
    data, silent = DataConfig(frames=7, size=320, fps=1.0), Dropping(text=1.0, image=0.08)
    return replace(
        _task("stiv_views", sizes.stiv_xl(), {"views": 1.0}, data, steps=110_000, dropping=silent), guidance=3.5
    )


def stiv_long() -> Recipe:
    """Long videos: key frames, and what is between two of them; one model for both.

    Command:   torchrun ... -m curation train DIR --recipe stiv_long --vae-from VAE --out CKPT
    Use:       vidcurate generate CKPT --task long --prompt TEXT -o LONG.mp4 (362 frames)
    Data:      clips of 47.5 s and more give key frames, shorter ones consecutive frames.
    Stages:    those of STIV-XL at 256 pixels, then 400 k steps of both.
    Published: the two modes, 20 frames each, key frames with the image dropped at times. Theirs are 20 frames apart,
               for 380 frames; ours 19, so that the key frames are the ends of what is between.
    Ours:      steps, and the shares of the tasks.
    Cost:      about 15.8 k GPU hours on H100s, an estimate, less what masking saves.
    """
    data = replace(VIDEO, buckets=Buckets(aspects=("1:1",), lengths=KEYS))
    return _task("stiv_long", sizes.stiv_xl(), {"text": 0.25, "image": 0.25, "interpolation": 0.5}, data)


def _task(
    name: str,
    dit: StivConfig,
    tasks: dict[str, float],
    data: DataConfig,
    steps: int = 400_000,
    dropping: Dropping | None = None,
) -> Recipe:
    video = systems_of(dit)[1]
    system = replace(video, tasks=tasks, dropping=dropping or video.dropping)
    stage = Stage(replace(HOW, steps=steps, batch=1024), name.removeprefix("stiv_"), data=data, system=system)
    return of_stages(name, dit, (*low(dit), stage))

"""The smallest recipe on films of one moving shape: what it learns, measured in pixels."""

from __future__ import annotations

import dataclasses
import itertools
import json
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
import torch

import generator
from generator import recipes, systems
from generator.caches import to_video
from generator.data import Row, read_clip
from generator.measures import psnr
from generator.sample import sample_videos
from generator.train import train
from tests.generator_films import (  # noqa: F401  (one_thread: used by being here)
    COLOURS,
    MOVES,
    SECONDS,
    draw_clip,
    make_manifest,
    one_thread,
    write_film,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]
RECIPE = dataclasses.replace(recipes.tiny_cogvideox(), samples=0)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shapes")
    began = time.perf_counter()
    out = train(make_manifest(folder / "films", clips=64), RECIPE, folder / "trained", lambda *told: None)
    print(json.dumps({"seconds": round(time.perf_counter() - began)}))
    return out


def seen(video: np.ndarray) -> tuple[str, str]:
    """The colour of what is colourful in a video (F, H, W, 3), and the way its centre goes."""
    pixels = video.astype(float)
    weight = np.clip(np.ptp(pixels, axis=-1) - 60, 0, None)
    rows, columns = np.mgrid[: video.shape[1], : video.shape[2]]
    each = weight.sum((1, 2)) + 1e-6
    across, down = ((weight * place).sum((1, 2)) / each for place in (columns, rows))
    dx, dy = (np.polyfit(np.arange(len(video)), centre, 1, w=each)[0] for centre in (across, down))
    colour = (pixels * weight[..., None]).sum((0, 1, 2)) / weight.sum()
    nearest = min(COLOURS, key=lambda name: float(np.abs(colour - COLOURS[name]).sum()))
    return nearest, max(MOVES, key=lambda name: MOVES[name][0] * dx + MOVES[name][1] * dy)


def test_the_measure_is_right() -> None:
    for number in range(32):
        caption, frames = draw_clip(number)
        words = caption.split()
        assert seen(np.stack(frames)) == (words[1], words[4])


def test_clips_that_were_not_seen_are_given_back(trained: Path, tmp_path: Path) -> None:
    vae, found = generator.load(trained / "vae"), []
    for number in range(100, 112):
        film = tmp_path / f"{number}.mp4"
        write_film(film, draw_clip(number)[1])
        clip = torch.from_numpy(read_clip(Row("", str(film), 0, int(SECONDS * 1e6), ""), RECIPE.data))
        x = to_video(clip[None])
        with torch.no_grad():
            y = vae.decode(vae.encode_moments(x)[0]).clamp(-1, 1)
        found.append(float(psnr(y, x)))
    print(json.dumps({"psnr": round(float(np.mean(found)), 2), "least": round(min(found), 2)}))
    assert np.mean(found) >= 25


def test_samples_follow_colour_and_direction(trained: Path) -> None:
    vae, system = generator.load(trained / "vae"), systems.load(trained)
    system.use(vae)
    looks = itertools.cycle(itertools.product(("circle", "square"), ("dark", "light")))
    # Every colour goes every way, and four of them once more.
    asked = [(colour, move) for move in MOVES for colour in COLOURS]
    asked += list(zip(COLOURS, MOVES, strict=True))
    prompts = [
        f"A {colour} {shape} moves {move} on a {tone} background."
        for (colour, move), (shape, tone) in zip(asked, looks, strict=False)
    ]
    videos = sample_videos(vae, system, prompts, RECIPE.data, RECIPE.sample_steps, RECIPE.guidance, seed=0)
    found = [seen(video) for video in videos]
    right = np.mean([one == other for one, other in zip(found, asked, strict=True)])
    print(json.dumps({"right": float(right), "wrong": [(a, b) for a, b in zip(asked, found, strict=True) if a != b]}))
    assert len(asked) == 20 and right >= 0.8

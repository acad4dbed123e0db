"""The page of a training: curves, speed, samples and reconstructions, from what a training folder holds. All text is
escaped; a folder of a training that still runs shows how far it is."""

from __future__ import annotations

import base64
import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from curation.report.plots import Plot, Series, line_plot
from curation.report.rendering import environment
from manifests.media.container import decode, open_film
from manifests.types import MediaError

PAGE = "report.html"
_FRAMES, _HEIGHT, _SAMPLES, _SETS = 6, 96, 12, 4
_SPEEDS = {
    "tokens_per_s": ("tokens a second", 1.0),
    "mfu": ("model FLOPs utilisation, %", 100.0),
    "data_share": ("waiting for data, % of the time", 100.0),
    "memory_gb": ("memory, GB", 1.0),
}
Line = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Model:
    """One model or stage of the log. Numbers are None where the log has none: loss_first and loss_last are means of a
    tenth of it, the rest medians, shares of 0..1, GB."""

    name: str
    steps: int
    loss_first: float
    loss_last: float
    held_out: float | None
    psnr: float | None
    tokens: float | None
    samples: float | None
    mfu: float | None
    waiting: float | None
    memory: float | None
    plots: tuple[Plot, ...]


@dataclass(frozen=True, slots=True)
class Strip:
    """Frames of one sample in a row, as a data URI."""

    prompt: str
    picture: str


@dataclass(frozen=True, slots=True)
class Training:
    """What a folder shows. sets: samples by when they were drawn, newest first. warnings: of the log, with where."""

    folder: str
    facts: Mapping[str, Any]
    models: tuple[Model, ...]
    warnings: tuple[str, ...]
    reconstructions: str
    sets: tuple[tuple[str, tuple[Strip, ...]], ...]


def read_training(folder: Path) -> Training | None:
    """None where there was no training yet."""
    if not (folder / "train.json").is_file():
        return None
    try:
        facts = json.loads((folder / "train.json").read_text())
        lines = _lines(folder / "log.jsonl")
        return Training(
            folder.name,
            facts if isinstance(facts, dict) else {},
            tuple(_model(name, [r for r in lines if r["model"] == name]) for name in _names(lines)),
            tuple(f"{r['model']} step {r['step']}: {r['warning']}" for r in lines if r.get("warning")),
            _png(folder / "samples" / "vae.png"),
            tuple(_sets(folder / "samples")),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{folder}: the books of this training are damaged ({error}); remove it to go on.") from error


def write_training(folder: Path) -> Path:
    """Writes report.html into a training folder; training.html where the folder has a report of a run already. Raises
    ValueError where there is no training."""
    training = read_training(folder)
    if training is None:
        raise ValueError(f"{folder}: no training here; give the folder that `vidcurate train --out` wrote.")
    html = environment().get_template("training_page.html.j2").render(training=training)
    page = "training.html" if (folder / "run.json").exists() else PAGE
    fresh = folder / f".{page}.tmp"
    fresh.write_text(html)
    return fresh.replace(folder / page)


def _lines(file: Path) -> list[dict[str, Any]]:
    """Of the log; a line that is being written is left out."""
    text = file.read_text() if file.is_file() else ""
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines() if line]


def _names(lines: Sequence[Line]) -> list[str]:
    return list(dict.fromkeys(str(line["model"]) for line in lines))


def _model(name: str, lines: Sequence[Line]) -> Model:
    losses = [float(line["loss"]) for line in lines]
    tenth = max(len(losses) // 10, 1)
    held, psnr = _series(lines, "val_loss"), _series(lines, "val_psnr")
    parts = {key: _series(lines, key) for key in sorted({k for line in lines for k in line if k.startswith("loss_t")})}
    drawn = [
        line_plot(f"{name}: loss", {"training": _series(lines, "loss"), "held out": held}, log=True),
        line_plot(
            f"{name}: loss by quarter of the times", {f"t{key[6:]}": one for key, one in parts.items()}, log=True
        ),
        line_plot(f"{name}: PSNR of held-out clips, dB", {"PSNR": psnr}),
    ]
    for key, (title, factor) in _SPEEDS.items():
        points = [(x, y * factor) for x, y in _series(lines, key)]
        drawn.append(line_plot(f"{name}: {title}", {title: points}) if len(points) > 1 else None)
    return Model(
        name,
        int(lines[-1]["step"]),
        statistics.fmean(losses[:tenth]),
        statistics.fmean(losses[-tenth:]),
        held[-1][1] if held else None,
        psnr[-1][1] if psnr else None,
        _middle(lines, "tokens_per_s"),
        _middle(lines, "samples_per_s"),
        _middle(lines, "mfu"),
        _middle(lines, "data_share"),
        _middle(lines, "memory_gb"),
        tuple(plot for plot in drawn if plot is not None),
    )


def _series(lines: Sequence[Line], key: str) -> Series:
    """(step, value) where a line has the number: some say n/a."""
    found = [(float(line["step"]), line.get(key)) for line in lines]
    return [(step, float(v)) for step, v in found if isinstance(v, int | float) and math.isfinite(v)]


def _middle(lines: Sequence[Line], key: str) -> float | None:
    values = [value for _, value in _series(lines, key)]
    return statistics.median(values) if values else None


def _png(file: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(file.read_bytes()).decode() if file.is_file() else ""


def _sets(samples: Path) -> list[tuple[str, tuple[Strip, ...]]]:
    """The samples of the end, then those drawn on the way, the newest first."""
    on_the_way = sorted(samples.glob("step-*"), reverse=True)[:_SETS]
    named = [("at the end", samples), *((f"after step {int(f.name.split('-')[1]):,}", f) for f in on_the_way)]
    return [(when, strips) for when, folder in named if (strips := tuple(_strips(folder)))]


def _strips(folder: Path) -> list[Strip]:
    file = folder / "prompts.json"
    prompts = json.loads(file.read_text()) if file.is_file() else {}
    made = []
    for name, prompt in list(prompts.items())[:_SAMPLES]:
        try:
            made.append(Strip(str(prompt), film_strip(folder / Path(name).name)))
        except (MediaError, OSError):
            continue  # a sample that somebody moved is no reason to show nothing
    return made


def film_strip(file: Path, frames: int = _FRAMES, height: int = _HEIGHT) -> str:
    """Evenly spread frames of a short film in a row, as a data URI. Raises MediaError."""
    with open_film(str(file)) as film:
        pictures = [decoded.frame.to_ndarray(format="rgb24") for decoded in decode(film)]
    if not pictures:
        raise MediaError(f"{file}: no frames")
    count = min(frames, len(pictures))
    chosen = [pictures[round(k)] for k in np.linspace(0, len(pictures) - 1, count)]
    return jpeg_uri(np.hstack([_scaled(picture, height) for picture in chosen]))


def jpeg_uri(picture: npt.NDArray[np.uint8]) -> str:
    """(H, W, 3) RGB as a data URI."""
    _, data = cv2.imencode(".jpg", picture[..., ::-1], (cv2.IMWRITE_JPEG_QUALITY, 85))
    return "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode()


def _scaled(picture: npt.NDArray[np.uint8], height: int) -> npt.NDArray[np.uint8]:
    width = max(1, round(picture.shape[1] * height / picture.shape[0]))
    how = cv2.INTER_AREA if height < picture.shape[0] else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(picture, (width, height), interpolation=how), np.uint8)

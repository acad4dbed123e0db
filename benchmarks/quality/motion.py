"""Motion: camera words and speeds, slideshows, stillness, shake, and VMAF motion against FFmpeg's own filter.

Footage comes from the folder; places with depth, of which it has none with a truth, are rendered.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np

from benchmarks.quality import Row, read_truth
from filters.motion.camera import CameraMotion
from filters.motion.changes import LUMA
from filters.motion.flow import TENTHS
from filters.motion.shake import Shake
from filters.motion.slideshow import Slideshow
from filters.motion.stillness import Stillness
from filters.motion.vmaf import VmafMotion
from filters.shots.cuts import Cuts
from manifests.films import depth
from manifests.films.depth import TRAVELS, TURNS, Stage
from manifests.media.container import open_film
from manifests.media.scan import Pieces, Scan, Span
from manifests.types import Clip, Frames, Image, Sampling, Signal

_CLIP = Clip("clip", "video", "video", 0, 1)
_SEEDS = range(400, 404)
_SURE = 0.8
_SCREENS = ("flutter", "hamilton", "laion")  # recordings of screens and slides stand still by right


def measure(folder: Path) -> list[Row]:
    words, speeds = camera(folder)
    return [*words, *rendered(), *speeds, *extremes(folder), *against_ffmpeg(folder)]


def camera(folder: Path) -> tuple[list[Row], list[Row]]:
    """The words and the speeds of clips whose camera motion is known."""
    right: dict[str, list[tuple[bool, float]]] = defaultdict(list)
    errors: dict[str, list[float]] = defaultdict(list)
    for row in read_truth(folder, "motion.jsonl"):
        (given,) = list(clips(row["file"], [TENTHS], whole=True))[:1]
        said = values(CameraMotion(), given[TENTHS])
        kind = {"still": "window over a photograph", "footage": "window over footage"}.get(
            row.get("source_kind"), "real"
        )
        wanted = {"shake": "handheld"}.get(row["camera_class"], row["camera_class"])
        right[kind].append((said["camera_motion"] == wanted, said["camera_motion_confidence"]))
        for name, value in true_speeds(row).items():
            errors[name].append(abs(said[name] / value - 1))
    words = [outcome(kind, answers) for kind, answers in right.items()]
    speeds: list[Row] = [
        {"speed": name, "clips": len(off), "largest error": f"{max(off):.1%}"} for name, off in errors.items()
    ]
    return words, speeds


def true_speeds(row: dict[str, Any]) -> dict[str, float]:
    """Those columns of the camera's speed that are not zero."""
    if "content_px_per_frame" not in row or row["camera_class"] == "shake":
        return {}
    unit = row["fps"] * 360 / min(row["width"], row["height"])
    speeds = {
        "camera_pan": -row["content_px_per_frame"][0] * unit,
        "camera_tilt": row["content_px_per_frame"][1] * unit,
        "camera_zoom": float(np.log(row["zoom_per_frame"])) * row["fps"],
        "camera_roll": row["camera_roll_deg_per_frame"] * row["fps"],
    }
    return {name: value for name, value in speeds.items() if value}


def rendered() -> list[Row]:
    """Places with depth, of seeds that no test and no threshold has seen."""
    rows = []
    for kind, moves in (("travels", TRAVELS), ("turns", TURNS)):
        answers = []
        for move in moves:
            for seed in _SEEDS:
                speed = 0.15 if move.partition("_")[0] in ("zoom", "roll") else 0.25
                stage = Stage(move, speed, 2.0, walkers=seed % 2, lens=(0.8, 1.2)[seed % 2], seed=seed)
                said = values(CameraMotion(), gray(depth.frames(stage, 320, 180, 10.0)))
                answers.append((said["camera_motion"] == move, said["camera_motion_confidence"]))
        rows.append(outcome(f"rendered {kind}", answers))
    return rows


def outcome(what: str, answers: Sequence[tuple[bool, float]]) -> Row:
    sure = [hit for hit, confidence in answers if confidence >= _SURE]
    return {
        "camera motion": what,
        "clips": len(answers),
        "right": sum(hit for hit, _ in answers),
        f"confidence {_SURE} or more": len(sure),
        "of these right": sum(sure),
    }


def extremes(folder: Path) -> list[Row]:
    """How far measures stand apart between footage and what they are meant to find."""
    tags = read_truth(folder, "tags.jsonl")
    kinds = {"slideshow": "slideshow", "frozen": "frozen", "shaky": "shaky"}
    films = {row["file"]: kinds[row["tag"]] for row in tags if row["tag"] in kinds}
    films |= {
        path: "footage"
        for path in sorted((folder / "public").iterdir())
        if path.suffix != ".jsonl" and not path.name.startswith(_SCREENS)
    }
    found: dict[tuple[str, str], list[float]] = defaultdict(list)
    for path, kind in films.items():
        for given in clips(path, [TENTHS, LUMA]):
            for signal, want in ((Slideshow(), TENTHS), (Shake(), TENTHS), (Stillness(), LUMA)):
                for name, value in values(signal, given[want]).items():
                    if value is not None:
                        found[name, kind].append(value)
    wanted = [
        ("slideshow", "slideshow"),
        ("slideshow", "frozen"),
        ("slideshow", "footage"),
        ("static_fraction", "frozen"),
    ]
    wanted += [("static_fraction", "footage"), ("shake", "shaky"), ("shake", "footage")]
    return [
        {
            "measure": name,
            "of": kind,
            "clips": len(found[name, kind]),
            "least": round(min(found[name, kind]), 2),
            "middle": round(float(np.median(found[name, kind])), 2),
            "most": round(max(found[name, kind]), 2),
        }
        for name, kind in wanted
        if found[name, kind]
    ]


def against_ffmpeg(folder: Path, films: int = 6) -> list[Row]:
    """VMAF motion of the first seconds of H.264 clips against FFmpeg's vmafmotion, fed the same luma."""
    off = []
    for path in sorted((folder / "public").glob("*.mp4"))[:films]:
        (given,) = list(clips(path, [LUMA], whole=True))[:1]
        theirs = vmafmotion(given[LUMA].images)
        off.append(abs(values(VmafMotion(), given[LUMA])["motion_vmaf"] / theirs - 1))
    return [{"against FFmpeg": "motion_vmaf", "clips": len(off), "largest difference": f"{max(off):.2%}"}]


def vmafmotion(images: Sequence[Image]) -> float:
    graph = av.filter.Graph()
    height, width = images[0].shape
    source = graph.add_buffer(width=width, height=height, format="gray", time_base=Fraction(1, 25))
    motion, sink = graph.add("vmafmotion"), graph.add("buffersink")
    source.link_to(motion)
    motion.link_to(sink)
    graph.configure()
    scores = []
    for k, image in enumerate(images):
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="gray")
        frame.pts, frame.time_base = k, Fraction(1, 25)
        graph.push(frame)
        scores.append(float(graph.pull().metadata["lavfi.vmafmotion.score"]))
    return sum(scores) / len(scores)


def clips(path: Path, wants: Sequence[Sampling], whole: bool = False) -> Iterator[dict[Sampling, Frames]]:
    """What the walk sees of every clip of at least a second; `whole`: of every clip, 8 seconds long at most."""
    with open_film(str(path)) as film:
        for found in Scan(film, Cuts().start(film.fps), wants, Pieces(longest=8.0) if whole else Pieces()):
            if isinstance(found, Span) and (whole or found.end - found.start >= 1_000_000):
                yield dict(found.frames)


def values(signal: Signal, given: Frames) -> dict[str, Any]:
    return {name: column[0] for name, column in signal([_CLIP], [given]).items()}


def gray(pictures: Iterable[Image]) -> Frames:
    luma = [np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY), np.uint8) for picture in pictures]
    return Frames(luma, [k * 100_000 for k in range(len(luma))], list(range(len(luma))), (320, 180), 10.0)

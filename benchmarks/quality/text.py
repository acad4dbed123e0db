"""Text, borders and watermarks: against what is known of the footage, and on clean footage dressed up here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.quality import Row, counted, read_truth
from filters.looks.borders import Letterbox
from filters.looks.frames import LOOKS
from filters.text.area import Text
from filters.text.ocr import EmbeddedOcr
from filters.text.watermark import Overlay
from manifests.films.dressing import (
    LOGOS,
    PLACES,
    Crop,
    Surround,
    agreement,
    blurred,
    branded,
    coded,
    framed,
    lettered,
    plain,
    striped,
)
from manifests.media.again import look_again
from manifests.types import Clip, Frames, Image, Sampling, Signal

ONE_PERCENT = 0.01
"""EasyAnimate's limit of the text area."""
SAME = 0.94
"""Intersection over union from which a crop is the true one."""
SECONDS = 5
CLIP = Clip("clip", "video", "video", 0, SECONDS * 1_000_000)
WORDS = (
    *("the", "first", "reel", "shows", "a", "quiet", "harbour", "at", "dawn", "and", "people", "walk"),
    *("along", "jumping", "happy", "Paris", "2024", "Please", "look"),
)


@dataclass(frozen=True, slots=True)
class Shown:
    """The first seconds of a film: `frames` as the walk has them, and what its truth says."""

    name: str
    frames: Frames
    truth: dict[str, Any]

    def packed(self, want: Sampling) -> Frames:
        """As many as a signal wants, from JPEGs, as from a frame pack."""
        count = min(want.cap, len(self.frames))
        chosen = [int((k + 0.5) * len(self.frames) / count) for k in range(count)]
        return again(self.frames, [coded(self.frames.images[k]) for k in chosen])


def measure(folder: Path) -> list[Row]:
    tags, motion = read_truth(folder, "tags.jsonl"), read_truth(folder, "motion.jsonl")
    copies = [row for row in read_truth(folder, "dups.jsonl") if "file" in row]
    lettering = [watched(row) for row in tags if row.get("text_bbox_fraction")]
    bordered = [watched(row) for row in tags if "picture_fraction" in row]
    bordered += [watched(row) for row in copies if row.get("transform") == "letterbox"]
    clean = [watched(row) for row in tags if row["tag"] == "good"]
    clean += [watched(row) for row in motion if row.get("source_kind") == "footage"]
    clean += [watched(row) for row in copies if row.get("transform") in ("original", "hflip", "crop10")]
    marked = [watched(row) for row in copies if row.get("transform") == "watermark"]
    rows = [*text_truth(lettering), *text_rendered(clean)]
    return [*rows, *borders(bordered, clean), *watermarks(marked, clean)]


def watched(row: dict[str, Any]) -> Shown:
    frames = look_again(str(row["file"]), 0, SECONDS * 1_000_000, [LOOKS])[LOOKS]
    return Shown(row["file"].name, frames, row)


def again(frames: Frames, images: Sequence[Image]) -> Frames:
    """Other pictures of the same film."""
    times = [k * 250_000 for k in range(len(images))]
    return Frames(list(images), times, list(range(len(images))), frames.size, frames.fps)


def values(signal: Signal, frames: Frames) -> dict[str, Any]:
    return {name: column[0] for name, column in signal([CLIP], [frames]).items()}


# -- text --------------------------------------------------------------------------------------------------------------


def text_truth(clips: Sequence[Shown]) -> list[Row]:
    """Area of the union of the text boxes of each clip whose truth gives it."""
    rows: list[Row] = []
    for clip in clips:
        found = values(Text(), clip.packed(Text.wants))
        true = clip.truth["text_bbox_fraction"]
        rows.append(
            {
                "text area": clip.name,
                "true": true,
                "measured": round(found["text_area"], 4),
                "error": round(abs(found["text_area"] - true), 4),
                "score": round(found["text_score"], 2),
                "subtitles": round(found["subtitles"], 2),
            }
        )
    errors = [float(row["error"] or 0) for row in rows]
    mean: Row = dict.fromkeys(rows[0]) if rows else {}
    return [*rows, mean | {"text area": "mean", "error": round(float(np.mean(errors)), 4)}] if rows else []


def text_rendered(clips: Sequence[Shown]) -> list[Row]:
    """Lettering of known size over clean footage, for two sizes of the detector; without any, all areas shall be 0."""
    rows: list[Row] = []
    for longest in (EmbeddedOcr().longest, 768):
        signal = Text(engine=EmbeddedOcr(longest=longest))
        for kind in (None, *_KINDS):
            pairs, subtitles = [], []
            for seed, clip in enumerate(clips):
                frames = clip.packed(Text.wants)
                images, true = _lettering(kind, seed, frames.images) if kind else (frames.images, 0.0)
                found = values(signal, again(frames, images))
                pairs.append((found["text_area"], true))
                subtitles.append(found["subtitles"] >= 0.5)
            got, true_area = np.array(pairs).T
            rows.append(
                {
                    "text over clean footage": kind or "none",
                    "detector": longest,
                    "clips": len(pairs),
                    "mean true area": round(float(true_area.mean()), 4),
                    "mean error": round(float(np.abs(got - true_area).mean()), 4),
                    "bias": round(float((got - true_area).mean()), 4),
                    "1 % rule right": round(float(((got > ONE_PERCENT) == (true_area > ONE_PERCENT)).mean()), 3),
                    "called subtitles": round(float(np.mean(subtitles)), 3),
                }
            )
    return rows


_KINDS = {"subtitle": (0.045, 0.065), "small print": (0.035, 0.05), "title": (0.09, 0.16), "page": (0.04, 0.05)}
"""Font sizes from and to, as shares of the height."""


def _lettering(kind: str, seed: int, images: Sequence[Image]) -> tuple[list[Image], float]:
    rng = np.random.default_rng(seed)
    tall = float(rng.uniform(*_KINDS[kind]))
    count = {"subtitle": 1 + seed % 2, "small print": 1 + seed % 3, "title": 1 + seed % 2, "page": 9}[kind]
    most = {"subtitle": 5, "small print": 5, "title": 2, "page": 5}[kind]
    lines = [" ".join(rng.choice(WORDS, int(rng.integers(1, most + 1)))) for _ in range(count)]
    top = {"subtitle": 0.95 - 1.25 * tall * count, "page": 0.05}.get(kind, float(rng.uniform(0.05, 0.55)))
    color = ((255, 255, 255), (255, 230, 60), (20, 20, 20))[seed % 3]
    turn = float(rng.uniform(-6, 6)) if kind == "small print" and seed % 3 == 0 else 0.0
    return lettered(images, lines, top, tall, color=color, turn=turn)


# -- borders -----------------------------------------------------------------------------------------------------------


def borders(bordered: Sequence[Shown], clean: Sequence[Shown]) -> list[Row]:
    found = [values(Letterbox(), clip.frames) for clip in bordered]
    wrong = [clip.name for clip in clean if values(Letterbox(), clip.frames)["crop"]]
    there = sum(one["crop"] is not None for one in found)
    off = [
        abs(one["letterbox_fraction"] - (1 - clip.truth["picture_fraction"]))
        for one, clip in zip(found, bordered, strict=True)
        if "picture_fraction" in clip.truth
    ]
    share = round(float(np.mean(off)), 4) if off else None
    rows: list[Row] = [
        {"borders": "footage", **counted(there, len(wrong), len(found) - there), "error of the share": share}
    ]
    for kind in ("black", "coloured", "blurred", "striped", "striped all around"):
        right = 0
        for seed, clip in enumerate(clean):
            crop = _crop(kind, seed, clip.frames.images[0].shape)
            images = framed(clip.frames.images, crop, _SURROUNDS.get(kind, striped)(seed))
            film = Frames(images, clip.frames.times, clip.frames.indices, images[0].shape[1::-1], clip.frames.fps)
            right += agreement(values(Letterbox(), film)["crop"], crop) >= SAME
        rows.append({"crop box": kind, "clips": len(clean), "right": right, "share": round(right / len(clean), 3)})
    return rows


_SURROUNDS: dict[str, Callable[[int], Surround]] = {
    "black": lambda _: plain((0, 0, 0)),
    "coloured": lambda seed: plain(((255, 255, 255), (150, 30, 60), (60, 120, 40))[seed % 3]),
    "blurred": lambda _: blurred,
}


def _crop(kind: str, seed: int, shape: Sequence[int]) -> Crop:
    """Bars left and right, above and below, or both, of 5 to 30 % each."""
    rng = np.random.default_rng(seed)
    height, width = shape[:2]
    x, y = round(width * rng.uniform(0.05, 0.3)), round(height * rng.uniform(0.05, 0.25))
    which = {"striped": 0, "striped all around": 2, "blurred": seed % 2}.get(kind, seed % 3)
    x, y = (0 if which == 1 else x), (0 if which == 0 else y)
    return x, y, width - 2 * x, height - 2 * y


# -- watermarks --------------------------------------------------------------------------------------------------------


def watermarks(marked: Sequence[Shown], clean: Sequence[Shown]) -> list[Row]:
    """At 0.5. Where the picture does not move nothing can be told, and nothing is counted."""
    plain_values = [values(Overlay(), clip.frames)["watermark"] for clip in clean]
    hits = [values(Overlay(), clip.frames)["watermark"] for clip in marked]
    there, wrong = (sum((value or 0) >= 0.5 for value in of) for of in (hits, plain_values))
    still = sum(value is None for value in (*hits, *plain_values))
    rows: list[Row] = [{"watermarks": "footage", **counted(there, wrong, len(hits) - there), "cannot tell": still}]
    moving = [clip for clip, value in zip(clean, plain_values, strict=True) if value is not None]
    for color, name in (((255, 255, 255), "white"), ((225, 30, 40), "red")):
        for alpha in (1.0, 0.7, 0.4):
            right = 0
            for seed, clip in enumerate(moving):
                images = branded(clip.frames.images, LOGOS[seed % 3], PLACES[seed // 3 % 4], color, alpha)
                right += (values(Overlay(), again(clip.frames, images))["watermark"] or 0) >= 0.5
            share = round(right / len(moving), 3) if moving else None
            rows.append({"logo over clean footage": name, "opaque": alpha, "clips": len(moving), "found": share})
    return rows

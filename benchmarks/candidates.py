"""What it takes to name the pairs of clips that are worth comparing as copies, among up to a hundred thousand clips.

`python -m benchmarks.candidates [--clips 1000 10000 100000] [--asked 100] [--save FILE]`

Clips are slow pans over blends of photographs, ten hashes of whole pictures each, as five seconds of film have. What
some of them were cropped from, changed besides, asks for them with all its windows; one thread. Both kinds of index are
measured at every size, whichever would be used there; `hours` are what all clips take that ask each other.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from benchmarks.curate import machine
from curation.job import peak_memory_mb
from dedup import candidates
from dedup.candidates import Hashed, Wholes
from dedup.fingerprint import EVERY, probes
from dedup.windows import SIDE, hashes, signatures
from manifests.films.photos import NAMES, photo

Pictures = npt.NDArray[np.uint8]

HASHES = 10
_FRAMES = HASHES * EVERY
_WIDE, _VIEW = 48, 38
_BATCH = 200


def scenes(rng: np.random.Generator, count: int) -> npt.NDArray[np.float32]:
    """Blends (count, 48, 48) of windows of three photographs."""
    grays = [cv2.cvtColor(photo(name), cv2.COLOR_BGR2GRAY) for name in NAMES]
    made = np.zeros((count, _WIDE, _WIDE), np.float32)
    for k in range(count):
        for weight in rng.dirichlet((1.0, 1.0, 1.0)):
            gray = grays[rng.integers(len(grays))]
            side = int(rng.uniform(0.2, 0.7) * min(gray.shape))
            top, left = (int(rng.integers(length - side)) for length in gray.shape)
            window = cv2.resize(
                gray[top : top + side, left : left + side], (_WIDE, _WIDE), interpolation=cv2.INTER_AREA
            )
            made[k] += weight * (window if rng.random() < 0.5 else window[:, ::-1])
    return made


def pan(scene: npt.NDArray[np.float32], frames: int) -> Pictures:
    """A window of 32x32 that moves from one corner to the other."""
    at = np.linspace(0, _WIDE - SIDE, frames).round().astype(int)
    return np.stack([scene[k : k + SIDE, k : k + SIDE] for k in at]).astype(np.uint8)


def wider(scene: npt.NDArray[np.float32], frames: int, left: int, top: int) -> npt.NDArray[np.float32]:
    """The same with more around it: what `pan` shows is 84 % of its width and height."""
    at = np.linspace(0, _WIDE - SIDE, frames).round().astype(int)
    corners = [np.clip([k - top, k - left], 0, _WIDE - _VIEW) for k in at]
    views = [scene[y : y + _VIEW, x : x + _VIEW] for y, x in corners]
    return np.stack([cv2.resize(view, (SIDE, SIDE), interpolation=cv2.INTER_AREA) for view in views])


def known(seed: int, clips: int) -> Hashed:
    found = []
    for start in range(0, clips, _BATCH):
        count = min(_BATCH, clips - start)
        pictures = np.concatenate([pan(s, HASHES) for s in scenes(np.random.default_rng((seed, start)), count)])
        signature, _ = signatures(pictures, np.array([[0.0, 1.0, 0.0, 1.0]]))
        found.append(Hashed(hashes(signature[:, 0]), start + np.repeat(np.arange(count), HASHES)))
    return Hashed.gather(found)


def originals(seed: int, clips: int, asked: int) -> Hashed:
    """Windows of what some of the clips were cropped from, with another brightness and contrast, a strip that covers a
    tenth, and grain."""
    rng = np.random.default_rng((seed, clips, asked))
    found = []
    for clip in sorted(rng.choice(clips, asked, replace=False).tolist()):
        start = clip // _BATCH * _BATCH
        scene = scenes(np.random.default_rng((seed, start)), clip - start + 1)[-1]
        left, top = rng.integers(0, _VIEW - SIDE, 2).tolist()
        changed = wider(scene, _FRAMES, left, top) * rng.uniform(0.8, 1.2) + rng.uniform(-15, 15)
        changed[:, 27:30] = 235
        changed += rng.normal(0, 3, changed.shape)
        found.append(Hashed.of(clip, probes(np.clip(changed, 0, 255).astype(np.uint8))))
    return Hashed.gather(found)


def measured(clips: int, asked: int, inverted: bool) -> dict[str, Any]:
    candidates.FLAT = 0 if inverted else 1 << 62
    whole, windows = known(0, clips), originals(0, clips, asked)
    start, before = time.perf_counter(), peak_memory_mb()
    index = Wholes(whole)
    built = time.perf_counter() - start
    memory = peak_memory_mb() - before
    start = time.perf_counter()
    pairs = index.near(windows)
    seconds = time.perf_counter() - start
    right = int((pairs[:, 0] == pairs[:, 1]).sum())
    return {
        "clips": clips,
        "hashes": len(whole),
        "index": "inverted file" if inverted else "flat",
        "bits": candidates.STRICT if inverted else candidates.NEAR,
        "questions a clip": round(len(windows) / asked),
        "microseconds a question": round(seconds / len(windows) * 1e6, 1),
        "copies named": round(right / asked, 3),
        "others named a clip": round((len(pairs) - right) / asked, 2),
        "seconds to build": round(built, 2),
        "megabytes": round(memory),
        "hours": round(seconds / asked * clips / 3600, 3),
    }


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--clips", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    options.add_argument("--asked", type=int, default=100)
    options.add_argument("--save", type=Path, help="write the figures to this JSON file")
    chosen = options.parse_args()
    rows = []
    for clips in chosen.clips:
        for inverted in (False, True):
            if inverted and clips * HASHES < 40_000:
                continue
            with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as alone:  # a peak of memory of its own
                rows.append(alone.submit(measured, clips, min(chosen.asked, clips), inverted).result())
            print(json.dumps(rows[-1]))
    if chosen.save:
        chosen.save.parent.mkdir(parents=True, exist_ok=True)
        chosen.save.write_text(json.dumps({"machine": machine(), "candidates": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()

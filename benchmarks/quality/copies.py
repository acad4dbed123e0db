"""Copies: by transform which are found, and what is called a copy that is none; beside plain sequences of PDQ hashes.

Three kinds of footage: the public families of copies, with every pair of a family counted; the first seconds of every
real film, edited here in ways that the families lack; and all films of the public truth, clip against clip, of which is
known what was cut from where: shots of one source that have no moment in common are the hard ones.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.quality import Row, counted, read_truth
from benchmarks.quality._edits import EDITS, jpeg
from benchmarks.quality._origins import COPY, DISTINCT, Origin, Origins, relation, same_scene
from benchmarks.quality._pdq_sequences import Hashed, alike
from dedup.agreement import Look
from dedup.copies import Copies, Track, copy_pairs
from dedup.fingerprint import Fingerprint, shrink
from filters.shots.cuts import Cuts
from manifests.media.container import open_film
from manifests.media.scan import Pieces, Scan, Span
from manifests.types import EVERY_FRAME, Image, MediaError, Sampling

_PDQ_EVERY = 0.25
_FPS = 25
_SECONDS = 6.0
_ALL = Sampling(EVERY_FRAME, 180)


@dataclass(frozen=True, slots=True, eq=False)
class Clip:
    """One clip of a film, its origin, and what either method knows of it."""

    path: Path
    track: Track
    pdq: Hashed
    origin: tuple[Origin, ...] = ()


def measure(folder: Path) -> list[Row]:
    origins = Origins(folder)
    paths = sorted({*_films(folder)})
    clips = [clip for path in paths for clip in clips_of(path, origins)]
    return [*families(folder, clips), *edited(folder), *others(clips, origins)]


def families(folder: Path, clips: Sequence[Clip]) -> list[Row]:
    """Of the public families: pairs of files, mirrored copies counting and not."""
    rows: dict[str, dict[str, Any]] = {
        row["file"].name: row for row in read_truth(folder, "dups.jsonl") if "file" in row
    }
    mine = [clip for clip in clips if clip.path.name in rows]
    wanted = {
        frozenset(pair)
        for pair in itertools.combinations(rows, 2)
        if rows[pair[0]]["family"] and rows[pair[0]]["family"] == rows[pair[1]]["family"]
    }
    told: list[Row] = []
    answers: dict[str, set[frozenset[str]]] = {}
    for method, mirror in itertools.product(("this", "PDQ sequences"), (False, True)):
        found = grouped(mine, pairs(mine, method, mirror))
        right = len(found & wanted)
        kind = "mirrored too" if mirror else "plain"
        told.append({"families": kind, "method": method, **counted(right, len(found - wanted), len(wanted) - right)})
        if mirror:
            answers[method] = found
    for transform in sorted({row["transform"] for row in rows.values() if row["family"]} - {"original"}):
        those = {p for p in wanted if transform in {rows[name]["transform"] for name in p}}
        shares = {method: round(len(found & those) / len(those), 3) for method, found in answers.items()}
        told.append({"families, mirrored too": transform, "pairs": len(those), **shares})
    return told


def edited(folder: Path) -> list[Row]:
    """Of real films: share of the copies made by each edit that are found."""
    films = [(path, film) for path in sorted(_public(folder)) if (film := first_shot(path))]
    found: dict[str, list[tuple[bool, bool]]] = defaultdict(list)
    for path, film in films:
        original = made(path, film)
        for name, edit in EDITS.items():
            copy = made(path.with_suffix(".copy"), jpeg(60)(edit(film)))
            mirror = name.startswith("mirrored")
            ours = bool(copy_pairs([original.track, copy.track], Copies(mirror=mirror)))
            found[name].append((ours, alike(original.pdq, copy.pdq, mirror)))
    rows: list[Row] = []
    for name, answers in [*found.items(), ("all", [a for some in found.values() for a in some])]:
        shares = np.mean(answers, axis=0).round(3).tolist()
        rows.append({"edits": name, "films": len(answers), "this": shares[0], "PDQ sequences": shares[1]})
    return rows


def others(clips: Sequence[Clip], origins: Origins) -> list[Row]:
    """All clips against all: false groups among shots of one source and among other footage."""
    rows: list[Row] = []
    for method in ("this", "PDQ sequences"):
        called = pairs(clips, method, mirror=False)
        counts: dict[str, list[int]] = defaultdict(lambda: [0, 0])
        for a, b in itertools.combinations(clips, 2):
            if a.track.shot == b.track.shot:
                continue
            family = origins.family(a.path)
            known = COPY if family and family == origins.family(b.path) else relation(a.origin, b.origin)
            if known == DISTINCT:
                known = "distinct shots of one source" if same_scene(a.origin, b.origin) else "other footage"
            counts[known][0] += 1
            counts[known][1] += frozenset((a.track.id, b.track.id)) in called
        for kind in ("copy", "unknown", "distinct shots of one source", "other footage"):
            rows.append({"all films": kind, "method": method, "pairs": counts[kind][0], "copies": counts[kind][1]})
    return rows


def pairs(clips: Sequence[Clip], method: str, mirror: bool) -> set[frozenset[str]]:
    """Ids of clips that a method calls copies."""
    if method == "this":
        return {frozenset(pair) for pair in copy_pairs([clip.track for clip in clips], Copies(mirror=mirror))}
    return {
        frozenset((a.track.id, b.track.id))
        for a, b in itertools.combinations(clips, 2)
        if a.track.shot != b.track.shot and alike(a.pdq, b.pdq, mirror)
    }


def grouped(clips: Sequence[Clip], found: set[frozenset[str]]) -> set[frozenset[str]]:
    """Pairs of files that share a group: copies of copies are copies."""
    group = {clip.track.id: clip.track.id for clip in clips}
    for a, b in map(sorted, found):
        joined = (group[a], group[b])
        group = {clip: joined[0] if of in joined else of for clip, of in group.items()}
    return {
        frozenset((a.path.name, b.path.name))
        for a, b in itertools.combinations(clips, 2)
        if group[a.track.id] == group[b.track.id] and a.path != b.path
    }


def clips_of(path: Path, origins: Origins) -> list[Clip]:
    """Clips of a film as a run would make them."""
    found, shot = [], 0
    try:
        with open_film(str(path)) as film:
            for item in Scan(film, Cuts().start(film.fps), [Fingerprint.wants], Pieces()):
                if not isinstance(item, Span):
                    shot += 1
                    continue
                frames = item.frames[Fingerprint.wants]
                if len(frames):
                    seconds = [(t - film.first) / 1e6 for t in (item.start, item.end)]
                    times = np.asarray(frames.times) / 1e6
                    clip = made(path, frames.images, times, f"{path.name}/{shot}", origins.of(path, *seconds))
                    found.append(clip)
    except MediaError:
        return []
    return found


def made(
    path: Path,
    images: Sequence[Image],
    times: np.ndarray | None = None,
    shot: str = "",
    origin: tuple[Origin, ...] = (),
) -> Clip:
    """times: of the pictures, in seconds; a steady rate, of which ten a second are taken, without them."""
    if times is None:
        kept = [int(k) for k in np.arange(0, len(images), _FPS / Fingerprint.wants.fps)]
        images, times = [images[k] for k in kept], np.array(kept) / _FPS
    some = [k for k in range(len(times)) if k == 0 or times[k] // _PDQ_EVERY != times[k - 1] // _PDQ_EVERY]
    name = f"{shot or path.name}@{times[0]:.3f}"
    track = Track(name, shot or name, Look(shrink(images), times))
    return Clip(path, track, Hashed([images[k] for k in some], times[some]), origin)


def first_shot(path: Path) -> list[Image]:
    """Up to six seconds of a film's first shot of at least two, at 25 pictures a second; none where it has no such."""
    try:
        with open_film(str(path)) as film:
            for item in Scan(film, Cuts().start(film.fps), [_ALL], Pieces(longest=_SECONDS)):
                if isinstance(item, Span) and item.end - item.start >= 2e6:
                    frames = item.frames[_ALL]
                    at = np.arange(item.start, item.end, 1e6 / _FPS)
                    return [frames.images[k] for k in np.searchsorted(frames.times, at, "right") - 1]
    except MediaError:
        pass
    return []


def _public(folder: Path) -> set[Path]:
    return {path for path in (folder / "public").iterdir() if path.suffix in {".mp4", ".webm", ".mkv", ".ts", ".gif"}}


def _films(folder: Path) -> set[Path]:
    truth = folder / "public_truth"
    made_here = {path for name in ("dups", "films", "motion", "tags") for path in (truth / name).glob("*.*")}
    return {path for path in made_here if path.suffix in {".mp4", ".webm", ".mkv"}} | _public(folder)

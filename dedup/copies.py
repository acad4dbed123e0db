"""Copies: which clips show the same footage, whatever their codec, size, trim or speed.

Frames of two clips match when their PDQ hashes are close. How close depends on how fast the picture changes: the two
clips were sampled at different moments, so where a clip's own neighbouring frames differ much, a copy's frames may
differ a part of that; in a still scene only the codec's noise is allowed. The clips are copies when enough frames of
the shorter one match frames of the longer one at a steady offset in time. Groups are the connected components; the
best of each group is kept.

Sources: PDQ's reference matches within 31 bits; the allowance for motion and the offset vote are ours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import faiss
import numpy as np
import numpy.typing as npt

from dedup.pdq import BITS, distances, mirrored

Hashes = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Copies:
    """distance: bits in which hashes of a picture that stands still may differ
    motion:   further bits, as a share of the distance between neighbouring frames of the same clip
    furthest: bits in which no two matching frames differ
    quality:  PDQ quality below which a frame is too plain to tell
    share:    of the shorter clip's frames that must match
    slack:    seconds by which the offset between matching frames may drift, for speed changes
    mirror:   whether a mirrored copy is a copy
    """

    distance: float = 28.0
    motion: float = 0.25
    furthest: int = 56
    quality: int = 50
    share: float = 0.6
    slack: float = 0.6
    mirror: bool = False
    version: int = 1


@dataclass(frozen=True, slots=True, eq=False)
class Track:
    """Trusted frames of one clip: hashes (N, 32) and times (N,) in seconds. `shot` names the shot it was cut from:
    pieces of one shot look alike and are no copies of one another."""

    id: str
    hashes: Hashes
    times: npt.NDArray[np.float64]
    shot: str

    def steps(self) -> npt.NDArray[np.float64]:
        """Bits between each frame and the one of its neighbours that differs more (N,)."""
        if len(self.hashes) < 2:
            return np.zeros(len(self.hashes))
        between = np.bitwise_count(self.hashes[1:] ^ self.hashes[:-1]).sum(axis=1).astype(np.float64)
        return np.maximum(np.append(between, 0), np.insert(between, 0, 0))


@dataclass(frozen=True, slots=True)
class Group:
    """keeper and members by id; similarity of each member to the keeper or to the member it was found through."""

    keeper: str
    members: tuple[str, ...]
    similarity: dict[str, float]


Pairs = dict[tuple[str, str], float]
"""Similarities of copies, by their ids, the smaller one first."""


def copy_pairs(tracks: Sequence[Track], settings: Copies) -> Pairs:
    """Independent of the order of the tracks."""
    tracks = sorted((t for t in tracks if len(t.hashes)), key=lambda t: t.id)
    pairs: Pairs = {}
    for a, b in _candidates(tracks, settings):
        if tracks[a].shot != tracks[b].shot:
            similarity = agreement(tracks[a], tracks[b], settings)
            if similarity >= settings.share:
                pairs[tracks[a].id, tracks[b].id] = similarity
    return pairs


def groups(pairs: Pairs, rank: Mapping[str, tuple[float, ...]]) -> list[Group]:
    """Groups of two or more copies; of each the one with the largest rank is kept, the largest id among equals."""
    best: dict[str, float] = {}
    for pair, similarity in pairs.items():
        for clip in pair:
            best[clip] = max(similarity, best.get(clip, 0.0))
    found = []
    for members in _components(pairs):
        keeper = max(members, key=lambda clip: (rank[clip], clip))
        alike = {clip: pairs.get((min(clip, keeper), max(clip, keeper)), best[clip]) for clip in members}
        found.append(Group(keeper, tuple(members), alike))
    return found


def agreement(a: Track, b: Track, settings: Copies) -> float:
    """Largest share of the shorter clip's frames that match the other at one offset; 0..1."""
    if len(a.hashes) > len(b.hashes):
        a, b = b, a
    allowed = settings.distance + settings.motion * np.maximum(a.steps()[:, None], b.steps()[None, :])
    allowed = np.minimum(allowed, settings.furthest)
    best = _aligned_share(distances(a.hashes, b.hashes) <= allowed, a.times, b.times, settings.slack)
    if settings.mirror and best < settings.share:
        flipped = distances(mirrored(a.hashes), b.hashes) <= allowed
        best = max(best, _aligned_share(flipped, a.times, b.times, settings.slack))
    return best


def _aligned_share(
    match: npt.NDArray[np.bool_], times: npt.NDArray[np.float64], others: npt.NDArray[np.float64], slack: float
) -> float:
    rows, columns = np.nonzero(match)
    if not len(rows):
        return 0.0
    offsets = others[columns] - times[rows]
    bins = np.floor((offsets - offsets.min()) / (slack / 2)).astype(int)
    hit = np.zeros((len(times), bins.max() + 2), bool)
    hit[rows, bins] = True
    return float((hit[:, :-1] | hit[:, 1:]).sum(axis=0).max() / len(times))


def _candidates(tracks: Sequence[Track], settings: Copies) -> list[tuple[int, int]]:
    """Pairs of tracks with a matching frame, by FAISS's binary index over every frame."""
    if len(tracks) < 2:
        return []
    hashes = np.concatenate([t.hashes for t in tracks])
    owner = np.repeat(np.arange(len(tracks)), [len(t.hashes) for t in tracks])
    index = faiss.IndexBinaryFlat(BITS)
    index.add(hashes)
    pairs: set[tuple[int, int]] = set()
    for asked in [hashes, mirrored(hashes)] if settings.mirror else [hashes]:
        for start in range(0, len(asked), 4096):
            limits, _, found = index.range_search(asked[start : start + 4096], settings.furthest + 1)
            asker = np.repeat(owner[start : start + 4096], np.diff(limits.astype(np.int64)))
            answer = owner[found]
            codes = np.unique(asker[asker < answer] * len(tracks) + answer[asker < answer])
            pairs.update((int(code) // len(tracks), int(code) % len(tracks)) for code in codes)
    return sorted(pairs)


def _components(pairs: Pairs) -> list[list[str]]:
    """Connected ids, sorted."""
    parent: dict[str, str] = {clip: clip for pair in pairs for clip in pair}

    def root(clip: str) -> str:
        while parent[clip] != clip:
            parent[clip] = parent[parent[clip]]
            clip = parent[clip]
        return clip

    for a, b in sorted(pairs):
        parent[max(root(a), root(b))] = min(root(a), root(b))
    members: dict[str, list[str]] = {}
    for clip in sorted(parent):
        members.setdefault(root(clip), []).append(clip)
    return list(members.values())

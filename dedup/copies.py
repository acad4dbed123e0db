"""Copies: which clips show the same footage, whatever their codec, size, crop, border, trim or speed, and which of them
is kept.

Hashes name pairs worth comparing (`dedup.candidates`), their pictures decide (`dedup.agreement`). Groups are the
connected components; the best of each group is kept.

Thresholds are ours, set on films rendered from a public collection: 44 transforms of 21 films, against different shots
of the same scenes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from dedup.agreement import Agreement, Look, compare
from dedup.candidates import Hashed, Wholes, stretches
from dedup.fingerprint import probes, wholes


@dataclass(frozen=True, slots=True)
class Copies:
    """alike:   correlation from which two pictures are like one another
    share:    of the shorter clip's pictures that must be like the longer one's at their time
    changes:  correlation that what changes in the two must have
    places:   how well the two must agree where most changes, see `Agreement`
    still:    root mean square of the changes, 0..1, under which nothing moves but noise
    likeness: mean correlation of the pictures that is then asked for instead
    mirror:   whether a mirrored copy is a copy
    pictures: whether all this is looked for at all
    vectors:  column of descriptors by which clips are copies too, such as sscd; none if empty
    cosine:   of two clips' descriptors from which they are: 0.99 as in Movie Gen, 0.75 as SSCD's authors advise
    """

    alike: float = 0.65
    share: float = 0.65
    changes: float = 0.78
    places: float = 0.74
    still: float = 0.015
    likeness: float = 0.985
    mirror: bool = False
    pictures: bool = True
    vectors: str = ""
    cosine: float = 0.99
    version: int = 3


@dataclass(frozen=True, slots=True, eq=False)
class Track:
    """What copy detection knows of one clip. `shot` names the shot it was cut from: pieces of one shot look alike and
    are no copies of one another."""

    id: str
    shot: str
    look: Look


@dataclass(frozen=True, slots=True)
class Group:
    """keeper and members by id; similarity of each member to the keeper or to the member it was found through."""

    keeper: str
    members: tuple[str, ...]
    similarity: dict[str, float]


Pairs = dict[tuple[str, str], float]
"""Similarities of copies, by their ids, the smaller one first."""


def copy_pairs(tracks: Sequence[Track], settings: Copies) -> Pairs:
    """Copies among clips that fit into memory. Independent of the order of the tracks."""
    tracks = sorted(tracks, key=lambda t: t.id)
    pictures = [np.asarray(t.look.pictures, np.uint8) for t in tracks]
    known = [Hashed.of(k, wholes(p)) for k, p in enumerate(pictures)]
    asked = Hashed.gather(Hashed.of(k, probes(p)) for k, p in enumerate(pictures))
    candidates = {
        (min(a, b), max(a, b))
        for stretch in stretches(known)
        for a, b in Wholes(stretch).near(asked, settings.mirror).tolist()
        if a != b
    }
    return judge(((tracks[a], tracks[b]) for a, b in sorted(candidates)), settings)


def judge(candidates: Iterable[tuple[Track, Track]], settings: Copies) -> Pairs:
    """Those of the candidates that are copies."""
    pairs: Pairs = {}
    for pair in candidates:
        a, b = sorted(pair, key=lambda track: track.id)
        if a.shot != b.shot:
            similarity = similar(a.look, b.look, settings)
            if similarity:
                pairs[a.id, b.id] = similarity
    return pairs


def similar(a: Look, b: Look, settings: Copies) -> float:
    """Share of the shorter clip's pictures that are like the longer one's, 0 unless they are copies."""
    if np.array_equal(a.pictures, b.pictures):  # told at once: of very many files, very many may be the same clip
        return 1.0 if a.whole.any() else 0.0
    for other in (b, b.mirrored) if settings.mirror else (b,):
        found = compare(a, other, settings.alike)
        if found and is_copy(found, settings):
            return found.share
    return 0.0


def is_copy(found: Agreement, settings: Copies) -> bool:
    if found.share < settings.share:
        return False
    if found.moving < settings.still:
        return found.likeness >= settings.likeness
    return found.changes >= settings.changes and found.places >= settings.places


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

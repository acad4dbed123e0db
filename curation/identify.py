"""Names every input by its content, and groups the distinct ones into parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import fsspec

from curation.job import Part, Video
from curation.recipe import Parts
from manifests.ids import part_id, video_id
from manifests.media.container import base_name, is_remote, open_bytes


def identify(uris: Sequence[str]) -> list[Video]:
    """Size and content id of each input. One that cannot be read gets the reason instead; nothing is raised."""
    return [_identify(uri) for uri in uris]


def _identify(uri: str) -> Video:
    try:
        size = _size(uri)
        with open_bytes(uri) as file:
            return Video(uri, size, video_id(file, size))
    except FileNotFoundError:
        return Video(uri, 0, error=f"{base_name(uri)}: there is no such file; check the path {uri}.")
    except (OSError, ValueError) as error:
        return Video(uri, 0, error=f"{base_name(uri)}: cannot be read ({error}); check its permissions and the disk.")


def _size(uri: str) -> int:
    if not is_remote(uri):
        return Path(uri).stat().st_size
    fs, path = fsspec.core.url_to_fs(uri)
    return int(fs.size(path))


def changed_key(uri: str) -> tuple[str, int, int] | None:
    """Something that changes when a local file changes, so that its id can be remembered; None for remote files."""
    if is_remote(uri):
        return None
    try:
        info = Path(uri).stat()
    except OSError:
        return None
    return uri, info.st_size, info.st_mtime_ns


def distinct(videos: Sequence[Video]) -> tuple[list[Video], dict[str, str]]:
    """The first of every set of byte-identical inputs in sorted order, and for the others the uri they repeat."""
    first: dict[str, str] = {}
    kept, repeats = [], {}
    for video in sorted(videos, key=lambda v: v.uri):
        if video.id is None:
            continue
        if video.id in first:
            repeats[video.uri] = first[video.id]
        else:
            first[video.id] = video.uri
            kept.append(video)
    return kept, repeats


def group(videos: Sequence[Video], settings: Parts, done: Mapping[str, Sequence[str]]) -> list[Part]:
    """Parts that cover all videos: those already done (name and video ids), and new ones for the rest.

    A part is closed as soon as it is full, so where parts of an interrupted run are taken out, the ones between them
    come out as they would have: the same run gives the same parts however often it is interrupted. A done part may
    hold other videos too; the `videos` of a part are those that it is asked for.
    """
    by_id = {v.id: v for v in videos}
    parts: list[Part] = []
    covered: set[str | None] = set()
    for name, members in sorted(done.items()):
        mine = [m for m in members if m in by_id and m not in covered]
        if mine:
            parts.append(Part(name, tuple(by_id[m] for m in mine)))
            covered.update(mine)
    open_part: list[Video] = []
    for video in videos:
        if video.id not in covered:
            open_part.append(video)
        full = len(open_part) >= settings.videos or sum(v.bytes for v in open_part) >= settings.megabytes * 1e6
        if open_part and (full or video.id in covered):  # a done part lies between these videos and the next ones
            parts.append(_part(open_part))
            open_part = []
    return parts + ([_part(open_part)] if open_part else [])


def _part(videos: Sequence[Video]) -> Part:
    return Part(part_id(v.id or "" for v in videos), tuple(videos))

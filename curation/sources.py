"""From what a user names (files, folders, globs, lists, URLs) to a sorted list of videos."""

from __future__ import annotations

import glob
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import fsspec
import pyarrow.parquet as pq

from manifests.media.container import is_remote

EXTENSIONS = frozenset(
    [
        "mp4",
        "m4v",
        "mov",
        "mkv",
        "webm",
        "avi",
        "flv",
        "wmv",
        "asf",
        "mpg",
        "mpeg",
        "m2v",
        "ts",
        "mts",
        "m2ts",
        "mxf",
        "ogv",
        "ogg",
        "3gp",
        "3g2",
        "gif",
        "vob",
        "ivf",
        "y4m",
        "h264",
        "hevc",
        "265",
        "264",
        "av1",
        "obu",
        "rm",
        "rmvb",
        "dv",
        "nut",
        "divx",
        "f4v",
    ]
)
LISTS = (".txt", ".jsonl", ".parquet")
COLUMNS = ("uri", "path", "file", "video", "url")


def list_videos(sources: Sequence[str]) -> list[str]:
    """URIs of all videos, sorted and without repeats; local ones as absolute paths.

    A file is taken as it is; a folder is searched for video extensions, below it too; a text, JSONL or Parquet file is
    read as a list. Raises ValueError when a source does not exist or nothing is found.
    """
    found: set[str] = set()
    for source in sources:
        videos = list(_expand(source))
        if not videos:
            raise ValueError(f"{source}: no video found there; give a folder with videos, a file, a glob or a list.")
        found.update(videos)
    if not found:
        raise ValueError("no source given; give a file, a folder, a glob, a list or a URL.")
    return sorted(found)


def _expand(source: str) -> Iterable[str]:
    if is_remote(source):
        return _expand_remote(source)
    path = Path(source).expanduser()
    if path.is_dir():
        return _below(path)
    if path.is_file():
        return _read_list(path) if path.suffix.lower() in LISTS else [_absolute(path)]
    if any(sign in source for sign in "*?["):
        matches = [Path(m) for m in glob.glob(str(path), recursive=True)]  # noqa: PTH207 - the pattern may be absolute
        return [_absolute(m) for m in matches if m.is_file() and m.suffix.lower() not in LISTS]
    raise ValueError(f"{source}: there is no such file or folder; check the path.")


def _below(folder: Path) -> list[str]:
    found = []
    for parent, folders, names in os.walk(folder, followlinks=True):
        folders[:] = [f for f in folders if not f.startswith(".")]
        found += [_absolute(Path(parent) / n) for n in names if _is_video(n)]
    return found


def _expand_remote(source: str) -> list[str]:
    try:
        fs, path = fsspec.core.url_to_fs(source)
        if any(sign in path for sign in "*?["):
            paths = [p for p in fs.glob(path) if _is_video(str(p))]
        elif _is_video(path):
            return [source]
        else:
            paths = [p for p in fs.find(path) if _is_video(str(p))]
    except (OSError, ImportError, ValueError) as error:
        raise ValueError(f"{source}: cannot be listed ({error}); check the URL and its credentials.") from None
    return [fs.unstrip_protocol(str(p)) for p in paths]


def _read_list(path: Path) -> list[str]:
    try:
        if path.suffix.lower() == ".parquet":
            names = set(pq.read_schema(path).names)
            column = next((c for c in COLUMNS if c in names), None)
            if column is None:
                raise ValueError(f"has none of the columns {', '.join(COLUMNS)}")
            entries = pq.read_table(path, columns=[column])[column].to_pylist()
        elif path.suffix.lower() == ".jsonl":
            rows = [json.loads(line) for line in path.read_text().splitlines() if line.strip()]
            entries = [next(str(row[c]) for c in COLUMNS if c in row) for row in rows]
        else:
            entries = [line.strip() for line in path.read_text().splitlines()]
    except StopIteration:
        raise ValueError(f"{path}: a line has none of the keys {', '.join(COLUMNS)}; add one.") from None
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{path}: cannot be read as a list of videos ({error}); give one path or URL a line."
        ) from None
    entries = [e for e in entries if e and not e.startswith("#")]
    return [e if is_remote(e) else _absolute(path.parent / Path(e).expanduser()) for e in entries]


def _is_video(name: str) -> bool:
    stem = name.rsplit("/", 1)[-1]
    return not stem.startswith("._") and stem.rpartition(".")[2].lower() in EXTENSIONS


def _absolute(path: Path) -> str:
    return os.path.abspath(path)  # noqa: PTH100 - links stay what the user called them

"""The blind page: two videos of one prompt side by side, who made which is told nowhere on it. It is one file that
works without a network; votes are kept in the browser and saved as a table. All text is escaped."""

from __future__ import annotations

import base64
import hashlib
import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader

from curation.judging.samples import Pair
from manifests.ids import luck
from manifests.media.container import decode, open_film
from manifests.media.cut import cut
from manifests.types import MediaError

LARGEST = 512 << 20
"""Bytes of video that a page may carry; browsers open no much larger files."""

_CRF = 23
_FOREVER = 1 << 62


@dataclass(frozen=True, slots=True)
class Axis:
    """What is asked. voters: how many must have voted for a majority to count."""

    name: str
    question: str
    voters: int


# The axes and majorities of Movie Gen (arXiv 2410.13720, section 3.5.1), in our own words.
AXES = (
    Axis("overall", "Which video is better, all in all?", 3),
    Axis("text", "Which one shows more of what the text says: things and what they do?", 3),
    Axis("consistency", "In which one do things keep their shape and look from frame to frame?", 3),
    Axis("completeness", "In which one is enough going on, and movements are carried through?", 3),
    Axis("naturalness", "In which one do things move as they would in the world?", 3),
    Axis("realness", "Which one could be taken for a real recording?", 6),
    Axis("aesthetics", "Which one is nicer to look at: light, colour, framing?", 6),
)
COLUMNS = ("page", "pair", "axis", "vote", "by", "at")
VOTES = ("first", "second", "equal")


@dataclass(frozen=True, slots=True)
class Made:
    """page: to hand out. key: to keep; without it nobody can tell whose votes these are. pairs: on the page. unread:
    names of pairs that could not be decoded."""

    page: Path
    key: Path
    pairs: int
    unread: tuple[str, ...]


def write_compare(
    a: Path,
    b: Path,
    found: Sequence[Pair],
    out: Path,
    axes: Sequence[Axis] = AXES,
    short: int = 0,
    seed: int = 0,
    tick: Callable[[], None] = lambda: None,
) -> Made:
    """Writes the page, and beside it the key that tells which video of a pair is whose.

    Both videos of a pair are shown at the same size, that of the smaller one, or `short` pixels of the short side if
    that is less, so that resolution gives nobody away. Raises ValueError where no pair can be read, or the page grows
    too large.
    """
    ids = {pair.name: hashlib.blake2b(f"{seed}/{pair.name}".encode(), digest_size=6).hexdigest() for pair in found}
    turned = dict(zip(ids, luck(list(ids), seed) < 0.5, strict=True))
    shown: list[dict[str, Any]] = []
    size, unread = 0, []
    for pair in found:
        try:
            videos = _previews(pair, short)
        except (MediaError, OSError):
            unread.append(pair.name)
            continue
        finally:
            tick()
        size += sum(map(len, videos))
        if size > LARGEST:
            raise ValueError(
                f"the page would carry more than {LARGEST >> 20} MiB of video; give --short 240, or fewer."
            )
        order = reversed(videos) if turned[pair.name] else videos
        shown.append({"id": ids[pair.name], "prompt": pair.prompt, "videos": [_uri(video) for video in order]})
    if not shown:
        raise ValueError(f"none of the {len(found)} pairs of {a} and {b} can be read.")
    shown.sort(key=lambda one: one["id"])  # the order of names could tell the groups
    page = hashlib.blake2b("".join(one["id"] for one in shown).encode(), digest_size=6).hexdigest()
    settings: dict[str, Any] = {
        "page": page,
        "columns": COLUMNS,
        "axes": [{"name": x.name, "question": x.question} for x in axes],
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(_render(settings, shown))
    key = out.with_suffix(".key.json")
    known = [pair for pair in found if pair.name not in unread]
    said = {
        "page": page,
        "a": str(a),
        "b": str(b),
        "axes": {axis.name: axis.voters for axis in axes},
        "pairs": {
            ids[pair.name]: {
                "name": pair.name,
                "first": "b" if turned[pair.name] else "a",
                "prompt": pair.prompt,
                "concept": pair.concept,
                "motion": pair.motion,
            }
            for pair in known
        },
    }
    key.write_text(json.dumps(said, indent=1, ensure_ascii=False) + "\n")
    return Made(out, key, len(shown), tuple(unread))


def _previews(pair: Pair, short: int) -> tuple[bytes, bytes]:
    sizes = []
    for file in (pair.a, pair.b):
        with open_film(str(file)) as film:
            shown = next(decode(film), None)
            if shown is None:
                raise MediaError(f"{file}: no frame in it")
            sizes.append(min(shown.frame.width, shown.frame.height))
    side = min([*sizes, short] if short else sizes)
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "video.mp4"
        first, second = (
            cut(str(file), 0, _FOREVER, made, side, _CRF) and made.read_bytes() for file in (pair.a, pair.b)
        )
    assert isinstance(first, bytes) and isinstance(second, bytes)
    return first, second


def _uri(video: bytes) -> str:
    return "data:video/mp4;base64," + base64.b64encode(video).decode()


def _render(settings: dict[str, Any], shown: Sequence[dict[str, Any]]) -> str:
    environment = Environment(loader=PackageLoader("curation.judging"), autoescape=True, trim_blocks=True)
    assert environment.loader is not None
    script = environment.loader.get_source(environment, "compare.js")[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    template = environment.get_template("compare.html.j2")
    return template.render(pairs=shown, settings=settings, script=script, digest=digest)

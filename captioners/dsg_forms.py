"""What DSG-Video asks models, and the forms in which they answer."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, make_dataclass
from typing import Annotated, Any, Literal

from captioners.answers import Within
from captioners.quoting import material

_READ = """\
Above is the caption of a video, its sentences numbered.
List every distinct physical object that it names: people, animals, things, places. Name each one once, in the \
caption's own words, with the numbers of the sentences that speak of it and a question of the form "Is there a cat in \
this frame?".
{claims}Add nothing that the caption does not name."""
_CLAIMS = """\
Then list what it says of these objects, attributes, actions and relations, as questions of the form "Is the cat on a \
couch?", each with the names of the objects that it is about.
"""
_LOOK = """\
Above {shown} of a video.
{question}
Answer only with yes or no{each}."""
_REWRITE = """\
Above is the caption of a video.
Write the caption again without the objects listed under "remove", and without what it says of them: they are not \
in the video. Leave everything else as it is, in the same words and in the same order, and name every object under \
"keep". Do not mention that something was removed, and put nothing in its place."""
_AGAIN = "\nAn earlier attempt was no good: {complaint}."


Line = Annotated[str, Within(least=1, most=100)]
Name = Annotated[str, Within(least=1, most=50)]
Text = Annotated[str, Within(most=4000)]
Number = Annotated[int, Within(least=0, most=999)]


@dataclass(frozen=True, slots=True)
class SaidObject:
    name: Name
    sentences: Annotated[tuple[Number, ...], Within(most=16)]
    question: Line


@dataclass(frozen=True, slots=True)
class SaidClaim:
    about: Annotated[tuple[Name, ...], Within(least=1, most=4)]
    question: Line


@dataclass(frozen=True, slots=True)
class Rewritten:
    """A caption without some of its objects."""

    caption: Text


@functools.cache
def reading(most: int, claims: bool) -> type:
    """A form for `objects` and, if wanted, `claims` of a caption, so many of each at most."""
    fields: list[tuple[str, Any]] = [("objects", Annotated[tuple[SaidObject, ...], Within(most=most)])]
    if claims:
        fields.append(("claims", Annotated[tuple[SaidClaim, ...], Within(most=most)]))
    return make_dataclass("Reading", fields, frozen=True)


def frame_names(size: int) -> list[str]:
    return [f"frame_{k + 1}" for k in range(size)]


@functools.cache
def seen(size: int) -> type:
    """A form with yes or no for each of so many frames; named, since models lose count in lists."""
    return make_dataclass("Seen", [(name, Literal["yes", "no"]) for name in frame_names(size)], frozen=True)


def read(parts: Sequence[str], claims: bool) -> list[str]:
    """Asks for a `reading` of a caption's sentences."""
    data = {"sentences": {str(k + 1): part for k, part in enumerate(parts)}}
    return [material(data), _READ.format(claims=_CLAIMS if claims else "")]


def look(question: str, size: int) -> str:
    """Asks of so many frames whether each is `seen`."""
    shown = "is a frame" if size == 1 else f"are {size} frames"
    each = "" if size == 1 else ", for each frame on its own, in their order"
    return _LOOK.format(shown=shown, question=question, each=each)


def rewrite(caption: str, remove: Sequence[str], keep: Sequence[str], complaint: str) -> list[str]:
    """Asks for the caption `Rewritten`; complaint: what was wrong with an earlier attempt, or ""."""
    data = {"caption": caption, "remove": list(remove), "keep": list(keep)}
    return [material(data), _REWRITE + (_AGAIN.format(complaint=complaint) if complaint else "")]

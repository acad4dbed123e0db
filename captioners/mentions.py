"""Where a caption names a thing: its sentences, its words, and which sentences hold which object.

Words are compared by a stem that takes the plural off English nouns ("boxes", "box"); texts in scripts that are written
without spaces are searched letter by letter.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence

_UNSEEN = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters, those that turn the direction of writing included, and halves of characters."""
_END = re.compile(r"""(?<=[.!?…])["'”’)\]]*\s+|(?<=[。！？])\s*|\n+""")
_ABBREVIATION = re.compile(r"(?:^|[\s(])(?:[^\W\d_]|mr|mrs|ms|dr|st|vs|no|approx|e\.g|i\.e|[ap]\.m)\.$", re.IGNORECASE)
_WORD = re.compile(r"[^\W_]+")
_POSSESSIVE = re.compile(r"['’]s\b")
_UNSPACED = re.compile(r"[\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff]")
"""Thai, Japanese kana and Chinese characters."""

_DETERMINERS = (
    "a an the this that these those some several many few another other two three four five six seven eight nine ten "
    "his her its their my your our"
)
_IRREGULAR = {
    "people": "person", "men": "man", "women": "woman", "children": "child", "feet": "foot", "teeth": "tooth",
    "geese": "goose", "mice": "mouse", "oxen": "ox", "dice": "die", "firemen": "fireman", "policemen": "policeman",
    "fishermen": "fisherman", "snowmen": "snowman", "cacti": "cactus", "fungi": "fungus",
}  # fmt: skip
_SINGULAR_IN_S = ("lens", "gas", "canvas", "bias", "atlas", "christmas")


def one_line(text: str) -> str:
    """A text without control characters and runs of white space."""
    return " ".join(_UNSEEN.sub(" ", text).split())


def sentences(text: str) -> list[str]:
    """The sentences of a text, in order; those without a word are left out."""
    found: list[str] = []
    for piece in _END.split(text):
        if found and _ABBREVIATION.search(found[-1]):
            found[-1] = f"{found[-1]} {piece}"
        else:
            found.append(piece)
    return [piece.strip() for piece in found if _WORD.search(piece)]


@functools.lru_cache(1 << 16)
def stem(word: str) -> str:
    """A form that singular and plural of an English noun share; no word of its own."""
    word = _IRREGULAR.get(word, word)
    if word in _SINGULAR_IN_S:
        return word
    if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")):
        word = word[:-1]
    if len(word) > 3 and word.endswith("e"):
        word = word[:-1]
    if len(word) > 2 and word[-1] in "yv":
        word = word[:-1] + {"y": "i", "v": "f"}[word[-1]]
    return word


@functools.lru_cache(1 << 10)
def stems(text: str) -> tuple[str, ...]:
    """Stems of the words of a text."""
    return tuple(stem(word) for word in _WORD.findall(_POSSESSIVE.sub("", text.casefold())))


@functools.lru_cache(1 << 10)
def key(name: str) -> tuple[str, ...]:
    """What two names of the same object have in common: stems, without determiners in front."""
    words = [*_WORD.findall(_POSSESSIVE.sub("", name.casefold()))]
    while len(words) > 1 and words[0] in _DETERMINERS.split():
        del words[0]
    return tuple(map(stem, words))


def named_in(name: str, parts: Sequence[str], loosely: bool = True) -> list[int]:
    """Places of the sentences `parts` that name an object.

    Its words in a row; loosely: where no sentence has them so, all of them in any order.
    """
    if _UNSPACED.search(name):
        return [k for k, part in enumerate(parts) if name.casefold().strip() in part.casefold()]
    wanted = key(name)
    if not wanted:
        return []
    words = [stems(part) for part in parts]
    in_a_row = [k for k, have in enumerate(words) if contains(have, wanted)]
    if in_a_row or not loosely:
        return in_a_row
    return [k for k, have in enumerate(words) if set(wanted) <= set(have)]


def contains(words: Sequence[str], wanted: Sequence[str]) -> bool:
    """Whether `wanted` stands somewhere in `words`, in a row."""
    return f" {' '.join(wanted)} " in f" {' '.join(words)} "  # stems hold no space

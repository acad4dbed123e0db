"""Lists of phrases. The taxonomy says what people do or show, in words that go on from "a person"; another list names
places, things and animals.

Movie Gen finds videos of people by retrieval with 600 human verbs and expressions, a list that was not published. Ours
has 600 too, from posture and sport to faces and voices.

Source: Movie Gen (arXiv 2410.13720) section on data, for the number and the use; the list is ours.
"""

from __future__ import annotations

import functools
import importlib.resources
from pathlib import Path

from filters.weights import first_line

KIND = "## "
"""Begins the line that names the kind of the phrases below it."""


PEOPLE, SCENES = "people.txt", "scenes.txt"
"""Lists of ours: 600 human verbs and expressions; places, things, animals and happenings."""


def phrases(file: str = "", ours: str = PEOPLE) -> tuple[str, ...]:
    """Phrases of a list, one a line; empty lines and those that begin with # do not count. "": the one of `ours`.

    Raises ValueError when the file cannot be read or holds none.
    """
    return tuple(dict.fromkeys(phrase for group in by_kind(file, ours).values() for phrase in group))


def by_kind(file: str = "", ours: str = PEOPLE) -> dict[str, tuple[str, ...]]:
    """The same by kind, which a line `## kind` begins; "" for those that stand before the first."""
    groups: dict[str, list[str]] = {"": []}
    kind = ""
    for line in (raw.strip() for raw in _text(file, ours).splitlines()):
        if line.startswith(KIND):
            kind = line.removeprefix(KIND).strip()
            groups.setdefault(kind, [])
        elif line and not line.startswith("#"):
            groups[kind].append(line)
    found = {name: tuple(lines) for name, lines in groups.items() if lines}
    if not found:
        raise ValueError(f"taxonomy {file} holds no phrases; write one a line.")
    return found


def _text(file: str, ours: str) -> str:
    if not file:
        return _packaged(ours)
    try:
        return Path(file).expanduser().read_text()
    except (OSError, UnicodeError) as error:
        raise ValueError(f"taxonomy {file} cannot be read ({first_line(error)}); give a text file.") from error


@functools.cache
def _packaged(name: str) -> str:
    return (importlib.resources.files("filters.learned") / "data" / name).read_text()

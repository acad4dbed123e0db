"""Repairs captions: they are written again without the objects that are not in the clip, and checked again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from captioners import dsg_forms as forms
from captioners.ask import AskError, Picture, Usage
from captioners.dsg import Checked, Checker, Thing, raise_if_alone
from captioners.mentions import contains, key, named_in, one_line, sentences
from captioners.quoting import RULE

ATTEMPTS = 3


@dataclass(frozen=True, slots=True)
class Repaired:
    """caption: without the hallucinated objects and with all others; None where no attempt came to that, and `error`
    says why. checked: that caption, checked again."""

    caption: str | None = None
    checked: Checked | None = None
    usage: Usage = field(default_factory=Usage)
    error: str = ""


async def repair(caption: str, checked: Checked, frames: Sequence[Picture], checker: Checker) -> Repaired:
    """Rewrites a caption that names hallucinated objects. Objects that were looked for before are not looked for again;
    those that the new caption adds are, and have to be real.

    Raises Unreachable or NotServed when there is no one to ask.
    """
    remove = {thing.key: thing for thing in checked.hallucinated}
    keep = [thing for thing in checked.things if thing.seen]
    if not keep:
        return Repaired(error="nothing that the caption names is in the clip")
    known = {thing.key: bool(thing.seen) for thing in checked.things}
    text, usage, complaint = " ".join(map(one_line, sentences(caption))), Usage(), ""
    for _ in range(ATTEMPTS):
        names = [thing.name for thing in remove.values()]
        question = forms.rewrite(text, names, [thing.name for thing in keep], complaint)
        try:
            got = await checker.reader.ask(
                question, forms.Rewritten, model=checker.model, system=RULE, max_tokens=64 + len(text)
            )
        except AskError as error:
            raise_if_alone(error)
            return Repaired(usage=usage + error.usage, error=f"the caption was not rewritten: {error}")
        usage += got.usage
        written = one_line(got.value.caption)
        complaint = _wrong(written, text, list(remove.values()), keep)
        if complaint:
            continue
        again = await checker.check(written, frames, known)
        usage += again.usage
        if not again.error and not again.hallucinated:
            return Repaired(written, again, usage)
        remove |= {thing.key: thing for thing in again.hallucinated}
        complaint = again.error or f"it names {_list(again.hallucinated)}, not in the video either"
    return Repaired(usage=usage, error=f"no attempt was right, the last one: {complaint}")


def _wrong(written: str, before: str, remove: Sequence[Thing], keep: Sequence[Thing]) -> str:
    """What is wrong with a caption as it was written again, or ""."""
    parts = sentences(written)
    if not parts:
        return "it is empty"
    left = [thing for thing in remove if named_in(thing.name, parts, loosely=False) and not _within(thing, keep)]
    if left:
        return f"it still names {_list(left)}"
    lost = [thing for thing in keep if not named_in(thing.name, parts) and not _within(thing, remove)]
    if lost:
        return f"it lacks {_list(lost)}"
    if len(written) > len(before) + 20:
        return "it is longer than before"
    return ""


def _within(thing: Thing, others: Sequence[Thing]) -> bool:
    """Whether its name is part of another's, so that it cannot be told apart by words: ball, red ball."""
    return any(contains(key(other.name), key(thing.name)) for other in others)


def _list(things: Sequence[Thing]) -> str:
    return ", ".join(thing.name for thing in things)

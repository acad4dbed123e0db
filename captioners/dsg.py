"""DSG-Video: which of the objects that a caption names are seen in none of the clip's frames.

After STIV (arXiv 2412.07730), which adapts the Davidsonian Scene Graph of arXiv 2310.18235 to videos. A language model
reads the caption and lists its objects and what it says of them; a model that sees looks for every object in frames
spread evenly over the clip; an object that is in none of them is hallucinated. What is said of objects (attributes,
actions, relations) is asked only where all objects concerned are real, and does not count in the figures. The paper
gives neither the number of frames nor models nor prompts; these are ours.

What models answer is data. An object must be named in the caption's own words, and a question must name its object, so
words in a caption or in a picture may make a verdict wrong, but cannot make us ask about something else.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from captioners import dsg_forms as forms
from captioners.ask import Answer, Asker, AskError, BadAnswer, NotServed, Picture, Refused, TooLong, Unreachable, Usage
from captioners.hallucination import Counts, count, never_seen
from captioners.mentions import contains, key, named_in, one_line, sentences, stems
from captioners.quoting import RULE

Key = tuple[str, ...]
Looked = tuple[bool | None, Usage, str]
"""Whether it was seen, what the answer cost, and for want of one why."""


@dataclass(frozen=True, slots=True)
class DSG:
    """How captions are checked.

    frames:      looked at, evenly spread over the clip
    per_request: frames shown at once with a question; 0: all of them, or as many as the model takes. With 1 every frame
                 is asked about alone, as in the paper: more requests, and the surer answers of a smaller question
    claims:      ask about attributes, actions and relations of real objects too
    most:        objects, and claims, of one caption; further ones are left out
    model:       that looks at frames; "": the one that is served
    reader:      that reads captions and rewrites them; "": the same
    """

    frames: int = 8
    per_request: int = 0
    claims: bool = True
    most: int = 48
    model: str = ""
    reader: str = ""
    version: int = 1


@dataclass(frozen=True, slots=True)
class Thing:
    """An object that a caption names. sentences: their places, from 0."""

    name: str
    sentences: tuple[int, ...]
    question: str
    seen: bool | None = None

    @property
    def key(self) -> Key:
        return key(self.name)


@dataclass(frozen=True, slots=True)
class Claim:
    """What a caption says of real objects. seen: in some frame."""

    question: str
    about: tuple[Key, ...]
    seen: bool | None = None


@dataclass(frozen=True, slots=True)
class Checked:
    """What became of one caption. error: why there are no figures, or ""."""

    things: tuple[Thing, ...] = ()
    claims: tuple[Claim, ...] = ()
    sentences: int = 0
    frames: int = 0
    usage: Usage = field(default_factory=Usage)
    error: str = ""

    @property
    def hallucinated(self) -> tuple[Thing, ...]:
        return tuple(thing for thing in self.things if thing.seen is False)

    @property
    def counts(self) -> Counts | None:
        """None where the caption could not be checked."""
        if self.error:
            return None
        mentions = np.zeros((len(self.things), self.sentences), bool)
        for k, thing in enumerate(self.things):
            mentions[k, list(thing.sentences)] = True
        return count(mentions, never_seen(np.array([thing.seen for thing in self.things], bool).reshape(-1, 1)))


class Checker:
    """Checks captions; one for all clips, since it learns how many frames the model takes at once.

    reader, viewer: who is asked about captions and about frames. Raises Unreachable or NotServed when there is no one
    to ask; any other failure is told in the result.
    """

    def __init__(self, reader: Asker, viewer: Asker, settings: DSG) -> None:
        self.reader, self.settings = reader, settings
        self._viewer = viewer
        self._at_once = settings.per_request or settings.frames

    @property
    def model(self) -> str:
        """The one that reads."""
        return self.settings.reader or self.settings.model

    async def check(self, caption: str, frames: Sequence[Picture], known: Mapping[Key, bool] | None = None) -> Checked:
        """known: objects that were looked for in these frames before, and whether they were seen."""
        parts = [one_line(part) for part in sentences(caption)]
        if not parts:
            return Checked(error="the caption has no words")
        if not frames:
            return Checked(error="the clip has no frames to look at")
        try:
            things, claims, usage = await self._read(parts)
        except AskError as error:
            raise_if_alone(error)
            return Checked(sentences=len(parts), usage=error.usage, error=f"the caption was not read: {error}")
        before = known or {}
        verdicts, spent, why = await _all(
            [
                _remembered(before[thing.key]) if thing.key in before else self._look(thing.question, frames)
                for thing in things
            ]
        )
        usage += spent
        things = [dataclasses.replace(thing, seen=seen) for thing, seen in zip(things, verdicts, strict=True)]
        real = {thing.key for thing in things if thing.seen}
        claims = [claim for claim in claims if set(claim.about) <= real]
        verdicts, spent, _ = await _all([self._look(claim.question, frames) for claim in claims])
        claims = [dataclasses.replace(claim, seen=seen) for claim, seen in zip(claims, verdicts, strict=True)]
        return Checked(tuple(things), tuple(claims), len(parts), len(frames), usage + spent, why)

    async def _read(self, parts: Sequence[str]) -> tuple[list[Thing], list[Claim], Usage]:
        """Objects and claims of a caption's sentences. Raises AskError."""
        most, with_claims = self.settings.most, self.settings.claims
        tokens = 256 + 4 * sum(map(len, parts))  # about thirty for each object, and as many for each claim
        form = forms.reading(most, with_claims)
        question = forms.read(parts, with_claims)
        got: Answer[Any] = await self.reader.ask(question, form, model=self.model, system=RULE, max_tokens=tokens)
        things: dict[Key, Thing] = {}
        for thing in (_grounded(said, parts) for said in got.value.objects[:most]):
            if thing:
                same = things.setdefault(thing.key, thing)
                both = tuple(sorted({*same.sentences, *thing.sentences}))
                things[thing.key] = dataclasses.replace(same, sentences=both)
        if got.value.objects and not things:
            error = BadAnswer("the model named no object that stands in the caption; use a stronger model as reader.")
            error.usage = got.usage
            raise error
        said = got.value.claims[:most] if with_claims else ()
        claims = {one_line(one.question): _about(one) for one in said}
        return list(things.values()), [Claim(q, about) for q, about in claims.items() if about], got.usage

    async def _look(self, question: str, frames: Sequence[Picture]) -> Looked:
        """Whether the answer is yes for some frame; frames after that are not asked about. None where it is yes for
        none and there was no answer for some."""
        usage, first, size, why = Usage(), 0, len(frames), ""
        while first < len(frames):
            size = min(size, self._at_once, len(frames) - first)
            words = forms.look(question, size)
            try:
                got: Answer[Any] = await self._viewer.ask(
                    [*frames[first : first + size], words],
                    forms.seen(size),
                    model=self.settings.model,
                    system=RULE,
                    max_tokens=32 + 16 * size,
                )
            except AskError as error:
                raise_if_alone(error)
                usage += error.usage
                if size > 1:  # the server refuses so many at once, or the model loses count
                    size = (size + 1) // 2
                    if isinstance(error, Refused | TooLong):
                        self._at_once = min(self._at_once, size)
                else:
                    why, first = f"{question} {error}", first + 1
                continue
            usage += got.usage
            if any(getattr(got.value, name) == "yes" for name in forms.frame_names(size)):
                return True, usage, ""
            first += size
        return (None if why else False), usage, why


async def _remembered(seen: bool) -> Looked:
    return seen, Usage(), ""


async def _all(looks: Sequence[Awaitable[Looked]]) -> tuple[list[bool | None], Usage, str]:
    """Verdicts, what they cost, and the first reason for want of one. Raises what one of them raised, when all are
    done."""
    done = await asyncio.gather(*looks, return_exceptions=True)
    usage, verdicts, reasons = Usage(), [], []
    for one in done:
        if isinstance(one, BaseException):
            raise one
        verdicts.append(one[0])
        usage += one[1]
        reasons.append(one[2])
    return verdicts, usage, next(filter(None, reasons), "")


def raise_if_alone(error: AskError) -> None:
    """Raises `error` if it says that there is no one to ask."""
    if isinstance(error, Unreachable | NotServed):
        raise error


def _grounded(said: forms.SaidObject, parts: Sequence[str]) -> Thing | None:
    """An object as the model listed it, if the caption names it. Sentences that name it are added to those that the
    model says speak of it."""
    name, question = one_line(said.name), one_line(said.question)
    named = named_in(name, parts)
    if not named:
        return None
    places = {*named, *(k - 1 for k in said.sentences if 1 <= k <= len(parts))}
    if not (contains(stems(question), key(name)) or name.casefold() in question.casefold()):
        question = f"Is there this in the frame: {name}?"
    return Thing(name, tuple(sorted(places)), question)


def _about(said: forms.SaidClaim) -> tuple[Key, ...]:
    """Objects that a claim is about, if its question names them all; else none."""
    about = tuple(dict.fromkeys(key(one_line(name)) for name in said.about))
    words = set(stems(said.question))
    return about if all(set(one) <= words for one in about) else ()

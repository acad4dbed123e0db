"""Ways from frames to a caption: a video LLM that sees them all, or captions of single frames, which a language model
makes into one.

A method is a frozen dataclass that asks and returns what was said. Given to a model of little context, it shows fewer
frames until they fit.
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Protocol, TypeVar

from captioners import prompts
from captioners.answers import Within
from captioners.ask import (
    Answer,
    Asker,
    AskError,
    Content,
    Film,
    NotServed,
    Picture,
    TooLong,
    Unreachable,
    Usage,
)
from captioners.quoting import material
from captioners.seen import Seen
from manifests.ids import fingerprint

T = TypeVar("T")

_CHARACTERS_PER_WORD = 8


@dataclass(frozen=True, slots=True)
class Said:
    """short, dense: as the model wrote them. frames: shown at once. whole: the dense caption ended before its bound.
    of_frames: second and caption of single frames, where the method asked for these."""

    short: str
    dense: str
    usage: Usage
    frames: int
    whole: bool = True
    of_frames: tuple[tuple[float, str], ...] = ()


class Method(Protocol):
    """How a clip is captioned. Hashable, so that captions can be kept under its fingerprint."""

    @property
    def models(self) -> tuple[str, ...]:
        """Names of the models that it asks, in the order in which it does; "" is the one that is served."""

    @property
    def prompt(self) -> str:
        """Fingerprint of its prompts."""

    async def __call__(self, asker: Asker, seen: Seen, temperature: float = 0.0) -> Said:
        """Raises an AskError when there is no answer."""


@dataclass(frozen=True, slots=True)
class Direct:
    """A video LLM sees the frames with their times, or the clip as a film, and writes both captions at once.

    frames: most that are shown, 0 for all of the frame pack. film: short side of the film to send in place of frames,
    0 for frames; for models that take video_url. words: most in the dense caption.
    """

    model: str = ""
    frames: int = 0
    film: int = 0
    words: int = 120
    version: int = 1

    @property
    def models(self) -> tuple[str, ...]:
        return (self.model,)

    @property
    def prompt(self) -> str:
        return fingerprint(prompts.SYSTEM, prompts.DIRECT_FILM if self.film else prompts.DIRECT, self.words)

    async def __call__(self, asker: Asker, seen: Seen, temperature: float = 0.0) -> Said:
        if self.film:
            return await self._of_film(asker, seen, temperature)
        wishes = prompts.DIRECT.format(words=self.words)
        answer, frames = await fitting(asker, seen, self.frames, [wishes], form(self.words), self.model, temperature)
        return Said(answer.value.short, answer.value.dense, answer.usage, frames, ended(answer.value.dense, self.words))

    async def _of_film(self, asker: Asker, seen: Seen, temperature: float) -> Said:
        film = Film(await asyncio.to_thread(seen.film, self.film))
        content: Content = [film, prompts.DIRECT_FILM.format(words=self.words)]
        answer = await _ask(asker, content, form(self.words), self.model, temperature)
        return Said(answer.value.short, answer.value.dense, answer.usage, 0, ended(answer.value.dense, self.words))


@dataclass(frozen=True, slots=True)
class FramesThenSummary:
    """Every frame is captioned alone, and a language model makes one caption of these.

    every_s: seconds between the frames, as far as the pack holds them; 0 for the first, the middle and the last, as in
    Movie Gen's FramesRewrite. CogVideoX takes one every 2 s and at most 100 words. model: sees; writer: reads.
    """

    model: str = ""
    writer: str = ""
    every_s: float = 2.0
    words: int = 100
    frame_words: int = 60
    version: int = 1

    @property
    def models(self) -> tuple[str, ...]:
        return (self.model, self.writer)

    @property
    def prompt(self) -> str:
        return fingerprint(prompts.SYSTEM, prompts.FRAME, prompts.SUMMARY, self.words)

    def pick(self, seen: Seen) -> list[Picture]:
        if self.every_s <= 0:
            last = max(seen.times, default=0.0)
            return seen.nearest([0.0, last / 2, last])
        steps = int(seen.seconds / self.every_s) + 1
        return seen.nearest([k * self.every_s for k in range(steps)])

    async def __call__(self, asker: Asker, seen: Seen, temperature: float = 0.0) -> Said:
        pictures = self.pick(seen)
        kind = frame_form(self.frame_words)
        asked = [_ask(asker, [Picture(p.jpeg), prompts.FRAME], kind, self.model, temperature) for p in pictures]
        answers = await _all(asked)
        usage = sum((a.usage for a in answers), Usage())
        told = [(p.time_s or 0.0, a.value.caption.strip()) for p, a in zip(pictures, answers, strict=True)]
        wishes = summary_prompt(told, self.words)
        try:
            answer = await _ask(asker, [wishes], form(self.words), self.writer, temperature)
        except AskError as error:
            error.usage += usage
            raise
        whole = ended(answer.value.dense, self.words)
        return Said(answer.value.short, answer.value.dense, usage + answer.usage, 1, whole, tuple(told))


def summary_prompt(of_frames: Sequence[tuple[float, str]], words: int) -> str:
    """What the writer of `FramesThenSummary` is asked; fine-tuning sets for cheaper writers ask the same."""
    told = {f"{time:.1f} s": text for time, text in of_frames}
    return prompts.SUMMARY.format(material=material(told), words=words)


async def fitting(
    asker: Asker, seen: Seen, most: int, wishes: Sequence[str], kind: type[T], model: str, temperature: float
) -> tuple[Answer[T], int]:
    """The answer to frames and wishes, and how many frames there were: half as many whenever they do not fit.

    Raises TooLong when not even one frame fits.
    """
    pictures = seen.pictures(most)
    spent = Usage()
    while True:
        try:
            answer = await _ask(asker, [*pictures, *wishes], kind, model, temperature)
        except TooLong as error:
            spent += error.usage
            if len(pictures) <= 1:
                none = TooLong(f"the clip does not fit into the model's context even with one frame: {error}")
                none.usage = spent
                raise none from None
            pictures = seen.pictures(len(pictures) // 2)
        else:
            return dataclasses.replace(answer, usage=answer.usage + spent), len(pictures)


async def _all(asked: Sequence[Coroutine[Any, Any, Answer[Any]]]) -> list[Answer[Any]]:
    """All answers. Raises when all have ended what one of them raised, with the cost of them all: that there is no one
    to ask before that a question got no answer."""
    done = await asyncio.gather(*asked, return_exceptions=True)
    answers = [one for one in done if isinstance(one, Answer)]
    failed = [one for one in done if isinstance(one, BaseException)]
    if not failed:
        return answers
    of_bugs = [one for one in failed if not isinstance(one, AskError)]
    alone = [one for one in failed if isinstance(one, Unreachable | NotServed)]
    error = [*of_bugs, *alone, *failed][0]
    if isinstance(error, AskError):
        error.usage = sum((one.usage for one in done if isinstance(one, AskError | Answer)), Usage())
    raise error


async def _ask(asker: Asker, content: Content, kind: type[T], model: str, temperature: float) -> Answer[T]:
    return await asker.ask(
        content, kind, model=model, system=prompts.SYSTEM, max_tokens=tokens_for(kind), temperature=temperature
    )


@functools.cache
def form(words: int) -> Any:
    """The dataclass of a short and a dense caption; bounds in characters keep a looping model from running on."""
    short = Annotated[str, Within(most=min(words, 30) * _CHARACTERS_PER_WORD)]
    dense = Annotated[str, Within(most=words * _CHARACTERS_PER_WORD)]
    return dataclasses.make_dataclass("Caption", [("short", short), ("dense", dense)], frozen=True, slots=True)


@functools.cache
def frame_form(words: int) -> Any:
    caption = Annotated[str, Within(most=words * _CHARACTERS_PER_WORD)]
    return dataclasses.make_dataclass("FrameCaption", [("caption", caption)], frozen=True, slots=True)


def ended(text: str, words: int) -> bool:
    """Whether a text in a form of so many words came to its own end, and not to its bound."""
    return len(text) < words * _CHARACTERS_PER_WORD - 1


def tokens_for(kind: Any) -> int:
    """Tokens that an answer of this form may take: up to two for each character, more than any language needs, and
    those of its punctuation. The form bounds what is written; this only has to be enough, and to leave room in the
    context for frames."""
    bounds = [note.most for field in dataclasses.fields(kind) for note in getattr(field.type, "__metadata__", ())]
    characters = int(sum(bounds))
    return 64 + min(2 * characters, max(1024, characters))

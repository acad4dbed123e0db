"""The words that captioners and a model's client speak: what is asked, what is answered, what it cost, what failed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar, overload

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Picture:
    """One frame. jpeg: a JPEG (or PNG) file; time_s: seconds from the clip's first frame, told to the model where it is
    known."""

    jpeg: bytes
    time_s: float | None = None


@dataclass(frozen=True, slots=True)
class Film:
    """A clip as a video file. mp4: the file's bytes."""

    mp4: bytes


Content = Sequence[str | Picture | Film]
"""What a user says, in order. Put what several questions share first (the frames), and what differs last: servers keep
the work that was done for a common beginning."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What answers cost, failed attempts included. seconds: from asking to the answer, waits included."""

    requests: int = 0
    retries: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.requests + other.requests,
            self.retries + other.retries,
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            self.seconds + other.seconds,
        )


@dataclass(frozen=True, slots=True)
class Answer(Generic[T]):
    """value: text, or an instance of the dataclass that was asked for; truncated: the text hit its token limit (a typed
    answer never is)."""

    value: T
    usage: Usage
    truncated: bool = False


class AskError(ValueError):
    """A question that got no usable answer: one sentence that says why and what to do. `usage` is what it cost."""

    usage = Usage()


class Unreachable(AskError):
    """No server answered in time: worth asking again later. All other errors would come again."""


class NotServed(AskError):
    """No server serves a model of that name."""


class TooLong(AskError):
    """Question and answer do not fit into the model's context: ask with fewer pictures."""


class Refused(AskError):
    """The server says that the question itself is wrong, e.g. pictures for a model that takes none."""


class BadAnswer(AskError):
    """The model's answers were not what was asked for, as often as we asked."""


class Asker(Protocol):
    """Whoever answers questions: a `Client`, or recorded answers."""

    @overload
    async def ask(
        self, content: Content, *, model: str = "", system: str = "", max_tokens: int = 512, temperature: float = 0.0
    ) -> Answer[str]: ...

    @overload
    async def ask(
        self,
        content: Content,
        answer: type[T],
        *,
        model: str = "",
        system: str = "",
        max_tokens: int = 512,
        temperature: float = 0.0,
    ) -> Answer[T]: ...

    async def yes(self, content: Content, *, model: str = "", system: str = "") -> Answer[float]: ...

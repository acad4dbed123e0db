"""CogVideoX's negative tags asked of a video LLM: one question per tag, to be answered with yes or no.

CogVideoX fine-tuned one Video-LLaMA per tag on 20,000 labelled videos; neither models nor labels were published. A
general model that is asked is not calibrated: look at a sample of the columns before rejecting by them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

import pyarrow as pa

from captioners.ask import Asker, AskError, Picture
from captioners.client import Client, Patience
from captioners.quoting import RULE
from manifests import packs
from manifests.schema import TAG_NAMES, TAGS
from manifests.types import Clip, Frames

SYSTEM = f"You inspect short video clips for a data set. You see frames of one clip in the order of time. {RULE}"


class Question(Protocol):
    """What is asked for one tag, and the column that its answer belongs to."""

    @property
    def column(self) -> str: ...

    @property
    def question(self) -> str: ...


@dataclass(frozen=True, slots=True)
class AskedTags:
    """The score of a tag is the probability of yes, out of the probabilities of the answer's first token.

    model: name that the servers serve. questions: one for each tag; tags without one are null. frames: most that are
    shown. servers, concurrency, deadline_s: where and how patiently to ask; they do not change what is measured.
    """

    model: str
    questions: tuple[Question, ...]
    frames: int = 8
    servers: tuple[str, ...] = field(default=(), compare=False)
    concurrency: int = field(default=16, compare=False)
    deadline_s: float = field(default=300.0, compare=False)
    version: int = 1
    wants = packs.DEFAULT
    schema: ClassVar[pa.Schema] = pa.schema(
        [*(TAGS.field(f"tag_{name}") for name in TAG_NAMES), TAGS.field("tags_error")]
    )

    def __call__(self, clips: Sequence[Clip], frames: Sequence[Frames]) -> dict[str, list[Any]]:
        """A clip about which no answer came has null scores, and `tags_error` says why."""
        rows = asyncio.run(self._ask_all(frames))
        return {name: [row.get(name) for row in rows] for name in self.schema.names}

    async def _ask_all(self, frames: Sequence[Frames]) -> list[dict[str, Any]]:
        patience = Patience(concurrency=self.concurrency, deadline_s=self.deadline_s)
        async with Client(self.servers, self.model, patience) as client:
            return await asyncio.gather(*(self._ask(client, one) for one in frames))

    async def _ask(self, asker: Asker, frames: Frames) -> dict[str, Any]:
        if not len(frames):
            return {"tags_error": "the clip has no frame to show"}
        pictures = _pictures(frames, self.frames)
        asked = (asker.yes([*pictures, one.question], model=self.model, system=SYSTEM) for one in self.questions)
        answers = await asyncio.gather(*asked, return_exceptions=True)
        row: dict[str, Any] = {}
        for one, answer in zip(self.questions, answers, strict=True):
            if isinstance(answer, AskError):
                row["tags_error"] = f"{one.column}: {answer}"
            elif isinstance(answer, BaseException):
                raise answer
            else:
                row[one.column] = answer.value
        return row


def _pictures(frames: Frames, most: int) -> list[Picture]:
    count = len(frames)
    chosen = list(range(count)) if count <= most else [int((k + 0.5) * count / most) for k in range(most)]
    few = Frames(
        [frames.images[k] for k in chosen],
        [frames.times[k] for k in chosen],
        [frames.indices[k] for k in chosen],
        frames.size,
        frames.fps,
    )
    start = frames.times[0]
    return [Picture(jpeg, (time - start) / 1e6) for jpeg, time in zip(packs.encode(few), few.times, strict=True)]

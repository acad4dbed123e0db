"""Text in, better text out: captions rewritten by EasyAnimate's rules, and users' prompts brought into the captions'
form."""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from captioners import prompts
from captioners.answers import Within
from captioners.ask import Answer, Asker
from captioners.clean import clean
from captioners.methods import ended, tokens_for
from captioners.quoting import RULE, material, plain
from captioners.text import CAMERA, training_text

_CHARACTERS_PER_WORD = 8
_SYSTEM = f"You edit captions of video clips. {RULE}"
_NONE = "none"


@dataclass(frozen=True, slots=True)
class Rewrite:
    """A language model rewrites a caption by seven rules. model: "" is the one that is served."""

    model: str = ""
    words: int = 160
    version: int = 1

    async def __call__(self, asker: Asker, caption: str) -> Answer[str]:
        """Raises an AskError when there is no answer."""
        kind = _form(self.words)
        answer = await asker.ask(
            [prompts.REWRITE.format(material=material(caption))],
            kind,
            model=self.model,
            system=_SYSTEM,
            max_tokens=tokens_for(kind),
        )
        return Answer(answer.value.caption, answer.usage, not ended(answer.value.caption, self.words))


@dataclass(frozen=True, slots=True)
class PromptRewrite:
    """A user's few words as a caption of the training set would put them: camera, description, frame rate."""

    model: str = ""
    words: int = 80
    version: int = 1

    async def __call__(self, asker: Asker, prompt: str, fps: float | None = None) -> Answer[str]:
        """Raises ValueError for an empty prompt, an AskError when there is no answer."""
        if not plain(prompt).strip():
            raise ValueError("the prompt is empty; say what the video is to show.")
        kind = _upsampled(self.words)
        answer = await asker.ask(
            [prompts.UPSAMPLE.format(material=material(prompt), words=self.words)],
            kind,
            model=self.model,
            system=_SYSTEM,
            max_tokens=tokens_for(kind),
        )
        camera = "" if answer.value.camera == _NONE else answer.value.camera
        text = clean(answer.value.dense, ended(answer.value.dense, self.words))
        return Answer(training_text(text, camera, fps), answer.usage)


@functools.cache
def _form(words: int) -> Any:
    caption = Annotated[str, Within(most=words * _CHARACTERS_PER_WORD)]
    return dataclasses.make_dataclass("Rewritten", [("caption", caption)], frozen=True, slots=True)


@functools.cache
def _upsampled(words: int) -> Any:
    names = (_NONE, *CAMERA.values())
    dense = Annotated[str, Within(most=words * _CHARACTERS_PER_WORD)]
    fields: list[Any] = [("camera", Literal[names]), ("dense", dense)]
    return dataclasses.make_dataclass("Upsampled", fields, frozen=True, slots=True)

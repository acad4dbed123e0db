"""What a clip is about, out of a list: a language model reads its caption and picks one.

STIV classifies captions so and shows the distribution (figure 17); its list was not published, and this one is ours.
"""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass
from typing import Any, Literal

from captioners import prompts
from captioners.ask import Answer, Asker
from captioners.quoting import RULE, material

NAMES = (
    "people",
    "animals",
    "plants",
    "landscape",
    "sea and water",
    "sky and weather",
    "city and buildings",
    "indoor scene",
    "vehicles and traffic",
    "sports",
    "food and cooking",
    "work and industry",
    "science and technology",
    "performance and music",
    "animation and graphics",
    "games",
    "objects",
    "abstract",
    "other",
)

_SYSTEM = f"You sort captions of video clips into categories. {RULE}"


@dataclass(frozen=True, slots=True)
class Categories:
    """names: to choose from; the last is for what fits none. model: "" is the one that is served."""

    names: tuple[str, ...] = NAMES
    model: str = ""
    version: int = 1

    def __post_init__(self) -> None:
        if len(set(self.names)) < 2:
            raise ValueError("categories: give at least two different names to choose from.")

    async def __call__(self, asker: Asker, caption: str) -> Answer[str]:
        """Raises an AskError when there is no answer."""
        answer = await asker.ask(
            [prompts.CATEGORY.format(material=material(caption), names=", ".join(self.names))],
            _form(self.names),
            model=self.model,
            system=_SYSTEM,
            max_tokens=48,
        )
        return Answer(answer.value.category, answer.usage)


@functools.cache
def _form(names: tuple[str, ...]) -> Any:
    return dataclasses.make_dataclass("Category", [("category", Literal[names])], frozen=True, slots=True)

"""How a command line wants clips captioned, and what that makes of a recipe."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from captioners.captions import Captions, Share, with_models
from captioners.categories import Categories
from captioners.client import Patience
from captioners.methods import Direct, FramesThenSummary, Method
from captioners.rewriting import Rewrite
from captioners.servers import base_url
from captioners.tags import AskedTags
from curation.recipe import Recipe
from filters.tags.negative import QUESTIONS, NegativeTags, TagList, Thresholds

HOW = ("direct", "film", "frames", "ends", "mix")
"""direct: a video LLM sees the frames; film: it is sent the clip as a film; frames: one every 2 s is captioned, and a
language model sums up (CogVideoX); ends: the first, the middle and the last (Movie Gen's FramesRewrite); mix: 70 % by
the first model, 30 % by the second, as in Movie Gen."""


@dataclass(frozen=True, slots=True)
class Asking:
    """servers: addresses. models: the first sees; the last reads, where a step needs no frames. how: one of HOW, or ""
    for what the recipe says. words: most in a caption, 0 for the method's own. tags: the model that is asked for
    negative tags, "" for none. concurrency: questions at once. patience_s: for an answer, a server's absence
    included."""

    servers: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    how: str = ""
    words: int = 0
    hints: bool = False
    rewrite: bool = False
    categories: bool = False
    tags: str = ""
    concurrency: int = 32
    patience_s: float = 900.0

    def __post_init__(self) -> None:
        for server in self.servers:
            base_url(server)
        if self.how and self.how not in HOW:
            raise ValueError(f"--how {self.how}: choose from {', '.join(HOW)}.")
        if self.how == "mix" and len(self.models) != 2:
            raise ValueError("--how mix: name two models, --model SMALL --model LARGE; 70 % go to the first.")

    @property
    def patience(self) -> Patience:
        return Patience(concurrency=self.concurrency, deadline_s=self.patience_s)

    def applied(self, recipe: Recipe) -> Recipe:
        """`recipe` with captions and tags by models, if servers were named; as it is otherwise."""
        if not self.servers:
            return recipe
        recipe = with_asked_tags(recipe, self.tags, self.servers, self.concurrency) if self.tags else recipe
        return replace(recipe, captioner=self.captions(recipe))

    def captions(self, recipe: Recipe) -> Captions:
        """The recipe's own way of captioning, where it has one that asks models and the command line no other."""
        base = recipe.captioner if isinstance(recipe.captioner, Captions) else Captions()
        if self.how or self.words:
            base = replace(base, shares=self._shares())
        base = replace(base, hints=base.hints or self.hints)
        if self.rewrite and base.rewrite is None:
            base = replace(base, rewrite=Rewrite())
        if self.categories and base.categories is None:
            base = replace(base, categories=Categories())
        return with_models(base, self.models)

    def _shares(self) -> tuple[Share, ...]:
        size: dict[str, Any] = {"words": self.words} if self.words else {}
        small, large = (*self.models, "", "")[:2]
        if self.how == "mix":
            return (Share(Direct(small, **size), 0.7), Share(Direct(large, **size), 0.3))
        ways: dict[str, Method] = {
            "direct": Direct(**size),
            "film": Direct(film=360, **size),
            "frames": FramesThenSummary(every_s=2.0, **size),
            "ends": FramesThenSummary(every_s=0.0, **size),
        }
        return (Share(ways[self.how or "direct"]),)

    def noted(self) -> dict[str, Any]:
        """For run.json."""
        return dataclasses.asdict(self)


def with_asked_tags(recipe: Recipe, model: str, servers: tuple[str, ...], concurrency: int = 32) -> Recipe:
    """`recipe` with its negative tags asked of a video LLM, in place of any other engine."""
    signal = AskedTags(model, tuple(QUESTIONS), servers=servers, concurrency=concurrency)
    given = set(signal.schema.names)
    thresholds = next(
        (one.thresholds for one in recipe.derived if isinstance(one, NegativeTags | TagList)), Thresholds()
    )
    return replace(
        recipe,
        signals=tuple(one for one in recipe.signals if not given & set(one.schema.names)),
        costly=(*(one for one in recipe.costly if not given & set(one.schema.names)), signal),
        derived=(*(one for one in recipe.derived if "tags" not in one.schema.names), TagList(thresholds)),
    )


def from_note(note: Mapping[str, Any] | None) -> Asking:
    """What `noted` wrote; of a run without models, nothing is asked."""
    if not note:
        return Asking()
    return Asking(**{**note, "servers": tuple(note["servers"]), "models": tuple(note["models"])})

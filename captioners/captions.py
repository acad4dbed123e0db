"""From a clip to the caption columns of the manifest: a method of asking, its answer put in order and checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa

from captioners import prompts
from captioners.ask import Asker, AskError, NotServed, Unreachable, Usage
from captioners.categories import Categories
from captioners.clean import Lints, clean
from captioners.methods import Direct, FramesThenSummary, Method, Said, ended, fitting, form
from captioners.quoting import material, plain
from captioners.rewriting import Rewrite
from captioners.seen import Seen
from captioners.text import CAMERA, Layout
from manifests.ids import fingerprint, luck
from manifests.schema import CAPTIONS, IDENTITY, STRINGS, column, merge
from manifests.types import MediaError

Row = dict[str, Any]

_KEPT = pa.schema(
    [
        column("caption_text", pa.string(), "the caption, put in order, before camera and frame rate are added"),
        column("caption_frames", pa.int32(), "frames shown at once to the captioner", unit="frame"),
        column("caption_frame_times", pa.list_(pa.float64()), "of frames that were captioned alone", unit="second"),
        column("caption_frame_texts", STRINGS, "their captions"),
        column("caption_notes", pa.string(), "what went wrong on the way to a caption that there is"),
        column("caption_requests", pa.int32(), "answers asked for"),
        column("caption_retries", pa.int32(), "attempts that failed and were made again"),
        column("caption_prompt_tokens", pa.int64(), "read by models", unit="token"),
        column("caption_completion_tokens", pa.int64(), "written by models", unit="token"),
        column("caption_seconds", pa.float64(), "from asking to the answer, over all requests", unit="second"),
    ]
)
_MADE = pa.schema([field for field in CAPTIONS if field.name != "caption"])
SCHEMA = merge(pa.schema([IDENTITY.field("clip_id")]), _MADE, _KEPT)
"""Columns of the parts that captioning writes. `caption` is laid out from `caption_text` when the manifest is written,
since the camera's motion may be measured anew."""


@dataclass(frozen=True, slots=True)
class Share:
    """A method and how much of the clips it captions, in proportion to the other shares."""

    method: Method
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Captions:
    """How clips are captioned by models.

    shares:     methods; which one captions a clip is drawn by its id, so it stays when clips come and go
    hints:      a second pass, in which the model sees the frames again with what the signals measured, and its draft
    rewrite:    a language model puts captions in order after EasyAnimate's rules
    categories: a language model sorts captions
    lints:      what makes a caption unfit; it is asked for `again` times more, warmer, before there is none
    layout:     of the training text; captions need not be asked for again when it changes
    """

    shares: tuple[Share, ...] = (Share(Direct()),)
    hints: bool = False
    rewrite: Rewrite | None = None
    categories: Categories | None = None
    lints: Lints = field(default_factory=Lints)
    again: int = 2
    layout: Layout = field(default_factory=Layout, compare=False)
    version: int = 2

    @property
    def models(self) -> tuple[str, ...]:
        """Names of all models that are asked, each once; "" is the one that is served."""
        more = [one.model for one in (self.rewrite, self.categories) if one is not None]
        return tuple(dict.fromkeys([*(model for share in self.shares for model in share.method.models), *more]))

    @property
    def prompt(self) -> str:
        """Fingerprint of everything that a caption's words depend on."""
        return fingerprint(self, [share.method.prompt for share in self.shares])

    def method(self, clip: str) -> Method:
        """The method of this clip, whatever other clips there are."""
        place = float(luck([clip])[0]) * sum(share.weight for share in self.shares)
        for share in self.shares:
            place -= share.weight
            if place < 0:
                return share.method
        return self.shares[-1].method

    async def __call__(self, asker: Asker, seen: Seen) -> Row:
        """The columns of SCHEMA for one clip; without a caption, `caption_error` says why.

        Raises Unreachable or NotServed: then the clip is not done and must be asked about again.
        """
        method = self.method(seen.clip)
        row: Row = {"clip_id": seen.clip, "caption_model": _names(method.models), "caption_prompt": self.prompt}
        usage = Usage()
        if not seen.jpegs:
            return row | {"caption_error": "the clip's frame pack holds no frame"} | _spent(usage)
        try:
            said, wrong, spent = await self._said(method, asker, seen)
            usage += spent
            row |= {"caption_raw": plain(said.dense), "caption_frames": said.frames, **_of_frames(said)}
            if wrong:
                reason = f"the caption is unfit ({', '.join(wrong)}), as often as it was asked for"
                return row | {"caption_error": reason} | _spent(usage)
            text, notes = clean(said.dense, said.whole), []
            for step in (self._hinted, self._rewritten):
                better, spent, note = await step(method, asker, seen, text)
                usage += spent
                notes += [note] if note else []
                text = text if better is None or self.lints(better) else better
            category, spent, note = await self._category(asker, text)
            usage += spent
            notes += [note] if note else []
        except (Unreachable, NotServed):
            raise
        except AskError as error:
            return row | {"caption_error": str(error)} | _spent(usage + error.usage)
        except MediaError as error:
            return row | {"caption_error": str(error)} | _spent(usage)
        return (
            row
            | {
                "caption_text": text,
                "caption_short": clean(said.short) or None,
                "caption_category": category,
                "caption_notes": "; ".join(notes) or None,
            }
            | _spent(usage)
        )

    async def _said(self, method: Method, asker: Asker, seen: Seen) -> tuple[Said, list[str], Usage]:
        """What the method said, the lints that its last attempt set off, and the cost of all attempts."""
        usage = Usage()
        for number in range(1 + self.again):
            try:
                said = await method(asker, seen, temperature=0.0 if number == 0 else 0.7)
            except AskError as error:
                error.usage += usage
                raise
            usage += said.usage
            wrong = self.lints(clean(said.dense, said.whole))
            if not wrong:
                break
        return said, wrong, usage

    async def _hinted(
        self, method: Method, asker: Asker, seen: Seen, text: str
    ) -> tuple[str | None, Usage, str | None]:
        measured = facts(seen.row)
        if not self.hints or not measured:
            return None, Usage(), None
        words = getattr(method, "words", 120)
        draft = prompts.HINTS.format(material=material({"draft": text, "measured": measured}))
        try:
            answer, _ = await fitting(
                asker, seen, 0, [draft, prompts.DIRECT.format(words=words)], form(words), method.models[0], 0.0
            )
        except (Unreachable, NotServed):
            raise
        except AskError as error:
            return None, error.usage, f"hints: {error}"
        return clean(answer.value.dense, ended(answer.value.dense, words)), answer.usage, None

    async def _rewritten(
        self, method: Method, asker: Asker, seen: Seen, text: str
    ) -> tuple[str | None, Usage, str | None]:
        if self.rewrite is None:
            return None, Usage(), None
        try:
            answer = await self.rewrite(asker, text)
        except (Unreachable, NotServed):
            raise
        except AskError as error:
            return None, error.usage, f"rewriting: {error}"
        return clean(answer.value, not answer.truncated), answer.usage, None

    async def _category(self, asker: Asker, text: str) -> tuple[str | None, Usage, str | None]:
        if self.categories is None:
            return None, Usage(), None
        try:
            answer = await self.categories(asker, text)
        except (Unreachable, NotServed):
            raise
        except AskError as error:
            return None, error.usage, f"category: {error}"
        return answer.value, answer.usage, None


def facts(row: Mapping[str, Any]) -> dict[str, Any]:
    """What the signals measured that a captioner may be glad of, in words; signals that were not measured are left
    out."""
    said: dict[str, Any] = {}
    camera, sure = CAMERA.get(row.get("camera_motion") or ""), row.get("camera_motion_confidence")
    if camera and sure is not None:
        said["camera"] = f"{camera} (confidence {sure:.2f})"
    if (flow := row.get("motion_flow")) is not None:
        said["motion"] = "none" if flow < 1 else "slow" if flow < 25 else "moderate" if flow < 100 else "fast"
    if row.get("dominant_colors"):
        said["colours"] = list(row["dominant_colors"])
    if (area := row.get("text_area")) is not None:
        said["text in view"] = "none" if area < 0.001 else f"{100 * area:.1f} % of the picture"
        if row.get("text_read"):
            said["a line of it"] = row["text_read"][:200]
    if (faces := row.get("face_count")) is not None:
        said["faces"] = round(faces)
    return said


def moviegen_mix(small: str, large: str, words: int = 100) -> Captions:
    """Movie Gen's captions: 70 % by a video LLM of 8 billion parameters, 30 % by one of 70, about 100 words each."""
    return Captions((Share(Direct(small, words=words), 0.7), Share(Direct(large, words=words), 0.3)))


def cogvideox_summary(model: str, writer: str) -> Captions:
    """CogVideoX's: a frame every 2 s is captioned, and a language model makes at most 100 words of these."""
    return Captions((Share(FramesThenSummary(model, writer, every_s=2.0, words=100)),))


def with_models(captions: Captions, names: Sequence[str]) -> Captions:
    """`captions` asking these models in place of those that it leaves open: the first one sees; the last one reads."""
    if not names:
        return captions

    def named(method: Method) -> Method:
        if isinstance(method, FramesThenSummary):
            return replace(method, model=method.model or names[0], writer=method.writer or names[-1])
        return replace(method, model=method.model or names[0]) if isinstance(method, Direct) else method

    def reads(one: Any) -> Any:
        return None if one is None else replace(one, model=one.model or names[-1])

    shares = tuple(replace(share, method=named(share.method)) for share in captions.shares)
    return replace(captions, shares=shares, rewrite=reads(captions.rewrite), categories=reads(captions.categories))


def _names(models: Sequence[str]) -> str:
    return " > ".join(dict.fromkeys(model or "the served model" for model in models))


def _of_frames(said: Said) -> Row:
    if not said.of_frames:
        return {}
    times, texts = zip(*said.of_frames, strict=True)
    return {"caption_frame_times": list(times), "caption_frame_texts": list(texts)}


def _spent(usage: Usage) -> Row:
    return {
        "caption_requests": usage.requests,
        "caption_retries": usage.retries,
        "caption_prompt_tokens": usage.prompt_tokens,
        "caption_completion_tokens": usage.completion_tokens,
        "caption_seconds": round(usage.seconds, 3),
    }

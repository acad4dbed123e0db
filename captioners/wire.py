"""Questions and answers in the form of the chat completions API, and what a failed attempt means."""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from captioners.ask import Content, Film, NotServed, Picture, Refused, TooLong
from captioners.servers import Served

YES_OR_NO = "Answer with yes or no only."

_PASSING = {408, 409, 425, 429, 500, 502, 503, 504}
_MOST_ALTERNATIVES = 20  # more are refused by most servers
_CONTEXT = re.compile(
    r"context length|maximum model length|max_model_len|too long|longer than|at most \d+ (image|video)", re.IGNORECASE
)


class Elsewhere(Exception):
    """This server cannot answer; another one may."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What a response says. first: log probabilities of the alternatives for its first token."""

    text: str
    truncated: bool
    prompt_tokens: int
    completion_tokens: int
    first: Mapping[str, float]


def request(content: Content, system: str, max_tokens: int, temperature: float) -> dict[str, Any]:
    """Fields of a chat completion."""
    messages: list[dict[str, Any]] = [{"role": "system", "content": system}] if system else []
    messages.append({"role": "user", "content": [part for one in content for part in _parts(one)]})
    return {"messages": messages, "max_tokens": max_tokens, "temperature": temperature}


def _parts(one: str | Picture | Film) -> list[dict[str, Any]]:
    if isinstance(one, str):
        return [{"type": "text", "text": one}]
    if isinstance(one, Film):
        return [{"type": "video_url", "video_url": {"url": f"data:video/mp4;base64,{_base64(one.mp4)}"}}]
    kind = "png" if one.jpeg.startswith(b"\x89PNG") else "jpeg"
    picture = {"type": "image_url", "image_url": {"url": f"data:image/{kind};base64,{_base64(one.jpeg)}"}}
    return [picture] if one.time_s is None else [{"type": "text", "text": f"{one.time_s:.1f} s:"}, picture]


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def constrained(schema: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Fields that make the answer a JSON text of that schema."""
    return {"response_format": {"type": "json_schema", "json_schema": {"name": name, "schema": schema, "strict": True}}}


def yes_or_no(served: Served) -> dict[str, Any]:
    """Fields that bring the first token's probabilities, and keep the answer to two words where the server can."""
    fields: dict[str, Any] = {"logprobs": True, "top_logprobs": _MOST_ALTERNATIVES}
    return fields | ({"structured_outputs": {"choice": ["yes", "no"]}} if served.vllm else {})


async def send(api: Any, body: dict[str, Any], seconds: float) -> Any:
    """The response to a chat completion. By the library's `post`, since its `create` walks through every message first,
    which takes longer than all the rest."""
    from openai.types.chat import ChatCompletion

    return await api.post("/chat/completions", cast_to=ChatCompletion, body=body, options={"timeout": seconds})


def probability_of_yes(reply: Reply) -> float | None:
    """Share of yes among the first tokens that begin yes or no; where the server gave no probabilities, 1 or 0 by what
    was said; None when neither was."""
    mass = {"yes": 0.0, "no": 0.0}
    for token, logarithm in reply.first.items():
        plain = token.strip().lower()
        for word in mass:
            if plain and word.startswith(plain):
                mass[word] += math.exp(logarithm)
    if sum(mass.values()) > 0:
        return mass["yes"] / sum(mass.values())
    said = re.sub(r"[^a-z]", " ", reply.text.lower()).split()[:1]
    return {"yes": 1.0, "no": 0.0}.get(said[0]) if said else None


def read(made: Any) -> Reply:
    """What a response of the openai library says. Raises Elsewhere when it is not whole."""
    choices = getattr(made, "choices", None)
    if not choices or getattr(choices[0], "message", None) is None:
        raise Elsewhere("a response without an answer")
    choice, usage = choices[0], made.usage
    if choice.finish_reason == "content_filter":
        raise Refused("the server withheld the answer (content filter)")
    tokens = choice.logprobs.content if choice.logprobs is not None and choice.logprobs.content else []
    first = {one.token: one.logprob for one in tokens[0].top_logprobs} if tokens else {}
    return Reply(
        choice.message.content or "",
        choice.finish_reason == "length",
        usage.prompt_tokens if usage else 0,
        usage.completion_tokens if usage else 0,
        first,
    )


def passing(error: Exception) -> Exception:
    """`error`, if the same attempt may succeed later or elsewhere; raises the AskError that it means otherwise."""
    import openai

    if isinstance(error, (Elsewhere, TimeoutError, openai.APIConnectionError, openai.APIResponseValidationError)):
        return error
    if isinstance(error, (json.JSONDecodeError, UnicodeDecodeError)):
        return error
    if not isinstance(error, openai.APIStatusError):
        raise error
    if error.status_code in _PASSING or error.status_code >= 500:
        return error
    said = _message(error)
    if error.status_code in (401, 403):
        raise Refused(f"the server refuses the key ({said}); set VIDCURATE_API_KEY.") from None
    if error.status_code == 404:
        raise NotServed(f"the server knows no such model or address ({said})") from None
    if _CONTEXT.search(said):
        raise TooLong(said) from None
    raise Refused(said) from None


def is_not_found(error: Exception) -> bool:
    """Whether the server knows no such model, or no such address."""
    return getattr(error, "status_code", None) == 404


def wished_pause(error: Exception) -> float | None:
    """Seconds that a busy server asks us to wait."""
    response = getattr(error, "response", None)
    wish = response.headers.get("retry-after", "") if response is not None else ""
    return min(60.0, float(wish)) if wish.replace(".", "", 1).isdigit() else None


def reason(error: BaseException | None) -> str:
    """Why an attempt failed, in a few words."""
    if isinstance(error, TimeoutError) or type(error).__name__ == "APITimeoutError":
        return "timed out"
    cause = getattr(error, "__cause__", None)
    return " ".join(str(cause or error).split())[:200] or type(error).__name__


def _message(error: Any) -> str:
    """The server's own words, on one line and not too many of them."""
    body = error.body if isinstance(error.body, dict) else {}
    inner = body.get("error")
    said = (inner if isinstance(inner, dict) else body).get("message")
    return " ".join(str(said or error.message).split())[:300]


def sample() -> Picture:
    """A grey picture of 56 x 56 pixels: two patches of the models that there are."""
    import cv2
    import numpy as np

    return Picture(cv2.imencode(".jpg", np.full((56, 56, 3), 128, np.uint8))[1].tobytes())

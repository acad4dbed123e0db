"""Several servers behind one client: what each of them serves, which is least busy, which one rests after a failure."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import random
import time
import urllib.parse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from captioners.ask import NotServed, Unreachable

KEY = "VIDCURATE_API_KEY"
"""Environment variable with the key that servers ask for; OPENAI_API_KEY serves too. Servers of one's own need none."""

_LONGEST_REST = 10.0  # seconds that a failing server is left alone


@dataclass(frozen=True, slots=True)
class Served:
    """A model as a server describes it. context: tokens of question and answer together, where the server says it;
    vllm: vLLM serves it, which knows ways to constrain an answer that others do not."""

    context: int | None = None
    vllm: bool = False


@dataclass(slots=True, eq=False)
class Server:
    """url: up to and including /v1. models: what it serves, None until it was asked. busy: questions under way."""

    url: str
    api: Any
    models: Mapping[str, Served] | None = None
    busy: int = 0
    failures: int = 0
    rests_until: float = 0.0
    _asking: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def known(self) -> Mapping[str, Served]:
        """What it serves, asked once. Raises what the openai library raises."""
        async with self._asking:
            return self.models if self.models is not None else await self.discover()

    async def discover(self) -> Mapping[str, Served]:
        """Asks what it serves. Raises what the openai library raises."""
        listed = await self.api.models.list(timeout=10.0)
        found = {}
        for model in listed.data:
            context = getattr(model, "max_model_len", None)
            found[model.id] = Served(context if isinstance(context, int) else None, model.owned_by == "vllm")
        self.models = found
        return found

    def failed(self, rest: float | None = None) -> None:
        """Leaves it alone for `rest` seconds, by default twice as long after every failure in a row. Questions that
        were under way together fail together: that counts once."""
        if rest is None and time.monotonic() < self.rests_until:
            return
        self.failures += 1
        pause = rest if rest is not None else min(_LONGEST_REST, 0.25 * 2 ** min(self.failures, 10))
        self.rests_until = time.monotonic() + pause * random.uniform(0.5, 1.0)  # noqa: S311
        if self.failures > 1:
            self.models = None  # it may come back with another model

    def answered(self) -> None:
        self.failures, self.rests_until = 0, 0.0


def base_url(server: str) -> str:
    """`http://host:8000/v1` for `host:8000`, `http://host:8000` and the like. Raises ValueError for what is no URL."""
    url = server if "://" in server else f"http://{server}"
    scheme, _, rest = url.partition("://")
    if scheme not in ("http", "https") or not rest.strip("/") or any(c.isspace() for c in url):
        raise ValueError(f"{server}: that is no address of a server; give one such as http://localhost:8000.")
    url = url.rstrip("/")
    return url if url.endswith("/v1") else f"{url}/v1"


def is_here(server: str) -> bool:
    """Whether a server's address is this machine's own (loopback)."""
    host = urllib.parse.urlsplit(base_url(server)).hostname or ""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def api_key() -> str:
    return os.environ.get(KEY) or os.environ.get("OPENAI_API_KEY") or "none"


def choose(servers: Sequence[Server], model: str) -> tuple[Server, float]:
    """The server with the fewest questions under way among those that may serve `model`, and the seconds to wait for it
    when all of them rest. Raises NotServed when every one of them serves other models."""
    able = [s for s in servers if s.models is None or model in s.models]
    if not able:
        raise NotServed(not_served(servers, model))
    now = time.monotonic()
    awake = [s for s in able if s.rests_until <= now]
    if awake:
        return min(awake, key=lambda s: (s.busy, random.random())), 0.0  # noqa: S311
    first = min(able, key=lambda s: s.rests_until)
    return first, first.rests_until - now


def not_served(servers: Sequence[Server], model: str) -> str:
    told = "; ".join(f"{s.url} serves {', '.join(sorted(s.models or {})) or 'nothing'}" for s in servers)
    return f"model {model!r} is not served: {told}; give --model one of these, or serve it with {start_command(model)}."


def no_server(servers: Sequence[Server], model: str, reason: str) -> Unreachable:
    """The error for a run whose servers do not answer, with the command that would start one."""
    where = ", ".join(s.url for s in servers)
    return Unreachable(f"no server answers at {where} ({reason}); start one with {start_command(model)}.")


def start_command(model: str) -> str:
    """As a piece of a sentence."""
    return f"`vidcurate serve --model {model or 'Qwen/Qwen2.5-VL-7B-Instruct'}`"

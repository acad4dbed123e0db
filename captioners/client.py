"""A client of OpenAI-compatible servers, such as vLLM's, that keeps asking until there is an answer.

    async with Client(["http://localhost:8000"], "Qwen/Qwen2.5-VL-7B-Instruct") as client:
        answer = await client.ask([Picture(jpeg, time_s=0.5), "What is to be seen?"])           # Answer[str]
        answer = await client.ask([Picture(jpeg), "List the objects."], Objects)                # Answer[Objects]
        answer = await client.yes([Picture(jpeg), "Is there a cat in this frame?"])             # P(yes), 0..1

Ask as many questions at once as you like (`asyncio.gather`): no more than `concurrency` of them are under way. An
attempt that fails for a reason that may pass (the server is down, busy or slow, the connection was reset, the response
was cut off or no JSON) is made again, on another server where there is one, after a pause of random length that grows;
`deadline_s` bounds the whole. A typed answer that does not fit its dataclass is asked for again with another seed.

A client belongs to the event loop in which it was opened. Errors are those of `captioners.ask`; each is one sentence.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, TypeVar

from captioners import answers, wire
from captioners.ask import Answer, AskError, BadAnswer, Content, NotServed, Refused, Usage
from captioners.servers import Served, Server, api_key, base_url, choose, no_server, not_served, start_command

T = TypeVar("T")
Extra = Callable[[Served], dict[str, Any]]
NOTHING = Usage()


@dataclass(frozen=True, slots=True)
class Patience:
    """concurrency: questions under way at once, over all servers. attempt_s: for one attempt; deadline_s: for an
    answer, all attempts and pauses included, long enough for a server to be started again. answers: how often a model
    may give an answer that is of no use."""

    concurrency: int = 16
    attempt_s: float = 180.0
    deadline_s: float = 900.0
    answers: int = 4


class Client:
    """servers: their addresses, with or without /v1. model: what is asked where a question names no other model; it may
    be empty where the servers serve one model only."""

    def __init__(self, servers: Sequence[str], model: str = "", patience: Patience = Patience()):
        if not servers:
            raise ValueError("name a server, e.g. --server http://localhost:8000.")
        self._urls = [base_url(server) for server in dict.fromkeys(servers)]
        self._servers: list[Server] = []
        self._model = model
        self._patience = patience

    async def __aenter__(self) -> Client:
        try:
            import openai
        except ImportError:
            raise ValueError("asking a model needs the openai library: pip install 'vidcurate[caption]'.") from None
        self._slots = asyncio.Semaphore(self._patience.concurrency)
        self._servers = [
            Server(url, openai.AsyncOpenAI(base_url=url, api_key=api_key(), max_retries=0)) for url in self._urls
        ]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.gather(*(server.api.close() for server in self._servers))

    async def served(self) -> dict[str, Served]:
        """Models of all servers that answer. Raises Unreachable when none does: without a second try."""
        found = await asyncio.gather(*(server.discover() for server in self._servers), return_exceptions=True)
        trouble = [one for one in found if isinstance(one, BaseException)]
        if len(trouble) == len(found):
            raise no_server(self._servers, self._model, wire.reason(trouble[0]))
        return {name: served for one in found if not isinstance(one, BaseException) for name, served in one.items()}

    async def check(self, models: Sequence[str] | None = None, vision: bool = True) -> None:
        """Says at once what would fail later: no server, a model that is not served, one that takes no pictures.

        models: the client's own by default. Raises Unreachable, NotServed or Refused.
        """
        there = await self.served()
        for model in [self._model] if models is None else models:
            name = model or self._only(there)
            if name not in there:
                raise NotServed(not_served([s for s in self._servers if s.models is not None], name))
            if vision:
                await self._check_vision(name)

    async def _check_vision(self, model: str) -> None:
        try:
            await self.ask([wire.sample(), "What is this?"], model=model, max_tokens=1)
        except Refused as error:
            raise Refused(
                f"model {model!r} takes no pictures ({error}); serve one that sees, e.g. with {start_command('')}."
            ) from None

    async def ask(
        self,
        content: Content,
        answer: type[T] = str,  # type: ignore[assignment]
        *,
        model: str = "",
        system: str = "",
        max_tokens: int = 512,
        temperature: float = 0.0,
    ) -> Answer[T]:
        """The model's answer: text, or an instance of the dataclass `answer` (see `captioners.answers`).

        Pictures carry their times; text is sent as it is. A typed answer that was cut off by max_tokens is asked for
        again with twice as many. Raises an AskError.
        """
        request = wire.request(content, system, max_tokens, temperature)
        if answer is str:
            reply, usage = await self._reply(request, model)
            return Answer(reply.text, usage, reply.truncated)  # type: ignore[arg-type]
        schema = answers.schema_of(answer)  # type: ignore[arg-type]
        request |= wire.constrained(schema, answer.__name__)
        usage, last = NOTHING, BadAnswer("the model was never asked")
        for number in range(self._patience.answers):
            reply, cost = await self._reply(request, model, usage)
            usage += cost
            try:
                if reply.truncated:
                    request["max_tokens"] = 2 * request["max_tokens"]
                    raise BadAnswer(f"the model's answer did not end within {max_tokens} tokens: {reply.text[:120]}")
                return Answer(answers.parse(reply.text, answer), usage)
            except BadAnswer as error:
                last = error
            request |= {"seed": number + 1, "temperature": max(temperature, 0.3)}
        last.usage = usage
        raise last

    async def yes(self, content: Content, *, model: str = "", system: str = "") -> Answer[float]:
        """Probability, 0..1, that the model answers yes rather than no, out of its first token's probabilities.

        Ask such that yes or no is the answer. Raises an AskError.
        """
        request = wire.request([*content, wire.YES_OR_NO], system, max_tokens=4, temperature=0.0)
        reply, usage = await self._reply(request, model, extra=wire.yes_or_no)
        found = wire.probability_of_yes(reply)
        if found is None:
            error = BadAnswer(f"the model answered neither yes nor no: {reply.text[:120]!r}")
            error.usage = usage
            raise error
        return Answer(found, usage)

    async def _default(self) -> str:
        """The model to ask where none is named."""
        if self._model:
            return self._model
        known: dict[str, Served] = {}
        for server in self._servers:
            known |= server.models or {}
        return self._only(known or await self.served())

    def _only(self, there: dict[str, Served]) -> str:
        if len(there) != 1:
            raise NotServed(f"the servers serve {', '.join(sorted(there)) or 'no model'}; say which with --model.")
        return next(iter(there))

    async def _reply(
        self, request: dict[str, Any], model: str, spent: Usage = NOTHING, extra: Extra | None = None
    ) -> tuple[wire.Reply, Usage]:
        """The first whole response, however many attempts it takes, and what it cost. spent: what the question had
        cost before, for the error's sake. extra: further fields, for the model as the server serves it."""
        started, retries = time.monotonic(), 0
        deadline = started + self._patience.deadline_s
        trouble: Exception | None = None
        try:
            name = model or await self._default()
            while True:
                async with self._slots:
                    server, pause = choose(self._servers, name)
                    if not pause:
                        try:
                            reply = await self._attempt(server, request, name, extra, deadline)
                        except Exception as error:
                            trouble = wire.passing(error)  # raises what will not pass
                            server.failed(wire.wished_pause(error))
                            retries += 1
                        else:
                            server.answered()
                            seconds = time.monotonic() - started
                            return reply, Usage(1, retries, reply.prompt_tokens, reply.completion_tokens, seconds)
                if time.monotonic() + pause > deadline:
                    raise no_server(self._servers, name, wire.reason(trouble) if trouble else "none has answered")
                await asyncio.sleep(pause + random.uniform(0, 0.05))  # noqa: S311
        except AskError as error:
            error.usage = spent + Usage(1, retries, seconds=time.monotonic() - started)
            raise

    async def _attempt(
        self, server: Server, request: dict[str, Any], model: str, extra: Extra | None, deadline: float
    ) -> wire.Reply:
        server.busy += 1
        try:
            served = (await server.known()).get(model)
            if served is None:
                raise wire.Elsewhere(f"{server.url} does not serve {model}")
            fields = request | (extra(served) if extra else {})
            left = max(1.0, min(self._patience.attempt_s, deadline - time.monotonic()))
            async with asyncio.timeout(left):
                try:
                    return wire.read(await wire.send(server.api, fields | {"model": model}, left))
                except Exception as error:  # it may have been started again with another model
                    if wire.is_not_found(error) and model not in await server.discover():
                        raise wire.Elsewhere(f"{server.url} does not serve {model} any more") from None
                    raise
        finally:
            server.busy -= 1


__all__ = ["NOTHING", "Client", "Patience"]

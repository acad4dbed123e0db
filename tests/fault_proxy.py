"""A proxy in front of a real server that spoils some of its answers, as networks and busy servers do."""

from __future__ import annotations

import asyncio
import collections
import threading
from collections.abc import Callable, Iterable
from types import TracebackType

import aiohttp
from aiohttp import web

FAULTS = ("503", "429", "500", "slow", "dead", "reset", "truncated", "malformed", "empty", "half_an_answer")
"""503, 500: with a page of HTML; 429: with Retry-After; slow: `late_s` seconds late; dead: never an answer; reset: the
connection is cut before one; truncated: in the middle of one; malformed: no JSON; empty: JSON without an answer;
half_an_answer: the model's text is cut in half. Besides, blind: pictures are refused."""


class FaultProxy:
    """Answers to chat completions are spoilt as `faults` says: one name for each question, "" for none.

    with FaultProxy(server.url, ["503", "", "dead"]) as proxy: ...    # further questions are answered well
    """

    def __init__(self, target: str, faults: Iterable[str] = (), late_s: float = 2.0):
        self.target = target
        self.late_s = late_s
        self.faults = collections.deque(faults)
        self.rule: Callable[[], str] | None = None
        """Asked for the fault of a question once `faults` are used up."""
        self.done: collections.Counter[str] = collections.Counter()
        """How often each fault was given; "" counts questions that were answered well."""
        self.most_at_once = 0
        self._at_once = 0
        self.url = ""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._ready = threading.Event()

    def __enter__(self) -> FaultProxy:
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(20)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._start())
        self._ready.set()
        self._loop.run_forever()

    async def _start(self) -> None:
        app = web.Application(client_max_size=1 << 28)
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=600))
        self._runner = web.AppRunner(app, shutdown_timeout=0.1, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def _stop(self) -> None:
        await self._runner.cleanup()
        await self._session.close()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        fault = ""
        if request.path.endswith("/chat/completions"):
            fault = self.faults.popleft() if self.faults else self.rule() if self.rule else ""
            self.done[fault] += 1
        self._at_once += 1
        self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            return await self._answer(request, fault)
        finally:
            self._at_once -= 1

    async def _answer(self, request: web.Request, fault: str) -> web.StreamResponse:
        body = await request.read()
        if fault in ("503", "500"):
            return web.Response(status=int(fault), text="<html>try again later</html>", content_type="text/html")
        if fault == "blind" and b"image_url" in body:  # as vLLM answers where a language model is served
            said = {"message": "m is not a multimodal model", "type": "BadRequestError", "param": None, "code": 400}
            return web.json_response({"error": said}, status=400)
        if fault == "429":
            return web.json_response({"error": {"message": "slow down"}}, status=429, headers={"Retry-After": "0.2"})
        if fault == "dead":
            await asyncio.sleep(3600)
        if fault == "reset":
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        if fault == "slow":
            await asyncio.sleep(self.late_s)
        headers = {k: v for k, v in request.headers.items() if k.lower() in ("content-type", "authorization")}
        try:
            async with self._session.request(
                request.method, f"{self.target}{request.path_qs}", data=body, headers=headers
            ) as answer:
                data, status = await answer.read(), answer.status
        except aiohttp.ClientError:
            assert request.transport is not None
            request.transport.abort()  # what a client sees of a server that is not there
            return web.Response()
        return await self._spoilt(request, data, status, fault)

    async def _spoilt(self, request: web.Request, data: bytes, status: int, fault: str) -> web.StreamResponse:
        kind = "application/json"
        if fault == "truncated":
            response = web.StreamResponse(status=status, headers={"Content-Length": str(len(data))})
            response.content_type = kind
            await response.prepare(request)
            await response.write(data[: len(data) // 2])
            assert request.transport is not None
            request.transport.close()
            return response
        if fault == "malformed":
            data = data[: len(data) // 2]
        if fault == "empty":
            data = b'{"id": "x", "object": "chat.completion", "created": 0, "model": "tiny", "choices": []}'
        if fault == "half_an_answer":
            data = _with_half_an_answer(data)
        return web.Response(body=data, status=status, content_type=kind)


def _with_half_an_answer(data: bytes) -> bytes:
    import json

    made = json.loads(data)
    for choice in made.get("choices", []):
        text = choice["message"]["content"]
        choice["message"]["content"] = text[: len(text) // 2]
    return json.dumps(made).encode()

"""Several servers behind one client, one of which is started again with another model."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from captioners.ask import NotServed
from captioners.client import Client, Patience
from tests import oracle as world
from tests.oracle import Oracle


@pytest.fixture
def first() -> Iterator[Oracle]:
    yield from world.serve()


@pytest.fixture
def second() -> Iterator[Oracle]:
    yield from world.serve()


def test_a_server_that_comes_back_with_another_model_is_left_out(first: Oracle, second: Oracle) -> None:
    async def asked() -> None:
        async with Client([first.url, second.url], "oracle", Patience(deadline_s=20.0)) as client:
            await client.check()
            first.model = "another"
            before = len(second.requests)
            answers = await asyncio.gather(*(client.ask([f"Say {k}."]) for k in range(8)))
            assert len(answers) == 8 and len(second.requests) - before == 8
            assert sum(answer.usage.retries for answer in answers) <= 8
            second.model = "another"
            with pytest.raises(NotServed, match=r"'oracle' is not served: .* serves another; .* serves another;"):
                await client.ask(["Say it."])

    asyncio.run(asked())


def test_a_server_without_that_address_is_no_reason_to_wait(first: Oracle) -> None:
    """It lists the model, and knows no chat completions."""

    async def asked() -> None:
        async with Client([first.url], "oracle") as client:
            first.spoil[""] = [(404, "Not Found")]
            with pytest.raises(NotServed, match="knows no such model or address"):
                await client.ask(["Say it."])

    asyncio.run(asked())

"""DSG-Video's questions to a real vLLM server, whose tiny model answers noise in the right form."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from captioners import dsg_forms as forms
from captioners.client import Client, Patience
from captioners.dsg import DSG, Checked, Checker
from captioners.quoting import RULE
from curation.checking.cli import check_command
from curation.folder import Folder
from curation.run import Result
from tests import oracle as world
from tests.oracle import Oracle, says
from tests.test_dsg import scene
from tests.vllm_server import MODEL, TinyServer

pytestmark = [pytest.mark.vllm, pytest.mark.slow]

AT_ONCE = Patience(concurrency=8, answers=1)
"""A single answer of another form is an error."""


@pytest.fixture
def oracle() -> Iterator[Oracle]:
    yield from world.serve()


def test_every_answer_has_its_form(vllm: TinyServer) -> None:
    """With a model that says anything else: at full temperature, for every form and number of frames."""
    parts = ["A red circle rolls.", 'A "blue" square rests; {"name": 1}.']
    shown = scene("red circle", "blue square")

    async def run() -> list[object]:
        async with Client([vllm.url], MODEL, AT_ONCE) as client:
            asks = []
            for k in range(8):
                reading = forms.read([*parts, f"{k}."], k % 2 == 0)
                asks.append(
                    client.ask(reading, forms.reading(2, k % 2 == 0), system=RULE, max_tokens=1200, temperature=1)
                )
                rewriting = forms.rewrite(f"{parts[0]} {k}", ["red circle"], ["square"], "")
                asks.append(client.ask(rewriting, forms.Rewritten, system=RULE, max_tokens=1500, temperature=1))
                content = [*shown[: k + 1], forms.look(f"Is there {k}?", k + 1)]
                asks.append(client.ask(content, forms.seen(k + 1), system=RULE, max_tokens=400, temperature=1))
            return [answer.value for answer in await asyncio.gather(*asks)]

    assert len(asyncio.run(run())) == 24


@pytest.mark.parametrize(("per_request", "frames"), [(0, 8), (1, 8), (3, 8), (0, 20)])
def test_a_real_model_looks(vllm: TinyServer, oracle: Oracle, per_request: int, frames: int) -> None:
    """Also at more frames than the server takes at once."""
    shown = (scene("red circle", "blue square") * 3)[:frames]

    async def run() -> Checked:
        async with Client([oracle.url], "oracle") as reader, Client([vllm.url], MODEL, AT_ONCE) as viewer:
            checker = Checker(reader, viewer, DSG(frames=frames, per_request=per_request))
            return await checker.check(says("red circle", "blue square", "green triangle"), shown)

    checked = asyncio.run(run())
    assert not checked.error and len(checked.things) == 3 and checked.frames == frames
    assert all(thing.seen is not None for thing in checked.things)
    assert checked.counts is not None and checked.counts.i is not None and 0 <= checked.counts.i <= 1


def test_a_folder_is_checked_by_a_real_model(
    vllm: TinyServer, curated: Result, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    shutil.copytree(curated.out, out)
    for _ in range(2):  # the second time, all is there
        check_command(out, [vllm.url], MODEL, repair=True, count=6)
        assert "as written" in capsys.readouterr().out
    rows = [row for row in Folder(out).clips.to_pylist() if row["dsg_caption"]]
    assert len(rows) == 6 and all(row["dsg_model"] == MODEL and row["kept"] for row in rows)
    for row in rows:
        measured = row["dsg_sentences"] is not None
        assert row["dsg_error"] or measured
        assert (row["dsg_video_s"] is not None) == measured and row["dsg_tokens"] > 0

"""The commands that caption, and tags by a video LLM, against a real vLLM server."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pytest
from distributed import Client as DaskClient

from captioners.captions import Captions
from captioners.tags import AskedTags
from curation import recipes
from curation.captioning.asking import Asking
from curation.captioning.kept import NOT_YET
from curation.folder import Folder
from curation.progress import Board
from curation.run import Result, caption, run
from filters.tags.negative import QUESTIONS
from manifests import packs
from manifests.schema import TAG_NAMES
from manifests.types import Frames
from tests.fault_proxy import FaultProxy
from tests.test_cli import sentence, vidcurate
from tests.test_signals import CLIP, check_contract, frames
from tests.test_vllm import NOISE, picture
from tests.vllm_server import MODEL, OTHER, TinyServer, free_port

pytestmark = [pytest.mark.vllm, pytest.mark.slow]


def asked_tags(server: str, **settings: Any) -> AskedTags:
    return AskedTags(MODEL, tuple(QUESTIONS), servers=(server,), **settings)


def some_frames(count: int = 3) -> Frames:
    return frames([packs.decode_image(picture(k).jpeg) for k in range(count)])


def test_asked_tags_keep_the_contract_of_signals(vllm: TinyServer) -> None:
    check_contract(asked_tags(vllm.url, concurrency=1))  # a server's arithmetic depends on what else it does


def test_every_tag_is_a_probability(vllm: TinyServer) -> None:
    rows = asked_tags(vllm.url)([CLIP] * 3, [some_frames(1), some_frames(2), some_frames(8)])
    for name in TAG_NAMES:
        assert all(0 < value < 1 for value in rows[f"tag_{name}"])
    assert rows["tags_error"] == [None] * 3
    assert len({value for name in TAG_NAMES for value in rows[f"tag_{name}"]}) > 6


def test_a_tag_without_an_answer_is_null_and_says_why(vllm: TinyServer) -> None:
    rows = asked_tags(f"127.0.0.1:{free_port()}", deadline_s=1.0)([CLIP], [some_frames()])
    assert rows["tag_lecture"] == [None] and "no server answers" in rows["tags_error"][0]
    with FaultProxy(vllm.url, ["503", "malformed", "reset"]) as proxy:
        rows = asked_tags(proxy.url)([CLIP], [some_frames()])
        assert rows["tags_error"] == [None] and all(0 < rows[f"tag_{name}"][0] < 1 for name in TAG_NAMES)


def test_a_run_that_captions_and_tags_by_a_model(
    vllm: TinyServer, demo: Any, tmp_path: Path, client: DaskClient
) -> None:
    recipe = replace(recipes.embedded(), captioner=Captions(lints=NOISE))
    asking = Asking((vllm.url,), (MODEL,), words=8, categories=True, tags=MODEL, concurrency=8)
    films = [str(path) for path in sorted(Path(demo[0]).glob("*.mp4"))[:3]]
    result = run(films, tmp_path / "out", recipe, client=client, asking=asking)
    clips = result.clips
    kept = clips.filter(clips["kept"])
    measured = clips.filter(pc.is_valid(clips["tag_editing"]))
    assert measured.num_rows >= kept.num_rows and clips["tags_error"].null_count == clips.num_rows
    for row in measured.to_pylist():
        assert row["tags"] == [name for name in TAG_NAMES if row[f"tag_{name}"] >= 0.5]
    made = json.loads((tmp_path / "out" / "run.json").read_text())
    assert made["captions"]["captioned"] == kept.num_rows and made["captions"]["completion_tokens"] > 0
    assert made["captioner"]["servers"] == [vllm.url] and "caption" in made["seconds"]
    assert kept["caption"].null_count == kept["caption_category"].null_count == 0
    folder = Folder(tmp_path / "out")
    assert folder.recipe.measure_stage == made["stages"]["measure"]
    texts = dict(zip(clips["clip_id"].to_pylist(), clips["caption"].to_pylist(), strict=True))
    again = run(films, tmp_path / "out", recipe, client=client, asking=asking).clips
    assert dict(zip(again["clip_id"].to_pylist(), again["caption"].to_pylist(), strict=True)) == texts
    made = json.loads((tmp_path / "out" / "run.json").read_text())
    assert made["captions"]["requests"] == 0, "a second run asks nothing"


def test_the_commands(vllm: TinyServer, curated: Result, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(curated.out, out)
    assert "say which with --model" in sentence(vidcurate("caption", out, "--server", vllm.url))
    assert "is not served" in sentence(vidcurate("caption", out, "--server", vllm.url, "--model", "big"))
    wish = ("--server", vllm.url, "--model", MODEL, "--model", OTHER, "--how", "direct", "--words", "8", "--categories")
    done = vidcurate("caption", out, *wish, "--workers", "2")
    assert done.returncode == 0, done.stderr
    assert "clips captioned" in done.stdout and "tokens read" in done.stdout
    kept = Folder(out).clips.filter(pc.field("kept"))
    done = vidcurate("caption", out, *wish, "--workers", "1")
    assert done.stdout.startswith("0 clips captioned, 0 without"), done.stdout
    assert not any(error and error.startswith(NOT_YET) for error in kept["caption_error"].to_pylist())
    assert set(kept["caption_model"].to_pylist()) == {MODEL}
    done = vidcurate("prompt", "a dog", "--server", vllm.url, "--model", MODEL, "--fps", "24", "--words", "8")
    assert done.returncode == 0 and done.stdout.strip().endswith("FPS-24")


def test_a_server_that_goes_away_for_good(
    vllm: TinyServer, curated: Result, client: DaskClient, tmp_path: Path
) -> None:
    shutil.copytree(curated.out, tmp_path / "out")
    folder, asking = Folder(tmp_path / "out"), Asking((vllm.url,), (MODEL,), words=8, concurrency=2)
    recipe = replace(folder.plain_recipe, captioner=Captions(lints=NOISE))
    with FaultProxy(vllm.url) as proxy:
        proxy.rule = lambda: "" if sum(proxy.done.values()) <= 4 else "503"
        hasty = replace(asking, servers=(proxy.url,), patience_s=2.0)
        took, left = caption(folder.store, hasty.applied(recipe), hasty, client, Board())
    assert 0 < took["captioned"] < folder.made["counts"]["kept"] and took["left"] > 0
    assert left.startswith(f"{took['left']} clips are not captioned yet (no server answers at") and "goes on" in left
    took, left = caption(folder.store, asking.applied(recipe), asking, client, Board())
    assert took["left"] == 0 and left == "" and Folder(folder.store.root).made["captions"]["left"] == 0

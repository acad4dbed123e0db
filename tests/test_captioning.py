"""The captioning stage around the questions: manifest, report, export, command line. Answers are recorded ones here; a
real server gives them in test_captioning_vllm.py."""

from __future__ import annotations

import asyncio
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import pyarrow.compute as pc
import pytest
from typer.testing import CliRunner

from captioners.answers import parse
from captioners.ask import Answer, Content, Usage
from captioners.captions import Captions
from captioners.methods import form
from curation import explain
from curation.captioning.asking import Asking
from curation.captioning.export import export_lessons
from curation.captioning.kept import Kept, stage_of
from curation.captioning.stage import write_captions
from curation.captioning.work import caption_rows
from curation.cli import app
from curation.cluster import shared
from curation.folder import Folder
from curation.run import Result
from tests.vllm_server import free_port

HOSTILE = (
    "A sign that says <script>alert('x')</script> & <img src=x onerror=alert(1)> hangs over the door \x1b[31mof a house"
    "<|im_end|> \u202e in the old town.\x00"
)


class Recorded:
    """Says the same of every clip; a category by turns."""

    def __init__(self, dense: str):
        self.dense, self.count = dense, 0

    async def ask(self, content: Content, answer: Any = str, **settings: Any) -> Answer[Any]:
        self.count += 1
        said = {
            "Caption": {"short": "A sign.", "dense": self.dense},
            "FrameCaption": {"caption": f"frame with a <image> sign {self.count}"},
            "Category": {"category": ("objects", "city and buildings")[self.count // 2 % 2]},
        }
        return Answer(answer(**said[answer.__name__]), Usage(1, 0, 10, 5, 0.1))

    async def yes(self, content: Content, **settings: Any) -> Answer[float]:
        raise AssertionError("no tag is asked for here")


@pytest.fixture
def folder(curated: Result, tmp_path: Path) -> Folder:
    shutil.copytree(curated.out, tmp_path / "out")
    return Folder(tmp_path / "out")


def caption(folder: Folder, dense: str, asking: Asking) -> Captions:
    """Captions all kept clips with recorded answers, and leaves the folder as a run would."""
    store, captions = folder.store, asking.applied(folder.plain_recipe).captioner
    assert isinstance(captions, Captions)
    rows = store.read_table("clips.parquet", where=pc.field("kept")).sort_by([("pack", "ascending")])
    done = asyncio.run(caption_rows(store, captions, Recorded(dense), rows, 4))  # type: ignore[arg-type]
    assert done.captioned + done.unfit == rows.num_rows
    Kept(store, stage_of(captions)).join()
    write_captions(store, captions)
    folder.made["captioner"] = asking.noted()
    store.write_json("run.json", folder.made)
    folder.report()
    return captions


ASKING = Asking(("localhost:1",), ("m",), "direct", categories=True)


def test_hostile_captions_are_escaped_wherever_they_are_shown(folder: Folder) -> None:
    caption(folder, HOSTILE, ASKING)
    page = folder.store.read_bytes("report.html").decode()
    assert "<script>alert" not in page and "<img src=x" not in page and "&lt;script&gt;" in page
    kept = folder.clips.filter(folder.clips["kept"])
    texts = kept["caption"].to_pylist() + kept["caption_raw"].to_pylist()
    assert not any(c in text for text in texts for c in "\x1b\x00\u202e")
    lines = "\n".join(explain.why(folder, kept["clip_id"][0].as_py()))
    assert "<script>" in lines and "\x1b" not in lines, "a terminal shows it as text"


def test_the_report_shows_how_captions_spread_over_categories(folder: Folder) -> None:
    caption(folder, "A brown dog runs over a lawn in the sun.", ASKING)
    page = folder.store.read_bytes("report.html").decode()
    counted = folder.clips["caption_category"].drop_null().value_counts().to_pylist()
    assert len(counted) == 2 and all(row["values"] in page for row in counted) and ">category<" in page


def test_judging_anew_keeps_captions_and_says_which_are_missing(folder: Folder) -> None:
    caption(folder, "A brown dog runs over a lawn in the sun.", ASKING)
    before = {r["clip_id"]: r["caption"] for r in folder.clips.to_pylist() if r["kept"]}
    folder.judge(settings=["rules.text=off", "rules.letterbox=off"])
    again = Folder(folder.store.root)
    rows = {r["clip_id"]: r for r in again.clips.to_pylist() if r["kept"]}
    fresh = set(rows) - set(before)
    assert fresh and all(rows[clip]["caption"] == text for clip, text in before.items() if clip in rows)
    assert all(rows[clip]["caption"] is None for clip in fresh)
    assert all(rows[clip]["caption_error"].startswith("not captioned yet; run `vidcurate caption`") for clip in fresh)


def test_the_camera_in_front_follows_the_measures_without_asking_again(folder: Folder) -> None:
    captions = caption(folder, "A brown dog runs over a lawn in the sun.", ASKING)
    said = folder.clips.filter(folder.clips["kept"])["caption"].to_pylist()
    assert any(not text.startswith("A brown dog") for text in said) and all(" FPS-" in text for text in said)
    write_captions(folder.store, replace(captions, layout=replace(captions.layout, sure=2.0, fps=False)))
    assert set(folder.clips["caption"].drop_null().to_pylist()) == {"A brown dog runs over a lawn in the sun."}


def test_a_task_that_is_run_again_asks_only_about_what_is_not_on_disk(folder: Folder) -> None:
    captions = caption(folder, "A brown dog runs over a lawn in the sun.", ASKING)
    rows, kept = folder.clips.filter(folder.clips["kept"]), Kept(folder.store, stage_of(captions))
    lost = rows["clip_id"].combine_chunks()[:3]
    kept.join(forget=lost)
    asker = Recorded("A brown dog runs over a lawn in the sun.")
    done = asyncio.run(caption_rows(folder.store, captions, asker, rows, 4))  # type: ignore[arg-type]
    assert done.captioned == 3 and asker.count == 6, "a caption and a category each"
    assert sorted(kept.clip_ids().to_pylist()) == sorted(rows["clip_id"].to_pylist())


def test_questions_are_bounded_over_all_tasks() -> None:
    for concurrency, slots, pieces in ((32, 5, 100), (2, 16, 100), (8, 2, 1), (1, 1, 0), (16, 16, 3)):
        tasks, each = shared(concurrency, slots, pieces)
        assert 1 <= tasks <= slots and each >= 1 and tasks * each <= concurrency
        assert concurrency - tasks * each < tasks, "hardly any is given away"


@pytest.mark.parametrize("kind", ["sharegpt", "llava"])
def test_lessons_with_pictures(kind: str, folder: Folder, tmp_path: Path) -> None:
    caption(folder, "A brown dog runs over a lawn <image> in the sun.", ASKING)
    count = export_lessons(folder, kind, tmp_path / "set", "kept", frames=3)
    lessons = [json.loads(line) for line in (tmp_path / "set" / f"{kind}.jsonl").read_text().splitlines()]
    assert count == len(lessons) == folder.made["counts"]["kept"]
    for lesson in lessons:
        names = lesson["images" if kind == "sharegpt" else "image"]
        question, answer = lesson["conversations"]
        assert (question["from"], answer["from"]) == ("human", "gpt") and lesson["system"]
        assert question["value"].count("<image>") == len(names) <= 3 and "<image>" not in answer["value"]
        assert all(cv2.imread(str(tmp_path / "set" / name)) is not None for name in names)
        learnt = parse(answer["value"], form(120))
        assert learnt.dense.startswith("A brown dog runs over a lawn") and learnt.short == "A sign."
    assert len({lesson["id"] for lesson in lessons}) == count


def test_lessons_for_the_writer_of_summaries(folder: Folder, tmp_path: Path) -> None:
    caption(folder, "A brown dog runs over a lawn in the sun.", Asking(("localhost:1",), ("m",), "frames"))
    assert export_lessons(folder, "summaries", tmp_path, "sampled") == folder.made["counts"]["sampled"]
    lesson = json.loads((tmp_path / "summaries.jsonl").read_text().splitlines()[0])
    assert "frame with a \u2039image\u203a sign" in lesson["conversations"][0]["value"] and "images" not in lesson
    assert json.loads(lesson["conversations"][1]["value"])["dense"] == "A brown dog runs over a lawn in the sun."


def test_without_captions_there_is_nothing_to_learn(folder: Folder, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no kept clip has captions of frames; caption it with --how frames first"):
        export_lessons(folder, "summaries", tmp_path, "kept")


def test_a_lost_frame_pack_is_said_in_a_sentence(folder: Folder) -> None:
    rows = folder.clips.filter(folder.clips["kept"])
    shutil.rmtree(Path(folder.store.full(rows["pack"][0].as_py())).parent)
    with pytest.raises(ValueError, match="the frame pack is gone; run `vidcurate run` again"):
        try:
            asyncio.run(caption_rows(folder.store, Captions(), Recorded("x"), rows, 2))  # type: ignore[arg-type]
        except ExceptionGroup as group:
            raise group.exceptions[0] from None


# -- command line -----------------------------------------------------------------------------------------------------


def said(*words: str) -> str:
    """The one sentence of a command that was used wrongly."""
    result = CliRunner().invoke(app, list(words))
    assert isinstance(result.exception, ValueError), result.output
    return str(result.exception)


def test_no_server_is_said_before_any_video_is_decoded(demo: Any, tmp_path: Path) -> None:
    nowhere = f"127.0.0.1:{free_port()}"
    out = tmp_path / "out"
    text = said("run", str(demo[0]), "--out", str(out), "--captioner", nowhere, "--model", "some/model")
    assert text.startswith(f"no server answers at http://{nowhere}/v1")
    assert text.endswith("start one with `vidcurate serve --model some/model`.") and not out.exists()


def test_wrong_use(folder: Folder, tmp_path: Path) -> None:
    out = str(folder.store.root)
    assert "no server answers" in said("caption", out, "--server", f"127.0.0.1:{free_port()}")
    assert "no address of a server" in said("caption", out, "--server", "ftp://x")
    assert "choose from direct, film" in said("caption", out, "--server", "x:1", "--how", "guess")
    assert "say where it is served" in said("run", out, "--out", str(tmp_path / "o"), "--model", "m")
    assert "which model to ask" in said("run", out, "--out", str(tmp_path / "o"), "--captioner", "x:1", "--ask-tags")
    assert "no finished run" in said("caption", str(tmp_path), "--server", "x:1")
    assert "no such command" in said("serve", "--model", "m", "--vllm", str(tmp_path / "nothing"), "--print")


def test_offline_means_this_machine(demo: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("curation.cli.go_offline", lambda: None)
    wish = ("run", str(demo[0]), "--out", str(tmp_path / "out"), "--offline", "--captioner")
    assert "is on the network; serve it on this machine" in said(*wish, "http://models.example.org")
    assert "no server answers" in said(*wish, f"127.0.0.1:{free_port()}")


def test_a_recipe_that_asks_a_model_needs_a_server(demo: Any, tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "import dataclasses\nfrom captioners.captions import moviegen_mix\nfrom curation import recipes\n"
        "def recipe():\n    return dataclasses.replace(recipes.embedded(), captioner=moviegen_mix('a', 'b'))\n"
    )
    text = said("run", str(demo[0]), "--out", str(tmp_path / "out"), "--recipe", str(file))
    assert "has captions written by a model; say where it is served with --captioner URL." in text


def test_serve_prints_its_command(tmp_path: Path) -> None:
    vllm = tmp_path / "vllm"
    vllm.write_text("#!/bin/sh\n")
    vllm.chmod(0o755)
    result = CliRunner().invoke(
        app, ["serve", "--model", "org/model", "--vllm", str(vllm), "--port", "9000", "--print", "--", "--seed", "3"]
    )
    assert result.exit_code == 0 and result.output.startswith(f"{vllm} serve org/model")
    assert "--port 9000" in result.output and result.output.rstrip().endswith("--seed 3")

"""`vidcurate check`: planted captions of real films through the whole command, against a server that sees."""

from __future__ import annotations

import dataclasses
import html
import json
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from captioners.checks import STALE
from captioners.client import Patience
from captioners.dsg import DSG
from curation.captioning.kept import Kept
from curation.checking.cli import check_command
from curation.checking.rule import truthful
from curation.checking.stage import Check, Run, check
from curation.checking.texts import captions, named, some
from curation.explain import why
from curation.folder import Folder
from curation.recipe import Subset, check_columns
from curation.run import run
from filters.rules import passes
from manifests import families
from tests import oracle as world
from tests.conftest import two_workers
from tests.oracle import OBJECTS, Oracle, Placed, says
from tests.test_cli import ROOT, vidcurate

RECIPE = '''
"""Captions out of a table, to know what they say."""
import dataclasses, json, pathlib
from captioners.text import Layout
from curation import recipes


@dataclasses.dataclass(frozen=True)
class Planted:
    file: str = {file!r}

    def __call__(self, row):
        text = json.loads(pathlib.Path(self.file).read_text()).get(row["uri"].rpartition("/")[2])
        return {{"caption": text and Layout()(text, row), "caption_raw": text, "caption_model": "planted"}}


def recipe():
    base = recipes.embedded()
    none = dataclasses.replace(base.copies, share=2.0)  # the films are much alike
    return dataclasses.replace(base, name="planted", rules=(), copies=none, captioner=Planted())
'''

HOSTILE = '<script>alert(1)</script> \x1b[31mred\x1b[0m & "quoted" \x00 end.'


@pytest.fixture
def oracle() -> Iterator[Oracle]:
    yield from world.serve()


class World:
    """Eight films, what is in each, and captions that add things."""

    def __init__(self, folder: Path) -> None:
        rng = np.random.default_rng(5)
        self.there: dict[str, list[str]] = {}
        self.lies: dict[str, list[str]] = {}
        self.texts: dict[str, str] = {}
        for k in range(8):
            name, drawn = f"{k}.mp4", [OBJECTS[j] for j in rng.permutation(len(OBJECTS))]
            self.there[name], self.lies[name] = drawn[:3], drawn[3 : 3 + k % 3]
            world.film(folder / "films" / name, [Placed(n, (i + 0.6) / 3.2, 0.5) for i, n in enumerate(drawn[:3])])
            rest = [*self.there[name][2:], *self.lies[name]]
            self.texts[name] = f"{says(*drawn[:2])} {says(*rest)} Nothing else is to be seen."
        (folder / "captions.json").write_text(json.dumps(self.texts))
        (folder / "planted.py").write_text(RECIPE.format(file=str(folder / "captions.json")))
        from curation import recipes

        origin = {"recipe": str(folder / "planted.py"), "set": []}
        with two_workers() as client:
            run([str(folder / "films")], folder / "out", recipes.find(origin["recipe"]), client=client, origin=origin)


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, World]:
    folder = tmp_path_factory.mktemp("planted")
    (folder / "films").mkdir()
    return folder, World(folder)


@pytest.fixture
def out(planted: tuple[Path, World], tmp_path: Path) -> Path:
    shutil.copytree(planted[0] / "out", tmp_path / "out")
    return tmp_path / "out"


def manifest(out: Path) -> dict[str, SimpleNamespace]:
    """Rows by the names of their films."""
    rows = Folder(out).clips.sort_by("uri").to_pylist()
    return {row["uri"].rpartition("/")[2]: SimpleNamespace(**row) for row in rows}


def asked(oracle: Oracle) -> int:
    """Questions about captions and frames, without the look whether the server is there."""
    return sum(oracle.asked[form] for form in ("Reading", "Seen", "Rewritten"))


def check_stage(folder: Folder) -> str:
    return next(f"stages/{name}" for name in folder.store.folders("stages") if name.startswith("check-"))


def test_planted_objects_are_found_and_repaired(planted: tuple[Path, World], out: Path, oracle: Oracle) -> None:
    truth = planted[1]
    done = vidcurate("check", out, "--server", oracle.url, "--repair")
    assert done.returncode == 0, done.stderr
    table = manifest(out)
    assert len(table) == 8 and all(row.kept for row in table.values())
    for name, row in table.items():
        there, lies = truth.there[name], truth.lies[name]
        assert set(row.dsg_objects) == {*there, *lies} and list(row.dsg_hallucinated) == lies
        assert row.dsg_video_i == pytest.approx(len(lies) / (3 + len(lies)))
        assert row.dsg_video_s == pytest.approx(bool(lies) / 3)
        assert row.dsg_model == "oracle" and row.dsg_error is None and row.dsg_frames == 8
        assert row.dsg_tokens > 0 and row.dsg_seconds > 0
        assert list(row.dsg_final_hallucinated) == [] and row.dsg_final_i == 0 and row.dsg_final_s == 0
        assert set(row.dsg_final_objects) == set(there)
        assert row.caption_raw == truth.texts[name] == row.dsg_caption
        mended = f"{says(*there[:2])} {says(there[2])} Nothing else is to be seen."
        assert row.caption_repaired == (mended if lies else None)
        assert row.caption.endswith(f"{mended} FPS-24")
        said = "\n".join(why(Folder(out), row.clip_id))
        assert f"checked by oracle: 3 of {3 + len(lies)} objects seen in 8 frames" in said
        assert ("before repair: " in said) == bool(lies)
    lies = sum(map(len, truth.lies.values()))
    assert f"{100 * lies / (24 + lies):.1f} (" in done.stdout and "0.0 (0.0 to 0.0)" in done.stdout


def test_nothing_is_asked_twice(planted: tuple[Path, World], out: Path, oracle: Oracle) -> None:
    """Not for a repair after the check, not for another check, not when the captions are written anew."""
    check_command(out, [oracle.url])
    assert oracle.asked["Reading"] == 8 and not oracle.asked["Rewritten"]
    for row in manifest(out).values():
        assert row.caption_repaired is None and row.dsg_final_i == row.dsg_video_i
    looked = oracle.asked["Seen"]
    check_command(out, [oracle.url], repair=True)
    wrong = sum(bool(lies) for lies in planted[1].lies.values())
    assert oracle.asked["Rewritten"] == wrong and oracle.asked["Reading"] == 8 + wrong
    assert oracle.asked["Seen"] == looked  # what is in the repaired captions was looked for before
    count = asked(oracle)
    check_command(out, [oracle.url], repair=True)
    Folder(out).judge()
    check_command(out, [oracle.url])
    assert asked(oracle) == count
    assert sum(row.caption_repaired is not None for row in manifest(out).values()) == wrong


def test_changed_captions_lose_their_figures_and_are_checked_again(
    planted: tuple[Path, World], out: Path, oracle: Oracle, tmp_path: Path
) -> None:
    (tmp_path / "captions.json").write_text(json.dumps(planted[1].texts))
    (tmp_path / "planted.py").write_text(RECIPE.format(file=str(tmp_path / "captions.json")))
    made = json.loads((out / "run.json").read_text())
    (out / "run.json").write_text(json.dumps(made | {"recipe": str(tmp_path / "planted.py")}))
    check_command(out, [oracle.url], repair=True)
    oracle.requests.clear()
    changed = planted[1].texts | {"0.mp4": says(planted[1].there["0.mp4"][0], "white square", "white circle")}
    (tmp_path / "captions.json").write_text(json.dumps(changed))
    Folder(out).judge()
    row = manifest(out)["0.mp4"]
    assert row.dsg_error == STALE and row.dsg_video_i is None and row.dsg_objects is None
    assert [row.dsg_error for row in manifest(out).values()].count(None) == 7
    check_command(out, [oracle.url])
    row = manifest(out)["0.mp4"]
    assert row.dsg_error is None and row.dsg_video_i > 0 and oracle.asked["Reading"] == 1
    back = asked(oracle)
    (tmp_path / "captions.json").write_text(json.dumps(planted[1].texts))
    Folder(out).judge()
    check_command(out, [oracle.url])
    assert asked(oracle) == back and manifest(out)["0.mp4"].dsg_error is None


def test_a_server_that_goes_away_loses_nothing(out: Path, oracle: Oracle) -> None:
    folder = Folder(out)
    wanted = captions(folder)
    oracle.most_readings = 4
    with pytest.raises(ValueError, match="no server answers"):
        check(folder, wanted, Check((oracle.url,), patience=Patience(concurrency=2, deadline_s=3.0)))
    kept = folder.store.dataset(f"{check_stage(folder)}/clips").count_rows()
    assert kept > 0
    oracle.most_readings = None
    oracle.requests.clear()
    patient = Check((oracle.url,), patience=Patience(concurrency=2))
    found = check(folder, wanted, patient)
    assert found.num_rows == 8 and not any(found["dsg_error"].to_pylist())
    assert oracle.asked["Reading"] == 8 - kept
    oracle.requests.clear()
    assert check(folder, wanted, patient).equals(found) and not asked(oracle)


def test_a_killed_process_loses_a_piece_at_most(out: Path, oracle: Oracle) -> None:
    folder = Folder(out)
    oracle.most_readings = 6
    command = [sys.executable, "-m", "curation", "check", str(out), "--server", oracle.url, "--concurrency", "2"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: any(name.startswith("check-") for name in folder.store.folders("stages")))
        wait_for(lambda: bool(folder.store.names(f"{check_stage(folder)}/clips", ".parquet")))
    finally:
        process.kill()
        process.wait()
    oracle.most_readings = None
    oracle.requests.clear()
    check_command(out, [oracle.url])
    assert oracle.asked["Reading"] == 4  # of eight clips
    assert all(row.dsg_video_s is not None for row in manifest(out).values())
    assert len(folder.store.names(f"{check_stage(folder)}/clips", ".parquet")) == 1


def test_two_commands_at_once_keep_each_others_results(out: Path, oracle: Oracle) -> None:
    """The second begins and ends while the first is under way."""
    folder, how = Folder(out), Check((oracle.url,), DSG(model="oracle"), patience=Patience(concurrency=2))
    every = captions(folder)
    second = threading.Thread(target=check, args=(folder, every.slice(4), how))

    def advance(clips: int) -> None:
        if clips and not second.ident:
            second.start()
            second.join()

    check(folder, every.slice(0, 4), how, advance=advance)
    assert second.ident and oracle.asked["Reading"] == 8
    oracle.requests.clear()
    assert check(folder, every, how).num_rows == 8 and not asked(oracle)


def wait_for(happened: Callable[[], bool], seconds: float = 60.0) -> None:
    ends = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < ends, "it does not happen"
        time.sleep(0.05)


def test_a_subset_of_truthful_captions(planted: tuple[Path, World], out: Path, oracle: Oracle) -> None:
    folder = Folder(out)
    assert Folder(out).clips["dsg_final_i"].null_count == 8
    passing = passes(truthful(), folder.clips)
    assert passing.to_pylist() == [True] * 8  # nothing is known yet
    check_command(out, [oracle.url])
    clips = Folder(out).clips.sort_by("uri")
    assert passes(truthful(), clips).to_pylist() == [not lies for lies in planted[1].lies.values()]
    assert passes(truthful(0.3), clips).to_pylist() == [len(lies) < 2 for lies in planted[1].lies.values()]
    check_columns(dataclasses.replace(folder.recipe, subsets=(Subset("sft", (truthful(),)),)))


def test_workers_do_the_same(out: Path, oracle: Oracle) -> None:
    folder = Folder(out)
    wanted = captions(folder)
    spread = check(folder, wanted, Check((oracle.url,), repair=True), Run(workers=1))
    shutil.rmtree(Path(folder.store.root) / check_stage(folder))
    here = check(folder, wanted, Check((oracle.url,), repair=True))
    assert here.drop_columns(["dsg_seconds"]).equals(spread.drop_columns(["dsg_seconds"]))


def test_failures_are_told_and_asked_again_only_on_demand(out: Path, oracle: Oracle) -> None:
    folder = Folder(out)
    wanted = some(captions(folder), 1)
    oracle.spoil["Reading"] = ["I am sorry, but I cannot help with that."] * 4
    how = Check((oracle.url,), patience=Patience(concurrency=1))
    found = check(folder, wanted, how).to_pylist()[0]
    assert "I cannot help" in found["dsg_error"] and found["dsg_video_i"] is None and found["dsg_objects"] is None
    count = asked(oracle)
    assert check(folder, wanted, how).to_pylist()[0] == found and asked(oracle) == count
    again = check(folder, wanted, Check((oracle.url,), again=True)).to_pylist()[0]
    assert again["dsg_error"] is None and again["dsg_video_i"] is not None


def test_two_captioners_are_compared(
    planted: tuple[Path, World], out: Path, oracle: Oracle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, truth = Folder(out), planted[1]
    rows = [{"clip_id": row.clip_id, "caption": says(*truth.there[name])} for name, row in manifest(out).items()]
    (tmp_path / "plain.jsonl").write_text("\n".join(json.dumps(row) for row in rows[:6]))
    check_command(out, [oracle.url], compare=("planted", str(tmp_path / "plain.jsonl")), objects_only=True)
    shown = capsys.readouterr().out
    lines = [line.split("│") for line in shown.splitlines() if "│" in line]
    table = {line[1].strip(): [cell.strip() for cell in line[2:-1]] for line in lines if line[1].strip()}
    lies = sum(len(truth.lies[f"{k}.mp4"]) for k in range(6))
    assert table["planted"][:3] == ["6", str(18 + lies), f"{(18 + lies) / 6:.1f}"]
    assert table["planted"][3].startswith(f"{100 * lies / (18 + lies):.1f} (")
    assert any(values[:4] == ["6", "18", "3.0", "0.0 (0.0 to 0.0)"] for values in table.values())
    assert f"over 6 clips of both: _i -{100 * lies / (18 + lies):.1f} (" in shown
    assert all(row.dsg_video_i is None for row in manifest(out).values())  # a comparison leaves the manifest alone
    for suffix, write in (("csv", pd.DataFrame.to_csv), ("parquet", pd.DataFrame.to_parquet)):
        write(pd.DataFrame(rows), tmp_path / f"plain.{suffix}", index=False)
        assert named(folder, str(tmp_path / f"plain.{suffix}")).num_rows == 8
    assert named(folder, "caption_raw").equals(named(folder, "planted"))
    assert named(folder, str(out)).equals(captions(folder))


def test_captioners_of_earlier_stages_are_found(out: Path) -> None:
    folder = Folder(out)
    every = captions(folder)
    rows = [
        {"clip_id": clip, "caption_model": ("small", "large")[k % 2], "caption_text": f"{k} cats."}
        for k, clip in enumerate(every["clip_id"].to_pylist())
    ]
    Kept(folder.store, "caption-one").add("part", rows)
    assert named(folder, "caption-one")["text"].to_pylist() == [f"{k} cats." for k in range(8)]
    assert named(folder, "large")["text"].to_pylist() == [f"{k} cats." for k in range(1, 8, 2)]
    Kept(folder.store, "caption-two").add("part", rows)
    with pytest.raises(ValueError, match="in several ways; name one: caption-one, caption-two"):
        named(folder, "large")
    with pytest.raises(ValueError, match="these are planted, small, large, caption-one, caption-two"):
        named(folder, "huge")


def test_hostile_words_stay_words(out: Path, oracle: Oracle, capsys: pytest.CaptureFixture[str]) -> None:
    """From a caption and from a model's answer, in the terminal, the manifest and the report."""
    folder = Folder(out)
    clip = captions(folder)["clip_id"][0].as_py()
    said = {
        "objects": [
            {"name": "<script>alert(1)</script>", "sentences": [1], "question": "Is there <script>alert(1)</script>?"}
        ],
        "claims": [],
    }
    oracle.spoil["Reading"] = [json.dumps(said)]
    text = pa.table({"clip_id": [clip], "text": [HOSTILE]})
    found = check(folder, text, Check((oracle.url,)))
    row = found.to_pylist()[0]
    assert row["dsg_hallucinated"] == ["<script>alert(1)</script>"] and row["dsg_video_i"] == 1
    families.update(folder.store, families.CHECKED, found)
    page = Path(folder.report()).read_text()
    assert "<script>alert(1)" not in page
    (out / "hostile.jsonl").write_text(json.dumps({"clip_id": clip, "caption": HOSTILE}))
    check_command(out, [oracle.url], compare=("caption", str(out / "hostile.jsonl")))
    assert not set("\x1b\x00") & set("".join(capsys.readouterr()))


def test_the_report_shows_before_and_after(planted: tuple[Path, World], out: Path, oracle: Oracle) -> None:
    before = (out / "report.html").read_text()
    assert "Captions held against" not in before
    check_command(out, [oracle.url], repair=True)
    page = html.unescape((out / "report.html").read_text())
    lies = [name for lies in planted[1].lies.values() for name in lies]
    assert "Captions held against" in page
    assert f"{100 * len(lies) / (24 + len(lies)):.1f} %" in page
    assert all(name in page for name in lies)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"model": "other"}, "'other' is not served"),
        ({"frames": 9}, "frame packs hold at most 8"),
        ({"compare": ("caption", "nobody")}, "--compare nobody: that is no column"),
        ({"compare": ("caption", "README.md")}, "that is no table of captions"),
        ({"compare": ("caption", "caption"), "repair": True}, "repair in a call of its own"),
        ({"which": "all"}, "give kept or sampled"),
        ({"server": []}, "name its server"),
    ],
)
def test_mistakes_are_one_sentence(out: Path, oracle: Oracle, options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said) as error:
        check_command(out, **{"server": [oracle.url], **options})
    assert "\n" not in str(error.value) and not asked(oracle)


def test_no_server_is_one_sentence(out: Path) -> None:
    done = vidcurate("check", out, "--server", "http://127.0.0.1:9")
    assert done.returncode == 2 and done.stderr.startswith("vidcurate: no server answers at http://127.0.0.1:9/v1 (")
    assert done.stderr.count("\n") == 1


def test_unknown_and_doubled_clips(out: Path, oracle: Oracle, tmp_path: Path) -> None:
    folder = Folder(out)
    lost = pa.table({"clip_id": ["nobody"], "text": ["A cat."]})
    with pytest.raises(ValueError, match="nobody: no clip of"):
        check(folder, lost, Check((oracle.url,), DSG()))
    (tmp_path / "two.jsonl").write_text('{"clip_id": "a", "caption": "x"}\n{"clip_id": "a", "caption": "y"}\n')
    with pytest.raises(ValueError, match="more than once"):
        named(folder, str(tmp_path / "two.jsonl"))


def test_a_check_of_some_is_the_same_some_every_time(out: Path) -> None:
    every = captions(Folder(out))
    few = some(every, 3)
    assert few.num_rows == 3 and some(every, 3).equals(few) and some(every, 100).equals(every)
    assert set(some(every, 2)["clip_id"].to_pylist()) < set(few["clip_id"].to_pylist())

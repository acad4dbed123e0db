"""Review: a fair choice, a page that is safe and complete, and decisions that come back and stay."""

from __future__ import annotations

import base64
import csv
import hashlib
import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from curation.folder import Folder
from curation.review import decisions
from curation.review.choose import choose, turns
from curation.review.page import hand_out
from curation.run import Result
from manifests import families
from manifests.media.container import open_film
from manifests.reviews import as_reviewed
from tests.test_cli import sentence, vidcurate
from tests.test_report import Page


@pytest.fixture
def folder(curated: Result, tmp_path: Path) -> Folder:
    shutil.copytree(curated.out, tmp_path / "out", ignore=shutil.ignore_patterns("review"))
    return Folder(tmp_path / "out")


def kept(folder: Folder) -> pd.DataFrame:
    table = folder.clips.to_pandas()
    return table[table.kept].reset_index(drop=True)


def table(path: Path, *rows: dict[str, object]) -> Path:
    with path.open("w", newline="") as file:
        lines = csv.DictWriter(file, decisions.COLUMNS)
        lines.writeheader()
        lines.writerows(rows)
    return path


def test_every_group_has_its_share() -> None:
    groups = np.repeat(np.arange(4), [100, 50, 3, 20])
    chances = np.random.default_rng(0).random(len(groups))
    taken = turns(groups, chances, 40)
    assert np.bincount(groups[taken], minlength=4)[2] == 3 and len(set(taken.tolist())) == 40
    assert sorted(np.bincount(groups[taken])) == [3, 12, 12, 13]
    assert (np.diff(groups[taken]) >= 0).all(), "neighbours share a group"
    fewest = [k for k in taken if groups[k] == 0]
    assert chances[fewest].max() <= np.sort(chances[groups == 0])[len(fewest) - 1]
    assert len(turns(groups, chances, 10**6)) == len(groups) and not len(turns(groups[:0], chances[:0], 5))


def test_the_choice_is_steady_and_skips_what_was_reviewed(folder: Folder, tmp_path: Path) -> None:
    first = choose(folder, 6)
    assert [r["clip_id"] for r in first] == [r["clip_id"] for r in choose(folder, 6)]
    assert set(r["clip_id"] for r in first) <= set(kept(folder).clip_id)
    assert {r["clip_id"] for r in first} != {r["clip_id"] for r in choose(folder, 6, seed=1)}
    decisions.apply(
        folder.store, table(tmp_path / "d.csv", *({"clip_id": r["clip_id"], "decision": "keep"} for r in first))
    )
    second = choose(folder, 1000)
    assert {r["clip_id"] for r in second} == set(kept(folder).clip_id) - {r["clip_id"] for r in first}
    assert len(choose(folder, 1000, again=True)) == len(kept(folder))
    with pytest.raises(ValueError, match="no kept clip is in it; there are no subsets"):
        choose(folder, 5, subset="sft")
    for column in ("nonsense", "duration_s", "failed_rules"):
        with pytest.raises(ValueError, match=f"--by {column}: that is no column of kinds"):
            choose(folder, 5, by=column)
    rest = table(tmp_path / "e.csv", *({"clip_id": r["clip_id"], "decision": "keep"} for r in second))
    decisions.apply(folder.store, rest)
    with pytest.raises(ValueError, match="no kept clip is left to review"):
        choose(folder, 5)


def test_the_page_stands_alone_and_escapes(folder: Folder, tmp_path: Path) -> None:
    rows = choose(folder, 3)
    nasty = "</script><script>alert(1)</script>\"'{{7*191}}<img src=x onerror=alert(1)>"
    rows[0]["caption"], rows[1]["uri"] = f"={nasty}", f"/films/{nasty}.mp4"
    handed = hand_out(folder.store, rows, tmp_path / "review", "concept")
    assert (handed.clips, handed.embedded, handed.missing) == (3, True, 1)
    html = handed.page.read_text()
    shown = Page(html)
    assert shown.tags["script"] == 3 and shown.tags["img"] == 0 and not shown.sources, "all is made by the script"
    clips = json.loads(re.search(r'id="clips">(.*?)</script>', html, re.S)[1])  # type: ignore[index]
    assert clips[0]["caption"] == f"={nasty}" and nasty.rpartition("/")[2] in clips[1]["film"]
    assert clips[0]["video"].startswith("data:video/mp4;base64,") and clips[1]["video"] == ""
    assert all(clip["thumb"].startswith("data:image/jpeg") and clip["frames"] for clip in clips)
    script = re.findall(r"<script>(.*?)</script>", html, re.S)[-1]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in html and "innerHTML" not in script
    settings = json.loads(re.search(r'id="settings">(.*?)</script>', html, re.S)[1])  # type: ignore[index]
    assert tuple(settings["columns"]) == decisions.COLUMNS
    with open_film(str(next((tmp_path / "review" / "previews").glob("*.mp4")))) as film:
        assert min(film.stream.width, film.stream.height) <= 240


def test_the_table_can_be_filled_in_and_taken_back(folder: Folder, tmp_path: Path) -> None:
    rows = choose(folder, 4)
    rows[0]["caption"] = "=1+1"
    handed = hand_out(folder.store, rows, tmp_path / "review", "concept")
    written = pd.read_csv(handed.table, dtype=str, keep_default_na=False)
    assert written.caption[0] == "'=1+1" and (written.decision == "").all()
    assert all((tmp_path / "review" / preview).exists() for preview in written.preview)
    written.loc[1, "decision"], written.loc[2, "decision"] = "keep", "Reject"
    written.loc[1, "caption"] = "'=A better caption"
    written.loc[1, "start_s"] = "0,5"  # as a German spreadsheet saves it
    written.to_csv(tmp_path / "filled.csv", sep=";", index=False)
    taken = decisions.apply(folder.store, tmp_path / "filled.csv", by="Ann")
    assert (taken.applied, taken.kept, len(taken.problems)) == (2, 1, 2)
    assert all("no decision" in problem for problem in taken.problems)
    stored = {r["clip_id"]: r for r in families.read(folder.store, families.REVIEWS).to_pylist()}
    good = stored[rows[1]["clip_id"]]
    assert (good["review"], good["review_start_s"], good["review_end_s"]) == ("keep", 0.5, None)
    assert good["review_caption"] == "=A better caption" and good["review_by"] == "Ann" and good["review_at"]
    assert stored[rows[2]["clip_id"]]["review_caption"] is None, "the caption as it was is no correction"


def test_bad_lines_are_named_and_the_rest_is_applied(folder: Folder, tmp_path: Path) -> None:
    clips = kept(folder)
    a, b, c, d = clips.clip_id[:4]
    seconds = clips.duration_s[0]
    lines = [
        {"clip_id": "nobody", "decision": "keep"},
        {"clip_id": a, "decision": "perhaps"},
        {"clip_id": a, "decision": "keep", "start_s": 1, "end_s": 0.5},
        {"clip_id": a, "decision": "keep", "end_s": seconds + 1},
        {"clip_id": a, "decision": "keep", "start_s": -1},
        {"clip_id": a, "decision": "keep", "start_s": "soon"},
        {"clip_id": a, "decision": "keep", "end_s": "nan"},
        {"clip_id": a, "decision": "keep", "at": "yesterday"},
        {"clip_id": b, "decision": "keep", "start_s": 0, "end_s": clips.duration_s[1] + 0.05},
        {"clip_id": c, "decision": "keep", "at": "2026-03-01T12:00:00+02:00"},
        {"clip_id": c, "decision": "reject", "at": "2026-03-01T11:00:00Z"},
        {"clip_id": c, "decision": "keep", "at": "2026-03-01T10:30:00Z"},
        {"clip_id": d, "decision": "r"},
    ]
    taken = decisions.apply(folder.store, table(tmp_path / "d.csv", *lines))
    said = " | ".join(taken.problems)
    for words in (
        "line 2, nobody: the manifest has no such clip", "'perhaps' is neither keep nor reject",
        "from 1 s to 0.5 s does not lie within", f"{seconds:.3f} s", "from -1 s", "start_s 'soon' is no number",
        "end_s 'nan' is no number", "'yesterday' is no moment", "and again since, at 2026-03-01T11:00:00Z",
    ):  # fmt: skip
        assert words in said, words
    assert (taken.applied, len(taken.problems)) == (3, 9)
    stored = {r["clip_id"]: r for r in families.read(folder.store, families.REVIEWS).to_pylist()}
    assert stored[b]["review_start_s"] is None and stored[b]["review_end_s"] is None, "that is the whole clip"
    assert stored[c]["review"] == "reject" and stored[d]["review"] == "reject"
    again = decisions.apply(
        folder.store, table(tmp_path / "e.csv", {"clip_id": c, "decision": "keep", "at": "2026-03-02T00:00:00Z"},
                            {"clip_id": c, "decision": "reject", "at": "2026-02-01T00:00:00Z"})
    )  # fmt: skip
    assert again.applied == 1 and len(again.problems) == 1, "an old table does not undo a newer one"
    assert families.read(folder.store, families.REVIEWS).num_rows == 3


def test_what_is_no_table_is_refused(folder: Folder, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is no such table"):
        decisions.apply(folder.store, tmp_path / "none.csv")
    (tmp_path / "a.csv").write_text("id,verdict\n1,keep\n")
    with pytest.raises(ValueError, match="lacks the column clip_id; needed are clip_id, decision"):
        decisions.apply(folder.store, tmp_path / "a.csv")
    (tmp_path / "b.csv").write_bytes(b"clip_id,decision\n\xff\xfe,keep\n")
    with pytest.raises(ValueError, match="save it as CSV in UTF-8"):
        decisions.apply(folder.store, tmp_path / "b.csv")


def test_decisions_reach_the_manifest_training_and_export_and_stay(folder: Folder, tmp_path: Path) -> None:
    clips = kept(folder)
    drawn = clips[clips.sampled].clip_id.tolist()
    good, bad = drawn[0], drawn[1]
    seconds = float(clips[clips.clip_id == good].duration_s.iloc[0])
    made = table(
        tmp_path / "d.csv",
        {
            "clip_id": good,
            "decision": "keep",
            "start_s": 0.25,
            "end_s": seconds - 0.5,
            "caption": "A <b>cat</b>",
            "by": "Bo",
        },
        {"clip_id": bad, "decision": "reject"},
        {"clip_id": "nobody", "decision": "reject"},
    )
    done = vidcurate("review", folder.store.root, "--apply", made)
    assert done.returncode == 0, done.stderr
    assert "2 decisions taken: 1 keep, 1 reject" in done.stdout and "left out: line 4, nobody" in done.stderr
    for _ in range(2):
        now = folder.clips.to_pandas().set_index("clip_id")
        assert now.failed_rules[bad].tolist() == ["review"] and not now.kept[bad] and not now.sampled[bad]
        assert now.review[good] == "keep" and now.review_by[good] == "Bo" and now.kept[good]
        assert now.review.notna().sum() == 2
        folder.judge(settings=["rules.blurred.low=0.1"])
    assert "review is not reject" in vidcurate("why", folder.store.root, bad).stdout
    assert "review" in (Path(folder.store.root) / "report.html").read_text()

    from generator.data import read_rows

    whole = now.loc[good]
    rows = {row.uri + row.caption: row for row in read_rows(folder.store.root)}
    row = rows[whole.uri + "A <b>cat</b>"]
    assert row.start == whole.start_us + 250_000 and row.end == whole.start_us + round((seconds - 0.5) * 1e6)
    assert row.id.startswith(good) and row.id != good, "nothing cached of the whole clip is taken for its part"
    done = vidcurate("export", folder.store.root, "--format", "jsonl", "--to", tmp_path / "x", "--which", "kept")
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in (tmp_path / "x" / "clips.jsonl").read_text().splitlines()]
    line = next(each for each in lines if each["clip_id"] == good)
    assert line["caption"] == "A <b>cat</b>" and line["duration_s"] == pytest.approx(seconds - 0.75)


def test_a_subset_may_ask_for_a_persons_yes(folder: Folder, tmp_path: Path) -> None:
    clip = kept(folder).clip_id[0]
    decisions.apply(folder.store, table(tmp_path / "d.csv", {"clip_id": clip, "decision": "keep"}))
    (tmp_path / "mine.py").write_text(
        "import dataclasses\nimport pyarrow.compute as pc\nfrom curation.recipe import Subset\n"
        "from curation.recipes import embedded\nfrom filters.rules import Rule\n"
        "def recipe():\n"
        "    picked = Rule('picked', where=pc.field('review') == 'keep')\n"
        "    return dataclasses.replace(embedded(), name='mine', subsets=(Subset('sft', (picked,)),))\n"
    )
    result = folder.judge(str(tmp_path / "mine.py"))
    subsets = dict(zip(result.clips["clip_id"].to_pylist(), result.clips["subsets"].to_pylist(), strict=True))
    assert [c for c, names in subsets.items() if names] == [clip]


def test_parts_of_clips_as_people_left_them() -> None:
    clips = pa.table(
        {
            "start_us": pa.array([1_000_000, 2_000_000, 3_000_000], pa.int64()),
            "end_us": pa.array([5_000_000, 6_000_000, 7_000_000], pa.int64()),
            "duration_s": [4.0, 4.0, 4.0],
            "caption": ["a", None, "c"],
            "review_start_s": pa.array([None, 0.5, 1.0], pa.float64()),
            "review_end_s": pa.array([None, 4.05, 3.0], pa.float64()),
            "review_caption": pa.array([None, "b", None], pa.string()),
        }
    )
    seen = as_reviewed(clips).to_pydict()
    assert seen["start_us"] == [1_000_000, 2_500_000, 4_000_000]
    assert seen["end_us"] == [5_000_000, 6_000_000, 6_000_000]
    assert seen["duration_s"] == [4.0, 3.5, 2.0] and seen["caption"] == ["a", "b", "c"]
    plain = clips.drop_columns(["review_start_s"])
    assert as_reviewed(plain) is plain


def test_the_command_hands_out(folder: Folder, tmp_path: Path) -> None:
    done = vidcurate("review", folder.store.root, "--count", 2, "--to", tmp_path / "r")
    assert done.returncode == 0, done.stderr
    assert "2 clips; then: vidcurate review" in done.stdout
    assert (tmp_path / "r" / "review.html").exists() and len(list((tmp_path / "r" / "previews").glob("*.mp4"))) == 2
    assert "no such table" in sentence(vidcurate("review", folder.store.root, "--apply", tmp_path / "none.csv"))
    (tmp_path / "empty.csv").write_text("clip_id,decision\n")
    assert "no line of it could be used" in sentence(
        vidcurate("review", folder.store.root, "--apply", tmp_path / "empty.csv"), 1
    )


@pytest.mark.skipif(shutil.which("node") is None, reason="the script is parsed by node")
def test_the_script_parses() -> None:
    script = Path(decisions.__file__).parent / "templates" / "review.js"
    done = subprocess.run(["node", "--check", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr

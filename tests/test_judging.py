"""Judging by people: prompts, pairs, a page that gives nobody away, and what votes come to."""

from __future__ import annotations

import base64
import json
import re
from collections import Counter
from pathlib import Path

import av
import numpy as np
import pytest

from curation.judging.page import AXES, COLUMNS, write_compare
from curation.judging.prompts import CONCEPTS, MOTIONS, read_prompts, spread
from curation.judging.samples import draw, pairs, read_samples
from curation.judging.votes import count, majority, read_key
from tests.generator_films import write_film
from tests.test_cli import sentence, vidcurate

EVIL = "</script><script>alert(1)</script>"


def folder(to: Path, shade: int, names: list[str], size: tuple[int, int] = (64, 96), about: object = None) -> Path:
    """A video of one shade for each name."""
    to.mkdir(parents=True)
    for name in names:
        write_film(to / f"{name}.mp4", [np.full((*size, 3), shade, np.uint8)] * 4)
    if about is not None:
        (to / "prompts.json").write_text(json.dumps(about))
    return to


def test_the_prompts_fill_all_cells_alike() -> None:
    prompts = read_prompts()
    cells = Counter((p.concept, p.motion) for p in prompts)
    assert set(cells) == {(c, m) for c in CONCEPTS for m in MOTIONS} and set(cells.values()) == {7}
    assert len({p.id for p in prompts}) == len(prompts) == 105
    some = spread(prompts, 30)
    assert set(Counter((p.concept, p.motion) for p in some).values()) == {2} and len(spread(prompts, 1000)) == 105


def test_prompts_of_ones_own_are_read_and_checked(tmp_path: Path) -> None:
    file = tmp_path / "mine.tsv"
    file.write_text('concept\tmotion\tprompt\n../x\thigh\tA "quoted" cat\n\t\tA dog\n')
    first, second = read_prompts(file)
    assert (first.id, first.text, second.id) == ("___x-high-01", 'A "quoted" cat', "prompt-01")
    for text, says in {
        "prompt\nA cat\n": "lacks the column concept",
        "concept\tmotion\tprompt\na\tb\tx\na\tb\tx\n": "line 3: the prompt is a repetition",
        "concept\tmotion\tprompt\na\tb\t \n": "line 2: the prompt is empty",
        "concept\tmotion\tprompt\n": "no prompt in it",
    }.items():
        file.write_text(text)
        with pytest.raises(ValueError, match=says):
            read_prompts(file)
    with pytest.raises(ValueError, match="cannot be read"):
        read_prompts(tmp_path / "none.tsv")


def test_pairs_are_files_of_one_name_and_one_prompt(tmp_path: Path) -> None:
    about = {"x.mp4": {"text": "A cat", "concept": "animals", "motion": "low"}}
    a = folder(tmp_path / "a", 0, ["x", "y", "only"], about=about)
    b = folder(tmp_path / "b", 0, ["x", "y"], about={"x.mp4": "A cat"})
    found, alone = pairs(a, b)
    assert [p.name for p in found] == ["x", "y"] and alone == ["only"]
    assert (found[0].prompt, found[0].concept, found[0].motion) == ("A cat", "animals", "low")
    (b / "prompts.json").write_text(json.dumps({"x.mp4": "A dog"}))
    with pytest.raises(ValueError, match=r"x: asked for 'A cat' in .* and for 'A dog'"):
        pairs(a, b)
    with pytest.raises(ValueError, match="no file name in common"):
        pairs(a, folder(tmp_path / "c", 0, ["z"]))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no video in it"):
        read_samples(tmp_path / "empty")
    with pytest.raises(ValueError, match="no such folder"):
        read_samples(tmp_path / "none")


def shade(uri: str, to: Path) -> tuple[float, tuple[int, int]]:
    """Of the first frame of a video in a data URI, and its size."""
    to.write_bytes(base64.b64decode(uri.removeprefix("data:video/mp4;base64,")))
    with av.open(str(to)) as container:
        frame = next(container.decode(video=0)).to_ndarray(format="rgb24")
    return float(frame.mean()), frame.shape[:2]


def test_the_page_gives_nobody_away_and_the_key_does(tmp_path: Path) -> None:
    names = [f"n{k}" for k in range(12)]
    about = {"n0.mp4": {"text": EVIL, "concept": "animals", "motion": "low"}}
    a = folder(tmp_path / "dark-model", 30, names, about=about)
    b = folder(tmp_path / "bright-model", 220, names, size=(48, 72))
    found, _ = pairs(a, b)
    made = write_compare(a, b, found, tmp_path / "page.html")
    html, key = made.page.read_text(), read_key(made.key)
    for word in ("dark-model", "bright-model", "n0", str(tmp_path), "animals"):
        assert word not in html
    assert EVIL not in html and html.count("<script") == 3
    assert "default-src 'none'" in html and not re.search(r"(src|href)=[\"']?http", html)
    shown = json.loads(re.search(r'id="pairs">(.*?)</script>', html, re.S).group(1))  # type: ignore[union-attr]
    assert made.pairs == len(shown) == 12 and [one["id"] for one in shown] == sorted(key["pairs"])
    for one in shown:
        (first, of_first), (second, of_second) = (shade(uri, tmp_path / "v.mp4") for uri in one["videos"])
        assert of_first == of_second == (48, 72), "the smaller size for both"
        assert (first < second) == (key["pairs"][one["id"]]["first"] == "a")
    assert {said["first"] for said in key["pairs"].values()} == {"a", "b"}
    assert key["axes"] == {axis.name: axis.voters for axis in AXES}
    assert key["axes"]["realness"] == key["axes"]["aesthetics"] == 6 and key["axes"]["text"] == 3


def test_videos_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    a, b = (folder(tmp_path / name, 90, ["x", "y"]) for name in "ab")
    (b / "y.mp4").write_bytes(b"nothing")
    found, _ = pairs(a, b)
    made = write_compare(a, b, found, tmp_path / "page.html")
    assert made.unread == ("y",) and [p["name"] for p in read_key(made.key)["pairs"].values()] == ["x"]
    (a / "x.mp4").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="none of the 2 pairs"):
        write_compare(a, b, found, tmp_path / "page.html")


KEY = {
    "page": "p",
    "a": "A",
    "b": "B",
    "axes": {"overall": 3, "realness": 6},
    "pairs": {
        f"{k}": {
            "first": "ab"[k % 2],
            "concept": ["animals", "human"][k % 2],
            "motion": "low",
            "name": f"{k}",
            "prompt": "",
        }
        for k in range(8)
    },
}


def table(file: Path, rows: list[tuple[str, str, str, str]], at: str = "2026-01-01T00:00:00Z", page: str = "p") -> Path:
    lines = [",".join(COLUMNS), *(f"{page},{pair},{axis},{vote},{by},{at}" for pair, axis, vote, by in rows)]
    file.write_text("\r\n".join(lines))
    return file


def test_votes_come_to_majorities_and_net_win_rates(tmp_path: Path) -> None:
    for_a, for_b = (lambda k: ("first", "second")[k % 2]), (lambda k: ("second", "first")[k % 2])
    rows = [(f"{k}", "overall", for_a(k), by) for k in range(6) for by in ("ann", "bob")]
    rows += [(f"{k}", "overall", for_b(k), "cy") for k in range(6)]  # outvoted
    rows += [("6", "overall", for_b(6), by) for by in ("ann", "bob", "cy")]
    rows += [("7", "overall", for_a(7), "ann"), ("7", "overall", for_b(7), "bob"), ("7", "realness", "equal", "ann")]
    found = count([table(tmp_path / "v.csv", rows)], KEY)
    rates = {(r.axis, r.kind): r for r in found.rates}
    overall = rates["overall", ""]
    assert (overall.wins, overall.losses, overall.ties, overall.complete) == (6, 1, 1, 7)
    assert overall.net == pytest.approx(5 / 8) and overall.low < overall.net < overall.high <= 1
    human, animals = rates["overall", "concept human"], rates["overall", "concept animals"]
    assert (human.wins, human.losses, human.ties) == (3, 0, 1) and (animals.wins, animals.losses) == (3, 1)
    assert rates["overall", "motion low"].pairs == 8
    assert (rates["realness", ""].ties, rates["realness", ""].complete) == (1, 0)
    assert found.voters == {"ann": 9, "bob": 8, "cy": 7} and found.agreement == {"overall": 1 / 8}
    complete = {(r.axis, r.kind): r for r in count([tmp_path / "v.csv"], KEY, complete_only=True).rates}
    assert complete["overall", ""].pairs == 7 and ("realness", "") not in complete


def test_a_later_vote_counts_and_wrong_lines_are_named(tmp_path: Path) -> None:
    late = table(tmp_path / "late.csv", [("0", "overall", "second", "ann")], at="2026-01-02T00:00:00Z")
    early = table(
        tmp_path / "early.csv",
        [
            ("0", "overall", "first", "ann"),
            ("9", "overall", "first", "ann"),
            ("0", "nose", "first", "ann"),
            ("0", "overall", "up", "ann"),
            ("0", "overall", "first", ""),
        ],
    )
    for files in ([late, early], [early, late]):
        found = count(files, KEY)
        assert (found.rates[0].wins, found.rates[0].losses) == (0, 1) and found.voters == {"ann": 1}
        assert len(found.problems) == 4 and "early.csv, line 3: the page has no pair '9'" in found.problems
    with pytest.raises(ValueError, match="of page q, the key of page p"):
        count([table(tmp_path / "other.csv", [("0", "overall", "first", "ann")], page="q")], KEY)
    (tmp_path / "bad.csv").write_text("x,y\n1,2\n")
    with pytest.raises(ValueError, match="lacks the column page"):
        count([tmp_path / "bad.csv"], KEY)
    with pytest.raises(ValueError, match="this is not the key"):
        read_key(tmp_path / "bad.csv")
    assert [majority(votes) for votes in (["a", "tie"], ["a", "b"], ["b", "b", "a"], [])] == ["a", "tie", "b", "tie"]


def test_the_commands_make_a_page_and_count_its_votes(tmp_path: Path) -> None:
    a, b = (folder(tmp_path / name, 90, ["x", "y", "z"]) for name in "ab")
    made = vidcurate("compare", a, b, "--out", tmp_path / "page.html", "--axes", "overall,text", "--count", 2)
    assert made.returncode == 0 and "(2 pairs; hand it to at least 3 people)" in made.stdout, made.stderr
    key = read_key(tmp_path / "page.key.json")
    rows = [(pair, "text", "first" if said["first"] == "a" else "second", "ann") for pair, said in key["pairs"].items()]
    table(tmp_path / "v.csv", rows, page=key["page"])
    options = ("--key", tmp_path / "page.key.json", "--out", tmp_path / "votes.json")
    counted = vidcurate("votes", tmp_path / "v.csv", *options)
    assert counted.returncode == 0 and "+100.0 %" in counted.stdout, counted.stderr
    assert json.loads((tmp_path / "votes.json").read_text())["rates"][0]["wins"] == 2
    assert "there is no 'nose'" in sentence(vidcurate("compare", a, b, "--axes", "nose"))


def test_samples_are_drawn_for_prompts_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    from generator.train import train
    from tests.generator_films import make_manifest
    from tests.test_generator_train import quiet, tiny

    trained = train(make_manifest(tmp_path / "shapes", clips=2), tiny(), tmp_path / "ckpt", quiet)
    prompts = spread(read_prompts(), 15)[:3]
    files = draw(trained, prompts, tmp_path / "samples", steps=2)
    assert [file.name for file in files] == [f"{p.id}.mp4" for p in prompts]
    stamps = [file.stat().st_mtime_ns for file in files]
    assert files[0].read_bytes() != files[1].read_bytes()
    files[1].unlink()
    again = draw(trained, prompts, tmp_path / "samples", steps=2)
    assert [f.stat().st_mtime_ns for f in again][::2] == stamps[::2] and again[1].exists()
    samples = read_samples(tmp_path / "samples")
    assert {(s.prompt, s.concept) for s in samples.values()} == {(p.text, p.concept) for p in prompts}
    with pytest.raises(ValueError, match="samples of another model or other settings"):
        draw(trained, prompts, tmp_path / "samples", steps=3)

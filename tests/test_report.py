"""The report: that it shows what the manifest says, and shows foreign text as text."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest

from curation.folder import Folder
from curation.report.corpus import breakdowns, corpus, films, matrix
from curation.report.numbers import funnel, histograms
from curation.run import Result, run
from manifests.buckets import MOVIE_GEN_ASPECTS, Buckets, TokenBuckets
from manifests.films.film import Film, render
from manifests.films.shots import Shot


class Page(HTMLParser):
    """Collects tags, attributes and text."""

    def __init__(self, html: str):
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.sources: list[str] = []
        self.text: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.sources += [v or "" for k, v in attrs if k in ("src", "href")]

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def page(out: str | Path) -> Page:
    return Page((Path(out) / "report.html").read_text())


def test_the_report_stands_alone(curated: Result) -> None:
    shown = page(curated.out)
    assert shown.tags["img"] > 20 and all(s.startswith("data:image/jpeg;base64,") for s in shown.sources)
    assert not shown.tags["script"] and not shown.tags["link"]
    assert shown.tags["svg"] > 10


def test_the_report_names_everything(curated: Result) -> None:
    text = " ".join(" ".join(page(curated.out).text).split())
    for word in (
        "Funnel",
        "Signals",
        "Copies",
        "Inputs that were not used",
        "broken_off.mp4",
        "space_again.mp4",
        "embedded",
    ):
        assert word in text
    table = pd.read_parquet(Path(curated.out) / "clips.parquet")
    for name in table.failed_rules.explode().dropna().unique():
        assert name in text
    assert f"kept {table.kept.sum()}" in text


def test_the_funnel_adds_up(curated: Result) -> None:
    steps = funnel(curated.clips, Folder(curated.out).recipe)
    table = curated.clips.to_pandas()
    assert steps[-1].left == table.kept.sum()
    assert sum(step.first for step in steps) == (~table.kept).sum()
    for step in steps:
        failing = table.failed_rules.map(lambda names, s=step: s.name in names)
        assert step.alone == failing.sum() and step.only == (failing & (table.failed_rules.map(len) == 1)).sum()


def test_histograms_count_every_clip_once(curated: Result) -> None:
    made = histograms(curated.clips, Folder(curated.out).recipe.rules)
    assert {"sharpness", "motion_vmaf", "text_area"} <= {h.name for h in made}
    for h in made:
        assert sum(h.kept) + sum(h.rejected) + h.missing == curated.clips.num_rows, h.name
        assert all(0 <= at <= 1 for at, _ in h.marks)


def test_corpus_statistics(curated: Result) -> None:
    table = curated.clips.to_pandas()
    stated = {c.name: c for c in corpus(curated.clips)}
    assert stated["kept"].clips == table.kept.sum()
    assert abs(stated["all"].hours * 3600 - table.duration_s.sum()) < 1e-6


def test_breakdowns_add_up(curated: Result) -> None:
    clips = curated.clips
    table = clips.to_pandas()
    made = {b.title: b for b in breakdowns(clips, {0: "rockets"})}
    for title in ("orientation", "source"):
        lines = made[title].lines
        assert sum(line.raw.clips for line in lines if line.raw) == len(table)
        assert sum(line.kept.hours for line in lines) * 3600 == pytest.approx(table[table.kept].duration_s.sum())
    wide = next(line for line in made["orientation"].lines if line.name == "landscape")
    assert wide.sampled.clips == (table.sampled & (table.aspect > 1)).sum()
    assert wide.kept.mean_s == pytest.approx(table[table.kept & (table.aspect > 1)].duration_s.mean())
    sizes = table.concept.value_counts()
    assert [line.kept.clips for line in made["concept"].lines] == sizes.tolist()[:20]
    assert made["concept"].lines[0].name == "rockets" and made["concept"].lines[0].raw is None


def test_breakdowns_of_subsets_and_of_many_sources() -> None:
    clips = pa.table(
        {
            "uri": [f"s3://b/raw/{k % 30:02d}/{k}.mp4" for k in range(300)],
            "duration_s": [10.0] * 300,
            "aspect": [1.0, 2.0, 0.5] * 100,
            "kept": [k % 2 == 0 for k in range(300)],
            "sampled": [k % 4 == 0 for k in range(300)],
            "subsets": [["low_res", "sft"][: k % 3] if k % 2 == 0 else [] for k in range(300)],
            "concept": pa.array([None] * 300, pa.int32()),
            "caption_category": ["animals", None, "sport"] * 100,
        }
    )
    made = {b.title: b for b in breakdowns(clips, {})}
    assert [(line.name, line.kept.clips) for line in made["subset"].lines] == [("low_res", 100), ("sft", 50)]
    assert made["subset"].lines[0].sampled.clips == 50 and made["subset"].lines[0].raw is None
    assert [line.name for line in made["source"].lines[:2]] == ["00", "01"] and made["source"].more == 10
    assert [line.name for line in made["orientation"].lines] == ["landscape", "square", "portrait"]
    assert [(line.name, line.kept.clips) for line in made["category"].lines] == [("animals", 50), ("sport", 50)]
    assert "concept" not in made
    assert {c.name: c.clips for c in corpus(clips)} == {
        "all": 300, "kept": 150, "sampled": 75, "low_res": 100, "sft": 50,
    }  # fmt: skip


def test_films_are_counted_as_read(curated: Result) -> None:
    stated = films(curated.videos)
    table = curated.videos.to_pandas()
    assert stated.clips == (table.status == "ok").sum() < len(table)
    assert stated.hours * 3600 == pytest.approx(table[table.status == "ok"].duration_s.sum())


def test_the_bucket_matrix_counts_every_kept_clip_once() -> None:
    buckets = Buckets()
    clips = pa.table({"aspect": [1.8, 1.8, 1.0, 0.56, 1.8, 1.8], "duration_s": [20.0, 20, 5, 9, 1, 20]})
    clips = clips.append_column("bucket", buckets.assign(clips))
    clips = clips.append_column("kept", pa.array([True, True, True, True, True, False]))
    clips = clips.append_column("sampled", pa.array([True, False, True, False, False, False]))
    shown = matrix(clips, buckets)
    assert shown.rows == MOVIE_GEN_ASPECTS and shown.columns == ("16s", "12-16s", "10.67s", "8-12s", "4-8s")
    assert shown.kept[0] == (2, 0, 0, 0, 0) and shown.sampled[0] == (1, 0, 0, 0, 0)
    assert shown.kept[2] == (0, 0, 0, 0, 1) and shown.kept[4] == (0, 0, 0, 1, 0)
    assert sum(map(sum, shown.kept)) + shown.outside == 5 and shown.outside == 1
    many = TokenBuckets()
    clips = clips.append_column("clip_id", pa.array(list("abcdef"))).append_column("height", pa.array([720] * 6))
    clips = clips.set_column(clips.column_names.index("bucket"), "bucket", many.assign(clips))
    shown = matrix(clips, many)
    assert shown.rows == ("384x672@512", "512x512@512", "672x384@512") and shown.columns == ("5f", "29f", "49f")


def test_concepts_have_a_sheet_and_a_name(curated: Result, tmp_path: Path) -> None:
    shutil.copytree(curated.out, tmp_path / "out")
    table = curated.clips.to_pandas()
    first = table[table.concept == 0].clip_id.iloc[0]
    (tmp_path / "out" / "concepts.json").write_text(json.dumps({first: "<b>rockets</b>", "gone": "x"}))
    Folder(tmp_path / "out").report()
    shown = page(tmp_path / "out")
    assert "<b>rockets</b>" in "".join(shown.text) and "concept 0" not in "".join(shown.text)
    assert shown.tags["img"] >= page(curated.out).tags["img"]
    (tmp_path / "out" / "concepts.json").write_text("[1]")
    with pytest.raises(ValueError, match=r"concepts\.json: write names as"):
        Folder(tmp_path / "out").report()


def test_foreign_text_is_shown_as_text(client, recipe, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    nasty = "<img src=x onerror=alert(1)> & {{1237*1231}}"
    path = Path(render(Film("plain", (Shot("cat", 1.5, "pan_left", 0.1),)), tmp_path / "films").path)
    path.rename(path.with_name(f"{nasty}.mp4"))
    (tmp_path / "films" / f"{nasty} broken.mp4").write_bytes(b"x")
    run([str(tmp_path / "films")], tmp_path / "out", recipe, client=client)
    html = (tmp_path / "out" / "report.html").read_text()
    assert "<img src=x" not in html and str(1237 * 1231) not in html and "1237*1231" in html
    assert f"{nasty}.mp4" in "".join(page(tmp_path / "out").text)


def test_an_empty_manifest_has_a_report_too(client, recipe, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "films").mkdir()
    (tmp_path / "films" / "broken.mp4").write_bytes(b"x")
    run([str(tmp_path / "films")], tmp_path / "out", recipe, client=client)
    assert "broken.mp4" in " ".join(page(tmp_path / "out").text)


def test_reports_survive_lost_packs(curated: Result, tmp_path: Path) -> None:
    shutil.copytree(curated.out, tmp_path / "out")
    for pack in (tmp_path / "out" / "stages").glob("scan-*/packs/*.parquet"):
        pack.unlink()
    Folder(tmp_path / "out").report()
    assert "no frames" in " ".join(page(tmp_path / "out").text)

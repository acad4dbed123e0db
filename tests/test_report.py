"""The report: that it shows what the manifest says, and shows foreign text as text."""

from __future__ import annotations

import shutil
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd

from curation.folder import Folder
from curation.report.numbers import corpus, funnel, histograms
from curation.run import Result, run
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

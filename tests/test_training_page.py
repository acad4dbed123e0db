"""The page of a training: it says what the log says, shows what was drawn, and shows foreign text as text."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
from curation.folder import Folder
from curation.report.plots import HEIGHT, WIDTH, line_plot, span_plot
from curation.report.training import read_training, write_training
from curation.run import Result
from generator.train import train
from tests.generator_films import make_manifest, one_thread  # noqa: F401  (used by being here)
from tests.test_generator_train import quiet, tiny
from tests.test_report import Page

EVIL = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    manifest = make_manifest(tmp_path_factory.mktemp("shapes"), clips=4)
    return train(manifest, tiny(), tmp_path_factory.mktemp("finished") / "out", quiet)


@pytest.fixture
def trained(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "train"))


def test_the_page_shows_curves_samples_and_reconstructions(trained: Path) -> None:
    file = write_training(trained)
    assert file == trained / "report.html"
    html = file.read_text()
    shown = Page(html)
    assert not shown.tags["script"] and all(s.startswith("data:image/") for s in shown.sources)
    assert shown.tags["img"] == 2, "the VAE's reconstructions, and one sample"
    assert shown.tags["polyline"] >= 4
    words = " ".join(" ".join(shown.text).split())
    assert json.loads((trained / "samples" / "prompts.json").read_text())["0.mp4"] in words
    assert "vae: loss" in words and "dit: loss" in words and "Recipe tiny" in words
    training = read_training(trained)
    assert training is not None and [m.name for m in training.models] == ["vae", "dit"]
    lines = [json.loads(line) for line in (trained / "log.jsonl").read_text().splitlines()]
    assert training.models[1].loss_last == [line["loss"] for line in lines if line["model"] == "dit"][-1]
    assert training.models[0].steps == 4


def log(folder: Path, lines: list[dict[str, Any]], rest: str = "") -> Path:
    folder.mkdir(exist_ok=True)
    facts = {"recipe": {"name": EVIL, "seed": 0}, "clips": 3, "finished": False}
    (folder / "train.json").write_text(json.dumps(facts))
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + rest)
    return folder


def test_a_training_that_runs_is_shown_as_far_as_it_is(tmp_path: Path) -> None:
    assert read_training(tmp_path) is None
    lines = [
        {"step": k, "model": EVIL, "loss": 2.0 / k, "loss_t1": 1.0, "loss_t2": 3.0, "mfu": "n/a", "data_share": 0.25}
        for k in range(1, 40)
    ]
    lines[9] |= {"val_loss": 0.5, "val_psnr": 21.0, "warning": f"spike {EVIL}"}
    lines[19] |= {"val_loss": 0.25, "mfu": 0.5}
    training = read_training(log(tmp_path, lines, '{"step": 40, "mod'))
    assert training is not None
    (model,) = training.models
    assert (model.steps, model.held_out, model.psnr, model.mfu, model.waiting) == (39, 0.25, 21.0, 0.5, 0.25)
    assert model.loss_first == pytest.approx((2 + 1 + 2 / 3) / 3) and model.tokens is None
    assert [len(line.dots) for line in model.plots[0].lines] == [0, 2], "held-out losses are few: dots"
    assert [line.name for line in model.plots[1].lines] == ["t1", "t2"]
    html = write_training(tmp_path).read_text()
    assert EVIL not in html and html.count("&lt;script&gt;") >= 4 and "not finished yet" in html
    with pytest.raises(ValueError, match="no training here"):
        write_training(tmp_path / "none")
    (tmp_path / "train.json").write_text("{")
    with pytest.raises(ValueError, match="the books of this training are damaged"):
        read_training(tmp_path)


def test_the_report_of_a_run_shows_the_training_in_it(curated: Result, trained: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(curated.out, tmp_path / "run"))
    plain = Path(Folder(out).report()).read_text()
    assert "<h2>Training</h2>" not in plain
    shutil.copytree(trained, out / "train")
    html = Path(Folder(out).report()).read_text()
    assert "<h2>Training</h2>" in html and "dit: loss" in html and Page(html).tags["polyline"] >= 4
    shutil.copy(out / "train" / "train.json", out)
    assert write_training(out).name == "training.html", "the run's own report stays"


def test_lines_lie_where_their_numbers_say() -> None:
    plot = line_plot("loss", {"a": [(0, 1.0), (50, 2.0), (100, 3.0)], "b": [(0, 3.0), (100, float("nan"))]})
    assert plot is not None
    points = [tuple(map(float, point.split(","))) for point in plot.lines[0].points.split()]
    (x0, y0), (x1, y1), (x2, y2) = points
    assert x0 < x1 < x2 <= WIDTH and y0 > y1 > y2 >= 0 and y0 <= HEIGHT
    assert x1 - x0 == pytest.approx(x2 - x1, abs=0.2) and y0 - y1 == pytest.approx(y1 - y2, abs=0.2)
    ticks = {tick.label: tick.at for tick in plot.up}
    assert y1 == pytest.approx(ticks["2"], abs=0.2) and plot.lines[1].last == "3"
    logarithmic = line_plot("loss", {"a": [(1, 1.0), (2, 10.0), (3, 100.0)]}, log=True)
    assert logarithmic is not None
    ys = [float(point.split(",")[1]) for point in logarithmic.lines[0].points.split()]
    assert ys[0] - ys[1] == pytest.approx(ys[1] - ys[2], abs=0.2)
    assert line_plot("none", {"a": [(0, float("inf"))]}) is None and line_plot("none", {}) is None
    long = line_plot("long", {"a": [(k, 1.0 + k % 2) for k in range(5000)]})
    assert long is not None and len(long.lines[0].points.split()) == 400
    assert set(re.findall(r",([\d.]+)", long.lines[0].points)).__len__() <= 3, "neighbours are averaged"


def test_intervals_stand_beside_zero() -> None:
    plot = span_plot([("up", 1.0, 2.0, 3.0, True), ("unclear", -1.0, 0.5, 2.0, None)])
    up, unclear = plot.spans
    assert plot.zero < up.low < up.mean < up.high and unclear.low < plot.zero < unclear.high
    assert any(tick.label == "0%" and tick.at == plot.zero for tick in plot.ticks)

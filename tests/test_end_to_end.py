"""From mp4 files to a sampled clip: the commands that train and generate, and what `make demo` runs."""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

pytest.importorskip("torch")
from curation.run import Result
from manifests.media.container import decode, open_film
from tests.test_cli import ROOT, sentence, vidcurate


def losses(log: Path, model: str) -> list[float]:
    return [line["loss"] for line in map(json.loads, log.read_text().splitlines()) if line["model"] == model]


def test_train_resumes_and_generate_samples(curated: Result, tmp_path: Path) -> None:
    trained = vidcurate("train", curated.out, "--recipe", "smoke", "--out", tmp_path / "ckpt")
    assert trained.returncode == 0, trained.stderr
    log = tmp_path / "ckpt" / "log.jsonl"
    assert {"step", "model", "loss"} <= set(json.loads(log.read_text().splitlines()[0]))
    assert len(losses(log, "vae")) == len(losses(log, "dit")) == 8
    before = log.read_text()
    again = vidcurate("train", curated.out, "--recipe", "smoke", "--out", tmp_path / "ckpt")
    assert again.returncode == 0 and log.read_text() == before, "a finished training is left alone"

    made = vidcurate("generate", tmp_path / "ckpt", "--prompt", "A cat", "-o", tmp_path / "cat.mp4", "--steps", 3)
    assert made.returncode == 0, made.stderr
    with open_film(str(tmp_path / "cat.mp4")) as film:
        assert sum(1 for _ in decode(film)) == 17
        assert (film.width, film.height) == (64, 64)

    assert "no trained model here" in sentence(
        vidcurate("generate", tmp_path / "none", "--prompt", "x", "-o", tmp_path / "x.mp4")
    )
    assert "was trained for videos from text, not for videos from a first frame" in sentence(
        vidcurate("generate", tmp_path / "ckpt", "--prompt", "x", "--image", "x.png", "-o", tmp_path / "x.mp4")
    )
    assert "--fresh" in sentence(
        vidcurate("train", curated.out, "--recipe", "tiny_cogvideox", "--out", tmp_path / "ckpt")
    )
    assert "there is no training recipe 'nosuch'" in sentence(
        vidcurate("train", curated.out, "--recipe", "nosuch", "--out", tmp_path / "other")
    )


def test_end_to_end_curates_trains_and_samples(curated: Result, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(curated.out, out)  # the curation half is resumed, not repeated
    films = str(Path(curated.videos["uri"][0].as_py()).parent)
    done = vidcurate("end-to-end", films, "--out", out, "--train-recipe", "smoke", "--workers", 1)
    assert done.returncode == 0, done.stderr
    assert "10 videos" in done.stdout and str(out / "sample.mp4") in done.stdout
    assert set(json.loads((out / "train" / "train.json").read_text())["loss"]) == {"vae", "dit"}
    captions = set(pd.read_parquet(out / "clips.parquet").query("sampled").caption)
    assert any(caption in done.stdout for caption in captions)
    with open_film(str(out / "sample.mp4")) as film:
        assert sum(1 for _ in decode(film)) == 17
    wrong = sentence(vidcurate("end-to-end", films, "--out", tmp_path / "new", "--train-recipe", "nosuch"))
    assert "nosuch" in wrong and not (tmp_path / "new").exists(), "said before any work is done"


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_the_demo_learns(tmp_path: Path) -> None:
    """The whole demo on a fixed seed; VAE and DiT losses go down."""
    command = [sys.executable, "-m", "curation.demo", "--out", str(tmp_path / "demo")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    out = tmp_path / "demo" / "out"
    for place in ("clips.parquet", "report.html", "train", "sample.mp4"):
        assert (out / place).exists() and str(out / place) in done.stdout
    dit = losses(out / "train" / "log.jsonl", "dit")
    assert statistics.fmean(dit[-10:]) < 0.4 * statistics.fmean(dit[:10])
    stills = losses(out / "train" / "log.jsonl", "vae_stills")
    assert statistics.fmean(stills[-5:]) < 0.5 * statistics.fmean(stills[:5])
    vae = losses(out / "train" / "log.jsonl", "vae")  # of clips, which go on from what stills have taught
    assert statistics.fmean(vae[-5:]) < 0.6 * statistics.fmean(stills[:5])

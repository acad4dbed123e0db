"""The command line: what it prints, its exit codes, and that every mistake is one sentence."""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
import socket
import subprocess
import sys
import tarfile
from pathlib import Path

import pandas as pd
import pytest

from curation.run import Result
from manifests.films.film import Film, Truth, render
from manifests.films.shots import Shot
from manifests.media.container import decode, open_film

ROOT = Path(__file__).parent.parent


def vidcurate(*arguments: object, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "curation", *map(str, arguments)]
    settings = {**os.environ, "COLUMNS": "200", **(env or {})}
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env=settings)


def sentence(done: subprocess.CompletedProcess[str], code: int = 2) -> str:
    """The one line that a mistake is answered with."""
    assert done.returncode == code, done.stderr
    said = done.stderr.strip().splitlines()
    assert "Traceback" not in done.stderr
    assert said[-1].startswith("vidcurate: ") and said[-1].endswith((".", "."))
    return said[-1]


@pytest.fixture
def folder(curated: Result, tmp_path: Path) -> Path:
    shutil.copytree(curated.out, tmp_path / "out")
    return tmp_path / "out"


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("films")
    render(Film("one", (Shot("cat", 2.0, "pan_left", 0.1), Shot("temple", 2.0, actors=2))), folder)
    (folder / "broken.mp4").write_bytes(b"nothing")
    return folder


def test_every_command_has_help_with_an_example() -> None:
    assert vidcurate("--version").stdout == f"vidcurate {importlib.metadata.version('vidcurate')}\n"
    shown = vidcurate("--help")
    assert shown.returncode == 0
    commands = [
        "run",
        "plan",
        "status",
        "report",
        "judge",
        "why",
        "doctor",
        "export",
        "train",
        "generate",
        "end-to-end",
    ]
    for command in commands:
        assert command in shown.stdout
        assert f"vidcurate {command}" in vidcurate(command, "--help").stdout, command


def test_run_resumes_and_tells(films: Path, tmp_path: Path) -> None:
    first = vidcurate("run", films, "--out", tmp_path / "out", "--workers", 1)
    assert first.returncode == 0, first.stderr
    assert "2 videos, 1 quarantined, 0 duplicates, 2 clips, 2 kept" in first.stdout
    assert (tmp_path / "out" / "report.html").exists() and (tmp_path / "out" / "run.json").exists()
    stamp = next((tmp_path / "out" / "stages").glob("scan-*/clips/*.parquet")).stat().st_mtime_ns
    again = vidcurate("run", films, "--out", tmp_path / "out", "--workers", 1, "--strict")
    assert "inputs failed and --strict allows none" in sentence(again, 1)
    assert next((tmp_path / "out" / "stages").glob("scan-*/clips/*.parquet")).stat().st_mtime_ns == stamp
    assert "1 inputs failed, 0 are allowed" in sentence(
        vidcurate("run", films, "--out", tmp_path / "out", "--workers", 1, "--max-failures", 0), 1
    )
    assert vidcurate("run", films, "--out", tmp_path / "out", "--workers", 1, "--max-failures", 1).returncode == 0


def test_a_run_without_a_row_fails(films: Path, tmp_path: Path) -> None:
    done = vidcurate("run", films / "broken.mp4", "--out", tmp_path / "out", "--workers", 1)
    assert "no clip came out of these inputs" in sentence(done, 1)
    assert len(pd.read_parquet(tmp_path / "out" / "clips.parquet")) == 0
    assert pd.read_parquet(tmp_path / "out" / "videos.parquet").status.tolist() == ["quarantined"]


def test_mistakes_are_one_sentence_and_exit_code_2(films: Path, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "run.json").write_text('{"format": 0}')
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "run.json").write_text("{")
    out = tmp_path / "new"
    for arguments, says in (
        (("run", tmp_path / "absent", "--out", out), "there is no such file or folder"),
        (("run", tmp_path / "empty", "--out", out), "no video found there"),
        (("run", films, "--out", tmp_path / "file"), "that is a file; name a folder"),
        (("run", films, "--out", "/proc/nowhere"), "cannot be written"),
        (("run", films, "--out", tmp_path / "old"), "was made by an incompatible version"),
        (("run", films, "--out", tmp_path / "torn"), "was made by an incompatible version"),
        (("run", films, "--out", out, "--recipe", "nosuch"), "there is no recipe 'nosuch'"),
        (("run", films, "--out", out, "--set", "x.y=1"), "there is no 'x'"),
        (("run", films, "--out", out, "--workers", 2, "--scheduler", "tcp://h:1"), "exclude each other"),
        (("run", "https://example.org/x.mp4", "--out", out, "--offline"), "is on the network"),
        (("status", out), "no finished run here"),
        (("report", tmp_path / "empty"), "no finished run here"),
        (("why", folder, "zzzz"), "no clip has an id that begins so"),
        (("why", folder, ""), "clips have an id that begins so"),
        (("judge", folder, "--set", "cuts.ratio=5"), "changes what is measured"),
        (("export", folder, "--format", "zip", "--to", out), "choose from webdataset, clips, jsonl"),
    ):
        assert says in sentence(vidcurate(*arguments)), arguments
    assert not out.exists() or not any(out.iterdir())


def test_wrong_flags_exit_with_2() -> None:
    for arguments in (("run",), ("run", "x", "--nosuch"), ("nosuch",), ("run", "x", "--out", "y", "--workers", "0")):
        assert vidcurate(*arguments).returncode == 2


def test_a_scheduler_that_does_not_answer_is_one_sentence(films: Path, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    done = vidcurate("run", films, "--out", tmp_path / "out", "--scheduler", f"tcp://127.0.0.1:{port}")
    assert "no Dask scheduler answers" in sentence(done)


def test_a_running_scheduler_is_used(films: Path, tmp_path: Path) -> None:
    from distributed import LocalCluster

    with LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=":0") as cluster:
        done = vidcurate("run", films, "--out", tmp_path / "out", "--scheduler", cluster.scheduler_address)
    assert done.returncode == 0, done.stderr
    assert len(pd.read_parquet(tmp_path / "out" / "clips.parquet")) == 2


def test_two_runs_in_one_folder_do_not_meet(films: Path, tmp_path: Path) -> None:
    import fcntl

    (tmp_path / "out").mkdir()
    with (tmp_path / "out" / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        done = vidcurate("run", films, "--out", tmp_path / "out")
    assert "another run is at work" in sentence(done)


def test_plan_status_why_and_report(folder: Path, demo: tuple[Path, dict[str, Truth]]) -> None:
    shown = vidcurate("plan", demo[0], "--out", folder)
    assert shown.returncode == 0 and "9 to use, 1 byte-identical" in shown.stdout
    status = vidcurate("status", folder).stdout
    assert "recipe embedded" in status and "1 quarantined" in status and "broken_off.mp4" in status
    table = pd.read_parquet(folder / "clips.parquet")
    for row in (table[table.kept].iloc[0], table[table.copy_of.notna()].iloc[0], table[table.text_area.isna()].iloc[0]):
        said = vidcurate("why", folder, row.clip_id).stdout
        assert row.clip_id in said and "sharpness" in said and "min_duration" in said
        assert ("verdict: kept" in said) == bool(row.kept)
        assert all(name in said for name in row.failed_rules)
    (folder / "report.html").unlink()
    assert str(folder / "report.html") in vidcurate("report", folder).stdout
    assert (folder / "report.html").stat().st_size > 50_000


def test_missing_weights_are_told_before_anything_is_decoded(films: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "mine.py"
    recipe.write_text(
        "import dataclasses\n"
        "from curation.recipes import embedded\n"
        "from filters.motion.raft import RaftMotion\n"
        "def recipe():\n"
        "    raft = RaftMotion(weights='nowhere.pth')\n"
        "    return dataclasses.replace(embedded(), costly=(raft,), derived=(), rules=())\n"
    )
    planned = vidcurate("plan", films, "--out", tmp_path / "out", "--recipe", recipe)
    assert planned.returncode == 0 and "RaftMotion lacks something here" in planned.stdout, planned.stderr
    done = vidcurate("run", films, "--out", tmp_path / "out", "--recipe", recipe)
    assert done.returncode == 0, done.stderr
    assert "RaftMotion cannot measure, its columns will be null: there are no weights 'nowhere.pth'" in done.stderr
    table = pd.read_parquet(tmp_path / "out" / "clips.parquet")
    assert len(table) and table.motion_raft.isna().all() and table.measure_error.str.contains("nowhere.pth").all()


def test_judge_changes_the_manifest_in_seconds(folder: Path) -> None:
    before = pd.read_parquet(folder / "clips.parquet").kept.sum()
    done = vidcurate("judge", folder, "--set", "rules.unsightly.low=0.85", "--set", "rules.still=off")
    assert done.returncode == 0, done.stderr
    after = pd.read_parquet(folder / "clips.parquet")
    assert after.kept.sum() < before and not after.failed_rules.map(lambda names: "still" in names).any()
    assert json.loads((folder / "run.json").read_text())["set"] == ["rules.unsightly.low=0.85", "rules.still=off"]


def test_doctor_examines() -> None:
    done = vidcurate("doctor")
    assert done.returncode == 0, done.stdout + done.stderr
    for word in ("default recipe", "training", "torchvision", "memory", "cores"):
        assert word in done.stdout


@pytest.mark.parametrize("kind", ["clips", "webdataset", "jsonl"])
def test_export(folder: Path, tmp_path: Path, kind: str) -> None:
    table = pd.read_parquet(folder / "clips.parquet")
    table = table[table.sampled]
    to = tmp_path / "to"
    done = vidcurate("export", folder, "--format", kind, "--to", to, "--short", 90)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{len(table)} clips in ")
    if kind == "jsonl":
        lines = [json.loads(line) for line in (to / "clips.jsonl").read_text().splitlines()]
        assert {line["clip_id"] for line in lines} == set(table.clip_id)
        return
    if kind == "webdataset":
        with tarfile.open(to / "shard-00000.tar") as shard:
            shard.extractall(to, filter="data")
    for row in table.itertuples():
        assert (to / f"{row.clip_id}.txt").read_text() == row.caption
        with open_film(str(to / f"{row.clip_id}.mp4")) as film:
            assert sum(1 for _ in decode(film)) == row.end_frame - row.start_frame
            assert film.height == 90


def test_the_default_recipe_needs_no_network(films: Path, tmp_path: Path) -> None:
    """Every connection that is not to this machine is refused, in the driver and in the workers."""
    (tmp_path / "sitecustomize.py").write_text(
        "import socket\n"
        "real = socket.socket.connect\n"
        "def connect(self, address):\n"
        "    if self.family in (socket.AF_INET, socket.AF_INET6) and not str(address[0]).startswith(('127.', '::1')):\n"
        f"        open({str(tmp_path / 'calls')!r}, 'a').write(f'{{address}}\\n')\n"
        "        raise ConnectionRefusedError(address)\n"
        "    return real(self, address)\n"
        "socket.socket.connect = connect\n"
    )
    probe = "import socket; socket.create_connection(('192.0.2.1', 80), timeout=3)"
    env = {**os.environ, "PYTHONPATH": str(tmp_path)}
    assert subprocess.run([sys.executable, "-c", probe], env=env, capture_output=True, check=False).returncode != 0
    assert (tmp_path / "calls").read_text().strip() == "('192.0.2.1', 80)", "the guard is in place"
    (tmp_path / "calls").unlink()
    done = vidcurate(
        "run", films, "--out", tmp_path / "out", "--workers", 1, "--offline", env={"PYTHONPATH": str(tmp_path)}
    )
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "calls").exists()

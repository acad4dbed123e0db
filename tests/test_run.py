"""Whole runs: what they write, that they decode once, and that killing them changes nothing."""

from __future__ import annotations

import dataclasses
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import av
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from distributed import Client, LocalCluster

from curation import assemble, curate
from curation.folder import Folder
from curation.identify import identify
from curation.job import receipts
from curation.recipe import Recipe, with_settings
from curation.run import Result, plan_run, run
from filters.rules import Rule
from manifests.films.film import Film, Truth, render
from manifests.films.shots import Shot
from manifests.schema import may_be_null
from manifests.store import Store
from tests.media_files import write_video

ROOT = Path(__file__).parent.parent


def rows(out: str | Path) -> pd.DataFrame:
    return pd.read_parquet(Path(out) / "clips.parquet").sort_values("clip_id").reset_index(drop=True)


def by_name(table: pd.DataFrame) -> pd.Series:  # type: ignore[type-arg]
    return table.uri.map(lambda uri: Path(uri).stem)


# -- what a run writes ------------------------------------------------------------------------------------------------


def test_clips_are_the_clean_parts_of_the_shots(curated: Result, demo: tuple[Path, dict[str, Truth]]) -> None:
    table = rows(curated.out)
    for name, truth in demo[1].items():
        mine = table[by_name(table) == name].sort_values("start_frame")
        found = list(zip(mine.start_frame, mine.end_frame, strict=True))
        wanted = [(start, end) for start, end, _ in truth.shots]
        assert len(found) == len(wanted), name
        assert max(abs(a - b) for pair in zip(found, wanted, strict=True) for a, b in zip(*pair, strict=True)) <= 2, (
            name
        )


def test_every_planted_defect_is_rejected_for_its_reason(curated: Result) -> None:
    table = rows(curated.out)
    failed = table[by_name(table) == "rejects"].sort_values("start_frame").failed_rules.map(set).tolist()
    planted = ["still", "text", "shaky", "dark_or_burnt", "blurred", "text", "letterbox", "min_duration"]
    assert len(failed) == len(planted)
    assert all(reason in names for reason, names in zip(planted, failed, strict=True)), failed


def test_good_shots_are_kept(curated: Result) -> None:
    table = rows(curated.out)
    good = table[by_name(table).isin(["travel", "studio", "nature", "space", "street"])]
    assert good.kept.mean() >= 0.95, good[~good.kept][["uri", "start_frame", "failed_rules"]]


def test_every_planted_copy_is_found_and_no_other(curated: Result) -> None:
    table = rows(curated.out).set_index("clip_id")
    copies = table[table.copy_of.notna()]
    pairs = Counter((Path(r.uri).stem, Path(table.loc[r.copy_of].uri).stem) for r in copies.itertuples())
    assert set(pairs) == {("street_small_grey", "street"), ("studio_trimmed", "studio")}
    assert pairs["street_small_grey", "street"] == 3 and pairs["studio_trimmed", "studio"] == 4
    assert copies.failed_rules.map(lambda names: "copy" in names).all() and not copies.kept.any()
    groups = table[table.copy_group.notna()].groupby("copy_group").size()
    assert (groups == 2).all() and len(groups) == 7


def test_camera_moves_are_named(curated: Result, demo: tuple[Path, dict[str, Truth]]) -> None:
    table = rows(curated.out)
    right = total = 0
    for name, truth in demo[1].items():
        mine = table[by_name(table) == name].sort_values("start_frame")
        if name == "rejects" or len(mine) != len(truth.shots):
            continue
        for said, (_, _, shot) in zip(mine.camera_motion, truth.shots, strict=True):
            right, total = right + (said == shot.move), total + 1
    assert total >= 15 and right >= 0.95 * total


def test_decisions_agree_with_one_another(curated: Result) -> None:
    table = rows(curated.out)
    assert (table.kept == (table.failed_rules.map(len) == 0)).all()
    assert (~table.sampled | table.kept).all() and table.sampled.any()
    assert table[~table.kept].sample_probability.eq(0).all()
    assert table[table.kept].sample_probability.between(0, 1).all() and table[table.kept].concept.notna().all()
    assert table[table.kept].caption.str.contains("FPS-24").all() and table[~table.kept].caption.isna().all()
    sizes = table[table.kept].groupby("concept").size()
    assert (table[table.kept].concept_size == table[table.kept].concept.map(sizes)).all()
    assert table.clip_id.is_unique and (table.start_us < table.end_us).all()


def test_inputs_are_all_accounted_for(curated: Result) -> None:
    videos = pd.read_parquet(Path(curated.out) / "videos.parquet").set_index("uri")
    videos.index = videos.index.map(lambda uri: Path(uri).name)
    assert videos.loc["broken_off.mp4"].status == "quarantined"
    assert videos.loc["broken_off.mp4"].error.startswith("broken_off.mp4: not a video that can be read")
    assert videos.loc["space_again.mp4"].status == "duplicate" and "space.mp4" in videos.loc["space_again.mp4"].error
    assert (videos.drop(["broken_off.mp4", "space_again.mp4"]).status == "ok").all()
    assert videos.clips.sum() == len(rows(curated.out))
    shots = pd.read_parquet(Path(curated.out) / "shots.parquet")
    assert set(shots.kind) == {"cut", "fade", "dissolve"} and (shots.end_frame >= shots.start_frame).all()
    assert (shots[shots.kind == "cut"].start_frame == shots[shots.kind == "cut"].end_frame).all()


def test_pandas_alone_reads_the_manifest(curated: Result, tmp_path: Path) -> None:
    code = (
        "import sys, pandas as pd\n"
        f"d = pd.read_parquet({str(Path(curated.out) / 'clips.parquet')!r})\n"
        "assert len(d) and 'kept' in d and list(d.failed_rules.iloc[0]) is not None\n"
        "assert not {'curation', 'manifests', 'filters'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-I", "-c", code], cwd=tmp_path, check=True)


def test_every_column_says_what_it_means(curated: Result) -> None:
    schema = Store(curated.out).read_table("clips.parquet").schema
    assert all(field.metadata and field.metadata.get(b"doc") for field in schema), [
        f.name for f in schema if not f.metadata
    ]
    assert b"grey level/frame" in schema.field("motion_vmaf").metadata[b"unit"]
    assert not {"fingerprint", "descriptor"} & set(schema.names)


def test_nothing_is_null_without_a_reason(curated: Result, recipe: Recipe) -> None:
    table = rows(curated.out)
    for name in [*recipe.walk_schema.names, *recipe.costly_schema.names]:
        if name in table and not name.endswith("_error") and not may_be_null(curated.clips.schema.field(name)):
            assert table[table[name].isna()].measure_error.str.contains(name).all(), name


def test_costly_signals_are_skipped_for_rejected_clips_unless_asked(
    curated: Result, demo: tuple[Path, dict[str, Truth]], client: Client, recipe: Recipe, tmp_path: Path
) -> None:
    table = rows(curated.out)
    gate = {rule.name for rule in recipe.gate}
    early = table.failed_rules.map(lambda names: bool(gate.intersection(names)))
    assert table[early].text_area.isna().all() and table[~early].text_area.notna().all()
    assert table[early].measure_error.str.contains("not measured, the clip already failed").all()
    shutil.copytree(curated.out, tmp_path / "out")
    everything = run([str(demo[0])], tmp_path / "out", recipe, client=client, measure_all=True)
    assert everything.clips["text_area"].null_count == 0


# -- decoding once ----------------------------------------------------------------------------------------------------


def test_every_video_is_opened_and_decoded_once(
    demo: tuple[Path, dict[str, Truth]],
    client: Client,
    recipe: Recipe,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Splitting, every signal, packs, fingerprints and text: one `av.open` a video, in the workers of this process."""
    opened: Counter[str] = Counter()
    real = av.open

    def counting(file: Any, *args: Any, **kwargs: Any) -> Any:
        opened[Path(str(file).removeprefix("file:")).name] += 1
        return real(file, *args, **kwargs)

    monkeypatch.setattr(av, "open", counting)
    result = run([str(demo[0])], tmp_path / "out", recipe, client=client)
    used = [Path(v["uri"]).name for v in result.videos.to_pylist() if v["status"] != "duplicate"]
    assert opened == Counter(used)
    opened.clear()
    run([str(demo[0])], tmp_path / "out", recipe, client=client)
    Folder(tmp_path / "out").judge(settings=["rules.text.high=0.5"])
    Folder(tmp_path / "out").report()
    assert not opened, "resuming, judging and reporting open no video"


# -- resuming and judging ---------------------------------------------------------------------------------------------


def test_a_second_call_does_nothing_again(curated: Result, demo: tuple[Path, dict[str, Truth]], recipe: Recipe) -> None:
    store = Store(curated.out)
    before = {
        s: {n: r.seconds for n, r in receipts(store, s).items()} for s in (recipe.scan_stage, recipe.measure_stage)
    }
    lines = list(plan_run([str(demo[0])], curated.out, recipe))
    assert lines[0] == "10 inputs: 9 to use, 1 byte-identical to another, 0 unreadable"
    for stage in ("scan", "measure"):
        _, total, done, left, *_ = next(line for line in lines if line.startswith(stage)).split()
        assert total == done and left == "0"
    assert all(before.values())


def test_new_videos_join_without_redoing_the_old(client: Client, recipe: Recipe, tmp_path: Path) -> None:
    films = tmp_path / "films"
    render(Film("one", (Shot("cat", 2.0, "pan_left", 0.1), Shot("temple", 2.0, actors=2))), films)
    run([str(films)], tmp_path / "out", recipe, client=client)
    store = Store(tmp_path / "out")
    (old,) = receipts(store, recipe.scan_stage)
    stamp = (tmp_path / "out" / "stages" / recipe.scan_stage / "clips" / f"{old}.parquet").stat().st_mtime_ns
    render(Film("two", (Shot("rocket", 2.0, "tilt_up", 0.1),)), films)
    both = run([str(films)], tmp_path / "out", recipe, client=client)
    assert len(receipts(store, recipe.scan_stage)) == 2 and both.clips.num_rows == 3
    assert (tmp_path / "out" / "stages" / recipe.scan_stage / "clips" / f"{old}.parquet").stat().st_mtime_ns == stamp
    (films / "one.mp4").rename(films / "moved.mp4")
    moved = run([str(films)], tmp_path / "out", recipe, client=client)
    assert {Path(u).name for u in moved.clips["uri"].to_pylist()} == {"moved.mp4", "two.mp4"}
    assert len(receipts(store, recipe.scan_stage)) == 2


def test_judging_equals_running_with_the_same_settings(
    curated: Result, demo: tuple[Path, dict[str, Truth]], client: Client, recipe: Recipe, tmp_path: Path
) -> None:
    shutil.copytree(curated.out, tmp_path / "judged")
    settings = ["rules.unsightly.low=0.85", "copies.share=0.9", "resample.keep=0.5"]
    Folder(tmp_path / "judged").judge(settings=settings)
    run([str(demo[0])], tmp_path / "run", with_settings(recipe, settings), client=client)
    judged, ran = rows(tmp_path / "judged"), rows(tmp_path / "run")
    # The second run measured no text and tags on clips that its stricter rule had rejected already.
    skipped = {rule.name for rule in recipe.rules if rule not in recipe.gate}
    unread = ran.text_area.isna()
    for table in (judged, ran):
        table["failed_rules"] = [
            [rule for rule in failed if not (rule in skipped and missing)]
            for failed, missing in zip(table.failed_rules, unread, strict=True)
        ]
    late = [*recipe.costly_schema.names, *recipe.derived_schema.names]
    same = [c for c in ran.columns if c not in ("pack", "measure_error", *late)]
    pd.testing.assert_frame_equal(judged[same], ran[same])
    assert Folder(tmp_path / "judged").made["set"] == settings
    assert not rows(tmp_path / "judged").kept.equals(rows(curated.out).kept)


def test_small_blocks_change_nothing(curated: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(curated.out, tmp_path / "out")
    monkeypatch.setattr(assemble, "ROWS_PER_PART", 5)
    Folder(tmp_path / "out").judge()
    assert len(list((tmp_path / "out" / "clips.parquet").iterdir())) > 3
    pd.testing.assert_frame_equal(rows(tmp_path / "out"), rows(curated.out))


def test_loosened_rules_do_not_keep_what_was_never_measured(curated: Result, tmp_path: Path) -> None:
    shutil.copytree(curated.out, tmp_path / "out")
    result = Folder(tmp_path / "out").judge(settings=["rules.letterbox=off"])
    late = [r for r in result.clips.to_pylist() if r["text_area"] is None and r["failed_rules"][:1] == ["text"]]
    assert late and all("run again to measure it" in r["measure_error"] for r in late)


def test_judging_refuses_what_needs_the_videos(curated: Result) -> None:
    with pytest.raises(ValueError, match=r"pieces\.longest=3: changes what is measured"):
        Folder(curated.out).judge(settings=["pieces.longest=3"])


def test_a_rule_on_an_unknown_column_is_one_sentence(curated: Result, recipe: Recipe) -> None:
    from curation.decide import decide

    odd = dataclasses.replace(recipe, rules=(Rule("odd", "nosuch", low=1),))
    with pytest.raises(ValueError, match=r"rule odd \(nosuch >= 1\) cannot be applied"):
        decide(curated.clips, odd)


# -- killing ----------------------------------------------------------------------------------------------------------

SMALL_PARTS = ["parts.videos=1"]


@pytest.fixture(scope="module")
def undisturbed(
    demo: tuple[Path, dict[str, Truth]], client: Client, recipe: Recipe, tmp_path_factory: pytest.TempPathFactory
) -> pd.DataFrame:
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    run([str(demo[0])], out, with_settings(recipe, SMALL_PARTS), client=client)
    return rows(out)


@pytest.mark.slow
def test_killed_workers_change_nothing(
    undisturbed: pd.DataFrame, demo: tuple[Path, dict[str, Truth]], recipe: Recipe, tmp_path: Path
) -> None:
    import threading

    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as cluster, Client(cluster) as client:
        killed: list[int] = []

        def kill() -> None:
            scans = tmp_path / "out" / "stages" / with_settings(recipe, SMALL_PARTS).scan_stage / "receipts"
            for wanted in (1, 4):
                while len(list(scans.glob("*.json"))) < wanted:
                    time.sleep(0.05)
                worker = next(iter(cluster.workers.values()))
                pid = worker.process.pid
                os.kill(pid, signal.SIGKILL)
                killed.append(pid)

        killer = threading.Thread(target=kill, daemon=True)
        killer.start()
        result = run([str(demo[0])], tmp_path / "out", with_settings(recipe, SMALL_PARTS), client=client)
        killer.join(timeout=5)
    assert len(killed) == 2, "both kills happened while the run was going on"
    pd.testing.assert_frame_equal(rows(tmp_path / "out"), undisturbed)
    assert result.counts["quarantined"] == 1


@pytest.mark.slow
def test_a_killed_driver_goes_on_where_it_was(
    undisturbed: pd.DataFrame, demo: tuple[Path, dict[str, Truth]], recipe: Recipe, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    command = [sys.executable, "-m", "curation", "run", str(demo[0]), "--out", str(out), "--workers", "2"]
    command += ["--set", SMALL_PARTS[0]]
    scans = out / "stages" / recipe.scan_stage / "receipts"
    for wanted in (2, 5):
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while len(list(scans.glob("*.json"))) < wanted:
            assert process.poll() is None, "the run ended before it could be killed"
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()
    done = {p: p.stat().st_mtime_ns for p in scans.glob("*.json")}
    time.sleep(1)  # workers notice within a moment that their driver is gone
    assert subprocess.run(command, cwd=ROOT, capture_output=True, check=False).returncode == 0
    pd.testing.assert_frame_equal(rows(out), undisturbed)
    assert {p: p.stat().st_mtime_ns for p in done} == done, "finished parts were not done again"
    assert not list(out.rglob("*.tmp"))


@pytest.mark.slow
def test_a_video_that_kills_its_worker_is_quarantined_alone(recipe: Recipe, tmp_path: Path) -> None:
    """The killer is a signal of a user's recipe file that ends the process at one film's sight."""
    films = tmp_path / "films"
    for name in ("aa", "bb", "cc"):
        render(Film(name, (Shot("cat", 1.5, "pan_left", 0.1, seed=ord(name[0])),), width=160, height=90), films)
    poison = identify([str(films / "bb.mp4")])[0].id
    (tmp_path / "mine.py").write_text(
        "import dataclasses, os\nfrom curation import recipes\nfrom filters.looks.exposure import Exposure\n"
        "from manifests.types import Sampling\n"
        "@dataclasses.dataclass(frozen=True)\n"
        "class Killer(Exposure):\n"
        "    def __call__(self, clips, frames):\n"
        f"        if clips[0].video == {poison!r}:\n"
        "            os._exit(9)\n"
        "        return Exposure.__call__(self, clips, frames)\n"
        "def recipe():\n"
        "    base = recipes.embedded()\n"
        "    kept = tuple(s for s in base.signals if type(s) is not Exposure)\n"
        "    return dataclasses.replace(base, name='killer', signals=(*kept, Killer()))\n"
    )
    command = [sys.executable, "-m", "curation", "run", str(films), "--out", str(tmp_path / "out"), "--workers", "2"]
    done = subprocess.run(
        [*command, "--recipe", str(tmp_path / "mine.py")], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    videos = pd.read_parquet(tmp_path / "out" / "videos.parquet").set_index("uri")
    status = {Path(uri).stem: s for uri, s in videos.status.items()}
    assert status == {"aa": "ok", "bb": "quarantined", "cc": "ok"}
    assert "killed the worker" in videos.loc[str(films / "bb.mp4")].error
    assert {Path(u).stem for u in rows(tmp_path / "out").uri} == {"aa", "cc"}


# -- others -----------------------------------------------------------------------------------------------------------


def test_curate_is_all_of_it_in_python(client: Client, recipe: Recipe, tmp_path: Path) -> None:
    render(Film("one", (Shot("cat", 2.0, "pan_left", 0.1),)), tmp_path / "films")
    table = curate([str(tmp_path / "films")], tmp_path / "out", recipe=recipe, client=client)
    assert isinstance(table, pd.DataFrame) and len(table) == 1 and bool(table.kept[0])


def test_a_signal_that_fails_costs_only_its_own_columns(client: Client, recipe: Recipe, tmp_path: Path) -> None:
    from filters.looks.noise import Noise

    class Broken(Noise):
        def __call__(self, clips: Any, frames: Any) -> Any:
            raise RuntimeError("no luck")

    signals = tuple(Broken() if isinstance(s, Noise) else s for s in recipe.signals)
    render(Film("one", (Shot("cat", 2.0, "pan_left", 0.1),)), tmp_path / "films")
    result = run(
        [str(tmp_path / "films")], tmp_path / "out", dataclasses.replace(recipe, signals=signals), client=client
    )
    (row,) = result.clips.to_pylist()
    assert row["noise"] is None and "Broken failed (RuntimeError: no luck)" in row["measure_error"]
    assert row["failed_rules"] == ["noisy"] and row["sharpness"] is not None


def test_tiny_and_one_frame_videos_get_a_row(client: Client, recipe: Recipe, tmp_path: Path) -> None:
    films = tmp_path / "films"
    films.mkdir()
    write_video(films / "one_frame.mp4", frames=1)
    write_video(films / "two_pixels.mp4", frames=12, size=(2, 2), pixel_format="yuv444p")
    result = run([str(films)], tmp_path / "out", recipe, client=client)
    assert result.clips.num_rows == 2 and not any(result.clips["kept"].to_pylist())
    assert all(r["measure_error"] for r in result.clips.to_pylist())


def test_numbers_are_finite(curated: Result) -> None:
    for field in curated.clips.schema:
        if pa.types.is_floating(field.type):
            values = np.asarray(curated.clips[field.name].drop_null())
            assert np.isfinite(values).all(), field.name

"""Real footage, curated with the default recipe and held against what is known of it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from distributed import Client

from curation.folder import Folder
from curation.recipe import Recipe
from curation.run import run
from tests.conftest import read_lines

pytestmark = [pytest.mark.footage, pytest.mark.slow]

# What these files are good for: footage, or a reason to be turned away.
TURNED_AWAY = {
    "audio_only_ac3.mp4": "has no video stream",
    "audio_only_dts.mp4": "has no video stream",
    "audio_only_segment.ts": "has no video stream",
    "encrypted_segment.ts": "not a video that can be read",
    "lfs_pointer.gif": "not a video that can be read",
    "made_jpeg_named.mp4": "not a video that can be read",
    "made_moov_only_missing.mp4": "not a video that can be read",
    "made_random_bytes.mp4": "not a video that can be read",
    "typescript_source.ts": "not a video that can be read",
    "zero_byte.webm": "the file is empty",
}


def test_odd_and_broken_files(footage: Path, client: Client, recipe: Recipe, tmp_path: Path) -> None:
    result = run([str(footage / "bad")], tmp_path / "out", recipe, client=client)
    videos = {Path(v["uri"]).name: v for v in result.videos.to_pylist()}
    known = {row["file"]: row for row in read_lines(footage / "bad" / "bad.jsonl")}
    assert set(videos) == set(known)
    for name, video in videos.items():
        if name in TURNED_AWAY:
            assert video["status"] == "quarantined" and video["clips"] == 0
            assert video["error"].startswith(f"{name}: {TURNED_AWAY[name]}") and "\n" not in video["error"]
            continue
        assert video["status"] == "ok", (name, video["error"])
        assert video["frames"] == known[name]["decoded_frames"], name
        assert video["clips"] >= 1, name
    clips = result.clips.to_pandas()
    clips["name"] = clips.uri.map(lambda uri: Path(uri).name)
    clips = clips.set_index("name")
    assert (clips.loc["decord_rot90.mov"].width, clips.loc["decord_rot90.mov"].height) == (320, 568)
    assert (clips.loc["decord_rot180.mov"].width, clips.loc["decord_rot180.mov"].height) == (568, 320)
    assert clips.loc["sar_2x1.mp4"].sample_aspect_ratio == 2
    assert clips.loc["psd_delayed_start.mp4"].start_us == 1_075_000
    assert clips.loc["2fps_7frames.mp4"].fps == 2
    assert clips.loc[["made_bitflips.mp4"]].corrupt_frames.sum() > 0
    assert not clips.loc[["made_bitflips.mp4", "edit_list_black.mp4", "no_duration_black.webm"]].kept.any()


def pairs_of(table: pd.DataFrame, column: str) -> set[frozenset[str]]:
    """Pairs of files that share a value of `column`."""
    found = set()
    for _, group in table[table[column].notna()].groupby(column):
        names = sorted(set(group["name"]))
        found |= {frozenset((a, b)) for k, a in enumerate(names) for b in names[k + 1 :]}
    return found


def test_copies(footage: Path, client: Client, recipe: Recipe, tmp_path: Path) -> None:
    truth = read_lines(footage / "public_truth" / "dups.jsonl")
    files = [row for row in truth if "file" in row]
    family = {Path(row["file"]).name: row for row in files}
    listed = tmp_path / "files.txt"
    listed.write_text("\n".join(str((footage / "public_truth" / row["file"]).resolve()) for row in files))
    run([str(listed)], tmp_path / "out", recipe, client=client)
    figures: dict[str, tuple[float, float]] = {}
    for mirror in (False, True):
        if mirror:
            Folder(tmp_path / "out").judge(settings=["copies.mirror=true"])
        table = pd.read_parquet(tmp_path / "out" / "clips.parquet")
        table["name"] = table.uri.map(lambda uri: Path(uri).name)
        found = pairs_of(table, "copy_group")
        wanted = {
            frozenset((a, b))
            for a, ra in family.items()
            for b, rb in family.items()
            if a < b and ra["family"] and ra["family"] == rb["family"]
        }
        possible = {p for p in wanted if mirror or "hflip" not in {family[name]["transform"] for name in p}}
        assert not found - wanted, "no false copy"
        assert len(found & possible) >= 0.97 * len(possible), sorted(map(sorted, possible - found))
        precision, recall = len(found & wanted) / len(found), len(found & wanted) / len(wanted)
        figures["with mirrors" if mirror else "plain"] = (precision, recall)
    print(f"\nreal copies, pairs of files: (precision, recall) {figures}")


def test_camera_motion(footage: Path, client: Client, recipe: Recipe, tmp_path: Path) -> None:
    rows = read_lines(footage / "public_truth" / "motion.jsonl")
    listed = tmp_path / "files.txt"
    listed.write_text("\n".join(str((footage / "public_truth" / row["file"]).resolve()) for row in rows))
    run([str(listed)], tmp_path / "out", recipe, client=client)
    table = pd.read_parquet(tmp_path / "out" / "clips.parquet")
    right = total = 0
    for row in rows:
        mine = table[table.uri == str((footage / "public_truth" / row["file"]).resolve())]
        wanted = {"shake": "handheld"}.get(row["camera_class"], row["camera_class"])
        said = mine.sort_values("duration_s").camera_motion.iloc[-1] if len(mine) else None
        right, total = right + (said == wanted), total + 1
    print(f"\nreal camera motion: {right} of {total} right")
    assert right >= 0.95 * total


REJECTED_FOR = {"frozen": "still", "shaky": "shaky", "low_quality": None, "text_overlay": "text"}


def test_tags_that_the_first_signals_can_tell(footage: Path, client: Client, recipe: Recipe, tmp_path: Path) -> None:
    rows = [r for r in read_lines(footage / "public_truth" / "tags.jsonl") if r["tag"] in {*REJECTED_FOR, "good"}]
    folder = tmp_path / "films"
    folder.mkdir()
    for row in rows:
        shutil.copy(footage / "public_truth" / row["file"], folder)
    run([str(folder)], tmp_path / "out", recipe, client=client, measure_all=True)
    table = pd.read_parquet(tmp_path / "out" / "clips.parquet")
    table["name"] = table.uri.map(lambda uri: Path(uri).name)
    wrong: list[Any] = []
    for row in rows:
        mine = table[table["name"] == Path(row["file"]).name]
        reasons = [set(names) - {"copy"} for names in mine.failed_rules]
        if row["keep"] is True and any(reasons):
            wrong.append((row["file"], reasons))
        if row["keep"] is False:
            reason = REJECTED_FOR[row["tag"]]
            if not all(reason in names if reason else names for names in reasons):
                wrong.append((row["file"], reasons))
    print(f"\nreal tags: {len(rows) - len(wrong)} of {len(rows)} as labelled; not: {wrong}")
    assert not wrong

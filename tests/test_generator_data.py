"""What test_training_data.py leaves out: which frames exactly, which pixels exactly, and caches that were damaged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

pytest.importorskip("torch")
import torch

from generator import caches
from generator.caches import TensorCache, cache_pixels
from generator.data import DataConfig, Row, frame_times, read_clip, read_rows
from manifests.store import Store
from manifests.types import MediaError
from tests.generator_films import write_film
from tests.media_files import number_of, write_video

CONFIG = DataConfig(frames=5, size=32, fps=8.0)
RATE = 16


def nothing(done: int, total: int) -> None:
    pass


def row(film: Path, start: float, end: float, clip: str = "a") -> Row:
    return Row(clip, str(film), round(start * 1e6), round(end * 1e6), "")


@pytest.mark.parametrize("column", ["sampled", "caption", "uri"])
def test_a_manifest_without_a_column_is_refused_in_one_line(column: str, tmp_path: Path) -> None:
    whole = {"clip_id": "a", "uri": "v.mp4", "start_us": 0, "end_us": 1, "caption": "x", "sampled": True}
    Store(tmp_path).replace_table("clips.parquet", [pa.Table.from_pylist([whole]).drop_columns([column])])
    with pytest.raises(ValueError, match=rf"lacks one of the columns .*{column}") as refused:
        read_rows(tmp_path)
    assert str(tmp_path) in str(refused.value) and "\n" not in str(refused.value)


def test_a_row_that_was_not_judged_is_not_sampled(tmp_path: Path) -> None:
    rows = [
        {"clip_id": clip, "uri": "v.mp4", "start_us": 0, "end_us": 1, "caption": "x", "sampled": sampled}
        for clip, sampled in {"b": None, "a": True}.items()
    ]
    Store(tmp_path).replace_table("clips.parquet", [pa.Table.from_pylist(rows)])
    assert [found.id for found in read_rows(tmp_path)] == ["a"]


@pytest.mark.parametrize("start", [0.0, 0.5, 1.25])
def test_each_frame_is_the_one_on_screen_at_its_time(start: float, tmp_path: Path) -> None:
    film = write_video(tmp_path / "film.mp4", frames=48, fps=RATE, size=(96, 96), gop=20)
    clip = row(film, start, start + 1.5)
    expected = [int(time * RATE / 1e6 + 1e-6) for time in frame_times(clip, CONFIG)]
    assert np.diff(expected).tolist() == [2] * 4
    assert [number_of(frame) for frame in read_clip(clip, CONFIG)] == expected


def test_a_clip_that_is_shorter_than_the_window_ends_in_its_own_last_frame(tmp_path: Path) -> None:
    film = write_video(tmp_path / "film.mp4", frames=48, fps=RATE, size=(96, 96))
    assert [number_of(frame) for frame in read_clip(row(film, 1.0, 1.375), CONFIG)] == [16, 18, 20, 21, 21]


def test_films_of_uneven_rate_are_sampled_by_time(tmp_path: Path) -> None:
    times = [0.0, 0.05, 0.10, 0.50, 0.55, 0.60, 0.65, 1.20, 1.25, 1.70, 1.75, 1.80, 2.40]
    film = write_video(tmp_path / "film.mp4", frames=len(times), size=(96, 96), times=times, gop=4)
    clip = row(film, 0.0, 2.4)
    expected = [sum(began <= time / 1e6 for began in times) - 1 for time in frame_times(clip, CONFIG)]
    assert len(set(expected)) < 5, "a frame that stays long is seen more than once"
    assert [number_of(frame) for frame in read_clip(clip, CONFIG)] == expected


@pytest.mark.parametrize(("width", "height"), [(160, 96), (96, 160), (96, 96)], ids=["wide", "tall", "square"])
def test_pixels_are_the_central_square_in_red_green_blue(width: int, height: int, tmp_path: Path) -> None:
    picture = np.full((height, width, 3), 90, np.uint8)
    picture[..., 0] = np.linspace(20, 235, width)
    picture[..., 1] = np.linspace(20, 235, height)[:, None]
    write_film(tmp_path / "film.mp4", [picture] * 12)
    top, left = (height - 96) // 2, (width - 96) // 2
    for size in (96, 48):
        frames = read_clip(row(tmp_path / "film.mp4", 0.0, 0.75), DataConfig(frames=5, size=size, fps=8.0))
        small = picture[top : top + 96, left : left + 96].reshape(size, 96 // size, size, 96 // size, 3)
        assert np.abs(frames - small.mean(axis=(1, 3))).mean(axis=(0, 1, 2)).max() < 3


def test_all_clips_left_out_are_named_in_one_warning(tmp_path: Path) -> None:
    film = write_video(tmp_path / "film.mp4", frames=32, fps=RATE, size=(96, 96))
    (tmp_path / "noise.mp4").write_bytes(bytes(range(256)) * 20)
    rows = [
        row(film, 0.0, 2.0, "good"),
        row(film, 0.0, 0.1, "short"),
        row(tmp_path / "noise.mp4", 0.0, 2.0, "noise"),
        row(tmp_path / "gone.mp4", 0.0, 2.0, "gone"),
    ]
    ticks: list[tuple[int, int]] = []
    cache = TensorCache(tmp_path / "pixels", "x", "pixels")
    with pytest.warns(UserWarning, match="3 of 4 clips are left out of training") as caught:
        assert cache_pixels(rows, CONFIG, cache, lambda *tick: ticks.append(tick)) == rows[:1]
    said = [str(warning.message) for warning in caught if warning.category is UserWarning]
    assert len(said) == 1 and all(
        word in said[0] for word in ("short: ", "noise.mp4", "gone.mp4", "0.10 s is too short")
    )
    assert ticks == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_half_the_window_is_enough() -> None:
    half = round(CONFIG.fill * CONFIG.frames / CONFIG.fps * 1e6)
    assert len(frame_times(Row("a", "v.mp4", 0, half, ""), CONFIG)) == 5
    with pytest.raises(MediaError, match=r"v\.mp4: .* is too short"):
        frame_times(Row("a", "v.mp4", 0, half - 1, ""), CONFIG)


def test_a_write_that_breaks_off_leaves_no_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = TensorCache(tmp_path, "x", "pixels")
    cache.add({"a": torch.ones(2)})

    def full_disk(tensors: object, file: Path, metadata: object) -> None:
        Path(file).write_bytes(b"half a header")
        raise OSError("no space left on device")

    with monkeypatch.context() as patched, pytest.raises(OSError, match="no space left"):
        patched.setattr(caches, "save_file", full_disk)
        cache.add({"b": torch.zeros(3)})
    again = TensorCache(tmp_path, "x", "pixels")
    assert "a" in again and "b" not in again
    again.add({"b": torch.zeros(3)})
    assert torch.equal(TensorCache(tmp_path, "x", "pixels")["b"], torch.zeros(3))
    assert not list(tmp_path.glob(".*"))


def test_another_maker_and_a_damaged_part_are_refused_in_a_sentence(tmp_path: Path) -> None:
    TensorCache(tmp_path, "VAE 1", "latents").add({"a": torch.ones(2)})
    with pytest.raises(ValueError, match="cached latents were made by VAE 1, but VAE 2 is in use"):
        TensorCache(tmp_path, "VAE 2", "latents")
    part = next(tmp_path.glob("*.safetensors"))
    part.write_bytes(part.read_bytes()[:5])
    with pytest.raises(ValueError, match=rf"{part.name}: these cached latents cannot be read .* delete the file"):
        TensorCache(tmp_path, "VAE 1", "latents")

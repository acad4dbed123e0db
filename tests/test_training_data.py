"""What training reads: clips of the manifest, their frames, their order, and the caches between them."""

from __future__ import annotations

from itertools import chain, islice
from pathlib import Path

import numpy as np
import pytest
import torch

from generator.caches import Pixels, TensorCache, cache_latents, cache_pixels, pixel_batch
from generator.data import DataConfig, Row, frame_times, read_clip, read_rows
from generator.feed import batches, order
from generator.recipes import tiny_cogvideox
from generator.vae.cogvideox import CogVideoXVae
from manifests.types import MediaError
from tests.generator_films import FPS, draw_clip, make_manifest, write_film, write_manifest

CONFIG = DataConfig(frames=5, size=32, fps=8.0)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_manifest(tmp_path_factory.mktemp("clips"), clips=8, per_film=4)


def nothing(done: int, total: int) -> None:
    pass


def test_only_sampled_rows_are_read_in_order_of_their_ids(tmp_path: Path) -> None:
    rows = [
        {"clip_id": "b", "uri": "v.mp4", "start_us": 0, "end_us": 9, "fps": 8.0, "caption": None, "sampled": True},
        {"clip_id": "a", "uri": "v.mp4", "start_us": 9, "end_us": 12, "fps": 8.0, "caption": "A", "sampled": True},
        {"clip_id": "c", "uri": "v.mp4", "start_us": 12, "end_us": 15, "fps": 8.0, "caption": "C", "sampled": False},
    ]
    assert read_rows(write_manifest(tmp_path, rows)) == [
        Row("a", "v.mp4", 9, 12, "A", fps=8.0, film="v.mp4"),
        Row("b", "v.mp4", 0, 9, "", fps=8.0, film="v.mp4"),
    ]
    write_manifest(tmp_path / "none", [row | {"sampled": False} for row in rows])
    with pytest.raises(ValueError, match="no row is sampled"):
        read_rows(tmp_path / "none")
    with pytest.raises(ValueError, match="no clips"):
        read_rows(tmp_path / "nowhere")


def test_times_are_the_middle_of_the_clip_or_all_of_it() -> None:
    times = frame_times(Row("a", "v.mp4", 1_000_000, 3_000_000, ""), CONFIG)
    assert np.diff(times).tolist() == [125_000] * 4
    assert times[0] == 1_000_000 + (2_000_000 - 625_000) // 2
    short = frame_times(Row("a", "v.mp4", 0, 400_000, ""), CONFIG)
    assert short == [0, 125_000, 250_000, 375_000, 399_999], "the last frame again"
    with pytest.raises(MediaError, match=r"v\.mp4: 0\.30 s is too short, training needs 0\.31 s"):
        frame_times(Row("a", "v.mp4", 0, 300_000, ""), CONFIG)


def test_frames_are_those_of_their_times_and_the_central_square(manifest: Path) -> None:
    row = read_rows(manifest)[1]
    frames = read_clip(row, CONFIG)
    assert frames.shape == (5, 32, 32, 3) and frames.dtype == np.uint8
    drawn = draw_clip(1)[1]
    for time, frame in zip(frame_times(row, CONFIG), frames, strict=True):
        source = drawn[int((time - row.start) / 1e6 * FPS + 1e-6)][:, 12:84].astype(float)
        assert np.abs(thirds(source) - thirds(frame.astype(float))).max() < 12


def thirds(picture: np.ndarray) -> np.ndarray:
    """Mean colour of nine parts, (9, 3)."""
    bands = np.array_split(picture, 3)
    return np.array([part.mean(axis=(0, 1)) for band in bands for part in np.array_split(band, 3, axis=1)])


def test_films_smaller_than_the_recipe_are_enlarged(manifest: Path) -> None:
    assert read_clip(read_rows(manifest)[0], DataConfig(frames=5, size=96, fps=8.0)).shape == (5, 96, 96, 3)


def test_pixels_are_cached_and_broken_clips_are_named(manifest: Path, tmp_path: Path) -> None:
    rows = read_rows(manifest)
    lost = Row("zz", str(tmp_path / "gone.mp4"), 0, 2_000_000, "")
    cache = TensorCache(tmp_path / "pixels", "settings x", "pixels")
    with pytest.warns(UserWarning, match=r"1 of 9 clips are left out of training.*zz.*gone\.mp4"):
        assert cache_pixels([*rows, lost], CONFIG, cache, nothing) == rows
    decoded: list[int] = []
    again = TensorCache(tmp_path / "pixels", "settings x", "pixels")
    assert cache_pixels(rows, CONFIG, again, lambda done, total: decoded.append(done)) == rows
    assert not decoded, "nothing is decoded twice"
    batch = pixel_batch(again, [rows[0].id, rows[3].id])
    assert batch.shape == (2, 3, 5, 32, 32) and -1 <= batch.min() < batch.max() <= 1
    assert torch.equal(
        ((batch[1] + 1) * 127.5).round().to(torch.uint8).permute(1, 2, 3, 0),
        torch.from_numpy(read_clip(rows[3], CONFIG)),
    )
    with pytest.raises(ValueError, match="were made by settings x, but settings y is in use; delete that folder"):
        TensorCache(tmp_path / "pixels", "settings y", "pixels")
    with (
        pytest.warns(UserWarning, match="left out"),
        pytest.raises(ValueError, match="none of the 1 sampled clips can be trained on"),
    ):
        cache_pixels([lost], CONFIG, TensorCache(tmp_path / "other", "x", "pixels"), nothing)


def test_latents_are_those_of_the_vae(manifest: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    vae, rows = CogVideoXVae(tiny_cogvideox().vae).eval(), read_rows(manifest)
    pixels = TensorCache(tmp_path / "pixels", "x", "pixels")
    cache_pixels(rows, CONFIG, pixels, nothing, workers=2)
    ids = [row.id for row in rows]
    latents = TensorCache(tmp_path / "latents", "vae", "latents")
    assert cache_latents(vae, rows, Pixels(rows, CONFIG, pixels), latents, nothing) == rows
    with torch.no_grad():
        expected = torch.stack(vae.encode_moments(pixel_batch(pixels, ids[:1])), dim=1)[0]
    assert torch.allclose(latents[ids[0]], expected.squeeze(0), atol=1e-6) and latents[ids[0]].shape == (2, 4, 2, 4, 4)


def test_order_depends_on_seed_epoch_and_the_set_of_ids_alone() -> None:
    ids = [f"clip-{k}" for k in range(20)]
    assert order(ids, 1, 0) == order(ids[::-1], 1, 0) and sorted(order(ids, 1, 0)) == sorted(ids)
    assert len({tuple(order(ids, seed, epoch)) for seed in range(3) for epoch in range(3)}) == 9
    assert order(ids[:4], 0, 0) == ["clip-1", "clip-3", "clip-0", "clip-2"], "the same on every machine and version"


def test_batches_span_epochs_and_start_anywhere() -> None:
    ids = [f"clip-{k}" for k in range(5)]
    first = list(islice(batches(ids, 0, 3), 10))
    assert [len(batch) for batch in first] == [3] * 10
    assert list(chain(*first)) == list(chain(*(order(ids, 0, epoch) for epoch in range(6))))
    assert list(islice(batches(ids, 0, 3, first=4), 6)) == first[4:]


def test_films_of_the_tests_hold_what_they_say(tmp_path: Path) -> None:
    caption, frames = draw_clip(5)
    assert caption.startswith("A green ") and len(frames) == 36
    write_film(tmp_path / "film.mp4", frames)
    assert read_clip(Row("a", str(tmp_path / "film.mp4"), 0, 2_250_000, ""), CONFIG).shape[0] == 5

"""Borders: where they end, what they are made of, and that there is none where a person sees none."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image as Pictures
from PIL import ImageDraw, ImageFont

from filters.looks.borders import Letterbox
from manifests.films import shots
from manifests.films.dressing import Crop, agreement, blurred, coded, framed, plain, striped
from manifests.films.photos import NAMES
from manifests.films.shots import MOVES, Shot
from manifests.types import Clip, Frames, Image

CLIP = Clip("v_0_1", "v", "v.mp4", 0, 2_000_000)
WIDTH, HEIGHT = 640, 360


def look(images: Sequence[Image], size: tuple[int, int] = (WIDTH, HEIGHT)) -> dict[str, Any]:
    count = len(images)
    given = Frames(list(images), [k * 250_000 for k in range(count)], list(range(count)), size, 24.0)
    return {name: column[0] for name, column in Letterbox()([CLIP], [given]).items()}


def filmed(seed: int, gain: float = 1.0, seconds: float = 2.0) -> list[Image]:
    """Eight frames of a camera that moves over a photograph, with things that cross the picture."""
    shot = Shot(NAMES[seed % len(NAMES)], seconds, MOVES[1 + seed % 8], 0.12, actors=2, gain=gain, seed=seed)
    return list(shots.frames(shot, WIDTH, HEIGHT, 4))


CROPS: tuple[Crop, ...] = (
    (0, 45, 640, 270),
    (80, 0, 480, 360),
    (219, 0, 202, 360),
    (120, 60, 400, 240),
    (30, 20, 580, 310),
)


@pytest.mark.parametrize("crop", CROPS)
@pytest.mark.parametrize("color", [(0, 0, 0), (255, 255, 255), (60, 120, 40)], ids=["black", "white", "green"])
def test_plain_bars_end_where_the_picture_begins(crop: Crop, color: tuple[int, int, int]) -> None:
    for seed in (0, 4, 11):
        found = look(framed(filmed(seed), crop, plain(color)))
        assert agreement(found["crop"], crop) > 0.97, (seed, found)
        assert found["border_kind"] == "plain"
        assert found["letterbox_fraction"] == pytest.approx(1 - crop[2] * crop[3] / (WIDTH * HEIGHT), abs=0.02)


def test_crop_is_on_the_films_own_scale_and_holds_no_border() -> None:
    inside = framed(filmed(0), (0, 45, 640, 270), plain((0, 0, 0)))
    x, y, width, height = look(inside, (1920, 1080))["crop"]
    assert (x, width) == (0, 1920) and 135 <= y <= 141 and 930 <= y + height <= 945
    x, y, width, height = look(inside, (720, 576))["crop"]
    assert (x, width) == (0, 720) and 72 <= y <= 75, "pixels that are not square"


@pytest.mark.parametrize("seed", range(6))
def test_bars_of_a_dark_film(seed: int) -> None:
    crop = (0, 44, 640, 272)
    assert agreement(look(framed(filmed(seed, gain=0.15), crop, plain((0, 0, 0))))["crop"], crop) > 0.95


@pytest.mark.parametrize("seed", range(6))
def test_bars_with_noise_and_with_subtitles_printed_into_them(seed: int) -> None:
    rng, crop = np.random.default_rng(seed), (0, 56, 640, 248)
    noisy = [
        coded(np.clip(image + rng.normal(0, 6, (HEIGHT, WIDTH, 1)), 0, 255).astype(np.uint8))
        for image in framed(filmed(seed), crop, plain((0, 0, 0)))
    ]
    assert agreement(look(noisy)["crop"], crop) > 0.95
    lettering = Pictures.new("L", (WIDTH, HEIGHT))
    draw, font = ImageDraw.Draw(lettering), ImageFont.load_default(20)
    draw.text((WIDTH / 2, 332), "where are you going, my friend", anchor="mm", font=font, fill=255)
    printed = [
        np.maximum(image, np.asarray(lettering)[..., None]) for image in framed(filmed(seed), crop, plain((0, 0, 0)))
    ]
    assert agreement(look(printed)["crop"], crop) > 0.95


@pytest.mark.parametrize("crop", [(140, 0, 360, 360), (219, 0, 202, 360), (0, 70, 640, 220)])
def test_blurred_copies_beside_the_picture(crop: Crop) -> None:
    found = [look(framed(filmed(seed), crop, blurred)) for seed in (0, 1, 2, 8, 9, 11)]
    assert all(agreement(one["crop"], crop) > 0.95 and one["border_kind"] == "blurred" for one in found), found


@pytest.mark.parametrize("crop", [(128, 72, 384, 216), (100, 40, 440, 280), (140, 0, 360, 360)])
def test_patterned_borders(crop: Crop) -> None:
    found = [look(framed(filmed(seed), crop, striped(seed))) for seed in (0, 1, 2, 8, 11)]
    right = [agreement(one["crop"], crop) > 0.94 and one["border_kind"] in ("pattern", "plain") for one in found]
    assert sum(right) >= 4, found


@pytest.mark.parametrize("gain", [1.0, 0.3, 0.08])
def test_whole_pictures_have_no_border(gain: float) -> None:
    for seed in range(len(NAMES)):
        found = look([coded(image, 75) for image in filmed(seed, gain)])
        assert found == {"letterbox_fraction": 0.0, "crop": None, "border_kind": None}, seed


def test_skies_seas_walls_spotlights_and_title_cards_are_no_borders() -> None:
    y, x = np.mgrid[:HEIGHT, :WIDTH].astype(np.float32)
    rng = np.random.default_rng(0)
    sea = np.where(y < 150, 210, 90 + 30 * rng.random((HEIGHT, WIDTH)))
    spot = 200 * np.exp(-((x - 320) ** 2 + (y - 180) ** 2) / 9000)
    wall = np.where(y > 250, 70 + 20 * rng.random((HEIGHT, WIDTH)), 180)
    card = Pictures.new("L", (WIDTH, HEIGHT))
    ImageDraw.Draw(card).text((320, 180), "THE DURIAN FILM", anchor="mm", font=ImageFont.load_default(48), fill=255)
    for name, picture in (
        ("sea", sea),
        ("spot", spot),
        ("wall", wall),
        ("card", np.asarray(card)),
        ("grey", 0 * x + 99),
    ):
        image = cv2.cvtColor(np.asarray(picture, np.uint8), cv2.COLOR_GRAY2BGR)
        assert look([coded(image, 75)] * 4)["crop"] is None, name


def test_very_small_and_single_pictures() -> None:
    assert look([])["letterbox_fraction"] is None
    assert look([np.zeros((1, 1, 3), np.uint8)])["letterbox_fraction"] == 0
    crop = (80, 0, 480, 360)
    assert agreement(look(framed(filmed(0)[:1], crop, plain((0, 0, 0))))["crop"], crop) > 0.97


@pytest.mark.footage
def test_borders_of_real_footage(footage: Path) -> None:
    """What a person sees in these clips, and nothing in the clean ones."""
    from manifests.media.read import read_frames
    from tests.conftest import read_lines

    def of(path: Path) -> dict[str, Any]:
        times = [200_000 + 400_000 * k for k in range(8)]
        return look([np.ascontiguousarray(f[..., ::-1]) for f in read_frames(str(path), 0, 3_400_000, times, 360)])

    for row in read_lines(footage / "public_truth" / "tags.jsonl"):
        path = footage / "public_truth" / row["file"]
        if "picture_fraction" in row:
            assert of(path)["letterbox_fraction"] == pytest.approx(1 - row["picture_fraction"], abs=0.03), row["file"]
        elif row["tag"] == "good":
            assert of(path)["crop"] is None, row["file"]
    for row in read_lines(footage / "public_truth" / "dups.jsonl"):
        if row.get("transform") == "letterbox":
            found = of(footage / "public_truth" / row["file"])
            assert found["border_kind"] == "plain"
            assert found["letterbox_fraction"] == pytest.approx(0.2, abs=0.03)
        elif row.get("transform") in ("original", "crop10", "hflip"):
            assert of(footage / "public_truth" / row["file"])["crop"] is None, row["file"]

"""Text: its area against known boxes, its score, subtitles, and what happens when an engine fails."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest

from curation.measure import measure
from filters.text.area import Text, subtitled
from filters.text.ocr import EmbeddedOcr, EngineError, TextBox, fitted
from manifests.films import shots
from manifests.films.dressing import coded, lettered
from manifests.films.photos import NAMES, photo
from manifests.films.shots import Shot
from manifests.types import Clip, Frames, Image

CLIP = Clip("v_0_1", "v", "v.mp4", 0, 2_000_000)
WORDS = (
    *("the", "first", "reel", "shows", "a", "quiet", "harbour", "at", "dawn", "and", "people", "walk"),
    *("along", "jumping", "happy", "Paris", "2024", "Please", "look"),
)
COLORS = ((255, 255, 255), (255, 230, 60), (120, 255, 120), (15, 15, 15))


def frames(images: Sequence[Image]) -> Frames:
    return Frames(list(images), [k * 250_000 for k in range(len(images))], list(range(len(images))), (640, 360), 24.0)


def moving(seed: int, count: int = 3, width: int = 640, height: int = 360) -> list[Image]:
    """Frames of a camera that moves over a photograph."""
    backdrop = [name for name in NAMES if name not in ("grass", "gravel")][seed % (len(NAMES) - 2)]
    shot = Shot(backdrop, count / 2, ("pan_left", "zoom_in", "tilt_up", "roll_cw")[seed % 4], 0.1, seed=seed)
    return list(shots.frames(shot, width, height, 2))


def sentence(rng: np.random.Generator, words: int) -> str:
    return " ".join(rng.choice(WORDS, words))


def measured(images: Sequence[Image]) -> dict[str, object]:
    answer = Text()([CLIP], [frames(images)])
    return {name: column[0] for name, column in answer.items()}


# -- area --------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_area_is_right_to_two_hundredths_and_about_one_percent() -> None:
    """One line of about 1 %, subtitles, titles, pages, small print; several colours, some of them turned."""
    given: list[tuple[float, float]] = []
    for seed in range(36):
        rng = np.random.default_rng(seed)
        tall = (0.05, 0.055, 0.12, 0.07, 0.045, 0.035)[seed % 6]
        lines = [sentence(rng, int(rng.integers(2, 5))) for _ in range((1, 2, 2, 1, 9, 4)[seed % 6])]
        top = 0.05 if len(lines) > 3 else float(rng.uniform(0.05, 0.9 - 1.25 * tall * len(lines)))
        turn = float(rng.uniform(-8, 8)) if seed % 4 == 3 else 0.0
        pictures, share = lettered(moving(seed), lines, top, tall, color=COLORS[int(rng.integers(4))], turn=turn)
        given.append((float(measured(pictures)["text_area"]), share))  # type: ignore[arg-type]
    got, true = np.array(given).T
    assert np.abs(got - true).mean() <= 0.01, list(zip(got.round(3), true.round(3), strict=True))
    assert ((got > 0.01) == (true > 0.01)).mean() >= 0.95, list(zip(got.round(3), true.round(3), strict=True))
    assert 0.9 < np.median(got[true > 0.02] / true[true > 0.02]) < 1.1, "no bias"


@pytest.mark.parametrize("size", [(480, 360), (860, 360), (360, 640), (1440, 360)])
def test_area_holds_for_every_shape_of_picture(size: tuple[int, int]) -> None:
    pictures, share = lettered(moving(1, width=size[0], height=size[1]), ["people walk", "along Paris"], 0.6, 0.06)
    assert measured(pictures)["text_area"] == pytest.approx(share, rel=0.25)


def test_pictures_of_one_clip_are_searched_until_text_is_found() -> None:
    """A title that is in the last frame only; a picture that stands still is read once."""
    with_title, share = lettered(moving(3), ["CHAPTER ONE"], 0.3, 0.15)
    late = measured([*moving(3)[:2], with_title[2]])
    assert late["text_area"] == pytest.approx(share, rel=0.25)
    assert measured([with_title[0]] * 3) == measured([with_title[0]])


@pytest.mark.parametrize("seed", range(6))
def test_no_text_is_imagined(seed: int) -> None:
    assert measured([coded(image) for image in moving(seed)])["text_area"] == 0


def test_two_lines_of_a_large_title_that_the_detector_takes_for_one() -> None:
    """A box of a third of the frame counts when its halves can be read."""

    class Merging:
        def glance(self, images: Sequence[Image]) -> list[list[TextBox]]:
            return self.detect(images)

        def detect(self, images: Sequence[Image]) -> list[list[TextBox]]:
            return [[TextBox(np.float32([[150, 60], [490, 60], [490, 250], [150, 250]]), 0.9)] for _ in images]

        def recognize(self, lines: Sequence[tuple[Image, TextBox]]) -> list[tuple[str, float]]:
            return EmbeddedOcr().recognize(lines)

    titled, _ = lettered([np.full((360, 640, 3), 40, np.uint8)], ["Great", "Buck"], 0.18, 0.22)
    blank = [np.asarray(cv2.GaussianBlur(photo("dahlia")[:360, :640], (0, 0), 9), np.uint8)]
    read = Text(engine=Merging())([CLIP, CLIP], [frames(titled), frames(blank)])
    assert read["text_area"][0] > 0.15 and read["text_score"][0] > 0.8
    assert read["text_read"][0] in ("Great", "Buck") and read["text_read"][1] is None
    assert read["text_area"][1] == 0


def test_detectors_get_the_same_pixels_whatever_the_shape() -> None:
    for width, height in ((640, 360), (480, 360), (1440, 360), (360, 640), (360, 360)):
        found = fitted(np.zeros((height, width, 3), np.uint8), 512)
        assert found[0] * found[1] == pytest.approx(512 * 288, rel=0.15) and not (found[0] % 32 or found[1] % 32)
    assert fitted(np.zeros((90, 160, 3), np.uint8), 512) == (256, 128), "little is made of tiny pictures"


# -- score -------------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Scripted:
    """Four lines with given detection scores; recognition scores by the line."""

    read: list[float] = dataclasses.field(default_factory=list, compare=False)

    def glance(self, images: Sequence[Image]) -> list[list[TextBox]]:
        return self.detect(images)

    def detect(self, images: Sequence[Image]) -> list[list[TextBox]]:
        lines = ((10, 0.9), (30, 0.8), (50, 0.7), (70, 0.4))
        return [[TextBox(np.float32([[0, y], [40, y], [40, y + 8], [0, y + 8]]), s) for y, s in lines] for _ in images]

    def recognize(self, lines: Sequence[tuple[Image, TextBox]]) -> list[tuple[str, float]]:
        self.read.extend(box.score for _, box in lines)
        return [("word", {0.9: 0.5, 0.8: 0.95, 0.7: 1.0, 0.4: 1.0}[round(box.score, 1)]) for _, box in lines]


def test_score_is_the_largest_product_and_reads_no_more_than_it_needs() -> None:
    engine = Scripted()
    one = frames([np.zeros((90, 160, 3), np.uint8)])
    assert Text(engine=engine)([CLIP], [one])["text_score"] == [pytest.approx(0.76)]
    assert engine.read == [0.9, 0.8], "0.7 cannot beat 0.76"
    assert Text(engine=Scripted())([CLIP], [one])["text_read"] == ["word"]
    assert Text(engine=Scripted())([CLIP, CLIP], [one, one])["text_score"] == [pytest.approx(0.76)] * 2


def test_every_box_has_its_own_score() -> None:
    """A box must not get the score of another one: found alone or with others, each line scores the same."""
    image = np.full((360, 640, 3), 90, np.uint8)
    upper, _ = lettered([image], ["CHAPTER ONE"], 0.1, 0.14)
    lower, _ = lettered([image], ["people walk along"], 0.7, 0.05, color=(112, 112, 112))
    both, _ = lettered(upper, ["people walk along"], 0.7, 0.05, color=(112, 112, 112))
    found = EmbeddedOcr().detect([upper[0], lower[0], both[0]])
    assert [len(boxes) for boxes in found] == [1, 1, 2]
    alone, together = [found[0][0].score, found[1][0].score], [box.score for box in found[2]]
    assert together == pytest.approx(alone, abs=0.05) and abs(alone[0] - alone[1]) > 0.12


# -- subtitles ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
def test_subtitles_that_change_are_subtitles(seed: int) -> None:
    rng = np.random.default_rng(seed)
    lines = 1 + seed % 2
    top = 0.92 - 1.25 * 0.06 * lines
    said = [lettered([image], [sentence(rng, 4) for _ in range(lines)], top, 0.06)[0][0] for image in moving(seed)]
    assert measured(said)["subtitles"] == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("lines", "top", "tall", "center"),
    [
        (["CHAPTER ONE", "moving pictures"], 0.3, 0.12, 0.5),
        (["people walk along jumping"] * 10, 0.04, 0.06, 0.5),
        (["Paris 2024"], 0.85, 0.06, 0.2),
        (["people walk"], 0.05, 0.06, 0.5),
    ],
    ids=["title", "page", "name at the left", "top"],
)
def test_other_text_is_not(lines: list[str], top: float, tall: float, center: float) -> None:
    pictures, _ = lettered(moving(2), lines, top, tall, center=center)
    found = measured(pictures)
    assert found["text_score"] > 0.6 and found["subtitles"] == 0  # type: ignore[operator]


def test_subtitles_must_agree_from_frame_to_frame() -> None:
    assert subtitled([(0.93, 0.05), (0.93, 0.055), None]) == pytest.approx(2 / 3)
    assert subtitled([(0.93, 0.05), (0.75, 0.05), (0.84, 0.05)]) == pytest.approx(1 / 3), "a sign that moves"
    assert subtitled([None, None]) == 0


# -- failures ----------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Frail(EmbeddedOcr):
    """Fails on pictures whose first pixel is black."""

    def detect(self, images: Sequence[Image]) -> list[list[TextBox]]:
        if any(not image[0, 0].any() for image in images):
            raise RuntimeError("the detector crashed")
        return EmbeddedOcr.detect(self, images)


def test_a_crash_on_one_frame_does_not_lose_the_clip_nor_its_neighbours(caplog: pytest.LogCaptureFixture) -> None:
    pictures, share = lettered(moving(1), ["people walk along"], 0.8, 0.08)
    broken = [image.copy() for image in pictures]
    for image in broken:
        image[0, 0] = 0
    clips = [frames([broken[0], pictures[1], pictures[2]]), frames(pictures), frames(broken), frames([])]
    found = Text(engine=Frail())([CLIP] * 4, clips)
    assert found["text_area"][:2] == [pytest.approx(share, rel=0.2)] * 2
    assert found["text_area"][2:] == [None, None] and found["text_score"][2:] == [None, None]
    assert found["text_error"] == [None, None, "RuntimeError: the detector crashed", None]
    assert "1 of 3 frames" in caplog.text


def test_an_engine_that_is_not_set_up_says_so_once_per_clip() -> None:
    class Missing(EmbeddedOcr):
        def detect(self, images: Sequence[Image]) -> list[list[TextBox]]:
            raise EngineError("no models; install them.")

    text = Text(engine=Missing())
    with pytest.raises(EngineError, match="install them"):
        text([CLIP], [frames(moving(1))])
    (row,) = measure([text], [CLIP], [{text.wants: frames(moving(1))}])
    assert row["text_area"] is None and row["measure_error"] == "Text failed (EngineError: no models; install them.)"


# -- real footage ------------------------------------------------------------------------------------------------------


@pytest.mark.footage
def test_area_on_real_footage(footage: Path) -> None:
    from manifests.media.read import read_frames
    from tests.conftest import read_lines

    error = []
    for row in read_lines(footage / "public_truth" / "tags.jsonl"):
        if row.get("text_bbox_fraction"):
            times = [500_000, 2_000_000, 3_500_000]
            path = str(footage / "public_truth" / row["file"])
            pictures = [coded(f[..., ::-1]) for f in read_frames(path, 0, 4_000_000, times, 360)]
            error.append(abs(float(measured(pictures)["text_area"]) - row["text_bbox_fraction"]))  # type: ignore[arg-type]
    assert len(error) >= 5 and np.mean(error) <= 0.02

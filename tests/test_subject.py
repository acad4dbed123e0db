"""The size of the subject: a textured thing of known size that moves over a photograph, or stands out from it."""

from __future__ import annotations

import itertools
import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pytest

from curation import recipes
from filters.people.subject import DetectedSubject, MovingArea, SalientArea, SubjectArea
from manifests.films.photos import photo
from manifests.types import Clip, Frames, Image
from tests.test_signals import check_contract

CLIP = Clip("v_0_1", "v", "v.mp4", 0, 2_000_000)
HEIGHT, WIDTH = 180, 320


def sheet(name: str, height: int, width: int) -> Image:
    return np.asarray(cv2.resize(photo(name), (width, height), interpolation=cv2.INTER_AREA), np.uint8)


def films(side: int, pan: float, speed: float, count: int = 20) -> list[Image]:
    """A square of a photograph that crosses another one, while the camera pans; pixels a frame."""
    back, thing = sheet("gravel", HEIGHT + 40, WIDTH + 160), sheet("coffee", side, side)
    made = []
    for k in range(count):
        left = round(pan * k)
        picture = back[20 : 20 + HEIGHT, left : left + WIDTH].copy()
        x, y = 60 + round(speed * k), (HEIGHT - side) // 2
        picture[y : y + side, x : x + side] = thing
        made.append(picture)
    return made


def given(pictures: list[Image], fps: float, gray: bool) -> Frames:
    images = [np.asarray(cv2.cvtColor(p, cv2.COLOR_BGR2GRAY), np.uint8) if gray else p for p in pictures]
    return Frames(
        images, [round(k * 1e6 / fps) for k in range(len(images))], list(range(len(images))), (WIDTH, HEIGHT), fps
    )


@pytest.mark.parametrize("pan", [0.0, 2.0])
def test_what_moves_against_the_camera_has_its_size(pan: float) -> None:
    found = []
    for side in (30, 60, 100):
        (share,) = MovingArea()([CLIP], [given(films(side, pan, 3.0), 10.0, gray=True)])["moving_area"]
        found.append(share)
        assert 0.4 < share / (side * side / (WIDTH * HEIGHT)) < 3.5, (side, share)  # it errs to the large side
    assert all(a < b for a, b in itertools.pairwise(found))


def test_a_camera_that_moves_alone_shows_no_subject() -> None:
    back = sheet("gravel", HEIGHT, WIDTH + 60)
    pictures = [back[:, 3 * k : 3 * k + WIDTH] for k in range(20)]
    assert MovingArea()([CLIP], [given(pictures, 10.0, gray=True)])["moving_area"][0] < 0.01


@pytest.mark.parametrize("side", [20, 60, 110])
def test_what_stands_out_has_its_size(side: int) -> None:
    picture = sheet("grass", HEIGHT, WIDTH) // 3 + np.array((40, 60, 30), np.uint8)
    picture[30 : 30 + side, 80 : 80 + side] = (40, 40, 200)
    (share,) = SalientArea()([CLIP], [given([picture] * 4, 4.0, gray=False)])["salient_area"]
    assert share == pytest.approx(side * side / (WIDTH * HEIGHT), rel=0.4)


def test_a_plain_picture_has_no_subject() -> None:
    blank = np.full((HEIGHT, WIDTH, 3), 128, np.uint8)
    assert SalientArea()([CLIP], [given([blank] * 4, 4.0, gray=False)])["salient_area"] == [0.0]


def test_nothing_is_measured_of_nothing() -> None:
    assert MovingArea()([CLIP], [given([], 10.0, gray=True)]) == {"moving_area": [None]}
    assert SalientArea()([CLIP], [given([], 4.0, gray=False)]) == {"salient_area": [None]}


def test_the_largest_evidence_counts_and_a_detector_before_all() -> None:
    table = pa.table(
        {
            "moving_area": [0.1, 0.02, None, None],
            "salient_area": [0.05, 0.2, None, 0.3],
            "face_area": [0.0, 0.04, None, 0.3],
        }
    )
    assert SubjectArea()(table)["subject_area"].to_pylist() == pytest.approx([0.1, 0.24, None, 1.0])
    seen = table.append_column("detected_area", pa.array([0.5, None, 0.0, 0.01]))
    assert SubjectArea()(seen)["subject_area"].to_pylist() == pytest.approx([0.5, 0.24, 0.0, 0.01])


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A YOLOS of random weights, in the layout of the published ones."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("yolos")
    torch.manual_seed(3)
    settings = transformers.YolosConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        image_size=[96, 160],
        num_detection_tokens=10,
    )
    network = transformers.YolosForObjectDetection(settings)
    with torch.no_grad():
        for weights in network.parameters():
            weights.mul_(6)  # fresh ones answer the same to every picture
    network.save_pretrained(folder)
    size = {"shortest_edge": 96, "longest_edge": 200}
    told = {"size": size, "image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
    (folder / "preprocessor_config.json").write_text(json.dumps({"image_processor_type": "YolosImageProcessor"} | told))
    return folder


def test_a_detector_of_the_published_layout_sees_what_upstream_sees(detector: Path) -> None:
    import torch
    from transformers import AutoModelForObjectDetection

    picture = sheet("astronaut", HEIGHT, WIDTH)
    signal = DetectedSubject(str(detector), least=0.02)
    (share,) = signal([CLIP], [given([picture] * 2, 4.0, gray=False)])["detected_area"]
    small = cv2.resize(picture, (171, 96), interpolation=cv2.INTER_AREA)
    rgb = (small[..., ::-1] / 255.0 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    with torch.inference_mode():
        seen = AutoModelForObjectDetection.from_pretrained(detector)(torch.tensor(rgb).float().permute(2, 0, 1)[None])
    sure = seen.logits[0].softmax(-1)[:, :-1].max(-1).values >= 0.02
    sizes = seen.pred_boxes[0, sure, 2] * seen.pred_boxes[0, sure, 3]
    assert 0 < share == pytest.approx(min(1.0, float(sizes.max())), rel=1e-3)
    check_contract(signal)
    assert DetectedSubject(str(detector), least=1.0)([CLIP], [given([picture], 4.0, gray=False)])["detected_area"] == [
        0
    ]


def test_other_folders_are_refused(detector: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"cannot be loaded .* give a repository's name, or a folder"):
        DetectedSubject(str(tmp_path)).prepare()
    shutil.copytree(detector, tmp_path / "half")
    (tmp_path / "half" / "model.safetensors").unlink()
    with pytest.raises(ValueError, match="cannot be loaded"):
        DetectedSubject(str(tmp_path / "half")).prepare()


def test_fine_tuning_drops_small_subjects() -> None:
    assert "small_subject" in {rule.name for rule in recipes.moviegen("sft").rules}
    assert "small_subject" not in {rule.name for rule in recipes.moviegen("low_res").rules}

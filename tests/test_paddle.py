"""PaddleOCR itself, run on pictures with lettering, and what it says when it cannot run."""

from __future__ import annotations

import importlib.util
import itertools
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from filters.text.area import Text
from filters.text.ocr import EmbeddedOcr, EngineError, OcrEngine, TextBox, bundled
from filters.text.paddle import PaddleOcr, bundled_folder
from manifests.films.dressing import lettered
from manifests.types import Image
from tests.test_text import CLIP, frames, moving

pytestmark = pytest.mark.skipif(importlib.util.find_spec("paddleocr") is None, reason="PaddleOCR is not installed")


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Nothing is read from, or left in, the user's caches, and nothing may be downloaded."""
    cache = tmp_path_factory.getbasetemp() / "cache"
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    monkeypatch.setenv("PADDLE_PDX_CACHE_HOME", str(cache / "paddlex"))
    monkeypatch.setenv("VIDCURATE_OFFLINE", "1")
    return cache


@pytest.fixture(scope="module")
def pictures() -> list[Image]:
    """Two of one size and one of another, with three lines of text in all, and one with none."""
    first = lettered(moving(1)[:1], ["CHAPTER ONE", "people walk"], 0.3, 0.1)[0]
    second = lettered(moving(3)[:1], ["Paris 2024"], 0.7, 0.08, turn=6)[0]
    tall = lettered(moving(5, width=360, height=480)[:1], ["quiet harbour"], 0.5, 0.06)[0]
    return [*first, *tall, *second, moving(0)[0]]


def overlap(one: TextBox, other: TextBox) -> float:
    """Intersection over union."""
    both = cv2.intersectConvexConvex(one.corners, other.corners)[0]
    return float(both / (cv2.contourArea(one.corners) + cv2.contourArea(other.corners) - both))


def test_it_finds_and_reads_what_the_embedded_engine_does(pictures: list[Image]) -> None:
    engines: tuple[OcrEngine, OcrEngine] = (PaddleOcr(batch=2), EmbeddedOcr())
    for look in ("glance", "detect"):
        theirs, ours = (getattr(engine, look)(pictures) for engine in engines)
        assert [len(boxes) for boxes in theirs] == [len(boxes) for boxes in ours]
        for one, other in zip(*map(itertools.chain.from_iterable, (theirs, ours)), strict=True):
            assert overlap(one, other) > 0.85 and one.score == pytest.approx(other.score, abs=0.01)
            assert one.rim == pytest.approx(other.rim, rel=0.05)
    assert [len(boxes) for boxes in theirs] == [2, 1, 1, 0]
    lines = [(image, box) for image, boxes in zip(pictures, ours, strict=True) for box in boxes]
    (theirs, ours) = (engine.recognize(lines) for engine in engines)
    assert [text.replace(" ", "") for text, _ in ours] == ["CHAPTERONE", "peoplewalk", "quietharbour", "Paris2024"]
    assert [text for text, _ in theirs] == [text for text, _ in ours]
    assert [score for _, score in theirs] == pytest.approx([score for _, score in ours], abs=0.05)


def test_it_serves_the_text_signal_as_well() -> None:
    given, share = lettered(moving(1), ["people walk along"], 0.82, 0.06)
    one, other = (Text(engine=engine)([CLIP], [frames(given)]) for engine in (PaddleOcr(), EmbeddedOcr()))
    assert one["text_area"] == [pytest.approx(share, rel=0.2)]
    for name in one:
        assert one[name] == [other[name][0] if name == "text_error" else pytest.approx(other[name][0], abs=0.02)]


def test_its_folders_are_built_once_and_hold_the_wheels_models() -> None:
    folder = bundled_folder("det")
    before = (folder / "inference.yml").stat().st_mtime_ns
    assert (folder / "inference.onnx").read_bytes() == bundled("det").read_bytes()
    assert bundled_folder("det") == folder and (folder / "inference.yml").stat().st_mtime_ns == before
    assert [path.name for path in folder.parent.iterdir() if "det" in path.name] == [folder.name], "no half-made ones"


def test_it_runs_on_local_folders(tmp_path: Path, pictures: list[Image]) -> None:
    for kind in ("det", "rec"):
        shutil.copytree(bundled_folder(kind), tmp_path / kind)  # type: ignore[arg-type]
    local = PaddleOcr(det_dir=str(tmp_path / "det"), rec_dir=str(tmp_path / "rec"))
    (boxes,) = local.detect(pictures[:1])
    assert local.recognize([(pictures[0], boxes[0])])[0][0].replace(" ", "") == "CHAPTERONE"


def broken(folder: Path, what: str) -> Path:
    """A copy of the detector's folder with one thing wrong."""
    made = folder / what.replace(" ", "_")
    shutil.copytree(bundled_folder("det"), made)
    described = yaml.safe_load((made / "inference.yml").read_text())
    if what == "no description":
        (made / "inference.yml").unlink()
    elif what == "no model":
        (made / "inference.onnx").unlink()
    elif what == "torn model":
        (made / "inference.onnx").write_bytes((made / "inference.onnx").read_bytes()[:5000])
    elif what == "torn description":
        (made / "inference.yml").write_text("Global: [")
    elif what == "empty description":
        (made / "inference.yml").write_text("{}")
    elif what == "code for a scale":
        described["PreProcess"]["transform_ops"][3]["NormalizeImage"]["scale"] = "__import__('os').getcwd()"
        (made / "inference.yml").write_text(yaml.safe_dump(described))
    return made


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("no description", "has no inference.yml"),
        ("no model", "has no inference.onnx, which onnxruntime needs"),
        ("torn model", "cannot load"),
        ("torn description", "does not describe a model"),
        ("empty description", "does not describe a model"),
        ("code for a scale", "has a scale that is no number"),
    ],
)
def test_a_broken_folder_is_one_clear_sentence(tmp_path: Path, what: str, said: str, pictures: list[Image]) -> None:
    folder = broken(tmp_path, what)
    with pytest.raises(EngineError) as caught:
        PaddleOcr(det_dir=str(folder)).detect(pictures)
    message = str(caught.value)
    assert said in message and str(folder) in message
    assert "\n" not in message and message.endswith(".") and ";" in message, "what is wrong; the remedy."


def test_a_folder_of_another_model_is_refused(pictures: list[Image]) -> None:
    with pytest.raises(EngineError, match="holds the model PP-OCRv6_small_det, not PP-OCRv5_server_det"):
        PaddleOcr(det="PP-OCRv5_server_det", det_dir=str(bundled_folder("det"))).detect(pictures)


def test_nothing_is_downloaded_offline(pictures: list[Image]) -> None:
    engine = PaddleOcr(det="PP-OCRv6_medium_det")
    with pytest.raises(EngineError, match="downloads are switched off; set det_dir"):
        engine.detect(pictures)


def test_a_named_model_that_was_downloaded_before_runs_offline(own_cache: Path, pictures: list[Image]) -> None:
    from paddlex.inference.utils import official_models

    home = Path(official_models._ModelManager._save_dir)
    fetched = home / "PP-OCRv6_small_det_onnx"
    assert own_cache in home.parents
    shutil.copytree(bundled_folder("det"), fetched)
    try:
        assert len(PaddleOcr(det="PP-OCRv6_small_det").detect(pictures[:1])[0]) == 2
    finally:
        shutil.rmtree(fetched)


def test_what_is_not_there_is_said(pictures: list[Image]) -> None:
    with pytest.raises(EngineError, match="choose onnxruntime or paddle"):
        PaddleOcr(backend="tensorrt")
    import onnxruntime

    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        with pytest.raises(EngineError, match=r"on gpu .*check the folder and the device"):
            PaddleOcr(device="gpu").detect(pictures)


def test_a_picture_it_fails_on_costs_that_picture_only() -> None:
    given, share = lettered(moving(1), ["people walk along"], 0.6, 0.08)
    gray = np.zeros((360, 640), np.uint8)  # not a colour picture: the real engine raises
    found = Text(engine=PaddleOcr())([CLIP, CLIP], [frames([gray]), frames(given)])
    assert found["text_area"] == [None, pytest.approx(share, rel=0.2)]
    assert found["text_error"][0] and found["text_error"][1] is None

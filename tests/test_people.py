"""Faces, talking heads, figures and speech: on photographs, rendered films, small random models, and real footage."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import av
import numpy as np
import pytest

from filters.people.faces import Boxes, Faces, Haar, Looked, YuNet
from filters.people.presence import PERSON, Figures, People, Segmenter
from filters.people.speech import RATE, Speech, speech
from manifests.films import speakers
from manifests.films.living import Scene
from manifests.films.living import frames as living
from manifests.films.photos import photo
from manifests.films.speakers import Speaker
from manifests.films.voice import dub, voice, wind
from manifests.media.again import look_again
from manifests.types import Clip, Frames, Image
from tests.onnx_files import HEADS, STRIDES, yunet

CLIP = Clip("v_0_1", "v", "v.mp4", 0, 2_000_000)


def seen(images: Sequence[Image], fps: float = 4.0) -> Frames:
    """Eight of them, as a pack holds them."""
    some = [images[int((k + 0.5) * len(images) / 8)] for k in range(8)] if len(images) > 8 else list(images)
    return Frames(some, [round(k * 1e6 / fps) for k in range(len(some))], list(range(len(some))), (640, 360), fps)


def head(**settings: float) -> Frames:
    return seen(list(speakers.frames(Speaker(seconds=2.0, **settings), 640, 360, 8)))  # type: ignore[arg-type]


def faces(given: Frames, signal: Faces | None = None) -> dict[str, float]:
    return {name: values[0] for name, values in (signal or Faces())([CLIP], [given]).items()}


# -- faces ------------------------------------------------------------------------------------------------------------


def test_a_portrait_has_one_face_and_a_flower_none() -> None:
    portrait = np.ascontiguousarray(photo("astronaut")[:360])
    (box,) = Haar().find(portrait)
    x, y = box[:2] + box[2:] / 2
    assert 190 < x < 260 and 80 < y < 150 and 60 < box[2] < 140
    for name in ("dahlia", "coffee", "temple", "bricks"):
        assert not len(Haar().find(np.ascontiguousarray(photo(name)[:360]))), name


def test_threads_do_not_disturb_one_another() -> None:
    pictures = [np.ascontiguousarray(photo("astronaut")[: 240 + 8 * k]) for k in range(16)]
    alone = [Haar().find(p).tolist() for p in pictures]
    with ThreadPoolExecutor(4) as threads:
        for _ in range(3):
            assert [f.tolist() for f in threads.map(Haar().find, pictures)] == alone


def test_faces_are_counted_and_measured() -> None:
    found = faces(head(size=0.5))
    assert found["face_count"] == 1 and 0.02 < found["face_area"] < 0.2
    none = faces(seen(list(living(Scene("temple", 1.0), 640, 360, 8))))
    assert none == {"face_count": 0, "face_area": 0, "talking_head": 0}


def test_a_talking_head_keeps_its_place_and_is_alive() -> None:
    talks = faces(head(nod=0.02))["talking_head"]
    walks = faces(head(wander=0.25, gestures=1.5))["talking_head"]
    still = head()
    frozen = faces(Frames([still.images[0]] * 8, still.times, still.indices, still.size, still.fps))["talking_head"]
    assert talks > 0.6 and walks < 0.25 and frozen == 0


def test_yunet_finds_what_its_outputs_say(tmp_path: Path) -> None:
    """A model in the published layout, through the same code; its outputs decoded here by hand."""
    import onnxruntime

    path = yunet(tmp_path / "yunet.onnx", side=320)
    image = np.random.default_rng(3).integers(0, 256, (320, 320, 3), dtype=np.uint8)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    outputs = session.run(None, {"input": image.transpose(2, 0, 1)[None].astype(np.float32)})
    out = dict(zip([o.name for o in session.get_outputs()], outputs, strict=True))
    assert set(out) == {f"{head}_{stride}" for head in HEADS for stride in STRIDES}
    best, where = 0.0, np.zeros(4)
    for stride in STRIDES:
        scores = np.sqrt(out[f"cls_{stride}"][0, :, 0] * out[f"obj_{stride}"][0, :, 0])
        k = int(scores.argmax())
        if scores[k] > best:
            row, col = divmod(k, 320 // stride)
            dx, dy, w, h = out[f"bbox_{stride}"][0, k]
            size = np.exp([w, h]) * stride
            best, where = (
                scores[k],
                np.array([*((col + dx) * stride - size[:1] / 2), (row + dy) * stride - size[1] / 2, *size]),
            )
    found = YuNet(str(path), least=float(best) - 1e-4).find(image)
    assert len(found) == 1 and np.allclose(found[0], where, rtol=1e-3, atol=1e-2)
    assert not len(YuNet(str(path), least=0.999).find(image))


def test_a_face_model_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "notes.onnx").write_text("no model")
    with pytest.raises(ValueError, match=r"notes\.onnx does not load .* is it an ONNX model of YuNet\?$"):
        YuNet(str(tmp_path / "notes.onnx")).find(photo("astronaut"))
    with pytest.raises(ValueError, match="not there"):
        YuNet(str(tmp_path / "gone.onnx")).find(photo("astronaut"))


# -- people -----------------------------------------------------------------------------------------------------------


def test_people_by_their_faces_and_none_in_a_flower() -> None:
    found = People()([CLIP, CLIP], [head(size=0.45), seen(list(living(Scene("dahlia", 1.0, actors=0), 640, 360, 8)))])
    assert found["person_score"][0] >= 0.5 and found["people"][0] >= 0.75
    assert found["person_score"][1] < 0.5 and found["people"][1] <= 0.25


def test_two_frames_must_agree() -> None:
    with_face = np.ascontiguousarray(photo("astronaut")[:360])
    without = np.ascontiguousarray(photo("dahlia")[:360, :512])
    once = People()([CLIP], [seen([with_face, without, without, without])])
    assert once["people"] == [0.25] and once["person_score"][0] < 0.5


@dataclasses.dataclass(frozen=True)
class Counting(Haar):
    calls: list[int] = dataclasses.field(default_factory=list, compare=False)

    def find(self, image: Image) -> Boxes:
        self.calls.append(1)
        return Haar.find(self, image)


def test_faces_are_looked_for_once_whoever_asks() -> None:
    detector, given = Counting(), head(size=0.45)
    assert given.share(Looked(detector, 4)) is given.share(Looked(detector, 4)) and len(detector.calls) == 4
    People(Figures(detector), looks=4)([CLIP], [given])
    assert len(detector.calls) == 4


def test_a_moving_clip_is_looked_at_for_large_faces_alone() -> None:
    calm = seen(list(living(Scene("temple", 1.0), 640, 360, 8))[:1] * 8)
    small, large = Counting(), Counting()
    Faces(small, moving=large)([CLIP], [calm])
    assert (len(small.calls), len(large.calls)) == (1, 0)
    Faces(small, moving=large)([CLIP], [seen([np.roll(i, 40 * k, 1) for k, i in enumerate(calm.images)])])
    assert (len(small.calls), len(large.calls)) == (1, 1)


def test_the_segmenter_reads_published_weights(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from torchvision.models.segmentation import lraspp_mobilenet_v3_large

    torch.manual_seed(0)
    network = lraspp_mobilenet_v3_large(weights=None, weights_backbone=None).eval()
    path = tmp_path / "lraspp_mobilenet_v3_large-d234d4ea.pth"
    torch.save(network.state_dict(), path)
    image = np.ascontiguousarray(photo("astronaut")[:180, :320])
    rgb = torch.from_numpy(image[..., ::-1].copy()).float() / 255
    batch = (rgb - torch.tensor([0.485, 0.456, 0.406])) / torch.tensor([0.229, 0.224, 0.225])
    with torch.no_grad():
        labels = network(batch.permute(2, 0, 1)[None])["out"].argmax(1)
    share = float((labels == PERSON).float().mean())
    assert Segmenter(str(path)).evidence(seen([image]), 4) == [pytest.approx(share / (share + 0.01), abs=1e-4)]
    (tmp_path / "other.pth").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="cannot be read as weights"):
        Segmenter(str(tmp_path / "other.pth")).evidence(seen([image]), 4)
    torch.save({"weight": torch.zeros(1)}, tmp_path / "wrong.pth")
    with pytest.raises(ValueError, match="holds no weights of lraspp"):
        Segmenter(str(tmp_path / "wrong.pth")).evidence(seen([image]), 4)


@pytest.mark.footage
@pytest.mark.slow
def test_people_in_real_footage(footage: Path) -> None:
    """Clips by hand: the middle four seconds of films whose description names people, and of some without."""
    from manifests.media.read import read_frames

    told = {row["file"]: row for row in map(json.loads, (footage / "public" / "public.jsonl").read_text().splitlines())}
    with_people = [
        n for n, r in told.items() if "people" in r["tags"] and "dark" not in r["tags"] and "low_fps" not in r["tags"]
    ]
    without = [n for n, r in told.items() if {"nature", "ui", "walking", "objects"} & set(r["tags"])]
    assert len(with_people) >= 6 and len(without) >= 8
    for names, there in ((with_people, True), (without, False)):
        right = 0
        for name in names:
            times = [round((k + 0.5) / 8 * told[name]["duration"] * 1e6) for k in range(8)]
            images = [
                f[..., ::-1] for f in read_frames(str(footage / "public" / name), 0, times[-1] + 1_000_000, times, 360)
            ]
            right += (
                People()([CLIP], [seen([np.ascontiguousarray(i) for i in images])])["person_score"][0] >= 0.5
            ) is there
        assert right >= 0.8 * len(names), there


# -- speech -----------------------------------------------------------------------------------------------------------

silero = pytest.mark.skipif(importlib.util.find_spec("silero_vad") is None, reason="silero-vad is not installed")


def stepwise(sound: np.ndarray) -> np.ndarray:
    """The package's other model, window by window with its own state, as the upstream wrapper runs it."""
    import onnxruntime

    spec = importlib.util.find_spec("silero_vad")
    assert spec is not None and spec.origin is not None
    session = onnxruntime.InferenceSession(str(Path(spec.origin).parent / "data" / "silero_vad.onnx"))
    state, context, found = np.zeros((2, 1, 128), np.float32), np.zeros((1, 64), np.float32), []
    for window in (sound.astype(np.float32) / 32768)[: len(sound) // 512 * 512].reshape(-1, 1, 512):
        given = np.concatenate([context, window], axis=1)
        probability, state = session.run(None, {"input": given, "state": state, "sr": np.array(RATE)})
        found.append(probability[0, 0])
        context = given[:, -64:]
    return np.array(found)


@silero
def test_speech_equals_the_upstream_model() -> None:
    for sound in (voice(2.0, 0), wind(2.0, 1)):
        assert np.allclose(speech(sound)[:62], stepwise(sound)[:62], atol=1e-4)


@silero
def test_a_voice_is_speech_and_wind_is_not(tmp_path: Path) -> None:
    voices = [float((speech(voice(3.0, seed)) >= 0.5).mean()) for seed in range(4)]
    assert np.mean(voices) > 0.25
    assert all((speech(wind(3.0, seed)) < 0.5).all() for seed in range(4))
    tone = (8000 * np.sin(np.arange(2 * RATE) * 2 * np.pi * 440 / RATE)).astype(np.int16)
    assert (speech(tone) < 0.5).all()


@silero
def test_speech_of_a_film_and_of_a_silent_one(tmp_path: Path) -> None:
    path = tmp_path / "film.mp4"
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        for k in range(30):
            picture = np.full((64, 64, 3), 8 * k, np.uint8)
            out.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        out.mux(stream.encode(None))
    signal = Speech()
    silent = look_again(str(path), 0, 3_000_000, [signal.wants])[signal.wants]
    assert signal([CLIP], [silent]) == {"speech_fraction": [None]}
    sound = np.concatenate([np.zeros(RATE, np.int16), voice(2.0, 0)])
    dub(path, sound)
    heard = look_again(str(path), 0, 3_000_000, [signal.wants])[signal.wants]
    (share,) = signal([CLIP], [heard])["speech_fraction"]
    alone = float((speech(voice(2.0, 0)) >= 0.5).mean())
    assert share == pytest.approx(alone * 2 / 3, abs=0.12)


@silero
@pytest.mark.footage
def test_speech_in_real_footage(footage: Path) -> None:
    from manifests.media.audio import read_audio

    for name, low, high in (
        ("mdn_friday.mp4", 0.6, 1.0),
        ("flutter_bee.mp4", 0.0, 0.1),
        ("gopro_max_walk.mp4", 0.0, 0.1),
    ):
        sound = read_audio(str(footage / "public" / name), 0, 6_000_000, RATE)
        assert sound is not None
        assert low <= float((speech(sound) >= 0.5).mean()) <= high, name

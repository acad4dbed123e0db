"""CLIP embeddings: small random models, loaded as users load published ones, against open_clip's own forward."""

from __future__ import annotations

import json
import pickle
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image as Pictures

pytest.importorskip("open_clip")
torch = pytest.importorskip("torch")
import open_clip  # noqa: E402

from curation.measure import measure  # noqa: E402
from filters import weights  # noqa: E402
from filters.learned import clip  # noqa: E402
from filters.learned.clip import ClipEmbedding, ClipModel  # noqa: E402
from filters.learned.consistency import ClipConsistency  # noqa: E402
from filters.learned.embeddings import Preparation, embed, pick  # noqa: E402
from filters.learned.zero_shot import PersonClip  # noqa: E402
from filters.looks.frames import LOOKS  # noqa: E402
from manifests.films.photos import photo  # noqa: E402
from manifests.types import Clip, Frames, Image  # noqa: E402
from tests import clip_models  # noqa: E402

CLIP = Clip("v_0_1", "v", "v.mp4", 0, 2_000_000)
CLOSE = 5e-3 if torch.cuda.is_available() else 1e-3
"""What numbers may differ by: half precision on a GPU; else one grey level here and there."""
NAMES = ("temple", "cat", "rocket", "dahlia", "coffee", "astronaut")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return clip_models.make(tmp_path_factory.mktemp("clip"))


@pytest.fixture
def model(tiny: dict[str, str]) -> ClipModel:
    return ClipModel(tiny["json"], tiny["safetensors"])


def pictures(count: int = 6, height: int = 120, width: int = 213) -> list[Image]:
    """BGR photographs of one size."""
    how = cv2.INTER_AREA
    return [
        np.asarray(cv2.resize(photo(NAMES[k % len(NAMES)]), (width, height), interpolation=how), np.uint8)
        for k in range(count)
    ]


def frames(images: list[Image]) -> Frames:
    return Frames(images, [k * 250_000 for k in range(len(images))], list(range(len(images))), (640, 360), 24.0)


def rgb(image: Image) -> Pictures.Image:
    return Pictures.fromarray(image[..., ::-1].copy())


def upstream(name: str, path: str, images: list[Image]) -> np.ndarray:
    """open_clip's own preprocessing and forward, one picture at a time."""
    network, _, preprocess = open_clip.create_model_and_transforms(name, pretrained=path or None)
    network.eval()
    with torch.no_grad():
        seen = [network.encode_image(preprocess(rgb(i)).unsqueeze(0), normalize=True)[0] for i in images]
    return torch.stack(seen).numpy()


SHAPES = ((120, 213), (213, 120), (64, 64), (90, 91), (33, 50), (360, 640), (5, 400))


@pytest.mark.parametrize("mode", ["shortest", "longest", "squash"])
@pytest.mark.parametrize("size", [64, 57, (48, 80)])
def test_preparation_is_open_clips(mode: str, size: int | tuple[int, int]) -> None:
    from open_clip.transform import PreprocessCfg, image_transform_v2

    config = PreprocessCfg(size, resize_mode=mode, fill_color=9)
    theirs = image_transform_v2(config, is_train=False)
    both = size if isinstance(size, tuple) else (size, size)
    ours = Preparation(both, tuple(config.mean), tuple(config.std), mode, fill=9)
    images = [pictures(k + 1, *shape)[k] for k, shape in enumerate(SHAPES[:6])]
    expected = torch.stack([theirs(rgb(i)) for i in images])
    apart = (ours(images, torch.device("cpu")) - expected).abs() * torch.tensor(config.std).view(3, 1, 1) * 255
    # Where the sides are scaled unequally, Pillow 13 sometimes begins with the columns and rounds otherwise.
    assert apart.max() < (6 if mode == "squash" else 1.1) and apart.mean() < (0.2 if mode == "squash" else 0.01)


def test_a_strip_is_prepared_too() -> None:
    ours = Preparation((64, 64), (0.5,) * 3, (0.5,) * 3)
    assert ours([np.zeros((1, 1, 3), np.uint8), np.zeros((5, 400, 3), np.uint8)], torch.device("cpu")).shape[0] == 2


@pytest.mark.parametrize("kind", ["safetensors", "pt"])
def test_embeddings_are_open_clips(tiny: dict[str, str], kind: str) -> None:
    images = [*pictures(), *pictures(2, 213, 120)]
    found = np.stack(ClipModel(tiny["json"], tiny[kind]).encode(images))
    expected = upstream(Path(tiny["json"]).stem, tiny[kind], images)
    assert np.abs(found - expected).max() < CLOSE
    assert np.linalg.norm(found, axis=1) == pytest.approx(1, abs=1e-5)
    cosines = expected @ expected.T
    assert cosines[~np.eye(len(cosines), dtype=bool)].min() < 0.9, "the model tells pictures apart"


def test_a_published_folder_and_its_config_bring_their_own_preprocessing(tiny: dict[str, str]) -> None:
    images = pictures()
    expected = upstream(f"local-dir:{tiny['folder']}", "", images)
    from_folder = np.stack(ClipModel(tiny["folder"]).encode(images))
    from_files = np.stack(ClipModel(tiny["full"], tiny["pt"]).encode(images))
    assert np.abs(from_folder - expected).max() < CLOSE
    assert np.abs(from_files - expected).max() < CLOSE
    assert np.abs(from_folder - np.stack(ClipModel(tiny["json"], tiny["pt"]).encode(images))).max() > 0.02


def test_texts_are_read_as_open_clip_reads_them(tiny: dict[str, str], model: ClipModel) -> None:
    texts = ("a photo of a cat", "running", "")
    network = open_clip.create_model(Path(tiny["json"]).stem, pretrained=tiny["pt"]).eval()
    with torch.no_grad():
        expected = network.encode_text(open_clip.get_tokenizer("ViT-B-32")(list(texts)), normalize=True).numpy()
    assert np.abs(model.read(texts) - expected).max() < (CLOSE if torch.cuda.is_available() else 1e-5)
    assert np.abs(ClipModel(tiny["folder"]).read(texts) - expected).max() < (
        CLOSE if torch.cuda.is_available() else 1e-5
    )
    assert model.logit_scale == pytest.approx(float(network.logit_scale.detach().exp()), rel=1e-3)


def test_each_frame_is_encoded_once_for_all_signals(model: ClipModel) -> None:
    given = [frames(pictures(6)), frames([]), frames(pictures(3)), frames(pictures(1))]
    batches: list[int] = []
    watch = clip._load(model).network.visual.register_forward_hook(lambda _, seen, __: batches.append(len(seen[0])))
    try:
        some = embed(model, given, [pick(f, "middle") for f in given])
        rows = measure(
            (ClipEmbedding(model), ClipConsistency(model), PersonClip(model)), [CLIP] * 4, [{LOOKS: f} for f in given]
        )
    finally:
        watch.remove()
    assert batches == [3, 7], "the middle frames of three clips, then everything else"
    assert [len(e) for e in some] == [1, 0, 1, 1]
    assert rows[0]["clip_embedding"] == pytest.approx(
        clip.mean(np.stack(model.encode(pictures(6)))).tolist(), abs=CLOSE
    )
    assert rows[0]["measure_error"] is None
    assert rows[1]["clip_embedding"] is None and "0 frames" in rows[1]["measure_error"]
    assert rows[3]["temporal_consistency_clip"] is None and rows[3]["person_clip"] is not None


def test_memory_that_runs_out_only_makes_batches_smaller(model: ClipModel) -> None:
    images = pictures()
    expected = np.stack(model.encode(images))
    seen: list[int] = []

    def small(_: object, inputs: tuple[torch.Tensor, ...]) -> None:
        seen.append(len(inputs[0]))
        if len(inputs[0]) > 2:
            raise torch.OutOfMemoryError("none left")

    watch = clip._load(model).network.visual.register_forward_pre_hook(small)
    try:
        found = np.stack(model.encode(images))
    finally:
        watch.remove()
    assert seen == [6, 3, 1, 1, 1, 1, 1, 1]
    assert np.abs(found - expected).max() < CLOSE


def test_a_model_is_loaded_once_and_travels_as_its_settings(model: ClipModel) -> None:
    again = pickle.loads(pickle.dumps(model))
    with ThreadPoolExecutor(4) as pool:
        loaded = set(map(id, pool.map(clip._load, [model, again] * 4)))
    assert len(loaded) == 1


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", constants.HF_HUB_OFFLINE)
    monkeypatch.setenv("VIDCURATE_OFFLINE", "1")
    yield


def test_offline_a_tag_that_is_not_in_the_cache_is_refused(
    offline: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ValueError, match=r"ViT-B-32-quickgelu with weights 'openai' cannot be loaded \(.*\); see"):
        ClipModel("ViT-B-32-quickgelu", "openai").prepare()
    assert constants.HF_HUB_OFFLINE is True, "nothing else was tried"


@pytest.mark.parametrize(
    ("architecture", "chosen", "says"),
    [
        ("ViT-Q-1", "openai", "open_clip has no architecture 'ViT-Q-1'; give one of"),
        ("ViT-L-14", "openay", r"there are no weights 'openay' for ViT-L-14; give tags openai, .* file\."),
        ("ViT-L-14", "gone.safetensors", "weights gone.safetensors are not there; give the path"),
        ("TINY", "noise.pt", r"with weights '.*noise.pt' cannot be loaded \("),
        ("TINY", "other.safetensors", r"with weights '.*other.safetensors' cannot be loaded \("),
        ("gone.json", "PT", r"architecture gone.json cannot be read as JSON \("),
        ("half.json", "PT", r"architecture .*half.json lacks text_cfg, vision_cfg; use"),
        ("text.json", "PT", r"architecture .*text.json cannot be read as JSON \("),
        ("EMPTY", "", r"folder .* holds no open_clip_config.json; give"),
        ("BARE", "", r"CLIP model .* cannot be loaded \("),
    ],
)
def test_what_cannot_be_loaded_is_said_in_one_sentence(
    tiny: dict[str, str], tmp_path: Path, architecture: str, chosen: str, says: str
) -> None:
    (tmp_path / "noise.pt").write_bytes(b"not weights" * 100)
    (tmp_path / "half.json").write_text('{"embed_dim": 3}')
    (tmp_path / "text.json").write_text("no json")
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "open_clip_config.json").write_text(json.dumps({"model_cfg": clip_models.architecture(32)}))
    from safetensors.torch import save_file

    save_file({"visual.proj": torch.zeros(3, 3)}, tmp_path / "other.safetensors")
    (tmp_path / "empty").mkdir()
    named = {
        "TINY": tiny["json"],
        "PT": tiny["pt"],
        "EMPTY": str(tmp_path / "empty"),
        "BARE": str(tmp_path / "bare"),
    }
    there = {p.name: str(p) for p in tmp_path.iterdir()}
    with pytest.raises(ValueError, match=says) as refusal:
        ClipModel(
            named.get(architecture, there.get(architecture, architecture)), named.get(chosen, there.get(chosen, chosen))
        ).prepare()
    assert "\n" not in str(refusal.value)


def test_weights_that_would_run_code_are_refused(tiny: dict[str, str], tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return Path.touch, (tmp_path / "sprung",)  # type: ignore[return-value]

    torch.save({"state_dict": Trap()}, tmp_path / "trap.pt")
    with pytest.raises(ValueError, match="cannot be loaded"):
        ClipModel(tiny["json"], str(tmp_path / "trap.pt")).prepare()
    with pytest.raises(ValueError, match="cannot be read as weights"):
        weights.tensors(tmp_path / "trap.pt")
    assert not (tmp_path / "sprung").exists()


def test_a_refusal_is_remembered_for_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    @weights.once
    def load(name: str) -> str:
        asked.append(name)
        if len(asked) < 3:
            raise ValueError(f"{name} is not here")
        return name

    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    for _ in range(3):
        with pytest.raises(ValueError, match="a is not here"):
            load("a")
    assert asked == ["a"]
    now[0] += 61
    with pytest.raises(ValueError, match="a is not here"):
        load("a")
    now[0] += 61
    assert load("a") == "a" == load("a")
    assert asked == ["a"] * 3 and threading.active_count() < 100

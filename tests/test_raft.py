"""RAFT motion and work in halving batches: random weights in torchvision's own layout, through what users run."""

from __future__ import annotations

import hashlib
import logging
import math
import pickle
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from filters.batches import halving
from filters.motion import raft
from filters.motion.raft import RaftMotion
from manifests.types import Clip, Frames, Image, Signal

torch = pytest.importorskip("torch")
flows = pytest.importorskip("torchvision.models.optical_flow")

CLIP = Clip("v_0_1", "v", "v.mp4", 0, 2_000_000)
BUILD = {"raft_small": flows.raft_small, "raft_large": flows.raft_large}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Files with random weights."""
    from safetensors.torch import save_file

    folder = tmp_path_factory.mktemp("raft")
    paths = {}
    for name, build in BUILD.items():
        torch.manual_seed(7)
        state = build(weights=None).state_dict()
        paths[name] = folder / f"{name}.pth"
        torch.save(state, paths[name])
    save_file({k: v.contiguous() for k, v in torch.load(paths["raft_small"]).items()}, folder / "small.safetensors")
    paths["safetensors"] = folder / "small.safetensors"
    return paths


def pictures(count: int, height: int, width: int, seed: int = 0) -> list[Image]:
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 256, (height, width, 3), np.uint8) for _ in range(count)]


def clip_of(images: Sequence[Image], fps: float = 2.0) -> Frames:
    times = [round(k * 1e6 / fps) for k in range(len(images))]
    return Frames(list(images), times, list(range(len(images))), (640, 360), 25.0)


def upstream(name: str, path: Path, first: Image, second: Image, iterations: int) -> np.ndarray:
    """Torchvision's own network, weights and preset on one pair whose size it takes as it is."""
    network = BUILD[name](weights=None)
    network.load_state_dict(torch.load(path, weights_only=True))
    tensors = [torch.from_numpy(np.ascontiguousarray(p[..., ::-1])).permute(2, 0, 1)[None] for p in (first, second)]
    preset = flows.Raft_Small_Weights.C_T_V2.transforms()
    with torch.inference_mode():
        return np.asarray(network.eval()(*preset(*tensors), num_flow_updates=iterations)[-1][0])


@pytest.mark.parametrize("name", list(BUILD))
def test_flow_is_torchvisions_own(saved: dict[str, Path], name: str) -> None:
    first, second = pictures(2, 128, 136)
    signal = RaftMotion(model=name, weights=str(saved[name]), iterations=3)
    theirs = upstream(name, saved[name], first, second, 3)
    assert np.abs(theirs).max() > 0.01, "random weights move something"
    np.testing.assert_allclose(signal.flow([(first, second)])[0], theirs, rtol=1e-4, atol=1e-5)
    seconds, short = 0.5, 128
    wanted = float(np.hypot(*theirs).mean()) * 360 / short / seconds
    assert signal([CLIP], [clip_of([first, second])])["motion_raft"][0] == pytest.approx(wanted, rel=1e-4)


def test_odd_sizes_are_padded_at_the_edge_and_cut_off_again(saved: dict[str, Path]) -> None:
    first, second = pictures(2, 100, 131)
    signal = RaftMotion(weights=str(saved["raft_small"]), iterations=2)
    mine = signal.flow([(first, second)])
    padded = [np.pad(p, ((0, 28), (0, 5), (0, 0)), mode="edge") for p in (first, second)]
    theirs = upstream("raft_small", saved["raft_small"], padded[0], padded[1], 2)
    assert mine.shape == (1, 2, 100, 131)
    np.testing.assert_allclose(mine[0], theirs[:, :100, :131], rtol=1e-4, atol=1e-5)


def test_clips_together_are_as_clips_alone_whatever_the_batch(saved: dict[str, Path]) -> None:
    path = str(saved["raft_small"])
    clips = [clip_of(pictures(3, 128, 128)), clip_of([]), clip_of(pictures(2, 136, 128, 1)), clip_of(pictures(1, 9, 9))]
    clips.append(clip_of(pictures(3, 128, 128, 2), fps=1.0))
    alone = [RaftMotion(weights=path, iterations=2)([CLIP], [f])["motion_raft"][0] for f in clips]
    assert alone[1] is None and alone[3] is None and all(v and v > 0 for v in (alone[0], alone[2], alone[4]))
    for batch in (1, 3, 16):
        signal = RaftMotion(weights=path, iterations=2, batch=batch)
        together = signal([CLIP] * len(clips), clips)["motion_raft"]
        assert together == [None if v is None else pytest.approx(v, rel=1e-4) for v in alone]


def test_half_the_time_is_twice_the_speed(saved: dict[str, Path]) -> None:
    images = pictures(3, 128, 128)
    signal = RaftMotion(weights=str(saved["raft_small"]), iterations=1)
    slow, fast = (signal([CLIP], [clip_of(images, fps)])["motion_raft"][0] for fps in (2.0, 4.0))
    assert fast == pytest.approx(2 * slow)


def test_weights_from_safetensors_and_from_pth_are_the_same(saved: dict[str, Path]) -> None:
    given = clip_of(pictures(2, 128, 128))
    values = [RaftMotion(weights=str(saved[k]))([CLIP], [given])["motion_raft"] for k in ("raft_small", "safetensors")]
    assert values[0] == values[1]


def test_contract(saved: dict[str, Path]) -> None:
    signal = RaftMotion(weights=str(saved["raft_small"]), iterations=1)
    assert isinstance(signal, Signal) and pickle.loads(pickle.dumps(signal)) == signal and hash(signal)
    odd = {
        "grey": [np.full((128, 128, 3), 128, np.uint8)] * 2,
        "one pixel": [np.full((1, 1, 3), 7, np.uint8)] * 3,
        "strip": [np.zeros((4, 300, 3), np.uint8)] * 2,
    }
    for name, images in odd.items():
        first, again = (signal([CLIP], [clip_of(images)]) for _ in range(2))
        assert list(first) == signal.schema.names and first == again, name
        assert type(first["motion_raft"][0]) is float and math.isfinite(first["motion_raft"][0]), name


def test_what_a_recipe_asks_for_can_be_set() -> None:
    assert RaftMotion().wants.fps == 2 and RaftMotion().wants.short == 256 and RaftMotion().wants.color
    assert RaftMotion(fps=4, short=360).wants.fps == 4


# -- weights that cannot be had ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("switch", ["VIDCURATE_OFFLINE", "HF_HUB_OFFLINE"])
def test_offline_says_what_to_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, switch: str) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", lambda *_, **__: pytest.fail("downloads are switched off"))
    monkeypatch.setenv(switch, "1")
    with pytest.raises(ValueError, match=r"switched off: put raft_small_C_T_V2-01064c6d.pth .* RaftMotion.weights"):
        raft._find("raft_small", "C_T_V2")
    assert RaftMotion()([CLIP], [clip_of([])]) == {"motion_raft": [None]}, "nothing to measure needs no weights"


def test_named_weights_lie_in_hubs_folder_and_are_checked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setenv("VIDCURATE_OFFLINE", "1")
    content = b"as if these were weights"
    own = flows.Raft_Small_Weights.C_T_V2
    address = f"https://download.pytorch.org/models/raft_own-{hashlib.sha256(content).hexdigest()[:8]}.pth"
    monkeypatch.setattr("torchvision.models.get_model_weights", lambda _: [SimpleNamespace(name=own.name, url=address)])
    there = tmp_path / "checkpoints" / address.rpartition("/")[2]
    there.parent.mkdir()
    there.write_bytes(content)
    assert raft._find("raft_small", own.name) == there
    there.write_bytes(content[:-1])
    with pytest.raises(ValueError, match="is damaged: its SHA-256 does not begin with"):
        raft._find("raft_small", own.name)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"weights": "C_T_V9"}, "there are no weights 'C_T_V9': give one of C_T_V1, C_T_V2, an https address"),
        ({"weights": "http://example.org/raft.pth"}, "give an https address, a local file, or one of C_T_V1, C_T_V2"),
        ({"model": "raft_tiny", "weights": "C_T_V2"}, "choose raft_small or raft_large"),
    ],
)
def test_settings_that_cannot_be_are_refused_in_one_sentence(settings: dict[str, str], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence) as raised:
        RaftMotion(**settings)([CLIP], [clip_of(pictures(2, 16, 16))])  # type: ignore[arg-type]
    assert "\n" not in str(raised.value)


def test_weights_of_another_network_are_refused_in_one_sentence(saved: dict[str, Path], tmp_path: Path) -> None:
    broken = tmp_path / "broken.pth"
    broken.write_bytes(b"not a file of torch")
    for path, sentence in (
        (saved["raft_large"], "holds no weights of raft_small"),
        (broken, "cannot be read as weights"),
    ):
        with pytest.raises(ValueError, match=f"{path.name} {sentence}") as raised:
            RaftMotion(weights=str(path))([CLIP], [clip_of(pictures(2, 16, 16))])
        assert "\n" not in str(raised.value)


# -- batches -----------------------------------------------------------------------------------------------------------


def test_batches_are_halved_when_memory_runs_out(caplog: pytest.LogCaptureFixture) -> None:
    tried: list[int] = []

    def squares(items: Sequence[int]) -> list[int]:
        tried.append(len(items))
        if len(items) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return [item**2 for item in items]

    with caplog.at_level(logging.WARNING, "vidcurate"):
        assert halving(squares, range(10), 8) == [k**2 for k in range(10)]
    assert tried == [8, 4, 2, 2, 2, 2, 2]
    assert "out of accelerator memory with 8 items" in caplog.text


def test_an_item_that_never_fits_and_other_errors_are_raised() -> None:
    def full(_: Sequence[int]) -> list[int]:
        raise torch.OutOfMemoryError("CUDA out of memory")

    def wrong(_: Sequence[int]) -> list[int]:
        raise KeyError("another")

    with pytest.raises(torch.OutOfMemoryError):
        halving(full, [1, 2, 3], 2)
    with pytest.raises(KeyError):
        halving(wrong, [1, 2, 3], 2)
    assert halving(full, [], 4) == []


def test_raft_goes_on_with_smaller_batches(monkeypatch: pytest.MonkeyPatch, saved: dict[str, Path]) -> None:
    signal = RaftMotion(weights=str(saved["raft_small"]), iterations=1, batch=4)
    given = clip_of(pictures(5, 128, 128))
    wanted = signal([CLIP], [given])["motion_raft"][0]
    network, device = raft._network(signal.model, signal.weights, signal.device)
    monkeypatch.setattr(raft, "_network", lambda *_: (short_of_memory, device))

    def short_of_memory(first: torch.Tensor, second: torch.Tensor, num_flow_updates: int) -> object:
        if len(first) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return network(first, second, num_flow_updates=num_flow_updates)

    short_of_memory_signal = signal([CLIP], [given])["motion_raft"][0]
    monkeypatch.undo()
    assert short_of_memory_signal == pytest.approx(wanted, rel=1e-4)

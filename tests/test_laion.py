"""LAION aesthetic heads in their published file layouts, and how weights are found, fetched and refused."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("open_clip")
torch = pytest.importorskip("torch")
from distributed import Client  # noqa: E402
from torch import nn  # noqa: E402

from curation import recipes  # noqa: E402
from curation.recipe import with_settings  # noqa: E402
from curation.run import run  # noqa: E402
from filters import weights  # noqa: E402
from filters.learned.clip import ClipModel  # noqa: E402
from filters.learned.heads import read_head  # noqa: E402
from filters.learned.laion import LaionAesthetics  # noqa: E402
from filters.learned.zero_shot import Taxonomy  # noqa: E402
from manifests.films.film import Film, render  # noqa: E402
from manifests.films.shots import Shot  # noqa: E402
from tests import clip_models  # noqa: E402
from tests.test_clip import CLIP, CLOSE, frames, pictures, upstream  # noqa: E402
from tests.test_signals import check_contract  # noqa: E402


def mlp(size: int) -> nn.Module:
    """As improved-aesthetic-predictor builds it; its file holds the state of a module with this one as `layers`."""
    stack = nn.Sequential(
        nn.Linear(size, 1024),
        nn.Dropout(0.2),
        nn.Linear(1024, 128),
        nn.Dropout(0.2),
        nn.Linear(128, 64),
        nn.Dropout(0.1),
        nn.Linear(64, 16),
        nn.Linear(16, 1),
    )
    return nn.ModuleDict({"layers": stack})


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Random heads as files, and a CLIP model whose embeddings have 768 numbers."""
    folder = tmp_path_factory.mktemp("laion")
    torch.manual_seed(5)
    heads = {"mlp": mlp(768), "linear": nn.Linear(768, 1), "b32": nn.Linear(512, 1)}
    paths = {}
    for name, head in heads.items():
        paths[name] = folder / f"{name}.pth"
        torch.save(head.state_dict(), paths[name])
    return paths | {k: Path(v) for k, v in clip_models.make(folder, 768).items()}


@pytest.fixture(scope="module")
def model(saved: dict[str, Path]) -> ClipModel:
    return ClipModel(str(saved["json"]), str(saved["safetensors"]))


@pytest.mark.parametrize("kind", ["mlp", "linear"])
def test_scores_are_those_of_the_published_code(saved: dict[str, Path], model: ClipModel, kind: str) -> None:
    images = pictures(5)
    head = mlp(768) if kind == "mlp" else nn.Linear(768, 1)
    head.load_state_dict(torch.load(saved[kind], weights_only=True))
    head.eval()
    embeddings = torch.from_numpy(upstream(saved["json"].stem, str(saved["safetensors"]), images))
    with torch.no_grad():
        expected = (head["layers"] if kind == "mlp" else head)(embeddings).ravel().tolist()
    assert max(expected) - min(expected) > 1e-3, "pictures differ in score"
    chosen = {"middle": [2], "ends": [0, 2, 4], "all": [0, 1, 2, 3, 4], "uniform": [0, 1, 3, 4]}
    for which, picks in chosen.items():
        signal = LaionAesthetics(model, str(saved[kind]), which=which)
        answer = signal([CLIP, CLIP], [frames(images), frames([])])
        score = float(np.mean([expected[k] for k in picks]))
        assert answer == {"aesthetic_laion": [pytest.approx(score, abs=CLOSE / 5), None]}, which


def test_contract(saved: dict[str, Path], model: ClipModel) -> None:
    check_contract(LaionAesthetics(model, str(saved["mlp"])))


def test_heads_of_another_size_or_kind_are_refused(saved: dict[str, Path], model: ClipModel, tmp_path: Path) -> None:
    torch.save({"layers.0.weight": torch.zeros(16, 768), "layers.0.bias": torch.zeros(16)}, tmp_path / "many.pth")
    torch.save({"layers.0.weight": torch.zeros(16, 768)}, tmp_path / "biasless.pth")
    broken = {**mlp(768).state_dict(), "layers.2.weight": torch.zeros(128, 99)}
    torch.save(broken, tmp_path / "broken.pth")
    (tmp_path / "noise.pth").write_bytes(b"no weights" * 50)
    torch.save([1, 2, 3], tmp_path / "list.pth")
    says = {
        saved["b32"]: "b32.pth scores embeddings of 512 numbers, and .* makes 768; choose the head",
        saved["pt"]: "is no aesthetic head: wanted is a stack of linear layers",
        tmp_path / "many.pth": "is no aesthetic head",
        tmp_path / "biasless.pth": "is no aesthetic head",
        tmp_path / "broken.pth": "is no aesthetic head",
        tmp_path / "noise.pth": r"noise.pth cannot be read as weights \(",
        tmp_path / "list.pth": "list.pth holds no state dict",
        tmp_path / "gone.pth": "gone.pth are not there; give the path",
    }
    for path, message in says.items():
        with pytest.raises(ValueError, match=message) as refusal:
            LaionAesthetics(model, str(path)).prepare()
        assert "\n" not in str(refusal.value)


def test_the_smaller_published_head_fits_the_smaller_model(saved: dict[str, Path]) -> None:
    head = read_head(saved["b32"], 512, "ViT-B-32")
    state = torch.load(saved["b32"], weights_only=True)
    vector = np.random.default_rng(1).normal(size=(3, 512)).astype(np.float32)
    assert head(vector) == pytest.approx((vector @ state["weight"].numpy().T + state["bias"].numpy()).ravel(), rel=1e-5)


def test_frames_must_be_chosen_in_a_known_way() -> None:
    with pytest.raises(ValueError, match="choose middle, uniform, ends, all"):
        LaionAesthetics(which="best")
    with pytest.raises(ValueError, match="a count of at least 1"):
        LaionAesthetics(which="uniform", count=0)


def test_a_run_with_settings_as_users_give_them(saved: dict[str, Path], client: Client, tmp_path: Path) -> None:
    film = Film("short", (Shot("temple", 2.0, "pan_left"), Shot("cat", 2.0, "zoom_in")), width=320, height=180)
    path = render(film, tmp_path / "films").path
    base = dataclasses.replace(recipes.embedded(), costly=(LaionAesthetics(), Taxonomy()), rules=())
    places = {"architecture": saved["json"], "weights": saved["safetensors"]}
    both = [f"costly.{s}.model.{k}={v}" for s in ("LaionAesthetics", "Taxonomy") for k, v in places.items()]
    (tmp_path / "verbs.txt").write_text("running\nsleeping\n")
    chosen = [f"costly.LaionAesthetics.head={saved['mlp']}", f"costly.Taxonomy.file={tmp_path / 'verbs.txt'}"]
    recipe = with_settings(base, [*both, *chosen, "costly.LaionAesthetics.which=all"])
    clips = run([path], tmp_path / "out", recipe, client=client).clips.to_pandas()
    assert len(clips) == 2 and clips.measure_error.isna().all()
    assert clips.aesthetic_laion.nunique() == 2 and clips.taxonomy_phrase.isin(["running", "sleeping"]).all()
    refused = with_settings(recipe, [f"costly.LaionAesthetics.head={saved['b32']}"])
    clips = run([path], tmp_path / "out", refused, client=client).clips.to_pandas()
    assert clips.aesthetic_laion.isna().all() and clips.taxonomy_score.notna().all()
    assert clips.measure_error.str.contains("b32.pth scores embeddings of 512 numbers").all()


# -- where weights come from ------------------------------------------------------------------------------------------


class Server(SimpleHTTPRequestHandler):
    """Serves a folder; /short... promises more bytes than it sends. Notes what it was asked."""

    asked: list[str] = []  # noqa: RUF012

    def do_GET(self) -> None:
        self.asked.append(self.path)
        if "short" in self.path:
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b"x" * 10)
            return
        super().do_GET()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def address(saved: dict[str, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("VIDCURATE_OFFLINE", raising=False)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    Server.asked.clear()
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Server, directory=str(saved["linear"].parent)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_head_is_downloaded_once_and_checked(saved: dict[str, Path], model: ClipModel, address: str) -> None:
    digest = hashlib.sha256(saved["linear"].read_bytes()).hexdigest()
    url = f"{address}/linear.pth?raw=true"
    images = [frames(pictures(3))]
    fetched = LaionAesthetics(model, url, f"sha256:{digest}")([CLIP], images)
    assert fetched == LaionAesthetics(model, str(saved["linear"]))([CLIP], images)
    path = weights.find(url, f"sha256:{digest}")
    assert path.name.endswith("-linear.pth") and path.read_bytes() == saved["linear"].read_bytes()
    assert Server.asked == ["/linear.pth?raw=true"]
    assert [p.name for p in path.parent.iterdir()] == [path.name], "no halves are left"


def test_a_download_that_is_not_what_it_should_be_is_refused(address: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"is another file than expected: its md5 is [0-9a-f]{32}; remove"):
        weights.find(f"{address}/mlp.pth", "md5:" + "0" * 32)
    with pytest.raises(ValueError, match=r"gone.pth cannot be downloaded \(HTTP Error 404.*\); fetch it from"):
        weights.find(f"{address}/gone.pth")
    with pytest.raises(ValueError, match=r"short.pth cannot be downloaded \(10 of 1000 bytes arrived\)"):
        weights.find(f"{address}/short.pth")
    with pytest.raises(ValueError, match=r"checksum 'crc:1': write sha256:"):
        weights.find(f"{address}/mlp.pth", "crc:1")
    assert not list((tmp_path / "cache" / "vidcurate").iterdir()), "nothing of it is kept"


def test_offline_nothing_is_fetched_but_what_is_here_is_used(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = weights.find(f"{address}/b32.pth")
    for name in ("VIDCURATE_OFFLINE", "HF_HUB_OFFLINE"):
        with monkeypatch.context() as env:
            env.setenv(name, "1")
            with pytest.raises(ValueError, match=r"mlp.pth is not here and downloads are switched off; fetch it from"):
                weights.find(f"{address}/mlp.pth")
            assert weights.find(f"{address}/b32.pth") == kept
    assert Server.asked == ["/b32.pth"]


def test_the_default_head_is_refused_offline_in_one_sentence(
    model: ClipModel, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("VIDCURATE_OFFLINE", "yes")
    with pytest.raises(ValueError, match=r"sac\+logos\+ava1-l14-linearMSE.pth is not here and downloads are switched"):
        LaionAesthetics(model).prepare()

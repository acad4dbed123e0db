"""SSCD descriptors by a tiny model in the published files' format."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch import Tensor, nn  # noqa: E402

from curation import recipes  # noqa: E402
from curation.recipe import check_columns, with_settings  # noqa: E402
from dedup.sscd import Sscd  # noqa: E402
from manifests.types import Image  # noqa: E402
from tests.test_clip import CLIP  # noqa: E402
from tests.test_signals import check_contract, frames  # noqa: E402


class Tiny(nn.Module):
    """As the published ones: pictures of any size in, vectors of one size out, scaled to unit length."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Conv2d(3, 16, 7, stride=4), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten())
        self.head = nn.Linear(64, 32)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.normalize(self.head(self.trunk(x)))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("sscd") / "tiny.torchscript.pt"
    torch.jit.trace(Tiny().eval(), torch.zeros(1, 3, 288, 512)).save(str(path))
    return path


def pictures(count: int, size: tuple[int, int] = (640, 360)) -> list[Image]:
    rng = np.random.default_rng(1)
    return [np.asarray(rng.integers(0, 256, (*size[::-1], 3)), np.uint8) for _ in range(count)]


def test_descriptors_are_those_of_the_authors_steps(model: Path) -> None:
    """Resize(288), ToTensor and Normalize of torchvision, and the model."""
    transforms = pytest.importorskip("torchvision.transforms")
    from PIL import Image as Pictures

    images = pictures(3)
    steps = transforms.Compose(
        [
            transforms.Resize(288),
            transforms.ToTensor(),
            transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        ]
    )
    given = torch.stack([steps(Pictures.fromarray(image[..., ::-1])) for image in images])
    with torch.no_grad():
        expected = torch.jit.load(str(model))(given).numpy()
    found = Sscd(str(model), batch=2)._mean(images)
    mean = expected.mean(axis=0)
    assert found == pytest.approx((mean / np.linalg.norm(mean)).tolist(), abs=2e-3)
    assert found and np.linalg.norm(found) == pytest.approx(1)


def test_contract(model: Path) -> None:
    check_contract(Sscd(str(model)))


def test_batches_make_no_difference(model: Path) -> None:
    images = pictures(5, (200, 120))
    one, other = (Sscd(str(model), batch=k)([CLIP], [frames(images)])["sscd"][0] for k in (1, 16))
    assert one == pytest.approx(other, abs=1e-5)


def test_a_recipe_finds_copies_by_it(model: Path) -> None:
    base = recipes.moviegen("sft", learned=True)
    assert base.copies.vectors == "sscd" and base.copies.cosine == 0.99
    changed = with_settings(base, [f"costly.Sscd.model={model}", "copies.cosine=0.75"])
    check_columns(changed)
    assert next(s for s in changed.costly if isinstance(s, Sscd)).model == str(model)
    with pytest.raises(ValueError, match=r"copies\.vectors reads column sscd"):
        check_columns(with_settings(recipes.embedded(), ["copies.vectors=sscd"]))


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "noise.pt").write_bytes(b"no program" * 100)
    torch.save({"weight": torch.zeros(3)}, tmp_path / "state.pt")
    torch.jit.trace(nn.Linear(3, 3), torch.zeros(1, 3)).save(str(tmp_path / "linear.pt"))
    torch.jit.trace(nn.Conv2d(3, 4, 3), torch.zeros(1, 3, 9, 9)).save(str(tmp_path / "maps.pt"))
    says = {
        "noise.pt": r"noise.pt is no TorchScript file \(",
        "state.pt": r"state.pt is no TorchScript file \(",
        "linear.pt": r"linear.pt does not take pictures \(",
        "maps.pt": "maps.pt gives no descriptor for each picture; give an SSCD model",
        "gone.pt": "gone.pt are not there; give the path of a file or an https",
    }
    for name, message in says.items():
        with pytest.raises(ValueError, match=message) as refusal:
            Sscd(str(tmp_path / name))([CLIP], [frames(pictures(2))])
        assert "\n" not in str(refusal.value)


def test_a_vector_that_is_not_finite_is_no_descriptor(tmp_path: Path) -> None:
    class Broken(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.flatten(1)[:, :8] * torch.nan

    torch.jit.trace(Broken(), torch.zeros(1, 3, 9, 9)).save(str(tmp_path / "nan.pt"))
    assert Sscd(str(tmp_path / "nan.pt"))([CLIP], [frames(pictures(2))]) == {"sscd": [None]}

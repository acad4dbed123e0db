"""How different two pictures look: LPIPS (arXiv 1801.03924), and what stands in for it where there are no weights.

    distance = perceptual("edges")                      # the stand-in: no weights, no download
    distance = perceptual("lpips.safetensors")          # LPIPS from a file
    distance = perceptual("lpips")                      # LPIPS by name: downloads the published weights once
    distance(x, y)                                      # (N, 3, H, W) in [-1, 1], twice -> (N,)

The stand-in compares edges, not features: it keeps reconstructions from being blurred, which is most of what LPIPS is
used for here, but it is not LPIPS, its values mean something else, and no published figure was made with it.
"""

# mypy: disable-error-code="no-any-return, no-untyped-call"

from __future__ import annotations

import os
import pickle
import re
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from generator.files import read_safetensors, some
from manifests.offline import is_offline

# VGG-16 up to its last convolution: channels of each stage, whose last activation is compared.
_STAGES: tuple[tuple[int, ...], ...] = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
_VGG = "https://download.pytorch.org/models/vgg16-397923af.pth"
_HEADS = "https://raw.githubusercontent.com/richzhang/PerceptualSimilarity/master/lpips/weights/v0.1/vgg.pth"


class Edges(nn.Module):
    """Mean absolute difference of the differences between neighbouring pixels, at full, half and quarter size."""

    def __init__(self, scales: int = 3) -> None:
        super().__init__()
        self.scales = scales

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """(N, C, H, W), twice -> (N,)."""
        off, total = x - y, torch.zeros((), device=x.device, dtype=x.dtype)
        for scale in range(self.scales):
            if scale:
                off = F.avg_pool2d(off, 2, ceil_mode=True)
            # A side of one pixel has no neighbours.
            sides = [off.diff(dim=dim).abs() for dim in (-1, -2) if off.shape[dim] > 1]
            for side in sides:
                total = total + side.mean(dim=(1, 2, 3)) / (len(sides) * self.scales)
        return total.expand(len(x))


class Lpips(nn.Module):
    """Version 0.1 with VGG-16: squared differences of normalised features, weighted per channel, over five stages.

    Names of weights are those of torchvision's VGG-16 (`features.`) and of the published heads (`lin`).
    """

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        self.compared: list[int] = []
        channels = 3
        for widths in _STAGES:
            if layers:
                layers.append(nn.MaxPool2d(2))
            for width in widths:
                layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
                channels = width
            self.compared.append(len(layers) - 1)
        self.features = nn.ModuleList(layers)
        for number, widths in enumerate(_STAGES):
            self.add_module(f"lin{number}", nn.Conv2d(widths[-1], 1, 1, bias=False))
        self.shift: Tensor
        self.scale: Tensor
        self.register_buffer("shift", torch.tensor([-0.030, -0.088, -0.188]).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("scale", torch.tensor([0.458, 0.448, 0.450]).view(1, 3, 1, 1), persistent=False)
        self.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> Lpips:
        return super().train(False)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """(N, 3, H, W) in [-1, 1], twice -> (N,). Raises ValueError for sides below 16 pixels."""
        if min(x.shape[-2:]) < 16:
            raise ValueError(f"LPIPS needs pictures of at least 16 x 16, got {x.shape[-2]} x {x.shape[-1]}.")
        both = (torch.cat([x, y]) - self.shift) / self.scale
        total: Tensor | None = None
        for number, layer in enumerate(self.features):
            both = layer(both)
            if number in self.compared:
                one, other = (both / (both.norm(dim=1, keepdim=True) + 1e-10)).chunk(2)
                head = self.get_submodule(f"lin{self.compared.index(number)}")
                stage = head((one - other) ** 2).mean(dim=(1, 2, 3))
                total = stage if total is None else total + stage
        assert total is not None, "VGG has stages"
        return total


def perceptual(source: str | os.PathLike[str] = "edges") -> Edges | Lpips:
    """The distance called so: "edges", "lpips", or LPIPS from a file or folder.

    A file is safetensors, a folder holds the two published files (`vgg16-*.pth` of torchvision and `vgg.pth` of
    LPIPS). Raises ValueError where weights are missing, do not fit, or would have to be downloaded while offline.
    """
    if source == "edges":
        return Edges()
    model = Lpips()
    tensors = _published() if source == "lpips" else _stored(Path(source))
    tensors = {_name(key): tensor.float() for key, tensor in tensors.items() if not key.startswith("classifier.")}
    wanted = model.state_dict()
    wrong = sorted(key for key in wanted if key not in tensors or tensors[key].shape != wanted[key].shape)
    if wrong:
        raise ValueError(f"{source}: LPIPS misses {some(wrong)}, or they have another shape.")
    model.load_state_dict({key: tensors[key] for key in wanted})
    return model


def _name(key: str) -> str:
    """Heads are called lin0.model.1.weight in the published file, lin0.weight here."""
    return re.sub(r"^(lin\d)\..*weight$", r"\1.weight", key)


def _stored(path: Path) -> dict[str, Tensor]:
    if not path.is_dir():
        return read_safetensors(path)
    files = [*sorted(path.glob("vgg16-*.pth"))[:1], *path.glob("vgg.pth"), *sorted(path.glob("*.safetensors"))]
    if not files:
        raise ValueError(f"{path}: neither safetensors nor the published vgg16-*.pth and vgg.pth are in it.")
    tensors: dict[str, Tensor] = {}
    for file in files:
        tensors |= read_safetensors(file) if file.suffix == ".safetensors" else _read_published(file)
    return tensors


def _read_published(file: Path) -> dict[str, Tensor]:
    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError) as error:
        raise ValueError(f"{file}: this is not a file of weights ({type(error).__name__}).") from error


def _published() -> dict[str, Tensor]:
    if is_offline():
        raise ValueError(
            "LPIPS by name downloads its weights, and downloads are forbidden; name a file, or 'edges', the stand-in."
        )
    tensors: dict[str, Tensor] = {}
    for address in (_VGG, _HEADS):
        name = "vgg16-397923af.pth" if address == _VGG else "lpips-v0.1-vgg.pth"
        try:
            tensors |= torch.hub.load_state_dict_from_url(
                address, file_name=name, weights_only=True, map_location="cpu"
            )
        except (OSError, RuntimeError) as error:
            raise ValueError(f"{address}: LPIPS' weights could not be downloaded ({error}).") from error
    return tensors

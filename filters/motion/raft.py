"""RAFT motion: mean magnitude of a learned optical flow, camera and objects together.

EasyAnimate's paper (arXiv 2405.18991) scores motion by "RAFT between frames at a specified frame rate" and gives
neither rate, size, model nor range; its released code uses Farneback instead. Ours: torchvision's RAFT between frames
half a second apart (2 fps) with a short side of 256 pixels, mean magnitude over all pixels, time-weighted over pairs.

Unit, as `motion_flow`: pixels per second in a picture of 360 pixels' short side, so that rate and size may change
without the thresholds. A flow of m pixels between frames at rate r and short side s is m * r * 360 / s: the code's
range of 2 to 20 pixels at 2 fps means 4 to 40 on 360p video and 1.3 to 13.3 on 1080p, as it measures at native size;
read as pixels at our 256, it means 5.6 to 56.

Sources: Teed and Deng 2020 (arXiv 2003.12039); torchvision.models.optical_flow.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlsplit

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from filters.batches import halving
from filters.motion.flow import REFERENCE
from filters.weights import find, first_line, is_url, once, tensors
from manifests.offline import is_offline
from manifests.schema import column
from manifests.types import Clip, Frames, Image, Sampling

_LEAST = 128
"""The coarsest of RAFT's four correlation maps needs at least 16 x 16 features of 8 pixels."""

Pair = tuple[Image, Image]


@dataclass(frozen=True, slots=True)
class RaftMotion:
    """model:      raft_small (1 M parameters) or raft_large (5.3 M)
    weights:    a name of torchvision's (C_T_V2; raft_large also C_T_V1, C_T_SKHT_V2, ...), downloaded once into
                torch hub's folder and checked against the hash in its name; or an https URL; or a local .pth or
                .safetensors file with the same state dict
    fps, short: which frames are compared
    iterations: updates of the flow
    batch:      pairs at a time; halved as long as the GPU's memory runs out
    half:       half precision on a GPU
    device:     auto (a GPU if there is one), cpu, cuda, cuda:1, ...
    """

    model: str = "raft_small"
    weights: str = "C_T_V2"
    fps: float = 2.0
    short: int = 256
    iterations: int = 12
    batch: int = 16
    half: bool = True
    device: str = "auto"
    schema: ClassVar[pa.Schema] = pa.schema(
        [
            column(
                "motion_raft",
                pa.float64(),
                "mean RAFT flow",
                unit="pixel/second at 360-pixel short side",
                range=">= 0",
            )
        ]
    )

    def prepare(self) -> None:
        """Loads the network. Raises ValueError with one sentence when it cannot be had."""
        _network(self.model, self.weights, self.device)

    @property
    def wants(self) -> Sampling:
        return Sampling(self.fps, self.short, color=True)

    def __call__(self, clips: Sequence[Clip], frames: Sequence[Frames]) -> dict[str, list[Any]]:
        """Raises ValueError when the weights cannot be had."""
        pairs = [pair for f in frames for pair in zip(f.images[:-1], f.images[1:], strict=True)]
        moved = iter(self._magnitudes(pairs))
        return {"motion_raft": [_speed(f, [next(moved) for _ in f.images[1:]]) for f in frames]}

    def _magnitudes(self, pairs: Sequence[Pair]) -> list[float]:
        """Mean length of the flow of each pair, pixels; pairs of one size run together."""
        alike: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for k, (first, _) in enumerate(pairs):
            alike[first.shape].append(k)
        lengths = np.zeros(len(pairs))
        for chosen in alike.values():
            lengths[chosen] = halving(self._batch, [pairs[k] for k in chosen], self.batch)
        return lengths.tolist()

    def _batch(self, pairs: Sequence[Pair]) -> list[float]:
        return [float(np.hypot(x, y).mean()) for x, y in self.flow(pairs)]

    def flow(self, pairs: Sequence[Pair]) -> npt.NDArray[np.float32]:
        """Flow (N, 2, H, W) in pixels to the right and downwards, of N pairs of BGR pictures of one size."""
        import torch

        network, device = _network(self.model, self.weights, self.device)
        height, width = pairs[0][0].shape[:2]
        # The edge is continued to the sizes that RAFT takes, and cut off again.
        pad = [(0, max(_LEAST, -(-side // 8) * 8) - side) for side in (height, width)]
        seen = np.stack([np.pad(image, (*pad, (0, 0)), mode="edge") for pair in pairs for image in pair])
        tensor = torch.from_numpy(np.ascontiguousarray(seen[..., ::-1])).to(device).permute(0, 3, 1, 2)
        tensor = tensor.float().div(127.5).sub(1)  # torchvision's preset: RGB in -1..1
        half = self.half and device.type == "cuda"
        with torch.inference_mode(), torch.autocast(device.type, torch.float16 if half else torch.bfloat16, half):
            flows = network(tensor[0::2].contiguous(), tensor[1::2].contiguous(), num_flow_updates=self.iterations)[-1]
        return np.asarray(flows[..., :height, :width].float().cpu().numpy())


def _speed(frames: Frames, lengths: Sequence[float]) -> float | None:
    """Pixels per second at the reference size; None for fewer than two frames."""
    if not lengths:
        return None
    # Sum over sum: every pair counts with the time between its frames.
    seconds = max((frames.times[-1] - frames.times[0]) / 1e6, 1e-3)
    return sum(lengths) * REFERENCE / min(frames.images[0].shape[:2]) / seconds


@once
def _network(model: str, weights: str, device: str) -> tuple[Any, Any]:
    """The network, ready on its device. Raises ValueError with one sentence."""
    try:
        import torch
        from torchvision.models import get_model
    except ImportError as error:
        raise ValueError(f"RAFT needs torch and torchvision ({error}): pip install 'vidcurate[learned]'.") from error
    if model not in ("raft_small", "raft_large"):
        raise ValueError(f"there is no model {model!r}; choose raft_small or raft_large.")
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    place = torch.device(device)
    network = get_model(model, weights=None)
    path = _find(model, weights)
    try:
        network.load_state_dict(tensors(path))
    except RuntimeError as error:
        raise ValueError(
            f"{path} holds no weights of {model} ({first_line(error)}); use torchvision's file."
        ) from error
    return network.eval().requires_grad_(False).to(place), place


def _find(model: str, weights: str) -> Path:
    """The local file of these weights, downloaded if need be. Raises ValueError when there is none."""
    from torch import hub
    from torchvision.models import get_model_weights

    named = {w.name: w.url for w in get_model_weights(model)}
    if weights not in named:
        if urlsplit(weights).scheme not in ("https", ""):
            raise ValueError(f"weights {weights!r}: give an https address, a local file, or one of {', '.join(named)}.")
        if not is_url(weights) and not Path(weights).expanduser().is_file():
            raise ValueError(
                f"there are no weights {weights!r}: give one of {', '.join(named)}, an https address or a local file."
            )
        return find(weights)
    url = named[weights]
    path = Path(hub.get_dir()) / "checkpoints" / Path(url).name
    start = path.stem.rpartition("-")[2]  # torchvision's names end in the start of their SHA-256
    remedy = f"put {path.name} from {url} into {path.parent}, or set RaftMotion.weights to a local file"
    if path.is_file():
        if hashlib.sha256(path.read_bytes()).hexdigest().startswith(start):
            return path
        raise ValueError(f"{path} is damaged: its SHA-256 does not begin with {start}; remove it, or {remedy}.")
    if is_offline():
        raise ValueError(f"weights of {model} are missing and downloads are switched off: {remedy}.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        hub.download_url_to_file(url, str(path), hash_prefix=start, progress=False)
    except (OSError, RuntimeError) as error:
        raise ValueError(f"weights of {model} could not be downloaded ({first_line(error)}): {remedy}.") from error
    return path

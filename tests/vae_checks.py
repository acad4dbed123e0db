"""What the tests of the VAEs share: weights that make every layer matter, closeness, peaks of memory."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def drawn(model: Any, seed: int = 0) -> Any:
    """Weights that keep activations about unit size through all layers, norms and biases well away from 1 and 0."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim > 1:
                parameter.copy_(noise * (1.5 / parameter[0].numel()) ** 0.5)
            else:
                parameter.copy_(0.3 * noise)
        for module in model.modules():
            if isinstance(module, nn.GroupNorm):
                module.weight.add_(1)
    return model.eval()


def copied(source: nn.Module, target: Any) -> Any:
    target.load_state_dict(source.state_dict())
    return target.eval()


def off(one: Tensor, other: Tensor) -> float:
    """Largest difference over the largest value of `other`."""
    assert one.shape == other.shape, f"{tuple(one.shape)} and {tuple(other.shape)}"
    return float((one - other).abs().max() / other.abs().max())


def gradients_off(ours: nn.Module, theirs: nn.Module) -> float:
    """Largest `off` over the gradients of all parameters, which must all be there and not all be zero.

    But for the bias of attention's keys, which no softmax notices: its gradient is rounding.
    """
    mine, others = dict(ours.named_parameters()), dict(theirs.named_parameters())
    assert mine.keys() == others.keys()
    worst = 0.0
    for name, parameter in mine.items():
        if name.endswith("to_k.bias"):
            continue
        got, wanted = parameter.grad, others[name].grad
        assert got is not None and wanted is not None and bool(wanted.any()), name
        worst = max(worst, off(got, wanted))
    return worst


def round_trip_off(vae: Any, theirs: Any, video: Tensor, decode: bool = True) -> tuple[float, float]:
    """How far apart two gradients are, of one loss on what the encoders and (`decode`) decoders make of a video.

    By norm, of all of it: at the video and all parameters. And the largest `off` of a single part of it, which where
    terms cancel (scales and biases of norms) is rounding, several times that of the whole.
    """
    vae.zero_grad()
    theirs.zero_grad()
    one, other = (video.clone().requires_grad_() for _ in range(2))
    mean, logvar = vae.encode_moments(one)
    posterior = theirs.encode(other).latent_dist
    mine, yours = _loss(mean, logvar), _loss(posterior.mean, posterior.logvar)
    if decode:
        mine = mine + (vae.decode(mean) ** 2).mean()
        yours = yours + (theirs.decode(posterior.mean).sample ** 2).mean()
    mine.backward()
    yours.backward()
    assert one.grad is not None and other.grad is not None
    parts = (vae, theirs) if decode else (vae.encoder, theirs.encoder)
    whole = []
    for part, given in zip(parts, (one, other), strict=True):
        found = {name: parameter.grad for name, parameter in part.named_parameters()}
        whole.append(torch.cat([given.grad.flatten(), *(found[name].flatten() for name in sorted(found))]))
    distance = float((whole[0] - whole[1]).norm() / whole[1].norm())
    return distance, max(off(one.grad, other.grad), gradients_off(*parts))


def _loss(mean: Tensor, logvar: Tensor) -> Tensor:
    return (mean**2).mean() + logvar.sin().mean()


def time_and_place_matter(vae: Any, video: Tensor, latent: Tensor) -> float:
    """How much it moves what a VAE makes of a video or latent, at least, to turn time, rows or columns around (and the
    result back), or to turn the sign of the last frame.
    """
    least = float("inf")
    with torch.no_grad():
        for code, given in ((lambda v: vae.encode_moments(v)[0], video), (vae.decode, latent)):
            plain, changed = code(given), given.clone()
            changed[:, :, -1] *= -1
            turned = [code(given.flip(dim)).flip(dim) for dim in (2, 3, 4)]
            least = min(least, *(off(other, plain) for other in (*turned, code(changed))))
    return least


def psnr(one: Tensor, other: Tensor) -> float:
    """dB, the peak being the spread of `other`."""
    spread = other.max() - other.min()
    return float(20 * torch.log10(spread) - 10 * torch.log10(((one - other) ** 2).mean().clamp(min=1e-30)))


class Peak(TorchDispatchMode):
    """Counts the bytes of tensors that are alive at once, made inside the block; what existed before is not counted.

    Storage is counted once, however many views it has, and no longer than it lives.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self._seen: dict[int, Any] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        held = {t.untyped_storage().data_ptr() for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)}
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self._count(tensor.untyped_storage(), held)
        return result

    def _count(self, storage: Any, held: set[int]) -> None:
        key = storage._cdata
        if storage.data_ptr() in held or key in self._seen:
            return
        size = storage.nbytes()
        self.now += size
        self.most = max(self.most, self.now)
        self._seen[key] = weakref.finalize(storage, self._gone, key, size)

    def _gone(self, key: int, size: int) -> None:
        self._seen.pop(key, None)
        self.now -= size


def peak_of(work: Callable[[], Any]) -> int:
    """Bytes alive at once, at most, while `work` computes without gradients; its result is among them."""
    gc.collect()
    with torch.no_grad(), Peak() as peak:
        work()
    return peak.most

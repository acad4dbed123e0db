"""The CogVideoX VAE over several processes equals one process with the whole video."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor

from generator.vae import sizes
from generator.vae.cogvideox import CogVideoXVae
from generator.vae.context_parallel import SharedVae, decode, encode_moments, spans
from tests.generator_films import one_thread  # noqa: F401  (used by being here)
from tests.vae_checks import drawn, off, random

RANKS, FRAMES, LATENTS = 3, 29, 8


def make() -> tuple[Any, Tensor, Tensor]:
    vae = drawn(CogVideoXVae(sizes.cogvideox_debug())).double()
    return vae, random(1, 3, FRAMES, 16, 24).double(), random(1, 4, LATENTS, 2, 3, seed=1).double()


def loss(mean: Tensor, logvar: Tensor, video: Tensor) -> Tensor:
    return (mean**2).sum() + logvar.sin().sum() + (video**2).sum()


def work(rank: int, ranks: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=ranks)
    vae, x, z = make()
    frames, latents = spans(FRAMES, ranks, step=4)[rank], spans(LATENTS, ranks, step=1)[rank]
    x, z = x[:, :, slice(*frames)], z[:, :, slice(*latents)].requires_grad_()
    mean, logvar = encode_moments(vae, x)
    video = decode(vae, z)
    loss(mean, logvar, video).backward()
    gradients = torch.cat([parameter.grad.flatten() for parameter in vae.parameters()])
    dist.all_reduce(gradients)
    with torch.no_grad():
        alone = encode_moments(vae, x, gather_norms=False)[0]
    vae.zero_grad()
    shared, (_, whole, latent) = SharedVae(vae, dist.group.WORLD), make()
    code, z_of_all = shared.encode_moments(whole), latent.requires_grad_()
    film = shared.decode(z_of_all)
    loss(*code, film).backward()
    of_all = torch.cat([parameter.grad.flatten() for parameter in vae.parameters()])
    for gradient in (of_all, z_of_all.grad):
        dist.all_reduce(gradient)
        gradient /= ranks
    shares = {"mean": code[0], "logvar": code[1], "video": film, "z": z_of_all.grad, "all": of_all}
    torch.save({name: tensor.detach() for name, tensor in shares.items()}, f"{folder}/shared-{rank}.pt")
    found = {"mean": mean, "logvar": logvar, "video": video, "z": z.grad, "all": gradients, "alone": alone}
    torch.save({name: tensor.detach() for name, tensor in found.items()}, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_ranks_compute_what_one_rank_does_and_so_do_their_gradients(tmp_path: Path) -> None:
    vae, x, z = make()
    z.requires_grad_()
    mean, logvar = vae.encode_moments(x, chunk=FRAMES - 1)
    video = vae.decode(z, chunk=LATENTS)
    loss(mean, logvar, video).backward()
    wanted = {"mean": mean, "logvar": logvar, "video": video, "z": z.grad}

    mp.spawn(work, (RANKS, str(tmp_path)), nprocs=RANKS)
    parts = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(RANKS)]
    for name, tensor in wanted.items():
        assert off(torch.cat([part[name] for part in parts], dim=2), tensor.detach()) < 1e-10, name
    gradients = torch.cat([parameter.grad.flatten() for parameter in vae.parameters()])
    assert off(parts[0]["all"], gradients) < 1e-10
    # Norms of a rank alone pool over fewer frames: near, not equal.
    assert 1e-4 < off(torch.cat([part["alone"] for part in parts], dim=2), mean.detach()) < 1

    # Whole videos in and out, in the chunks that one process codes one after the other.
    vae.zero_grad()
    z.grad = None
    mean, logvar = vae.encode_moments(x)
    video = vae.decode(z)
    loss(mean, logvar, video).backward()
    of_all = torch.cat([parameter.grad.flatten() for parameter in vae.parameters()])
    wanted = {"mean": mean, "logvar": logvar, "video": video, "z": z.grad, "all": of_all}
    for rank in range(RANKS):
        shared = torch.load(tmp_path / f"shared-{rank}.pt", weights_only=True)
        for name, tensor in wanted.items():
            assert off(shared[name], tensor.detach()) < 1e-10, (name, rank)


def test_frames_are_divided_about_equally() -> None:
    assert spans(161, 8, 4) == [(0, 21), *((1 + 20 * k, 21 + 20 * k) for k in range(1, 8))]
    assert [end - start for start, end in spans(29, 3, 4)] == [9, 8, 12]
    assert spans(17, 1, 4) == [(0, 17)]
    with pytest.raises(ValueError, match=r"160 frames cannot be divided: their number must be 4k \+ 1"):
        spans(160, 8, 4)
    with pytest.raises(ValueError, match="17 frames are too few for 4 ranks; 2 can share them"):
        spans(17, 4, 4)

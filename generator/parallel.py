"""Several processes that train one model: who they are, what of a batch is whose, and how they agree.

`torchrun` or `generator.launch` starts them; a process alone is a world of one. Nothing else here knows of ranks and
meshes. Every process keeps all weights and gradients are averaged, or (`shard`) each keeps its part of the weights,
gradients and moments and gathers a block's when it is computed (FSDP2).

On CPUs gradients are summed in pairs, then pairs of pairs, so the result does not depend on timing; and a world half as
large that takes each process's samples in two passes adds the same numbers in the same order.
"""

# mypy: disable-error-code="no-any-return, no-untyped-call"

from __future__ import annotations

import contextlib
import datetime
import os
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

T = TypeVar("T")

_PATIENCE = datetime.timedelta(days=1)  # others wait while the first process decodes; one that dies is noticed at once
_AFTER_YOU = 5.0


@dataclass(frozen=True, slots=True, eq=False)
class World:
    """device: of this process. shard: whether weights are spread over the processes. talk, books: groups on the CPU for
    small news of every step and for checkpoints written in the background."""

    rank: int = 0
    size: int = 1
    device: str = "cpu"
    shard: bool = False
    talk: Any = None
    books: Any = None

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes."""
        return self.rank == 0

    def slots(self, count: int, passes: int = 1) -> list[list[int]]:
        """Places of a global batch of `count` samples that are this process's, for each pass of a step.

        Contiguous, in the order of ranks, then of passes: the same for size x passes whatever the size.
        Raises ValueError where somebody would have nothing to do.
        """
        parts = self.size * passes
        if count < parts:
            raise ValueError(
                f"a batch of {count} cannot be divided among {self.size} processes in {passes} passes each; start at "
                f"most {count} together."
            )
        ends = [count * part // parts for part in range(parts + 1)]
        mine = range(self.rank * passes, (self.rank + 1) * passes)
        return [list(range(ends[part], ends[part + 1])) for part in mine]

    def agree(self, found: T) -> T:
        """What the first process found, for all."""
        if self.size == 1:
            return found
        box = [found]
        dist.broadcast_object_list(box, src=0, group=self.talk)
        return box[0]

    def gather(self, mine: T) -> list[T]:
        """Everybody's, by rank."""
        if self.size == 1:
            return [mine]
        found: list[Any] = [None] * self.size
        dist.all_gather_object(found, mine, group=self.talk)
        return found

    @contextlib.contextmanager
    def in_turn(self) -> Iterator[None]:
        """The first process goes in alone, then the others: for what fills a folder that all of them read."""
        if self.size > 1 and not self.first:
            dist.barrier(self.talk)
        yield
        if self.size > 1 and self.first:
            dist.barrier(self.talk)

    def wait(self) -> None:
        if self.size > 1:
            dist.barrier(self.talk)

    def average_gradients(self, weights: Iterable[nn.Parameter]) -> None:
        """In place, over all processes. Weights that nobody has a gradient for are left without. Sharded ones were
        averaged in the backward pass."""
        if self.size == 1 or self.shard:
            return
        weights = list(weights)
        mine = [weight.grad is not None for weight in weights]
        anywhere = [any(each) for each in zip(*self.gather(mine), strict=True)]
        wanted = [weight for weight, found in zip(weights, anywhere, strict=True) if found]
        for weight in wanted:
            if weight.grad is None:
                weight.grad = torch.zeros_like(weight)
        gradients = [weight.grad for weight in wanted if weight.grad is not None]
        if not gradients:
            return
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        self._add_up(flat)
        flat /= self.size
        for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(part.view_as(gradient))

    def _add_up(self, flat: Tensor) -> None:
        if flat.device.type != "cpu" or self.size & (self.size - 1):
            dist.all_reduce(flat)
            return
        other, distance = torch.empty_like(flat), 1
        while distance < self.size:
            peer = self.rank ^ distance
            work = [dist.P2POp(dist.isend, flat, peer), dist.P2POp(dist.irecv, other, peer)]
            for handle in dist.batch_isend_irecv(work):
                handle.wait()
            flat += other
            distance *= 2

    def spread(self, system: nn.Module) -> None:
        """Shards a system's transformer, block by block, and its text encoders, in place."""
        if not self.shard:
            return
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

        mesh = init_device_mesh(torch.device(self.device).type, (self.size,))
        transformer, towers = system.get_submodule("transformer"), system.get_submodule("towers")
        for block in blocks(transformer):
            fully_shard(block, mesh=mesh)
        fully_shard(transformer, mesh=mesh)
        for tower in towers.children():
            if not list(tower.parameters()):
                continue
            fully_shard(tower, mesh=mesh)
            if hasattr(tower, "embed"):
                register_fsdp_forward_method(tower, "embed")

    def whole(self, system: Any, build: Callable[[], Any]) -> Any:
        """The system with all of its weights: itself, or a new one where it is sharded, which every process gets."""
        if not self.shard:
            return system
        new = build()
        new.load_state_dict({name: full(tensor).cpu() for name, tensor in system.state_dict().items()})
        new.scale = system.scale
        for number, tower in enumerate(system.towers):
            if not list(tower.parameters()):  # a published encoder, which remembers what it said
                new.towers[number] = tower
        return new.eval()


ALONE = World()


@contextlib.contextmanager
def world(device: str = "cpu", shard: bool = False) -> Iterator[World]:
    """The processes that torchrun started, or this one alone. device: "cpu" or "cuda" (each its own).

    Raises ValueError where sharding makes no sense.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        if shard:
            raise ValueError("one process has nobody to share its weights with; start several with --processes.")
        yield World(device=device)
        return
    rank = int(os.environ["RANK"])
    backend = "gloo"
    if device.startswith("cuda"):
        device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
        torch.cuda.set_device(device)
        backend = "cpu:gloo,cuda:nccl"
    dist.init_process_group(backend, timeout=_PATIENCE)
    try:
        talk, books = (dist.new_group(backend="gloo", timeout=_PATIENCE) for _ in range(2))
        yield World(rank, size, device, shard, talk, books)
        dist.barrier(talk)
    except RuntimeError as error:
        if "onnection" in str(error):  # somebody else failed; whoever watches should see that one first
            time.sleep(_AFTER_YOU)
        raise
    finally:
        dist.destroy_process_group()


def blocks(transformer: nn.Module) -> list[nn.Module]:
    """The members of a transformer's lists of layers that attend: its blocks, whatever they are called."""
    lists = [child for name, child in transformer.named_children() if name.endswith("blocks")]
    return [block for child in lists if isinstance(child, nn.ModuleList) for block in child]


def full(tensor: Tensor) -> Tensor:
    """All of a tensor of which this process has a part; every process must ask. Other tensors are themselves."""
    from torch.distributed.tensor import DTensor

    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def is_part(tensor: Tensor) -> bool:
    """Whether other processes have the rest of it."""
    from torch.distributed.tensor import DTensor

    return isinstance(tensor, DTensor)


def fill(target: Tensor, whole: Tensor) -> None:
    """Copies into `target` what is its part of `whole`."""
    from torch.distributed.tensor import DTensor, distribute_tensor

    if isinstance(target, DTensor):
        whole = distribute_tensor(whole.to(target.device), target.device_mesh, target.placements, src_data_rank=None)
    target.copy_(whole)


def write_shards(tensors: Mapping[str, Tensor], folder: Path, group: Any) -> Callable[[], None]:
    """Every process writes its part, as safetensors, while the training goes on. Returns what waits for all of them."""
    import torch.distributed.checkpoint as dcp
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter

    writer = HuggingFaceStorageWriter(str(folder), save_distributed=True)
    future: Any = dcp.async_save(dict(tensors), storage_writer=writer, process_group=group)

    def wait() -> None:
        future.result()

    return wait


def read_shards(tensors: Mapping[str, Tensor], folder: Path) -> None:
    """Fills tensors, whole or sharded over however many processes, from what other numbers of processes wrote."""
    import torch.distributed.checkpoint as dcp
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled")
        reader = HuggingFaceStorageReader(str(folder))
        dcp.load(dict(tensors), storage_reader=reader, no_dist=not dist.is_initialized())


def shards_in(folder: Path) -> dict[str, tuple[torch.Size, torch.dtype]]:
    """Shapes and types of the whole tensors in there."""
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader
    from torch.distributed.checkpoint.metadata import TensorStorageMetadata

    said = HuggingFaceStorageReader(str(folder)).read_metadata().state_dict_metadata
    return {
        name: (each.size, each.properties.dtype)
        for name, each in said.items()
        if isinstance(each, TensorStorageMetadata)
    }

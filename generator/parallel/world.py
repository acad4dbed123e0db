"""Several processes that train one model: who they are, what of a batch is whose, and how they agree.

`torchrun` or `generator.launch` starts them; a process alone is a world of one. Every process keeps all weights and
gradients are averaged, or (`shard`) each keeps its part of the weights, gradients and moments and gathers a block's
when it is computed (FSDP2). `context` processes divide each sample's tokens among them, `tensor` processes its heads
and widths too: these are a team, have the same samples and draw the same numbers. Ranks count tensor first, then
context, then teams.

On CPUs gradients are summed in pairs, then pairs of pairs, so the result does not depend on timing; and a world half as
large that takes each process's samples in two passes adds the same numbers in the same order.
"""

# mypy: disable-error-code="no-any-return, no-untyped-call"

from __future__ import annotations

import contextlib
import datetime
import logging
import os
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from generator.parallel.context import Divided
from generator.parallel.shards import full
from generator.parallel.tensor import divide

T = TypeVar("T")
_AXES = ("data", "context", "tensor")

_PATIENCE = datetime.timedelta(days=1)  # others wait while the first process decodes; one that dies is noticed at once
_AFTER_YOU = 5.0


@dataclass(frozen=True, slots=True, eq=False)
class World:
    """device: of this process. shard: whether weights are spread over the processes. context, tensor: processes that
    share a sample. talk, books: groups on the CPU for small news of every step and for checkpoints written in the
    background. mesh: the processes along the axes data, context and tensor."""

    rank: int = 0
    size: int = 1
    device: str = "cpu"
    shard: bool = False
    talk: Any = None
    books: Any = None
    context: int = 1
    tensor: int = 1
    mesh: Any = None

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes."""
        return self.rank == 0

    @property
    def team(self) -> int:
        """Processes that share a sample."""
        return self.context * self.tensor

    @property
    def teams(self) -> int:
        """Data-parallel ranks: each has samples of its own."""
        return self.size // self.team

    @property
    def mine(self) -> int:
        """Number of this process's team."""
        return self.rank // self.team

    @property
    def parted(self) -> bool:
        """Whether a process may have a part of a weight."""
        return self.shard or self.tensor > 1

    @property
    def alone(self) -> bool:
        """Whether this process computes its samples with all weights and without the others."""
        return not self.parted and self.team == 1

    def slots(self, count: int, passes: int = 1) -> list[list[int]]:
        """Places of a global batch of `count` samples that are this process's, for each pass of a step.

        Contiguous, in the order of ranks, then of passes: the same for size x passes whatever the size.
        Raises ValueError where somebody would have nothing to do.
        """
        parts = self.teams * passes
        if count < parts:
            among = f"{self.teams} processes" if self.team == 1 else f"{self.teams} teams of {self.team} processes"
            raise ValueError(
                f"a batch of {count} cannot be divided among {among} in {passes} passes each; start at most "
                f"{count * self.team} together."
            )
        ends = [count * part // parts for part in range(parts + 1)]
        mine = range(self.mine * passes, (self.mine + 1) * passes)
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

    def of_teams(self, found: Sequence[T]) -> list[T]:
        """Of what `gather` returned, that of one process of each team."""
        return list(found[:: self.team])

    def average_gradients(self, weights: Iterable[nn.Parameter]) -> None:
        """In place, over all teams. Weights that nobody has a gradient for are left without. Sharded ones were averaged
        in the backward pass."""
        if self.size == 1:
            return
        weights = [weight for weight in weights if _axes(weight) != ("samples",) or self.tensor > 1]
        mine = [weight.grad is not None for weight in weights]
        anywhere = [any(each) for each in zip(*self.gather(mine), strict=True)]
        wanted = [weight for weight, found in zip(weights, anywhere, strict=True) if found]
        for weight in wanted:
            if weight.grad is None:
                weight.grad = torch.zeros_like(weight)
        kinds: dict[tuple[str, ...], list[nn.Parameter]] = {}
        for weight in wanted:
            kinds.setdefault(_axes(weight), []).append(weight)
        # A tensor-parallel weight's gradient is whole where it is; of others, each process of a team has found a part.
        losses, start = self.teams * self.context, self.rank - self.rank % self.tensor
        self._sum(kinds.get((), []), range(self.size), None, losses)
        self._sum(kinds.get(("tensor",), []), range(self.rank % self.tensor, self.size, self.tensor), "samples", losses)
        self._sum(kinds.get(("samples",), []), range(start, start + self.tensor), "tensor", 1)

    def _sum(self, weights: Sequence[nn.Parameter], ranks: Sequence[int], axis: str | None, count: int) -> None:
        """Gradients over these processes, by `count`. axis: name of their group in the mesh."""
        gradients = [_local(weight.grad) for weight in weights if weight.grad is not None]
        if not gradients:
            return
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        if flat.device.type != "cpu" or len(ranks) & (len(ranks) - 1):
            dist.all_reduce(flat, group=self._groups()[axis] if axis else None)
        else:
            _add_up(flat, ranks, self.rank)
        flat /= count
        for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(part.view_as(gradient))

    def _groups(self) -> dict[str, Any]:
        return {"tensor": self.mesh["tensor"].get_group(), "samples": self._samples().get_group()}

    def _samples(self) -> Any:
        """Processes that have the same part of each weight."""
        return self.mesh["data", "context"]._flatten("samples")

    def spread(self, system: nn.Module) -> None:
        """Divides the work of a system's transformer, in place, and shards it, block by block, and its text encoders.

        Raises ValueError for a transformer that cannot be divided so.
        """
        transformer: Any = system.get_submodule("transformer")
        if self.tensor > 1:
            logging.getLogger("torch.distributed.tensor._redistribute").setLevel(logging.ERROR)  # advice on speed
            divide(transformer, self.mesh["tensor"])
        if self.team > 1:
            transformer.divide = partial(Divided, self.mesh)
        if not self.shard or self.size == self.tensor:
            return
        from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

        mesh, towers = self._samples(), system.get_submodule("towers")
        for block in blocks(transformer):
            fully_shard(block, mesh=mesh)
        fully_shard(transformer, mesh=mesh)
        # Nobody changes a prediction in place.
        warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view")
        for tower in towers.children():
            if not list(tower.parameters()):
                continue
            fully_shard(tower, mesh=mesh)
            if hasattr(tower, "embed"):
                register_fsdp_forward_method(tower, "embed")

    def share(self, learner: Any) -> None:
        """The frames of a VAE's videos, over the processes of a context, where it can be: CogVideoX's, whose norms pool
        over chunks. Not in a GAN, which compares gradients at one weight."""
        from generator.vae.cogvideox import CogVideoXVae
        from generator.vae.context_parallel import SharedVae

        if self.context > 1 and type(learner.vae) is CogVideoXVae and not learner.adversarial:
            learner.share(SharedVae(learner.vae, self.mesh["context"].get_group()))

    def whole(self, system: Any, build: Callable[[], Any]) -> Any:
        """The system with all of its weights and tokens: itself, or a new one where weights are divided, which every
        process gets."""
        if not self.parted:
            system.transformer.divide = None
            return system
        new = build()
        new.load_state_dict({name: full(tensor).cpu() for name, tensor in system.state_dict().items()})
        new.scale, new.typical = system.scale, system.typical
        for number, tower in enumerate(system.towers):
            if not list(tower.parameters()):  # a published encoder, which remembers what it said
                new.towers[number] = tower
        return new.eval()


ALONE = World()


@contextlib.contextmanager
def world(device: str = "cpu", shard: bool = False, context: int = 1, tensor: int = 1) -> Iterator[World]:
    """The processes that torchrun started, or this one alone. device: "cpu" or "cuda" (each its own).

    Raises ValueError where there is nobody to share with, or processes are left over.
    """
    size, team = int(os.environ.get("WORLD_SIZE", "1")), context * tensor
    if size % team:
        raise ValueError(
            f"--context {context} x --tensor {tensor} are teams of {team} processes, and there are {size}; start a "
            f"multiple of {team} with --processes."
        )
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
        yield World(rank, size, device, shard, talk, books, context, tensor, mesh_of(device, size, context, tensor))
        dist.barrier(talk)
    except RuntimeError as error:
        if "onnection" not in str(error):
            raise
        time.sleep(_AFTER_YOU)  # whoever watches should see the one that failed first
        raise ValueError(
            f"process {rank} of {size} stops because another one ended; the checkpoints are kept, the same command "
            "goes on from the last."
        ) from error
    finally:
        dist.destroy_process_group()


def mesh_of(device: str, size: int, context: int = 1, tensor: int = 1) -> Any:
    from torch.distributed.device_mesh import init_device_mesh

    shape = (size // (context * tensor), context, tensor)
    return init_device_mesh(torch.device(device).type, shape, mesh_dim_names=_AXES)


def _add_up(flat: Tensor, ranks: Sequence[int], rank: int) -> None:
    """Sums in place over so many processes, a power of two, in pairs, then pairs of pairs."""
    other, place, distance = torch.empty_like(flat), ranks.index(rank), 1
    while distance < len(ranks):
        peer = ranks[place ^ distance]
        work = [dist.P2POp(dist.isend, flat, peer), dist.P2POp(dist.irecv, other, peer)]
        for handle in dist.batch_isend_irecv(work):
            handle.wait()
        flat += other
        distance *= 2


def _axes(weight: Tensor) -> tuple[str, ...]:
    """Names of those of the mesh that a weight is divided over."""
    return tuple(getattr(getattr(weight, "device_mesh", None), "mesh_dim_names", None) or ())


def _local(tensor: Any) -> Tensor:
    return getattr(tensor, "_local_tensor", tensor)


def blocks(transformer: nn.Module) -> list[nn.Module]:
    """The members of a transformer's lists of layers that attend: its blocks, whatever they are called."""
    lists = [child for name, child in transformer.named_children() if name.endswith("blocks")]
    return [block for child in lists if isinstance(child, nn.ModuleList) for block in child]

"""Several processes learn what one learns, go on from each other's checkpoints, and leave when they are asked to."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn

from generator import recipes
from generator.data import Row
from generator.draws import Draws
from generator.feed import Feed, Grouped, Unit
from generator.launch import launch
from generator.loop import Learnt, fit
from generator.optimising import Training
from generator.options import Options
from generator.parallel import World, world
from generator.run import Run
from tests.generator_films import one_thread  # noqa: F401  (used by being here)

HOW = Training(steps=8, batch=8, lr=1e-2, warmup=2, ema=0.9, checkpoint_every=4)
ROWS = [Row(f"clip-{number}", "film.mp4", 0, 1, "") for number in range(10)]


class Blocks(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([nn.Sequential(nn.Linear(6, 9), nn.Linear(9, 6)) for _ in range(2)])

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = x + torch.tanh(block(x))
        return x


class Tiny(nn.Module):
    """Shaped like a system: a transformer of blocks, and towers."""

    scale = 1.0

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.transformer, self.towers = Blocks(), nn.ModuleList([nn.Linear(5, 6)])


def learn(model: Tiny) -> Any:
    def losses(words: Tensor, draws: Draws, step: int) -> Learnt:
        noise = draws.normal(6)
        each = (model.transformer(model.towers[0](words) + noise) - 1).square().mean(1)
        return Learnt(each.mean(), len(words), each=each, times=draws.uniform())

    return losses


def fetch(units: list[Unit], slots: list[int], world: int) -> Tensor:
    drawn = [torch.randn(5, generator=torch.Generator().manual_seed(int(clip.split("-")[1]))) for (clip,) in units]
    return torch.stack(drawn)


FEED = Feed(Grouped({"": [row.id for row in ROWS]}, {"": HOW.batch}, seed=0), fetch)


def train_tiny(out: Path, here: World, steps: int, passes: int = 1) -> dict[str, Tensor]:
    """steps: after them it is over as if killed."""
    model = Tiny()
    here.spread(model)

    def report(name: str, done: int, total: int, record: Any) -> None:
        if done == steps:
            raise KilledError

    run = Run(out, recipes.smoke(), ROWS, report, "", here, Options(passes=passes))
    try:
        fit("dit", model, learn(model), FEED, HOW, run)
    except KilledError:
        return {}
    return {name: tensor.clone() for name, tensor in here.whole(model, Tiny).state_dict().items()}


class KilledError(Exception):
    pass


def work(rank: int, folder: str, port: int) -> None:
    """Four processes; then two of them go on."""
    torch.set_num_threads(1)
    together(rank, 4, folder, port)
    if rank < 2:
        together(rank, 2, folder, port + 1)


def together(rank: int, size: int, folder: str, port: int) -> None:
    here = {"RANK": str(rank), "WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    os.environ.update(here)
    root = Path(folder)
    made: dict[str, Any] = {}
    with world() as them:
        assert (them.rank, them.size, them.first) == (rank, size, rank == 0)
        if size == 4:
            made["whole"] = train_tiny(root / "four", them, 8)
            train_tiny(root / "stopped", them, 5)
        else:
            made["again"] = train_tiny(root / "stopped", them, 8, passes=2)
            sharded = dataclasses.replace(them, shard=True)
            made["sharded"] = train_tiny(root / "sharded", sharded, 8)
            train_tiny(root / "to-one", sharded, 5)
            made["from-one"] = train_tiny(root / "one-stopped", sharded, 8)
            train_tiny(root / "resharded", sharded, 5)
            made["resharded"] = train_tiny(root / "resharded", sharded, 8)
            model = Tiny()
            model.towers[0].requires_grad_(rank == 1)  # only one process has a gradient for it
            sum(p.sum() * (rank + 1) for p in model.parameters() if p.requires_grad).backward()
            them.average_gradients(model.parameters())
            made["gradients"] = {name: p.grad for name, p in model.named_parameters()}
    torch.save(made, root / f"{size}-{rank}.pt")


def log(out: Path) -> list[float]:
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if line["model"] == "dit"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, dict[str, dict[str, Tensor]]]]:
    root = tmp_path_factory.mktemp("parallel")
    alone = World()
    made = {"one": train_tiny(root / "one", alone, 8)}
    train_tiny(root / "one-stopped", alone, 5)
    mp.spawn(work, (str(root), 20000 + os.getpid() % 20000), nprocs=4)
    for size in (4, 2):
        for rank in range(size):
            found = torch.load(root / f"{size}-{rank}.pt", weights_only=True)
            if rank == 0:
                made |= found
            else:
                assert same(found.get("whole", {}), made.get("whole", {})) or size == 2, "all processes hold the same"
    made["to-one"] = train_tiny(root / "to-one", alone, 8)
    yield root, made


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def near(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.allclose(one[k], other[k], atol=1e-5) for k in one)


@pytest.mark.slow
def test_four_processes_stop_and_two_go_on_bit_for_bit(runs: Any) -> None:
    root, made = runs
    assert same(made["again"], made["whole"])
    assert log(root / "stopped") == log(root / "four")
    assert len(log(root / "four")) == HOW.steps


@pytest.mark.slow
def test_any_number_of_processes_learns_the_same(runs: Any) -> None:
    root, made = runs
    for name in ("whole", "sharded"):
        assert near(made[name], made["one"]), name
    assert log(root / "four") == pytest.approx(log(root / "one"), abs=1e-6)
    assert log(root / "sharded") == pytest.approx(log(root / "one"), abs=1e-6)


@pytest.mark.slow
def test_sharded_checkpoints_are_read_by_others_and_theirs_by_sharded_ones(runs: Any) -> None:
    root, made = runs
    assert same(made["resharded"], made["sharded"]), "bit for bit in the same world"
    assert near(made["to-one"], made["one"]), "two sharded processes, then one"
    assert near(made["from-one"], made["one"]), "one, then two sharded processes"
    assert log(root / "resharded") == log(root / "sharded")
    folders = sorted((root / "sharded" / "checkpoints").iterdir())
    assert [folder.name for folder in folders] == ["dit-00000004.shards", "dit-00000008.shards"]
    parts = sorted(file.name for file in folders[0].iterdir())
    assert len(parts) == 3 and parts[-1] == "state.json" and parts[0].endswith(".safetensors"), "no pickles"


@pytest.mark.slow
def test_gradients_that_some_processes_lack_count_as_none(runs: Any) -> None:
    gradients = runs[1]["gradients"]
    assert float(gradients["towers.0.weight"].mean()) == 1.0, "(0 + 2) / 2"
    assert float(gradients["transformer.blocks.0.0.weight"].mean()) == 1.5, "(1 + 2) / 2"


def test_samples_are_dealt_out_whole_and_alike() -> None:
    four = [World(rank, 4).slots(10) for rank in range(4)]
    two = [World(rank, 2).slots(10, passes=2) for rank in range(2)]
    assert [slots for each in four for slots in each] == [slots for each in two for slots in each]
    assert sorted(slot for each in four for slots in each for slot in slots) == list(range(10))
    with pytest.raises(ValueError, match="a batch of 3 cannot be divided among 2 processes in 2 passes"):
        World(0, 2).slots(3, passes=2)


def test_one_process_has_nothing_to_shard() -> None:
    with pytest.raises(ValueError, match="nobody to share its weights with"), world(shard=True):
        pass


def member(how: str) -> str:
    """What `launch` starts below."""
    with world() as here:
        if how == "sentence" and here.rank == 1:
            raise ValueError("the film is gone; get it again.")
        if how == "killed" and here.rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        total = torch.ones(1)
        dist.all_reduce(total)
        return f"{here.rank} of {int(total)}"


@pytest.mark.slow
def test_processes_are_started_and_their_ends_are_told_in_a_sentence() -> None:
    assert launch(2, member, "well") == "0 of 2"
    with pytest.raises(ValueError, match=r"^the film is gone; get it again\.$"):
        launch(2, member, "sentence")
    with pytest.raises(ValueError, match="process 1 of 2 was ended by SIGKILL and the others"):
        launch(2, member, "killed")


SLOW = """
import sys, time
sys.path.insert(0, {root!r})
from pathlib import Path
from tests.test_parallel import FEED, HOW, ROWS, Tiny, learn, recipes, Run, fit
import dataclasses
model = Tiny()
def report(name, done, total, record):
    print("step", done, flush=True)
    time.sleep(0.05)
run = Run(Path({out!r}), recipes.smoke(), ROWS, report)
fit("dit", model, learn(model), FEED, dataclasses.replace(HOW, steps={steps}, checkpoint_every={every}), run)
"""


def test_sigterm_saves_the_step_and_leaves(tmp_path: Path) -> None:
    code = SLOW.format(root=str(Path(__file__).parent.parent), out=str(tmp_path), steps=2000, every=1000)
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "step 1\n"
    time.sleep(0.1)
    child.terminate()
    said, error = child.communicate(timeout=60)
    last = int(said.split()[-1])
    assert child.returncode == 128 + signal.SIGTERM and last < 1000
    assert error.strip().endswith(f"stopped as asked after dit step {last}, which is saved; the same command goes on.")
    assert [file.stem for file in (tmp_path / "checkpoints").iterdir()] == [f"dit-{last:08d}"]


def test_twenty_steps_are_ten_a_kill_and_ten_more(tmp_path: Path) -> None:
    how = dataclasses.replace(HOW, steps=20, checkpoint_every=5)

    def run(out: Path) -> dict[str, Tensor]:
        model = Tiny()
        fit("dit", model, learn(model), FEED, how, Run(out, recipes.smoke(), ROWS, lambda *news: None))
        return model.state_dict()

    whole, out = run(tmp_path / "whole"), tmp_path / "killed"
    code = SLOW.format(root=str(Path(__file__).parent.parent), out=str(out), steps=20, every=5)
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    while child.stdout.readline() != "step 12\n":
        pass
    child.kill()
    child.wait()
    assert max(json.loads(line)["step"] for line in (out / "log.jsonl").read_text().splitlines()) < 20
    assert same(run(out), whole) and log(out) == log(tmp_path / "whole") and len(log(out)) == 20

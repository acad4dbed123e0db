"""Four processes that share samples (context, tensor, sequence parallel), with and without sharding, learn what one
learns, and go on from its checkpoints as it goes on from theirs."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
import torch
import torch.multiprocessing as mp
from torch import Tensor

from generator import recipes
from generator.data import Row
from generator.dit import sizes
from generator.dit.moviegen import MovieGenConfig
from generator.dit.stiv import StivConfig
from generator.draws import Draws
from generator.feed import Feed, Grouped, Unit
from generator.loop import fit
from generator.lora import Lora
from generator.optimising import Training
from generator.options import Options
from generator.parallel import ALONE, World, full, world
from generator.parallel.context import share
from generator.parallel.world import mesh_of
from generator.recipe import Recipe
from generator.recompute import compile_blocks, recompute
from generator.run import Run
from generator.systems.base import Batch, Packed
from generator.systems.cogvideox import CogVideoX
from generator.systems.easyanimate import EasyAnimate
from generator.systems.moviegen import MovieGen
from generator.systems.stiv import Stiv
from generator.text import TextConfig
from generator.train import check, diffusion
from tests.generator_films import one_thread  # noqa: F401  (used by being here)

pytestmark = pytest.mark.slow

LATENTS = (4, 3, 6, 10)
"""Channels, frames, rows, columns: 45 tokens, which neither two nor four processes share evenly."""
TEXT = TextConfig(length=5, width=16, buckets=16, layers=1, heads=2)
HOW = Training(steps=2, batch=4, lr=1e-3, warmup=1, eps=1e-4, ema=0.9, checkpoint_every=1)
"""eps: or Adam would blow up the rounding of gradients that are almost nothing."""

ROWS = [Row(f"clip-{number}", "film.mp4", 0, 1, "") for number in range(6)]

SYSTEMS: dict[str, Any] = {
    "cogvideox": CogVideoX(
        dataclasses.replace(
            sizes.cogvideox_debug(),
            num_layers=2,
            attention_head_dim=16,
            num_attention_heads=2,
            text_embed_dim=16,
            max_text_seq_length=5,
        ),
        TEXT,
    ),
    "moviegen": MovieGen(MovieGenConfig(2, 16, 24, 2, 4, 4, max_size=(4, 8, 8), text_widths=(16, 16)), (TEXT, TEXT)),
    "stiv": Stiv(StivConfig(1, 1, 16, 2, 4, (1, 2, 2), text_width=16), TEXT),
    "easyanimate": EasyAnimate(
        dataclasses.replace(
            sizes.easyanimate_debug(), num_layers=2, caption_width=16, latent_channels=4, out_channels=8
        ),
        TEXT,
    ),
}


def build(name: str) -> Any:
    torch.manual_seed(0)
    system = SYSTEMS[name].build()
    with torch.no_grad():
        for weight in system.transformer.parameters():  # many start at zero, and would hide what they multiply
            weight.add_(torch.randn(weight.shape) * 0.1)
    return system


def fetch(units: list[Unit], slots: list[int], world: int) -> Batch:
    draw = [torch.Generator().manual_seed(int(clip.split("-")[1])) for (clip,) in units]
    moments = torch.stack([torch.randn(2, *LATENTS, generator=g) for g in draw])
    texts = [f"the {clip} goes left" for (clip,) in units]
    return Batch(moments, texts, slots, lambda: moments, torch.ones(len(slots), 6), world)


FEED = Feed(Grouped({"": [row.id for row in ROWS]}, {"": HOW.batch}, seed=0), fetch)


class KilledError(Exception):
    pass


def train(out: Path, here: World, steps: int = HOW.steps, name: str = "cogvideox", **how: Any) -> dict[str, Tensor]:
    """steps: after them it is over as if killed."""
    compiled = how.pop("compile", False)
    system, settings = build(name), dataclasses.replace(HOW, **how)
    recompute(system.transformer, settings.recompute)
    here.spread(system)
    if compiled:
        compile_blocks(system.transformer)

    def report(phase: str, done: int, total: int, record: Any) -> None:
        if done == steps < HOW.steps:
            raise KilledError

    run = Run(out, recipes.smoke(), ROWS, report, "", here, Options())
    try:
        fit("dit", system, diffusion(system, settings.batch), FEED, settings, run)
    except KilledError:
        run.settle()
        return {}
    recompute(system.transformer, "nothing")
    return {key: tensor.clone() for key, tensor in here.whole(system, lambda: build(name)).state_dict().items()}


LAYOUTS = {"context": (2, 1, False), "both": (2, 2, False), "sharded": (1, 2, True)}
"""Processes that share tokens, those that share heads and widths, and whether weights are sharded; of four."""
DIVIDED = {"moviegen": (2, 2, False), "stiv": (2, 2, False), "easyanimate": (2, 1, False), "pack": (2, 2, False)}


def work(rank: int, folder: str, port: int) -> None:
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "4", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    root, made = Path(folder), {}
    with world() as them:

        def arranged(context: int, tensor: int, shard: bool) -> World:
            mesh = mesh_of("cpu", 4, context, tensor)
            return dataclasses.replace(them, context=context, tensor=tensor, shard=shard, mesh=mesh)

        for how, layout in LAYOUTS.items():
            made[how] = train(root / how, arranged(*layout))
        train(root / "to-one", arranged(2, 2, True), 1)
        made["from-one"] = train(root / "one-stopped", arranged(2, 2, True))
        train(root / "bfloat16", arranged(2, 1, True), compile=True, recompute="all", precision="bfloat16")
        for name, layout in DIVIDED.items():
            made[name] = gradients(name, arranged(*layout))
    if rank == 0:
        torch.save(made, root / "made.pt")


def gradients(name: str, here: World) -> dict[str, Tensor]:
    """Of three clips; "pack": in two sequences."""
    system = build("cogvideox" if name == "pack" else name)
    here.spread(system)
    units = [(f"clip-{k}",) for k in range(3)]
    batch: Any = fetch(units, [0, 1, 2], 3)
    if name == "pack":
        batch = Packed([fetch([unit], [k], 3) for k, unit in enumerate(units)], [[0, 2], [1]], 3)
    (system.losses(batch, Draws.of(range(3), 0), 3).mean / here.tensor).backward()
    here.average_gradients(system.parameters())
    return {key: full(weight.grad) for key, weight in system.named_parameters() if weight.grad is not None}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, dict[str, dict[str, Tensor]]]]:
    root = tmp_path_factory.mktemp("dividing")
    train(root / "one-stopped", ALONE, 1)
    mp.spawn(work, (str(root), 20000 + os.getpid() % 20000), nprocs=4)
    yield root, torch.load(root / "made.pt", weights_only=True)


def log(out: Path, key: str = "loss") -> list[float]:
    return [json.loads(line)[key] for line in (out / "log.jsonl").read_text().splitlines()]


def off(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    assert one.keys() == other.keys()
    return max(float((one[key] - other[key]).abs().max()) for key in one)


@pytest.fixture(scope="module")
def alone(runs: Any) -> dict[str, Tensor]:
    return train(runs[0] / "one", ALONE)


@pytest.mark.parametrize("how", LAYOUTS)
def test_processes_that_share_samples_learn_what_one_does(runs: Any, alone: Any, how: str) -> None:
    root, made = runs
    assert log(root / how) == pytest.approx(log(root / "one"), rel=1e-5)
    assert log(root / how, "grad_norm") == pytest.approx(log(root / "one", "grad_norm"), rel=1e-4)
    assert off(made[how], alone) < 1e-5


@pytest.mark.parametrize("name", DIVIDED)
def test_gradients_of_all_systems_and_of_frame_packs_are_those_of_one_process(runs: Any, name: str) -> None:
    whole = gradients(name, ALONE)
    most = max(float(gradient.abs().max()) for gradient in whole.values())
    assert off(runs[1][name], whole) < 1e-5 * most


def test_checkpoints_are_read_in_every_layout(runs: Any, alone: Any) -> None:
    root, made = runs
    assert off(train(root / "to-one", ALONE), alone) < 1e-5, "context 2 x tensor 2, sharded, then one process"
    assert off(made["from-one"], alone) < 1e-5, "one process, then context 2 x tensor 2, sharded"


def test_bfloat16_and_compiled_blocks_go_with_shards(runs: Any) -> None:
    root = runs[0]
    train(root / "bfloat16-one", ALONE, precision="bfloat16")
    assert log(root / "bfloat16") == pytest.approx(log(root / "bfloat16-one"), rel=2e-2)
    assert log(root / "bfloat16") != log(root / "one")


def test_what_cannot_be_divided_is_refused_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(recipe: Recipe, match: str, **here: Any) -> None:
        with pytest.raises(ValueError, match=match):
            check(recipe, World(size=6, **here))

    def changed(**change: Any) -> Recipe:
        smoke = recipes.smoke()
        return dataclasses.replace(smoke, stages=(dataclasses.replace(smoke.stages[0], **change),))

    adafactor = dataclasses.replace(recipes.smoke().stages[0].training, optimizer="adafactor")
    refused(changed(training=adafactor), "adafactor wants whole weights: leave out --shard", shard=True)
    refused(changed(lora=Lora(2, 4)), "train it without --shard and --tensor", tensor=2)
    refused(recipes.named("tiny_easyanimate"), "EasyAnimateTransformer cannot be divided with --tensor", tensor=2)
    refused(recipes.named("tiny_moviegen"), "heads cannot be divided among 7 processes with --tensor", tensor=7)
    monkeypatch.setenv("WORLD_SIZE", "6")
    teams = "--context 2 x --tensor 2 are teams of 4 processes, and there are 6"
    with pytest.raises(ValueError, match=teams), world(context=2, tensor=2):
        pass
    with pytest.raises(ValueError, match="a batch of 1 cannot be divided among 3 teams of 2 processes in 1 passes"):
        World(size=6, context=2).slots(1)
    with pytest.raises(ValueError, match="a sequence of 5 tokens cannot be divided among 4 processes"):
        share(5, 4, 0)

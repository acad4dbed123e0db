"""How much of a device a training uses: MFU and data wait of CogVideoX-2B's transformer in `generator.loop.fit`.

On one H200: `python -m benchmarks.training --mfu --save FILE`; on several: `torchrun --nproc-per-node 8 -m
benchmarks.training --mfu --shard [--context C] [--tensor T]`. Weights are random; latents and embeddings of texts are
read from disk ahead of the steps, as in a training. Blocks are compiled, matrix products are bfloat16, weights and
moments float32. Operations are those of `generator.dit.costs` (attention whole, nothing twice), against the peak of the
device (`generator.telling.PEAKS`, or --peak). What is told is the median of the steps after the first few, in which
blocks are compiled. Without a GPU a debug size shows that it runs; its figures mean nothing.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import statistics
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.curate import machine
from generator import recipes
from generator.caches import TensorCache
from generator.data import Row
from generator.dit import sizes
from generator.dit.cogvideox import DitConfig
from generator.feed import Feed, Grouped, Unit
from generator.loop import fit
from generator.optimising import Training
from generator.options import Options
from generator.parallel import World, world
from generator.recompute import compile_blocks, recompute
from generator.run import Run
from generator.systems.base import Batch, Dropping
from generator.systems.cogvideox import CogVideoX, CogVideoXSystem
from generator.text import TextConfig
from generator.train import diffusion

TARGETS = {"mfu": 0.45, "data_share": 0.02}
_WARM = 3


@dataclasses.dataclass(frozen=True, slots=True)
class Asked:
    """size: "2b" (49 frames of 480 x 720) or "debug". batch: samples of a step, over all processes."""

    size: str
    device: str
    batch: int
    steps: int
    recompute: str
    options: Options

    @property
    def shape(self) -> tuple[DitConfig, tuple[int, int, int]]:
        """Of the transformer and of latents (frames, rows, columns)."""
        return (sizes.cogvideox_2b(), (13, 60, 90)) if self.size == "2b" else (sizes.cogvideox_debug(), (5, 8, 8))


class Read(nn.Module):
    """Embeddings of texts, from a cache."""

    def __init__(self, config: TextConfig, cache: TensorCache, device: str) -> None:
        super().__init__()
        self.config, self.cache, self.device = config, cache, device

    def forward(self, texts: list[str]) -> Tensor:
        return torch.stack([self.cache[text] for text in texts]).to(self.device)


class EnoughError(Exception):
    """Before the last step, which would write a checkpoint."""


def utilisation(asked: Asked) -> dict[str, Any] | None:
    """What is told in the first process, None in others. Raises ValueError as `generator.loop.fit` does."""
    options = asked.options
    with (
        tempfile.TemporaryDirectory() as mine,
        world(asked.device, options.shard, options.context, options.tensor) as here,
    ):
        records = _train(asked, here, Path(here.agree(mine)))
        here.wait()
    if not here.first:
        return None
    kept = records[_WARM:]
    told = {key: statistics.median(float(r[key]) for r in kept) for key in ("seconds", "tokens_per_s", "data_share")}
    known = all(isinstance(r["mfu"], float) for r in kept)
    told["mfu"] = statistics.median(float(r["mfu"]) for r in kept) if known else None
    told["memory_gb"] = max(float(r["memory_gb"]) for r in kept)
    dit, latents = asked.shape
    return {
        **machine(),
        "device": torch.cuda.get_device_name() if asked.device.startswith("cuda") else "cpu",
        "processes": here.size,
        "torch": torch.__version__,
        "size": asked.size,
        "layers, width": [dit.num_layers, dit.width],
        "latents": list(latents),
        "batch": asked.batch,
        "steps": len(kept),
        "recompute": asked.recompute,
        "options": dataclasses.asdict(options),
        **told,
        "targets": TARGETS,
        "reached": {
            "mfu": told["mfu"] is not None and told["mfu"] >= TARGETS["mfu"],
            "data_share": told["data_share"] < TARGETS["data_share"],
        },
    }


def _train(asked: Asked, here: World, folder: Path) -> list[Mapping[str, Any]]:
    """What each step said."""
    (dit, latents), count = asked.shape, max(2 * asked.batch, 8)
    rows = [Row(f"clip-{k}", "", 0, 1, f"text-{k}") for k in range(count)]
    kept, said = folder / "latents", folder / "texts"
    with here.in_turn():
        moments, texts = TensorCache(kept, "nobody", "latents"), TensorCache(said, "nobody", "texts")
        if here.first:
            draw = torch.Generator().manual_seed(0)
            for row in rows:
                moments.add({row.id: torch.randn(2, dit.in_channels, *latents, generator=draw)})
                spoken = torch.randn(dit.max_text_seq_length, dit.text_embed_dim, generator=draw)
                texts.add({row.caption: spoken})
    torch.manual_seed(0)
    text = TextConfig(length=dit.max_text_seq_length, width=dit.text_embed_dim)
    with torch.device(here.device):
        system = CogVideoXSystem(CogVideoX(dit, text, dropping=Dropping(text=0.0)))
    system.towers[0] = Read(text, texts, here.device)
    recompute(system.transformer, asked.recompute)
    here.spread(system)
    if asked.options.compile:
        compile_blocks(system.transformer)
    named = {row.id: row for row in rows}

    def fetch(units: list[Unit], slots: list[int], world: int) -> Batch:
        found = torch.stack([moments[clip] for (clip,) in units]).to(here.device)
        micro = torch.ones(len(slots), 6, device=here.device)
        return Batch(found, [named[clip].caption for (clip,) in units], slots, lambda: found, micro, world)

    records: list[Mapping[str, Any]] = []

    def report(phase: str, done: int, total: int, record: Mapping[str, Any]) -> None:
        records.append(record)
        if done == total - 1:
            raise EnoughError

    steps = _WARM + asked.steps + 1
    how = Training(steps, asked.batch, 1e-4, checkpoint_every=steps, precision="bfloat16", recompute=asked.recompute)
    feed = Feed(Grouped({"": list(named)}, {"": asked.batch}, 0), fetch, ahead=2, workers=2)
    run = Run(folder, recipes.smoke(), rows, report, "", here, asked.options)
    with contextlib.suppress(EnoughError):
        fit("dit", system, diffusion(system, asked.batch), feed, how, run)
    return records


def tell(asked: Asked, save: Path | None) -> None:
    told = utilisation(asked)
    if told is None:
        return
    print(json.dumps(told, indent=1), flush=True)
    if save:
        save.write_text(json.dumps(told, indent=1) + "\n")

"""A step of training CogVideoX beside diffusers': same model, same batch, one process, in alternating turns.

`python -m benchmarks.training [--runs 7] [--steps 4] [--save FILE]`; with `--mfu` instead what `benchmarks.utilisation`
says.

Ours is `generator.loop.fit` as it is, with its log on disk; theirs is the step of diffusers' own CogVideoX trainer
(examples/cogvideo: draw latents, noise and times, add noise, predict, velocity to x0, weighted squared error, backward,
clip, AdamW) around diffusers' transformer and scheduler. Texts are embedded beforehand for both. A turn is a few steps,
of which the first is not counted. Seconds are the processor's, on one thread: other work on the machine does not count.
What is told is the median over turns of the ratio of neighbouring turns.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from diffusers.models.embeddings import get_3d_rotary_pos_embed
from torch import Tensor, nn

from benchmarks.curate import machine
from benchmarks.utilisation import Asked, tell
from generator import recipes
from generator.data import Row
from generator.dit import sizes
from generator.dit.cogvideox import DitConfig
from generator.feed import Feed, Grouped, Unit
from generator.loop import fit
from generator.optimising import RECOMPUTE, Training
from generator.options import Options
from generator.run import Run
from generator.systems.base import Batch
from generator.systems.cogvideox import CogVideoX, CogVideoXSystem
from generator.text import TextConfig
from generator.train import diffusion

TARGET = 1.05


class Embedded(nn.Module):
    """Texts that were embedded before."""

    def __init__(self, config: TextConfig, said: Tensor) -> None:
        super().__init__()
        self.config, self.said = config, said

    def forward(self, texts: list[str]) -> Tensor:
        return self.said[: len(texts)]


@dataclasses.dataclass(frozen=True, slots=True)
class Size:
    """latents: (frames, rows, columns). batch: samples of a step."""

    name: str
    dit: DitConfig
    latents: tuple[int, int, int]
    batch: int


def every_size() -> tuple[Size, ...]:
    middle = dataclasses.replace(
        sizes.cogvideox_2b(), num_attention_heads=8, num_layers=4, text_embed_dim=512, max_text_seq_length=64
    )
    return (Size("debug", sizes.cogvideox_debug(), (5, 8, 8), 16), Size("middle", middle, (2, 32, 32), 1))


class Bench:
    """Both trainers of one size, with the same weights and batch."""

    def __init__(self, size: Size, steps: int) -> None:
        self.size, self.steps = size, steps
        self.how = Training(steps + 1, size.batch, 1e-4, checkpoint_every=steps + 1)
        draw = torch.Generator().manual_seed(0)
        self.moments = torch.randn(size.batch, 2, size.dit.in_channels, *size.latents, generator=draw)
        self.said = torch.randn(size.batch, size.dit.max_text_seq_length, size.dit.text_embed_dim, generator=draw)
        torch.manual_seed(0)
        text = TextConfig(length=size.dit.max_text_seq_length, width=size.dit.text_embed_dim)
        self.system = CogVideoXSystem(CogVideoX(size.dit, text))
        self.system.towers[0] = Embedded(text, self.said)
        self.theirs = diffusers.CogVideoXTransformer3DModel(**dataclasses.asdict(size.dit))
        self.theirs.load_state_dict(self.system.transformer.state_dict())

    def ours(self) -> float:
        """Processor seconds of a step."""
        times: list[float] = []

        def report(phase: str, done: int, total: int, record: Mapping[str, Any]) -> None:
            times.append(time.process_time())

        def fetch(units: list[Unit], slots: list[int], world: int) -> Batch:
            micro = torch.ones(len(slots), 6)
            return Batch(self.moments, ["a text"] * len(slots), slots, lambda: self.moments, micro, world)

        rows = [Row(str(k), "", 0, 1, "") for k in range(self.size.batch)]
        feed = Feed(Grouped({"": [row.id for row in rows]}, {"": self.size.batch}, 0), fetch)
        with tempfile.TemporaryDirectory() as folder:
            run = Run(Path(folder), recipes.smoke(), rows, report)
            fit("dit", self.system, diffusion(self.system, self.size.batch), feed, self.how, run)
        # The last step also writes a checkpoint, which theirs does not.
        return (times[-2] - times[0]) / (len(times) - 2)

    def their(self) -> float:
        """Processor seconds of a step."""
        model, how = self.theirs.train(), self.how
        scheduler = diffusers.CogVideoXDPMScheduler(prediction_type="v_prediction", rescale_betas_zero_snr=True)
        optimizer = torch.optim.AdamW(model.parameters(), how.lr, how.betas, how.eps, how.weight_decay)
        dit, (frames, rows, columns) = self.size.dit, self.size.latents
        rotary, grid = None, (rows // dit.patch_size, columns // dit.patch_size)
        if dit.use_rotary_positional_embeddings:
            rotary = get_3d_rotary_pos_embed(
                dit.attention_head_dim, None, grid, frames, grid_type="slice", max_size=grid
            )
        times = []
        for _ in range(self.steps):
            latents = DiagonalGaussianDistribution(self.moments.flatten(1, 2)).sample() * 0.7
            latents = latents.transpose(1, 2)  # (B, F, C, H, W)
            noise = torch.randn_like(latents)
            t = torch.randint(0, scheduler.config.num_train_timesteps, (len(latents),))
            noisy = scheduler.add_noise(latents, noise, t)
            output = model(noisy, self.said, t, image_rotary_emb=rotary, return_dict=False)[0]
            prediction = scheduler.get_velocity(output, noisy, t)
            weights = 1 / (1 - scheduler.alphas_cumprod[t])
            while weights.ndim < prediction.ndim:
                weights = weights.unsqueeze(-1)
            loss = torch.mean((weights * (prediction - latents) ** 2).reshape(len(latents), -1), dim=1).mean()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), how.clip)
            optimizer.step()
            optimizer.zero_grad()
            loss.detach().item()
            times.append(time.process_time())
        return (times[-1] - times[0]) / (len(times) - 1)


def measure(size: Size, runs: int, steps: int) -> dict[str, Any]:
    bench = Bench(size, steps)
    bench.ours(), bench.their()
    pairs = []
    for number in range(runs):
        # Each goes first in turn.
        first, second = (bench.ours, bench.their) if number % 2 else (bench.their, bench.ours)
        a, b = first(), second()
        pairs.append((a, b) if number % 2 else (b, a))
    ratio = statistics.median(ours / theirs for ours, theirs in pairs)
    return {
        "model": size.name,
        "parameters": sum(p.numel() for p in bench.theirs.parameters()),
        "latents": list(size.latents),
        "batch": size.batch,
        "ours, processor seconds a step": round(statistics.median(ours for ours, _ in pairs), 4),
        "theirs, processor seconds a step": round(statistics.median(theirs for _, theirs in pairs), 4),
        "time, ours / theirs": round(ratio, 3),
        "target": TARGET,
        "reached": ratio <= TARGET,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--save", type=Path)
    use = parser.add_argument_group("--mfu", "how much of the device a training uses; see benchmarks/utilisation.py")
    use.add_argument("--mfu", action="store_true")
    use.add_argument("--size", choices=("2b", "debug"), help="2b on a GPU, else debug")
    use.add_argument("--batch", type=int, default=1, help="samples of a step, over all processes")
    use.add_argument("--recompute", choices=RECOMPUTE, default="nothing")
    use.add_argument("--no-compile", action="store_true")
    use.add_argument("--peak", type=float, help="TFLOP/s of the device in bfloat16, where it is not known")
    use.add_argument("--shard", action="store_true")
    use.add_argument("--context", type=int, default=1)
    use.add_argument("--tensor", type=int, default=1)
    asked = parser.parse_args()
    if asked.mfu:
        gpu = torch.cuda.is_available()
        options = Options(1, asked.shard, not asked.no_compile, asked.peak, context=asked.context, tensor=asked.tensor)
        size, device = asked.size or ("2b" if gpu else "debug"), "cuda" if gpu else "cpu"
        tell(Asked(size, device, asked.batch, asked.steps, asked.recompute, options), asked.save)
        return
    torch.set_num_threads(asked.threads)
    results = []
    for size in every_size():
        results.append(measure(size, asked.runs, asked.steps))
        print(json.dumps(results[-1], indent=1), flush=True)
    if asked.save:
        said = {**machine(), "threads": asked.threads, "runs": asked.runs, "torch": torch.__version__}
        said |= {"diffusers": diffusers.__version__, "results": results}
        asked.save.write_text(json.dumps(said, indent=1) + "\n")


if __name__ == "__main__":
    main()

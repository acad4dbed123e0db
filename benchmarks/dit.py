"""CogVideoX's transformer, forward and backward, against diffusers': the same weights, input and process, alternating.

    python -m benchmarks.dit                                        # one CPU core
    python -m benchmarks.dit --device cuda --dtype bfloat16 --compile --layers 30 --heads 30

The ratio is the median of seven alternating pairs, so that whatever else the machine does hits both. Memory is the peak
above weights and input of one step, each in a process of its own. On a GPU the share of its peak arithmetic (MFU) is
printed too, with attention counted whole, 12 tokens width per token and layer with the backward pass.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers.models.embeddings import get_3d_rotary_pos_embed

from generator.dit.cogvideox import CogVideoXTransformer
from generator.dit.costs import cost
from generator.dit.sizes import cogvideox_5b

PAIRS = 7
SIZES = ((5, 24, 32), (3, 34, 18), (1, 48, 48))  # an odd number of frames each; wide, tall, an image
PEAK = {"H100": 989e12, "H200": 989e12, "A100": 312e12}  # bf16 operations a second, dense
Step = Callable[[], float]


def step_of(side: str, size: tuple[int, int, int], options: argparse.Namespace) -> Step:
    """One training step without its optimiser; returns the loss. side: "ours" or "theirs"."""
    config = dataclasses.replace(
        cogvideox_5b(),
        num_attention_heads=options.heads,
        num_layers=options.layers,
        text_embed_dim=1024,
        max_text_seq_length=64,
        sample_frames=4 * size[0] - 3,
    )
    dtype, device = getattr(torch, options.dtype), options.device
    torch.manual_seed(0)
    with torch.device(device):
        model: Any = CogVideoXTransformer(config)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.02 * torch.randn_like(parameter))
        if side == "theirs":
            other = diffusers.CogVideoXTransformer3DModel(**dataclasses.asdict(config))
            other.load_state_dict(model.state_dict())
            model = other
        x, text = torch.randn(1, 16, *size, dtype=dtype), torch.randn(1, 64, 1024, dtype=dtype)
        t = torch.tensor([500])
        space = (size[1] // 2, size[2] // 2)
        rotary = get_3d_rotary_pos_embed(64, None, space, size[0], grid_type="slice", max_size=space)
    model = model.to(dtype)
    model = torch.compile(model) if options.compile else model

    def step() -> float:
        model.zero_grad(set_to_none=True)
        if side == "ours":
            out = model(x, t, text)
        else:
            angles = tuple(part.to(device) for part in rotary)
            out = model(x.transpose(1, 2), text, t, image_rotary_emb=angles).sample
        loss = out.float().square().mean()
        loss.backward()
        return loss.item()

    return step


def compare(size: tuple[int, int, int], options: argparse.Namespace) -> dict[str, float]:
    """Medians of seconds and of ratios over alternating pairs, after a pair that is not counted."""
    ours, theirs = (step_of(side, size, options) for side in ("ours", "theirs"))
    a, b = ours(), theirs()
    assert abs(a - b) < (1e-4 if options.dtype == "float32" else 2e-2) * abs(b), (a, b)
    seconds: dict[str, list[float]] = {"ours": [], "theirs": []}
    for number in range(PAIRS):
        pair = [("ours", ours), ("theirs", theirs)]
        for side, step in pair if number % 2 else pair[::-1]:
            began = time.perf_counter()
            step()  # ends in a number on the CPU, so a GPU is done by then
            seconds[side].append(time.perf_counter() - began)
    ratios = [a / b for a, b in zip(seconds["ours"], seconds["theirs"], strict=True)]
    return {
        "ratio": statistics.median(ratios),
        "ours, s": statistics.median(seconds["ours"]),
        "theirs, s": statistics.median(seconds["theirs"]),
    }


def memory(side: str, size: tuple[int, int, int], options: argparse.Namespace) -> float:
    """MiB above what weights and input take, at the peak of the second step."""
    step = step_of(side, size, options)
    step()
    if options.device != "cpu":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak of making the model
    before = _status("VmRSS")
    step()
    return (_status("VmHWM") - before) / 2**10


def _status(name: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith(name))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--heads", type=int, default=8)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--json", default="")
    parser.add_argument("--memory", nargs=2, metavar=("SIDE", "SIZE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.memory:
        side, number = options.memory
        print(memory(side, SIZES[int(number)], options))
        return
    found: dict[str, dict[str, float]] = {}
    for number, size in enumerate(SIZES):
        row = compare(size, options)
        for side in ("ours", "theirs"):
            own = [sys.executable, "-m", "benchmarks.dit", *sys.argv[1:], "--memory", side, str(number)]
            row[f"{side}, peak MiB"] = float(subprocess.run(own, capture_output=True, text=True, check=True).stdout)
        if options.device != "cpu":
            config = dataclasses.replace(
                cogvideox_5b(), num_attention_heads=options.heads, num_layers=options.layers, text_embed_dim=1024
            )
            name = torch.cuda.get_device_name()
            peak = next((value for key, value in PEAK.items() if key in name), 0.0)
            for side in ("ours", "theirs"):
                operations = cost(config, size, (64,)).training
                row[f"{side}, MFU"] = operations / row[f"{side}, s"] / peak if peak else float("nan")
        found[" x ".join(map(str, size))] = row
        print(f"{' x '.join(map(str, size)):>12}", "  ".join(f"{key} {value:.3f}" for key, value in row.items()))
    if options.json:
        Path(options.json).write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()

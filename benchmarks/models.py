"""Our models beside diffusers': same weights, same inputs, one run; time in alternating turns, peak of memory for both.

`python -m benchmarks.models [--only cogvideox] [--device cuda] [--size published] [--runs 7] [--save FILE [--missing]]`

The file is written after every row. It keeps the rows of other pieces of work that it has of the same machine, versions
and sizes; with `--missing` those are not measured again, so that a run that was interrupted goes on.

For every pair of models and every piece of work (encode, decode, a forward pass, forward and backward):

- seconds: the median of `--runs` turns of each, taken alternately and each first as often as the other, and the median
  of the ratios of neighbouring turns; on a CPU of processor time, which other processes do not lengthen
- peak memory: on a GPU the allocator's; on a CPU what the work adds to the resident memory of a process of its own,
  which gives freed memory back at once
- on a GPU in bfloat16, compiled; MFU of both: operations counted by torch (attention whole, to and fro, which is 12 h s
  for a token of a training step), over time, over `--peak` (TFLOP/s; known for H100 and H200)

Machines are noisy and drift: only ratios are worth quoting, and they should be at most 1.05 on a CPU, below 1 on a GPU.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import multiprocessing
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import dit_pairs, vae_pairs
from benchmarks.curate import machine
from benchmarks.pairs import Pair, Work
from curation.job import peak_memory_mb

TARGETS = {"cpu": {"time, ours / theirs": 1.05, "memory, ours / theirs": 1.0}, "cuda": {"time, ours / theirs": 1.0}}
SIZES = ("small", "published")
_MMAP_THRESHOLD = -3  # glibc's M_MMAP_THRESHOLD
_PEAKS = {"H100": 989.0, "H200": 989.0, "A100": 312.0}  # dense bfloat16, TFLOP/s


def pairs() -> tuple[Pair, ...]:
    return (*vae_pairs.PAIRS, *dit_pairs.PAIRS)


def moved(x: Any, device: str, dtype: torch.dtype) -> Any:
    """Tensors, in whatever they lie, to a device; those of floating point to a precision."""
    if isinstance(x, torch.Tensor):
        return x.to(device, dtype if x.is_floating_point() else x.dtype)
    if isinstance(x, dict):
        return {key: moved(value, device, dtype) for key, value in x.items()}
    return type(x)(moved(value, device, dtype) for value in x) if isinstance(x, list | tuple) else x


def turn(model: nn.Module, do: Callable[[nn.Module, Any], Any], given: Any, grad: bool) -> float:
    """Seconds of one piece of work."""
    cuda = next(model.parameters()).is_cuda
    clock = time.perf_counter if cuda else time.process_time
    start = clock()
    with torch.set_grad_enabled(grad):
        result = do(model, given)
    if grad:
        result.backward()
    if cuda:
        torch.cuda.synchronize()
    seconds = clock() - start
    model.zero_grad(set_to_none=True)
    return seconds


def measure(pair: Pair, work: Work, size: str, device: str, runs: int, peak: float | None) -> dict[str, Any]:
    """Time of both, in this process."""
    dtype = torch.float32 if device == "cpu" else torch.bfloat16
    models = [model.to(device, dtype) for model in pair.models(size)]
    given = moved(pair.inputs(size), device, dtype)
    dos = [work.ours, work.theirs]
    with FlopCounterMode(display=False) as counter:
        turn(models[0], work.ours, given, work.grad)
    flops = counter.get_total_flops()
    if device != "cpu":
        dos = [torch.compile(do) for do in dos]
    for model, do in zip(models, dos, strict=True):
        for _ in range(3 if device != "cpu" else 1):
            turn(model, do, given, work.grad)
    seconds: list[list[float]] = []
    for number in range(runs):
        both = [0.0, 0.0]
        for which in (0, 1) if number % 2 else (1, 0):
            both[which] = turn(models[which], dos[which], given, work.grad)
        seconds.append(both)
    ours, theirs = (statistics.median(column) for column in zip(*seconds, strict=True))
    found: dict[str, Any] = {
        "model": pair.name,
        "work": work.name,
        "TFLOP": round(flops / 1e12, 3),
        "ours, s": round(ours, 4),
        "theirs, s": round(theirs, 4),
        "time, ours / theirs": round(statistics.median(a / b for a, b in seconds), 3),
    }
    if peak:
        found |= {
            "ours, MFU": round(flops / ours / peak / 1e12, 3),
            "theirs, MFU": round(flops / theirs / peak / 1e12, 3),
        }
    return found


def memory(pair: Pair, work: Work, size: str, device: str, ours: bool) -> float:
    """MB that the work takes beyond the model and its input; run in a process of its own."""
    torch.set_num_threads(1)
    # A tensor that is freed goes back to the system, or holes that the allocator keeps would count as used.
    libc = ctypes.CDLL("libc.so.6")
    libc.mallopt(_MMAP_THRESHOLD, 2**16)
    dtype = torch.float32 if device == "cpu" else torch.bfloat16
    model = pair.models(size)[0 if ours else 1].to(device, dtype)
    given, do = moved(pair.inputs(size), device, dtype), work.ours if ours else work.theirs
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        turn(model, do, given, work.grad)
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    # Building the models left memory that nobody uses, which the work would fill unseen, and a peak: forget both.
    gc.collect()
    libc.malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    before = peak_memory_mb()
    turn(model, do, given, work.grad)
    return peak_memory_mb() - before


def _memory(name: str, work: str, size: str, device: str, ours: bool) -> float:
    pair = next(p for p in pairs() if p.name == name)
    return memory(pair, next(w for w in pair.work if w.name == work), size, device, ours)


def kept(file: Path | None, said: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    """By model and work, the rows of a file that were measured under the same conditions."""
    if file is None or not file.exists():
        return {}
    before = json.loads(file.read_text())
    same = {key: before.get(key) for key in said} == said
    return {(row["model"], row["work"]): row for row in before["rows"]} if same else {}


def write(file: Path, said: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    """At once or not at all."""
    fresh = file.with_name(f"{file.name}.new")
    fresh.write_text(json.dumps({**said, "rows": rows}, indent=1) + "\n")
    fresh.replace(file)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="part of a pair's name")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--size", choices=SIZES, default="small")
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--peak", type=float, help="TFLOP/s of the device, for MFU")
    parser.add_argument("--save", type=Path)
    parser.add_argument("--missing", action="store_true", help="measure only what FILE lacks")
    asked = parser.parse_args()
    if asked.missing and not asked.save:
        parser.error("--missing needs --save FILE")
    torch.set_num_threads(asked.threads)
    said: dict[str, Any] = {"machine": machine(), "torch": torch.__version__, "device": asked.device}
    said |= {"size": asked.size, "threads": asked.threads}
    peak = asked.peak
    if asked.device != "cpu":
        said["device"] = torch.cuda.get_device_name()
        peak = peak or next((tflops for name, tflops in _PEAKS.items() if name in said["device"]), None)
    said["targets"] = TARGETS["cpu" if asked.device == "cpu" else "cuda"]
    rows = kept(asked.save, said)
    for pair in pairs():
        for work in pair.work if asked.only in pair.name else ():
            if asked.missing and (pair.name, work.name) in rows:
                continue
            row = measure(pair, work, asked.size, asked.device, asked.runs, peak)
            taken = []
            for ours in (True, False):
                spawn = multiprocessing.get_context("spawn")
                with ProcessPoolExecutor(1, mp_context=spawn) as alone:
                    taken.append(alone.submit(_memory, pair.name, work.name, asked.size, asked.device, ours).result())
            row |= {"ours, MB": round(taken[0]), "theirs, MB": round(taken[1])}
            row["memory, ours / theirs"] = round(taken[0] / taken[1], 3)
            print(json.dumps(row), flush=True)
            rows[pair.name, work.name] = row
            if asked.save:
                write(asked.save, said, list(rows.values()))


if __name__ == "__main__":
    main()

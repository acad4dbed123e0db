"""How much dearer curation is than a plain decode: ratios measured in one run, in alternating pairs.

`python -m benchmarks.curate [--videos FOLDER] [--films CACHE] [--pairs 3]`

1. wall time of `vidcurate run` with the default recipe (text included, start-up included) and two workers, over the
   wall time of decoding the same files to nothing with two single-threaded ffmpeg processes
2. CPU seconds of the split + motion + packs part, one process, over the CPU seconds of the same decode
3. CPU seconds of the whole scan (every signal, no text) over the same

Machines are noisy and drift: only the ratios are worth quoting. Without --videos, eight minutes of 720p H.264 at 30 fps
are rendered from photographs; ffmpeg must be on the path.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from curation import recipes
from curation.early import WORKER_ENVIRONMENT
from curation.sources import list_videos
from filters.motion.flow_motion import FlowMotion
from filters.motion.vmaf import VmafMotion
from manifests.films.film import Film, Then, render, repeat
from manifests.films.shots import Shot

WORKERS = 2
GRAIN = 2.5  # photographs that are moved about have no sensor noise, and would decode far faster than any camera's film
TARGETS = {"run / decode, wall": 2.5, "split + motion + packs / decode, CPU": 1.8}

SCAN = """
import sys
from benchmarks.curate import light
from curation import recipes
from curation.early import WORKER_ENVIRONMENT
from curation.identify import identify
from curation.job import Job, Part
from curation.scan import scan_part
recipe = light() if sys.argv[1] == "light" else recipes.embedded()
scan_part(Job(sys.argv[2], recipe).pack_up(), Part("part", tuple(identify(sys.argv[3:]))))
"""


def light() -> recipes.Recipe:
    """Split, VMAF motion, flow motion and packs, and nothing else."""
    return dataclasses.replace(recipes.embedded(), signals=(VmafMotion(), FlowMotion()), costly=(), rules=())


def films(folder: Path, minutes: float = 8.5) -> list[Path]:
    """Four 720p films of shots of 2 to 6 seconds, about `minutes` long together; rendered once into `folder`."""
    names = ["temple", "dahlia", "cat", "coffee", "rocket", "astronaut", "motorcycle", "grass", "tissue", "gravel"]
    moves = ["pan_left", "static", "zoom_in", "tilt_up", "pan_right", "zoom_out", "tilt_down", "roll_cw"]
    made = []
    for n in range(4):
        target = folder / f"film{n}.mp4"
        made.append(target)
        if target.exists():
            continue
        order = [names[(3 * n + k) % len(names)] for k in range(8)]
        shots = tuple(
            Shot(
                name,
                2.0 + (k * 7 + n) % 5,
                moves[(k + n) % len(moves)],
                0.08 + 0.02 * k,
                actors=k % 3,
                caption=("the market in the rain",) if k == 5 else (),
                grain=GRAIN,
                seed=10 * n + k,
            )
            for k, name in enumerate(order)
        )
        then = tuple(Then("fade", 0.8) if k == 3 else Then() for k in range(len(shots) - 1))
        piece = render(Film(f"piece{n}", shots, then, 1280, 720, 30.0), folder, crf=20)
        seconds = piece.frames / piece.fps
        repeat(piece.path, target, max(1, round(minutes * 15 / seconds)))
        Path(piece.path).unlink()
    return made


def decode(files: list[Path]) -> tuple[float, float]:
    """Wall and CPU seconds of decoding to nothing, two single-threaded ffmpeg processes at a time."""
    command = "xargs -0 -P2 -I{} ffmpeg -nostdin -v error -threads 1 -i {} -an -f null -"
    return timed(["sh", "-c", command], "\0".join(map(str, files)))


def curate(files: list[Path], out: Path) -> tuple[float, float]:
    """Wall and CPU seconds of the whole default recipe, start-up included."""
    shutil.rmtree(out, ignore_errors=True)
    command = [sys.executable, "-m", "curation", "run", *map(str, files), "--out", str(out), "--workers", str(WORKERS)]
    return timed(command)


def scan(kind: str, files: list[Path], out: Path) -> tuple[float, float]:
    """Wall and CPU seconds of scanning in one process, as a worker would, its start included."""
    shutil.rmtree(out, ignore_errors=True)
    return timed([sys.executable, "-c", SCAN, kind, str(out), *map(str, files)], environment=WORKER_ENVIRONMENT)


def timed(
    command: list[str], given: str | None = None, environment: Mapping[str, str] | None = None
) -> tuple[float, float]:
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    silent = subprocess.DEVNULL
    inherited = {**os.environ, **(environment or {})}
    subprocess.run(command, input=given, text=True, check=True, stdout=silent, stderr=silent, env=inherited)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.perf_counter() - start, cpu


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--videos", help="your own files instead of the rendered ones")
    options.add_argument("--films", type=Path, help="folder to keep the rendered films in, for the next time")
    options.add_argument("--pairs", type=int, default=3)
    options.add_argument("--save", type=Path, help="write the figures to this JSON file")
    chosen = options.parse_args()
    if shutil.which("ffmpeg") is None:
        sys.exit("ffmpeg is not on the path; install it to have something to compare with.")
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "out"
        if chosen.videos:
            files = [Path(v) for v in list_videos([chosen.videos])]
        else:
            files = films(chosen.films or Path(scratch) / "films")
        figures = measure(files, out, chosen.pairs)
    for name, value in figures["ratios"].items():
        target = TARGETS.get(name)
        print(f"{name:<40} {value:.2f}" + (f"   (target: at most {target})" if target else ""))
    if chosen.save:
        chosen.save.parent.mkdir(parents=True, exist_ok=True)
        chosen.save.write_text(json.dumps(figures, indent=1) + "\n")


def measure(files: list[Path], out: Path, pairs: int) -> dict[str, dict[str, float] | dict[str, str]]:
    """Medians over alternating runs."""
    decode(files)  # warms the page cache for both sides
    rounds: list[dict[str, float]] = []
    for k in range(pairs):
        plain, whole = decode(files), curate(files, out)
        some, every = scan("light", files, out), scan("all", files, out)
        rounds.append(
            {
                "run / decode, wall": whole[0] / plain[0],
                "split + motion + packs / decode, CPU": some[1] / plain[1],
                "whole scan / decode, CPU": every[1] / plain[1],
                "decode, wall seconds": plain[0],
                "run, wall seconds": whole[0],
            }
        )
        print(f"pair {k + 1}: " + ", ".join(f"{n} {v:.2f}" for n, v in rounds[-1].items()), flush=True)
    return {
        "ratios": {name: round(statistics.median(r[name] for r in rounds), 3) for name in rounds[0]},
        "machine": machine(),
    }


def machine() -> dict[str, str]:
    """What figures were measured on."""
    return {
        "processor": platform.processor() or platform.machine(),
        "cores": str(os.cpu_count()),
        "python": platform.python_version(),
    }


if __name__ == "__main__":
    main()

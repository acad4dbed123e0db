"""What travels between driver and workers: a job description there, receipts of a few hundred bytes back."""

from __future__ import annotations

import functools
import os
import pickle
import resource
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import cloudpickle
import cv2

from curation.recipe import RECIPE_MODULE, Recipe
from manifests.offline import go_offline, is_offline
from manifests.store import Store


@dataclass(frozen=True, slots=True)
class Video:
    """One input as the driver knows it. `id` is None when its bytes could not be read, and `error` says why."""

    uri: str
    bytes: int
    id: str | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Part:
    """Videos that are scanned together. `fatal` names those that killed their worker, with the reason."""

    name: str
    videos: tuple[Video, ...]
    fatal: tuple[tuple[str, str], ...] = ()

    @property
    def bytes(self) -> int:
        return sum(v.bytes for v in self.videos)


@dataclass(frozen=True, slots=True)
class Receipt:
    """What a stage did to one part; kept as JSON beside it, and the proof that the part is whole."""

    stage: str
    part: str
    videos: tuple[str, ...]
    rows: int
    seconds: float
    video_seconds: float = 0.0
    opens: int = 0
    failures: int = 0
    memory_mb: float = 0.0

    def save(self, store: Store) -> None:
        store.write_json(receipt_name(self.stage, self.part), asdict(self))


def receipt_name(stage: str, part: str) -> str:
    return f"stages/{stage}/receipts/{part}.json"


def receipts(store: Store, stage: str) -> dict[str, Receipt]:
    """Receipts of all whole parts of a stage, by part."""
    names = store.names(f"stages/{stage}/receipts", ".json")
    return {n: Receipt(**_tuples(store.read_json(receipt_name(stage, n)))) for n in names}


def _tuples(fields: dict[str, Any]) -> dict[str, Any]:
    return {**fields, "videos": tuple(fields["videos"])}


@dataclass(frozen=True, slots=True)
class Job:
    """The part of a run that workers need. offline: no model may be downloaded, on workers of other machines either."""

    root: str
    recipe: Recipe
    measure_all: bool = False
    offline: bool = field(default_factory=is_offline)

    def pack_up(self) -> bytes:
        """With cloudpickle, by value where a user's recipe file defined a signal: workers cannot import that file."""
        for signal in (*self.recipe.walk, *self.recipe.costly, *self.recipe.derived):
            module = type(signal).__module__
            if module.startswith(RECIPE_MODULE):
                cloudpickle.register_pickle_by_value(sys.modules[module])
        return cloudpickle.dumps(self)


@functools.lru_cache(maxsize=4)
def unpack(packed: bytes) -> tuple[Job, Store]:
    """The job and its store; unpacked once per worker process. The bytes come from our own driver."""
    job = pickle.loads(packed)  # noqa: S301
    assert isinstance(job, Job)
    if job.offline:
        go_offline()
    return job, Store(job.root)


def pin_threads() -> None:
    """One thread per worker process, so that workers do not fight over the cores."""
    cv2.setNumThreads(1)
    cv2.ocl.setUseOpenCL(False)
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, "1")


def peak_memory_mb() -> float:
    """Largest resident memory of this process so far."""
    try:
        status = Path("/proc/self/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) / 1024
    except (OSError, IndexError):  # not Linux; getrusage also counts what the parent held before it started us
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


class Stopwatch:
    """Seconds since it was made."""

    def __init__(self) -> None:
        self._start = time.perf_counter()

    @property
    def seconds(self) -> float:
        return round(time.perf_counter() - self._start, 3)

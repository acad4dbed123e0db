"""Starts the process that local workers are forked from while this one is still loading.

It loads what the workers need, once for all of them: a run begins about a second earlier, and a worker that died is
back at once. Nothing heavy may be imported here.
"""

from __future__ import annotations

import os
from multiprocessing import forkserver

WORKER_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    # Dask's default (64 KiB) hands every frame's memory back to the system and takes it again: an eighth of the time.
    "MALLOC_TRIM_THRESHOLD_": str(256 << 20),
    "MALLOC_MMAP_THRESHOLD_": str(64 << 20),
}

_NEEDED = [
    *("distributed", "distributed.nanny", "distributed.worker"),
    *("curation.scan", "curation.costly", "curation.recipes.embedded"),
    "curation.loaded",  # the last: it settles what is loaded by then
]


def start() -> None:
    """Returns at once. The environment is that of the workers, since some of it is read when a process starts."""
    before = dict(os.environ)
    os.environ |= WORKER_ENVIRONMENT
    try:
        forkserver.set_forkserver_preload(_NEEDED)
        forkserver.ensure_running()
    finally:
        os.environ.clear()
        os.environ.update(before)

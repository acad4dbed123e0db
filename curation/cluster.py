"""A Dask client: a local cluster of single-threaded worker processes, a running scheduler, or the caller's own."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator

import dask
import psutil
from distributed import Client, LocalCluster

from curation.early import WORKER_ENVIRONMENT

_LOCAL = {
    "distributed.nanny.pre-spawn-environ": WORKER_ENVIRONMENT,
    "distributed.worker.multiprocessing-method": "forkserver",
    "distributed.scheduler.allowed-failures": 3,
    # What Dask watches many times a second, in every process, for its dashboard takes a twentieth of the cores. (Set in
    # the environment these would not reach the workers: a nanny hands them the settings of its own process.)
    "distributed.worker.profile.enabled": False,
    "distributed.worker.memory.monitor-interval": "500ms",
    "distributed.admin.tick.interval": "500ms",
    "distributed.admin.system-monitor.interval": "5s",
}
"""Settings of a local cluster; a remote one has its own."""


@contextlib.contextmanager
def connect(workers: int | None = None, scheduler: str | None = None, client: Client | None = None) -> Iterator[Client]:
    """Yields a client and closes what it opened itself. Raises ValueError when the scheduler does not answer."""
    if client is not None:
        yield client
        return
    if scheduler:
        try:
            remote = Client(scheduler, timeout="10s")
        except (OSError, TimeoutError) as error:
            raise ValueError(
                f"no Dask scheduler answers at {scheduler} ({error}); start one with `dask scheduler`."
            ) from None
        with remote:
            yield remote
        return
    logging.getLogger("distributed").setLevel(
        logging.CRITICAL
    )  # a killed worker is our business, not the user's screen's
    count = workers or os.cpu_count() or 1
    with dask.config.set(_LOCAL):
        cluster = LocalCluster(
            n_workers=count,
            threads_per_worker=1,
            processes=True,
            dashboard_address=":0",
            memory_limit=int(psutil.virtual_memory().total * 0.9 / count),
            silence_logs=logging.CRITICAL,
        )
        with cluster, Client(cluster) as local:
            yield local


def slots(client: Client) -> int:
    """Tasks that the cluster can run at once."""
    return max(1, sum(client.nthreads().values()))


def shared(concurrency: int, slots: int, pieces: int) -> tuple[int, int]:
    """Tasks to run at once, and questions of each, for `concurrency` questions over all of them at most."""
    tasks = max(1, min(slots, pieces, concurrency))
    return tasks, max(1, concurrency // tasks)

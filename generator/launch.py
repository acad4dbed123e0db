"""A function in several processes on this machine, started as torchrun does; what goes wrong is told in a sentence."""

# mypy: disable-error-code="no-any-return, no-untyped-call"

from __future__ import annotations

import logging
import os
import signal
import sys
import tempfile
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")

_GRACE = 120
"""Seconds that processes have to save a checkpoint after SIGTERM."""


def launch(processes: int, work: Callable[..., T], *arguments: Any) -> T:
    """What `work(*arguments)` returns in the first of so many processes, each of which is told its rank by torchrun's
    variables. work, arguments: picklable.

    Raises ValueError with the sentence of the process that failed first, or how it died; the others are stopped.
    """
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    for name in ("torch.distributed.elastic", "torch.distributed.launcher"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # what it says is said below, in one sentence
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with tempfile.TemporaryDirectory() as folder:
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=processes,
            run_id="vidcurate",
            rdzv_backend="c10d",
            rdzv_endpoint="127.0.0.1:0",
            local_addr="127.0.0.1",
            max_restarts=0,
            monitor_interval=0.1,
            logs_specs=DefaultLogsSpecs(log_dir=folder),
            shutdown_timeout=_GRACE,
        )
        try:
            found = elastic_launch(config, work)(*arguments)
        except ChildFailedError as error:
            rank, first = error.get_first_failure()
            if first.exitcode == 128 + signal.SIGTERM:
                sys.exit(first.exitcode)
            raise ValueError(_sentence(processes, rank, first)) from None
        except SignalException as error:
            sys.exit(128 + error.sigval)
    return found[0]


def _sentence(processes: int, rank: int, failure: Any) -> str:
    told = failure.message
    said = str(told.get("message", "") if isinstance(told, dict) else told)
    if said.startswith("ValueError: "):
        return said.removeprefix("ValueError: ")
    code = failure.exitcode
    how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"died with exit code {code}"
    last = f" ({said.strip().splitlines()[0]})" if code == 1 and said.strip() else ""
    return (
        f"process {rank} of {processes} {how}{last} and the others were stopped; the checkpoints are kept, the same "
        "command goes on from the last."
    )

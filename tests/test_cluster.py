"""The local cluster: workers have one thread each, and Dask does not keep them busy with watching itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from curation.early import WORKER_ENVIRONMENT
from tests.test_cli import ROOT

COMMAND = """
import gc
import json
import os

import dask

from curation import early


def about_a_worker():
    settings = ("distributed.worker.profile.enabled", "distributed.admin.tick.interval")
    return dict(os.environ), [dask.config.get(name) for name in settings], gc.get_freeze_count()


if __name__ == "__main__":
    early.start()
    from curation.cluster import connect, slots

    with connect(workers=2) as client:
        told = {"slots": slots(client), "workers": list(client.run(about_a_worker).values())}
    told["after"] = dask.config.get("distributed.worker.profile.enabled")
    print(json.dumps(told))
"""


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """By a process of its own, as a command is: this one may have started the workers' parent before."""
    command = tmp_path_factory.mktemp("cluster") / "command.py"
    command.write_text(COMMAND)
    bare = {name: value for name, value in os.environ.items() if name not in WORKER_ENVIRONMENT}  # else they would hold
    done = subprocess.run([sys.executable, command], capture_output=True, text=True, check=True, cwd=ROOT, env=bare)
    return json.loads(done.stdout)  # type: ignore[no-any-return]


def test_workers_have_the_settings_that_were_meant_for_them(told: dict[str, Any]) -> None:
    assert told["slots"] == len(told["workers"]) == 2
    for environment, settings, _ in told["workers"]:
        assert WORKER_ENVIRONMENT.items() <= environment.items()
        assert settings == [False, "500ms"]
    assert told["after"] is True, "the caller's own settings are as before"


def test_modules_that_workers_share_are_left_alone_by_the_collector(told: dict[str, Any]) -> None:
    assert all(frozen > 50_000 for _, _, frozen in told["workers"])

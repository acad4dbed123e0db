"""What tests share: synthetic films rendered once, real footage where it is to be had, a small cluster."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import cv2
import dask
import pytest
from distributed import Client, LocalCluster
from filelock import FileLock

from curation import recipes
from curation.recipe import Recipe
from curation.run import Result, run
from manifests.films.film import Truth
from manifests.films.sets import write_demo
from manifests.offline import SWITCHES
from tests.vllm_server import TinyServer

cv2.setNumThreads(1)


Made = TypeVar("Made")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Modules with slow tests go first, so that no process is left alone with one at the end."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Where tests run in several processes, those of a module stay together, and so do those that ask the vLLM server,
    of which there is one."""
    from xdist.scheduler import LoadScopeScheduling

    class ByModule(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            module = nodeid.split("::", 1)[0]
            return "vllm" if module.endswith("vllm.py") else module

    return ByModule(config, log)


def made_once(tmp_path_factory: pytest.TempPathFactory, name: str, make: Callable[[Path], Made]) -> Made:
    """What `make` gives for an empty folder; one of the test processes makes it, the others get a copy."""
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent
    kept = root / f"{name}.pickle"
    with FileLock(root / f"{name}.lock"):
        if not kept.exists():
            (root / name).mkdir()
            kept.write_bytes(pickle.dumps(make(root / name)))
    made: Made = pickle.loads(kept.read_bytes())
    return made


_DOWNLOADS = {name: os.environ.get(name) for name in SWITCHES}


@pytest.fixture(autouse=True)
def downloads_as_at_first() -> None:
    """A worker that was told to stay offline does so for good; where a test was one, the next is not."""
    for name, value in _DOWNLOADS.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Truth]]:
    """The demo's films and the truth about each, by name."""
    return made_once(tmp_path_factory, "demo", lambda to: (to, {Path(t.path).stem: t for t in write_demo(to)}))


@contextlib.contextmanager
def two_workers() -> Iterator[Client]:
    """A cluster of two workers in threads of this process: quick, and what they do can be watched.

    A test may keep the process busy for minutes; its workers are not given up for that.
    """
    with (
        dask.config.set({"distributed.scheduler.worker-ttl": None}),
        LocalCluster(n_workers=2, threads_per_worker=1, processes=False, dashboard_address=":0") as cluster,
        Client(cluster) as connected,
    ):
        yield connected


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    """One for each module, so that what befalls it stays there."""
    with two_workers() as connected:
        yield connected


@pytest.fixture(scope="session")
def recipe() -> Recipe:
    return recipes.embedded()


@pytest.fixture(scope="session")
def curated(demo: tuple[Path, dict[str, Truth]], recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Result:
    """The demo's films, curated once. Tests that change the folder copy it."""

    def make(to: Path) -> Result:
        with two_workers() as client:
            return run([str(demo[0])], to / "out", recipe, client=client)

    return made_once(tmp_path_factory, "curated", make)


@pytest.fixture(scope="session")
def vllm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TinyServer]:
    """A real server of a tiny video LLM; tests that need it are marked `vllm`, and skipped where `make vllm` was not
    run."""
    try:
        server = TinyServer(tmp_path_factory.mktemp("vllm"))
    except ValueError as error:
        pytest.skip(str(error))
    server.start()
    try:
        server.wait()
        yield server
    finally:
        server.kill()


@pytest.fixture(scope="session")
def footage() -> Path:
    """Real footage with truth sets; tests that need it are skipped where it is not."""
    named = os.environ.get("VIDCURATE_TEST_VIDEOS")
    if not named or not Path(named).is_dir():
        pytest.skip("VIDCURATE_TEST_VIDEOS names no folder with footage")
    return Path(named)


def read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines() if line.strip()]

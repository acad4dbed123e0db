"""What tests share: synthetic films rendered once, real footage where it is to be had, a small cluster."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import dask
import pytest
from distributed import Client, LocalCluster

from curation import recipes
from curation.recipe import Recipe
from curation.run import Result, run
from manifests.films.film import Truth
from manifests.films.sets import write_demo
from tests.vllm_server import TinyServer

cv2.setNumThreads(1)


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Truth]]:
    """The demo's films and the truth about each, by name."""
    folder = tmp_path_factory.mktemp("demo")
    return folder, {Path(t.path).stem: t for t in write_demo(folder)}


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
    out = tmp_path_factory.mktemp("curated") / "out"
    with two_workers() as client:
        return run([str(demo[0])], out, recipe, client=client)


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

"""The import graph is a DAG of packages, and who may know what is held here."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ALLOWED = {
    "manifests": {"manifests"},
    "filters": {"filters", "manifests"},
    "dedup": {"dedup", "manifests"},
    "captioners": {"captioners", "manifests"},
    "generator": {"generator", "manifests"},
    "curation": {"curation", "filters", "dedup", "captioners", "generator", "manifests"},
}
FORBIDDEN = {
    "manifests": {"dask", "distributed", "torch"},
    "filters": {"dask", "distributed"},
    "dedup": {"dask", "distributed"},
    "captioners": {"dask", "distributed"},
    "generator": {"dask", "distributed"},
    "curation": set(),
}


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize("package", ALLOWED)
def test_packages_import_only_what_lies_below_them(package: str) -> None:
    for path in (ROOT / package).rglob("*.py"):
        names = imported(path)
        assert names & set(ALLOWED) <= ALLOWED[package], path
        assert not names & FORBIDDEN[package], path


def test_the_import_graph_test_sees_imports() -> None:
    assert {"manifests", "curation", "filters"} <= imported(ROOT / "curation" / "decide.py")


@pytest.mark.parametrize("package", ["manifests.media.scan", "filters.motion.vmaf", "curation.cli", "generator"])
def test_heavy_libraries_wait_until_they_are_used(package: str) -> None:
    code = f"import sys, {package}; print(sorted({{'torch', 'torchvision', 'paddle', 'rapidocr'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_no_file_needs_much_scrolling() -> None:
    files = [p for p in ROOT.glob("*/**/*.py") if not p.relative_to(ROOT).parts[0].startswith(".")]
    long = {p: n for p in files if (n := len(p.read_text().splitlines())) > 450}
    assert not long

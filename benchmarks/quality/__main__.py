"""Command line of the quality benchmark."""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

import benchmarks.quality as quality
from benchmarks.quality import Row
from curation.job import pin_threads


def main() -> None:
    options = argparse.ArgumentParser(
        prog="python -m benchmarks.quality",
        description=quality.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    options.add_argument("footage", type=Path, help="folder that holds public_truth/")
    options.add_argument("--only", action="append", metavar="SECTION", help=", ".join(quality.sections()))
    options.add_argument("--save", type=Path, metavar="FILE.json", help="sections that it has already are kept")
    chosen = options.parse_args()
    pin_threads()
    results: dict[str, list[Row]] = {}
    for name in chosen.only or quality.sections():
        try:
            results[name] = quality.section(name)(chosen.footage)
        except ValueError as error:
            print(f"{name}: {error}", file=sys.stderr)
            continue
        show(name, results[name])
    if chosen.save:
        save(chosen.save, results)
    if not results:
        sys.exit(1)


def show(name: str, rows: list[Row]) -> None:
    """Prints neighbouring rows with equal keys as one table."""
    console = Console(width=None if sys.stdout.isatty() else 160)
    for keys, group in itertools.groupby(rows, key=tuple):
        table = Table(*keys, title=name, title_justify="left")
        for row in group:
            table.add_row(*("" if value is None else str(value) for value in row.values()))
        console.print(table)


def save(path: Path, results: dict[str, list[Row]]) -> None:
    known = json.loads(path.read_text())["sections"] if path.is_file() else {}
    machine = {
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"machine": machine, "sections": {**known, **results}}, indent=1) + "\n")


if __name__ == "__main__":
    main()

"""How good the measures are, held against what is known of a folder of real footage.

`python -m benchmarks.quality FOOTAGE [--only cuts] [--save FILE.json]`

FOOTAGE has a folder `public_truth` with one JSON object a line in `cuts.jsonl`, `motion.jsonl`, `tags.jsonl` and so on.

Every module here that has a function `measure(folder: Path) -> list[Row]` is a section, called by its name; one whose
name begins with an underscore is none. A row is a dict of column name to text, number or None; neighbouring rows with
the same keys are printed as one table. A section that cannot run here raises ValueError with one sentence.
"""

from __future__ import annotations

import importlib
import json
import pkgutil
from collections.abc import Callable
from pathlib import Path

Row = dict[str, str | int | float | None]
Section = Callable[[Path], list[Row]]


def sections() -> list[str]:
    """Names of all sections, in alphabetical order."""
    names = [module.name for module in pkgutil.iter_modules(__path__)]
    return [n for n in names if not n.startswith("_")]


def section(name: str) -> Section:
    """Raises ValueError when there is none of that name."""
    if name not in sections():
        raise ValueError(f"there is no section {name!r}; choose from {', '.join(sections())}.")
    return importlib.import_module(f"{__name__}.{name}").measure  # type: ignore[no-any-return]


def read_truth(folder: Path, name: str) -> list[dict]:
    """Lines of `folder/public_truth/name`; `file` becomes a Path. Raises ValueError when there is no such file."""
    path = folder / "public_truth" / name
    if not path.is_file():
        raise ValueError(f"{path} does not exist; name a folder that holds public_truth/{name}.")
    rows = [json.loads(line) for line in path.read_text().splitlines() if line.strip()]
    return [{**row, "file": path.parent / row["file"]} if "file" in row else row for row in rows]


def counted(true: int, wrong: int, missed: int) -> Row:
    """Precision, recall and F1 of these counts; None where there is nothing to divide by."""
    return {
        "found": true,
        "wrong": wrong,
        "missed": missed,
        "precision": _share(true, true + wrong),
        "recall": _share(true, true + missed),
        "f1": _share(2 * true, 2 * true + wrong + missed),
    }


def _share(part: int, whole: int) -> float | None:
    return round(part / whole, 4) if whole else None

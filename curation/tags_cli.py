"""`vidcurate tags`: training the embedded classifiers of negative tags on labels of one's own."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Annotated, Any

import pyarrow as pa
import pyarrow.parquet as pq
import typer
from rich.console import Console
from rich.table import Table

from filters.tags.fit import Fit, fit
from manifests.schema import TAG_NAMES
from manifests.store import read_clips

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Train the embedded classifiers of negative tags.")

_WIDTH = 110
_TRUTH = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False, "": None}


@app.callback()
def tags() -> None:
    """Train the embedded classifiers of negative tags."""


@app.command("fit")
def fit_command(
    labels: Annotated[Path, typer.Argument(help="Parquet or CSV: clip_id or uri, and a column of true/false per tag.")],
    manifest: Annotated[Path, typer.Option("--manifest", help="Folder that `vidcurate run --out` wrote.")],
    out: Annotated[Path, typer.Option("--out", help="The .json to write.")],
    about: Annotated[str, typer.Option("--about", help="A sentence on the labels, kept in the file.")] = "",
    seed: Annotated[int, typer.Option("--seed", help="Of the random tenth that is held out.")] = 0,
) -> None:
    """Fit one classifier per tag, test them on a held-out tenth, and write their weights.

    An empty label is left out. Tags without a column keep no classifier.

    Example: vidcurate tags fit labels.csv --manifest out --out tags.json

    Then: vidcurate judge out --set derived.NegativeTags.weights=tags.json
    """
    rows = _read(labels)
    clips = read_clips(manifest)
    chosen, truth = _join(rows, clips, labels, manifest)
    result = fit(chosen, truth, about or f"{chosen.num_rows} clips labelled in {labels.name}", seed)
    out.parent.mkdir(parents=True, exist_ok=True)
    result.model.save(out)
    _print(result, out)


def _read(path: Path) -> list[dict[str, Any]]:
    """Rows of a file of labels, with one boolean or None per tag that it has. Raises ValueError with one sentence."""
    if not path.is_file():
        raise ValueError(f"{path}: there is no such file of labels; check the path.")
    try:
        if path.suffix.lower() == ".csv":
            with path.open(newline="") as file:
                rows: list[dict[str, Any]] = list(csv.DictReader(file))
        else:
            rows = pq.read_table(path).to_pylist()
    except (pa.ArrowInvalid, UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} cannot be read ({error}); give a Parquet or CSV file.") from None
    if not rows:
        raise ValueError(f"{path} holds no labels; give at least one row per clip.")
    names = [name for name in rows[0] if name.removeprefix("tag_") in TAG_NAMES]
    if not names or not {"clip_id", "uri"} & set(rows[0]):
        raise ValueError(
            f"{path} has the columns {', '.join(rows[0])}; needed are clip_id or uri, and one or more of "
            f"{', '.join(TAG_NAMES)}."
        )
    keys = [key for key in ("clip_id", "uri") if key in rows[0]]
    return [
        {key: row[key] for key in keys} | {name.removeprefix("tag_"): _truth(row[name], path) for name in names}
        for row in rows
    ]


def _truth(value: Any, path: Path) -> bool | None:
    if value is None or isinstance(value, bool):
        return value
    text = str(value).strip().lower()
    if text not in _TRUTH:
        raise ValueError(f"{path}: {value!r} is no label; write true, false, or nothing where it is not known.")
    return _TRUTH[text]


def _join(
    rows: list[dict[str, Any]], clips: pa.Table, labels: Path, manifest: Path
) -> tuple[pa.Table, dict[str, list[bool | None]]]:
    """The clips that have a label, by clip_id before uri, and their labels."""
    found: dict[str, dict[str, Any]] = {}
    for key in ("uri", "clip_id"):
        named = {row[key]: row for row in rows if row.get(key)}
        for clip, name in zip(clips["clip_id"].to_pylist(), clips[key].to_pylist(), strict=True):
            if name in named:
                found[clip] = named[name]
    if not found:
        raise ValueError(
            f"{labels} and {manifest} have no clip in common; the labels' clip_id or uri must be the manifest's."
        )
    chosen = clips.filter(pa.array([clip in found for clip in clips["clip_id"].to_pylist()]))
    ids = chosen["clip_id"].to_pylist()
    tags = [name for name in TAG_NAMES if name in rows[0]]
    return chosen, {tag: [found[clip][tag] for clip in ids] for tag in tags}


def _print(result: Fit, out: Path) -> None:
    table = Table(
        "tag", "trained with", "without", "tested", "TP", "FP", "TN", "FN", "accuracy",
        title="Held-out tenth; TP, FP, TN, FN are shares of it, a positive carries the tag",
    )  # fmt: skip
    for classifier, test in zip(result.model.classifiers, result.tests, strict=True):
        shares = [f"{n / max(1, test.clips):.2f}" for n in (test.tp, test.fp, test.tn, test.fn)]
        counts = [str(n) for n in (*classifier.trained_on, test.clips)]
        table.add_row(test.tag, *counts, *shares, f"{test.accuracy:.2f}")
    console = Console()
    if console.width < _WIDTH:
        console = Console(width=_WIDTH)  # a tag whose name is cut off is of no use
    console.print(table)
    for tag, why in result.skipped.items():
        console.print(f"{tag} was not trained: {why}", highlight=False, markup=False)
    console.print(f"weights   {out}", highlight=False, soft_wrap=True, markup=False)

"""The page of a comparison: table, intervals, curves, and what the papers found. All text is escaped."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from curation.ablate.compare import ALL, Comparison, Report
from curation.ablate.published import PUBLISHED, found_for
from curation.report.plots import Plot, line_plot, span_plot
from curation.report.rendering import environment


def write_page(report: Report) -> Path:
    """Writes ablation.html into the comparison's folder."""
    html = (
        environment()
        .get_template("ablation.html.j2")
        .render(
            recipe=report.plan.recipe.name,
            seeds=report.plan.seeds,
            clips=len(report.choice.passing),
            held=report.held,
            films=report.films,
            comparisons=report.comparisons,
            spans=span_plot([_span(c) for c in report.comparisons]),
            curves=[plot for plot in _curves(report.comparisons) if plot],
            published=PUBLISHED,
            found_for=found_for,
        )
    )
    file = report.plan.out / "ablation.html"
    file.write_text(html)
    return file


def _span(c: Comparison) -> tuple[str, float, float, float, bool | None]:
    good = None if not c.decisive.beside_zero else (c.decisive.mean > 0) == c.better_high
    return c.trained.side.name, 100 * c.share.low, 100 * c.share.mean, 100 * c.share.high, good


def _curves(comparisons: Sequence[Comparison]) -> list[Plot | None]:
    """One for each model and stage: the sides' mean loss over their seeds."""
    sides = [(ALL, c.base) for c in comparisons] + [(c.trained.side.name, c.trained) for c in comparisons]
    by_model: dict[str, dict[str, Sequence[tuple[float, float]]]] = {}
    for name, trained in sides:
        for model, points in _means([folder / "log.jsonl" for folder in trained.folders]).items():
            by_model.setdefault(model, {})[name] = points
    return [line_plot(f"loss, {model}", series, log=True) for model, series in by_model.items()]


def _means(logs: Sequence[Path]) -> Mapping[str, Sequence[tuple[float, float]]]:
    found: dict[str, dict[int, list[float]]] = {}
    for log in logs:
        for line in map(json.loads, log.read_text().splitlines()):
            found.setdefault(line["model"], {}).setdefault(line["step"], []).append(line["loss"])
    return {
        model: [(step, float(np.mean(losses))) for step, losses in sorted(steps.items())]
        for model, steps in found.items()
    }

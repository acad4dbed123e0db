"""`vidcurate ablate`: does a rule, or a choice of model or method, help?"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from curation.ablate.choose import Amounts
from curation.ablate.compare import Plan, Report, compare
from curation.ablate.published import found_for

_AMOUNTS = Amounts()


def ablate(
    folder: Annotated[Path, typer.Argument(help="Folder that `vidcurate run --out` wrote.")],
    without: Annotated[
        list[str] | None, typer.Option("--without", help="A rule to leave out; may be repeated; or several, by commas.")
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            help="KEY=VALUE on top of the training recipe, or several of one side, separated by spaces; "
            "may be repeated.",
        ),
    ] = None,
    recipe: Annotated[str, typer.Option("--recipe", help="Name of a training recipe.")] = "tiny_cogvideox",
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder for trainings and page; DIR/ablate if none.")
    ] = None,
    steps: Annotated[
        int | None, typer.Option("--steps", min=1, help="Of each stage, in place of the recipe's.")
    ] = None,
    vae_steps: Annotated[int | None, typer.Option("--vae-steps", min=1, help="Of the VAE, likewise.")] = None,
    seeds: Annotated[
        int, typer.Option("--seeds", min=1, help="Trainings of each side; more make intervals narrower.")
    ] = 3,
    clips: Annotated[int, typer.Option("--clips", help="Most clips to train on.")] = _AMOUNTS.clips,
    held_out: Annotated[int, typer.Option("--held-out", help="Most clips to measure on.")] = _AMOUNTS.held_out,
    share: Annotated[
        float | None,
        typer.Option("--share", help="Of the clips without the rule that it rejects; as in the manifest if none."),
    ] = None,
) -> None:
    """Train the same small model with and without a rule, or with another choice, and compare their held-out loss.

    The side without a rule trains on as many clips, some of which only that rule rejects. Both are measured on clips
    that pass all rules, of films that neither has seen. Choices of the VAE (vae., vae_stages.) are compared by PSNR.
    Goes on where it was stopped. Writes ablation.json and ablation.html, with the papers' own figures beside.

    Examples:

      vidcurate ablate out --without motion --without text

      vidcurate ablate out --model system.dit.use_rotary_positional_embeddings=false --model system.groups=1

      vidcurate ablate out --recipe tiny_stiv --model "system.dit.qk_norm=false system.dit.sandwich=false"

      vidcurate ablate out --recipe tiny_moviegen --model vae_stages.vae.loss.outliers=1 --seeds 5
    """
    from generator import recipes

    rules = [name.strip() for said in without or [] for name in said.split(",") if name.strip()]
    amounts = Amounts(clips, held_out, share)
    named = recipes.named(recipe)
    plan = Plan(str(folder), out or folder / "ablate", named, rules, model or [], amounts, seeds, steps, vae_steps)
    report = compare(plan, lambda text: print(text, file=sys.stderr))
    from curation.ablate.page import write_page

    page = write_page(report)
    console = Console()
    console.print(table(report))
    for note in notes(report):
        console.print(note, highlight=False, markup=False)
    print(f"page      {page}")


def table(report: Report) -> Table:
    made = Table("side", "decided by", "mean", "difference", "verdict")
    plan, clips = report.plan, len(report.choice.passing)
    made.title = (
        f"{plan.recipe.name}: {plan.seeds} seeds, {clips} clips; {report.held} of {report.films} other films held out"
    )
    made.columns[0].ratio, made.columns[0].overflow = 1, "fold"
    for c in report.comparisons:
        share = c.share
        made.add_row(
            Text(c.trained.side.name),
            c.measure,
            f"{c.trained.mean(c.measure):.4g}\nnot {c.base.mean(c.measure):.4g}",
            f"{100 * share.mean:+.2f} %\n{100 * share.low:+.2f} .. {100 * share.high:+.2f}",
            c.verdict,
        )
    return made


def notes(report: Report) -> list[str]:
    """What the table does not say: how small a difference can be seen, and what the papers found."""
    said = []
    for c in report.comparisons:
        if c.verdict == "no difference seen":
            width = 50 * (c.share.high - c.share.low)
            seeds = ", ".join(f"{100 * share:+.1f}" for share in c.by_seed)
            said.append(
                f"{c.trained.side.name}: only a difference of about {width:.1f} % would be seen (by seed {seeds} %); "
                "more --seeds and more films narrow it."
            )
        said += [f"{c.trained.side.name}: {theirs.paper}: {theirs.found}." for theirs in found_for(c.trained.side.name)]
    return said

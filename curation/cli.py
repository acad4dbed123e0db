"""The command line: `vidcurate COMMAND --help` shows examples of each.

Exit codes: 0 well; 1 a run without a single row, with more failures than allowed, with clips that its captioner never
answered about, or with --strict and any failure; 2 wrong use, said in one sentence.
"""

from __future__ import annotations

import importlib.metadata
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from captioners.servers import is_here
from curation import doctor as doctor_module
from curation import explain, recipes
from curation.ablate.cli import ablate
from curation.captioning.asking import Asking
from curation.captioning.cli import asked, caption, prompt, serve
from curation.checking.cli import check_command
from curation.export import FORMATS
from curation.export import export as export_clips
from curation.folder import Folder
from curation.judging.cli import compare, sample, votes
from curation.models_cli import models
from curation.picking_cli import retrieve, similar
from curation.recipe import Recipe, with_settings
from curation.report.training import write_training
from curation.review.cli import review
from curation.run import Result, plan_run, run
from curation.tags_cli import app as tags_app
from curation.training_cli import average, generate, train, train_into
from manifests.media.container import is_remote
from manifests.offline import go_offline

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    epilog="Start with: vidcurate run VIDEOS --out DIR",
)

app.add_typer(tags_app, name="tags")
app.command()(similar)
app.command()(retrieve)
app.command()(review)
app.command()(caption)
app.command()(prompt)
app.command(context_settings={"allow_extra_args": True})(serve)
app.command("check")(check_command)
app.command()(models)
app.command()(train)
app.command()(average)
app.command()(generate)
app.command()(ablate)
app.command()(sample)
app.command()(compare)
app.command()(votes)

Sources = Annotated[list[str], typer.Argument(help="Files, folders, globs, lists (txt, jsonl, parquet) or URLs.")]
Out = Annotated[Path, typer.Option("--out", help="Folder to write; an earlier run in it is resumed.")]
Dir = Annotated[Path, typer.Argument(help="Folder that `vidcurate run --out` wrote.")]
Fresh = Annotated[bool, typer.Option("--fresh", help="Forget an earlier training in the folder.")]
RecipeName = Annotated[str, typer.Option("--recipe", help="NAME[:variant][+learned], or FILE.py[:function].")]
Settings = Annotated[list[str] | None, typer.Option("--set", help="key=value on top of the recipe; may be repeated.")]
Workers = Annotated[
    int | None, typer.Option("--workers", min=1, help="Local worker processes; one per core by default.")
]
Scheduler = Annotated[
    str | None, typer.Option("--scheduler", help="Address of a running Dask scheduler, tcp://HOST:PORT.")
]
Offline = Annotated[bool, typer.Option("--offline", help="Refuse the network: no remote source, no model download.")]
MeasureAll = Annotated[
    bool, typer.Option("--measure-all", help="Measure costly signals of already rejected clips too.")
]
Captioner = Annotated[
    list[str] | None, typer.Option("--captioner", help="Address of a server whose model captions; may be repeated.")
]
ModelName = Annotated[
    list[str] | None, typer.Option("--model", help="Model that captions; the one that is served if none.")
]
AskTags = Annotated[bool, typer.Option("--ask-tags", help="Ask the model for negative tags, in place of classifiers.")]
MaxFailures = Annotated[int | None, typer.Option("--max-failures", min=0, help="Exit with 1 when more inputs fail.")]
Strict = Annotated[bool, typer.Option("--strict", help="Exit with 1 when any input fails.")]


def main() -> None:
    """Runs a command; a ValueError is the user's to mend and is said in one sentence."""
    try:
        app()
    except ValueError as error:
        print(f"vidcurate: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("vidcurate: stopped; the same command goes on from here.", file=sys.stderr)
        sys.exit(130)


def _say_version(wanted: bool) -> None:
    if wanted:
        print(f"vidcurate {importlib.metadata.version('vidcurate')}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_say_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    """Turns raw video into training data for video generators, and trains one on it."""


def _recipe(name: str, settings: list[str] | None) -> Recipe:
    return with_settings(recipes.find(name), settings or [])


@app.command("run")
def run_command(
    sources: Sources,
    out: Out,
    recipe: RecipeName = "embedded",
    settings: Settings = None,
    workers: Workers = None,
    scheduler: Scheduler = None,
    offline: Offline = False,
    measure_all: MeasureAll = False,
    captioner: Captioner = None,
    model: ModelName = None,
    ask_tags: AskTags = False,
    max_failures: MaxFailures = None,
    strict: Strict = False,
) -> None:
    """Curate videos: split, measure, decide, caption, report. A second call resumes.

    Examples:

      vidcurate run videos/ --out out

      vidcurate run 's3://bucket/raw/*.mp4' --out out --scheduler tcp://10.0.0.1:8786

      vidcurate run videos/ --out out --set rules.text.high=0.02 --set copies.mirror=true

      vidcurate run videos/ --out out --captioner http://localhost:8000 --model Qwen/Qwen2.5-VL-7B-Instruct
    """
    asking = asked(captioner, model, ask_tags)
    result = _run(sources, out, recipe, settings, workers, scheduler, offline, measure_all, asking)
    _finish_run(result, max_failures, strict)


def _run(
    sources: list[str],
    out: Path,
    recipe: str,
    settings: list[str] | None,
    workers: int | None,
    scheduler: str | None,
    offline: bool,
    measure_all: bool,
    asking: Asking | None = None,
) -> Result:
    if workers and scheduler:
        raise ValueError("--workers and --scheduler exclude each other; the scheduler has workers of its own.")
    if offline:
        remote = [s for s in sources if is_remote(s)]
        if remote:
            raise ValueError(f"--offline: {remote[0]} is on the network; give a local path.")
        away = [s for s in (asking.servers if asking else ()) if not is_here(s)]
        if away:
            raise ValueError(f"--offline: the captioner {away[0]} is on the network; serve it on this machine.")
        go_offline()
    origin: dict[str, Any] = {"recipe": _absolute(recipe), "set": settings or []}
    return run(
        sources,
        out,
        _recipe(recipe, settings),
        workers=workers,
        scheduler=scheduler,
        measure_all=measure_all,
        asking=asking,
        origin=origin,
    )


def _absolute(recipe: str) -> str:
    """A recipe file under a name that later commands find from anywhere."""
    path, colon, function = recipe.partition(":")
    return f"{Path(path).resolve()}{colon}{function}" if path.endswith(".py") else recipe


def _finish_run(result: Result, max_failures: int | None, strict: bool) -> None:
    _summary(result)
    failures = result.counts["quarantined"]
    if not result.clips.num_rows:
        _give_up("no clip came out of these inputs; videos.parquet says why")
    if max_failures is not None and failures > max_failures:
        _give_up(f"{failures} inputs failed, {max_failures} are allowed; videos.parquet says why")
    if result.uncaptioned:
        _give_up(result.uncaptioned)
    if strict and failures:
        _give_up(f"{failures} inputs failed and --strict allows none; videos.parquet says why")


def _give_up(reason: str) -> None:
    print(f"vidcurate: {reason}.", file=sys.stderr)
    raise typer.Exit(1)


def _summary(result: Result) -> None:
    folder = Folder(result.out)
    from curation.report.numbers import funnel

    console = Console()
    table = Table("rule", "keeps a clip when", "alone", "first", "left", title=f"{result.clips.num_rows} clips")
    for step in funnel(result.clips, folder.recipe):
        table.add_row(step.name, step.condition, str(step.alone), str(step.first), str(step.left))
    console.print(table)
    console.print(", ".join(f"{n} {name}" for name, n in result.counts.items()), highlight=False)
    console.print(f"manifest  {folder.store.full('clips.parquet')}", highlight=False, soft_wrap=True)
    console.print(f"report    {folder.store.full('report.html')}", highlight=False, soft_wrap=True)


@app.command()
def plan(sources: Sources, out: Out, recipe: RecipeName = "embedded", settings: Settings = None) -> None:
    """Show what a run would do and what is done already; runs nothing.

    Example: vidcurate plan videos/ --out out
    """
    for line in plan_run(sources, out, _recipe(recipe, settings)):
        print(line)


@app.command()
def status(folder: Dir) -> None:
    """Show what each stage did, and what failed.

    Example: vidcurate status out
    """
    for line in explain.status(Folder(folder)):
        print(line)


@app.command()
def report(
    folder: Dir,
    name: Annotated[bool, typer.Option("--name-concepts", help="Name concepts in words first, by CLIP.")] = False,
    phrases: Annotated[str, typer.Option("--phrases", help="File of names to choose from; ours if none.")] = "",
) -> None:
    """Write DIR/report.html again: of a run from the stored tables, of a training from its log and samples.

    Examples:

      vidcurate report out

      vidcurate report out/train
    """
    if not (folder / "run.json").exists() and (folder / "train.json").exists():
        print(write_training(folder))
        return
    if name:
        from curation.concept_names import name_them

        name_them(Folder(folder), phrases)
    print(Folder(folder).report())


@app.command()
def judge(
    folder: Dir,
    recipe: Annotated[
        str | None, typer.Option("--recipe", help="Take rules, copies and resampling from this one.")
    ] = None,
    settings: Settings = None,
) -> None:
    """Apply rules, copies and resampling anew to the stored signals; no video is decoded.

    Example: vidcurate judge out --set rules.text.high=0.02 --set rules.shaky=off
    """
    _summary(Folder(folder).judge(recipe and _absolute(recipe), settings or []))


@app.command()
def why(folder: Dir, clip: Annotated[str, typer.Argument(help="A clip_id, or the beginning of one.")]) -> None:
    """Say everything about one clip: signals, rules, decisions.

    Example: vidcurate why out 3f2a
    """
    for line in explain.why(Folder(folder), clip):
        print(line)


@app.command()
def doctor() -> None:
    """Say what is installed, what missing features need, and what this machine offers.

    Example: vidcurate doctor
    """
    table = Table("", "what", "found", "remedy", box=None)
    findings = doctor_module.examine()
    for finding in findings:
        table.add_row(
            "ok" if finding.well else "--", finding.what, finding.says, "" if finding.well else finding.remedy
        )
    Console().print(table, highlight=False, markup=False)
    if not findings[0].well:
        raise typer.Exit(1)


@app.command()
def export(
    folder: Dir,
    kind: Annotated[str, typer.Option("--format", help=f"{', '.join(FORMATS)}.")],
    to: Annotated[Path, typer.Option("--to", help="Folder to write.")],
    which: Annotated[str, typer.Option("--which", help="sampled or kept.")] = "sampled",
    short: Annotated[int, typer.Option("--short", min=0, help="Scale down to this short side; 0 keeps the size.")] = 0,
    crop: Annotated[bool, typer.Option("--crop/--whole", help="Cut borders off, or keep the whole picture.")] = True,
) -> None:
    """Hand the clips over to other tools; only here is footage encoded again.

    sharegpt, llava and summaries are sets to fine-tune a captioner on: frames or their captions, and the clip's.

    Example: vidcurate export out --format webdataset --to shards --short 480
    """
    count = export_clips(Folder(folder), kind, to, which, short, crop, say=lambda text: print(text, file=sys.stderr))
    print(f"{count} clips in {to}")


@app.command("end-to-end")
def end_to_end(
    sources: Sources,
    out: Out,
    train_recipe: Annotated[str, typer.Option("--train-recipe", help="Name of a training recipe.")] = "tiny_cogvideox",
    recipe: RecipeName = "embedded",
    settings: Settings = None,
    workers: Workers = None,
    scheduler: Scheduler = None,
    offline: Offline = False,
    prompt: Annotated[
        str | None, typer.Option("--prompt", help="Of the sample; a training caption by default.")
    ] = None,
    captioner: Captioner = None,
    model: ModelName = None,
    fresh: Fresh = False,
    max_failures: MaxFailures = None,
    strict: Strict = False,
) -> None:
    """Curate, train on the result, and sample a clip: one command.

    Example: vidcurate end-to-end videos/ --out out
    """
    import generator
    from generator import recipes as training

    training.named(train_recipe)  # a wrong name is said before hours of curation, not after
    asking = asked(captioner, model)
    result = _run(sources, out, recipe, settings, workers, scheduler, offline, measure_all=False, asking=asking)
    _finish_run(result, max_failures, strict)
    checkpoint = train_into(out, out / "train", train_recipe, fresh)
    words = prompt or next((c for c in result.clips.filter(result.clips["sampled"])["caption"].to_pylist() if c), "")
    sample = generator.generate(checkpoint, words, out / "sample.mp4")
    Folder(out).report()  # with the training on it
    print(f"training  {checkpoint}\nsample    {sample}  ({words})")

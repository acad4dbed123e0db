"""Trains the sides of a comparison and holds them against each other on the same held-out clips.

Everything that decides a training is in the name of its folder, so a second call goes on where the first was stopped,
and other settings train beside what is there.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.compute as pc

from curation.ablate.choose import Amounts, Choice, choose, rule_names, write_part
from curation.ablate.statistics import Interval, interval, uncovered
from curation.recipe import replaced
from manifests.ids import fingerprint

if TYPE_CHECKING:
    from generator.ablation import HeldClips, Scores
    from generator.recipe import Recipe

_OF_VAES = ("vae", "vae_stages")
_FIXED = ("data", "seed", "name", "samples")
ALL = "all rules"


@dataclass(frozen=True, slots=True)
class Plan:
    """What is compared. without: names of rules. model: KEY=VALUE, or several of a side, separated by spaces. steps,
    vae_steps: in place of the recipe's."""

    folder: str
    out: Path
    recipe: Recipe
    without: Sequence[str] = ()
    model: Sequence[str] = ()
    amounts: Amounts = Amounts()  # noqa: RUF009  (frozen)
    seeds: int = 3
    steps: int | None = None
    vae_steps: int | None = None

    def __post_init__(self) -> None:
        if not self.without and not self.model:
            raise ValueError("name what to leave out or to change: --without RULE or --model KEY=VALUE.")
        if self.seeds < 1:
            raise ValueError("--seeds must be at least 1.")


@dataclass(frozen=True, slots=True)
class Side:
    """One side: its clips by seed, its recipe, and how many of its clips only the left-out rule rejects."""

    name: str
    kind: str
    recipe: Recipe
    clips: Sequence[Sequence[str]]
    of_vaes: bool = False
    mixed_in: int = 0


@dataclass(frozen=True, slots=True)
class Trained:
    """A side's folders and scores, by seed."""

    side: Side
    folders: Sequence[Path]
    scores: Sequence[Scores]

    def mean(self, measure: str) -> float:
        return float(np.mean([score[measure] for score in self.scores]))


@dataclass(frozen=True, slots=True)
class Comparison:
    """A side against that with all rules and the plain recipe. differences: by measure, the side's minus the other's.
    measure: the one that decides. better_high: whether more of it is better. uncovered: what the intervals say nothing
    about, "" where they are whole."""

    trained: Trained
    base: Trained
    measure: str
    better_high: bool
    differences: dict[str, Interval]
    uncovered: str = ""

    @property
    def decisive(self) -> Interval:
        return self.differences[self.measure]

    @property
    def verdict(self) -> str:
        """In words."""
        found, rule = self.decisive, self.trained.side.kind == "rule"
        if self.uncovered:
            return f"cannot tell: {self.uncovered} may differ"
        if not found.beside_zero:
            return "no difference seen"
        worse = (found.mean < 0) == self.better_high
        if rule:
            return "the rule helps" if worse else "the rule hurts"
        return "worse" if worse else "better"

    @property
    def by_seed(self) -> list[float]:
        """The difference of each pair of trainings, as a share of the other side's mean."""
        by, pairs = abs(self.base.mean(self.measure)) or 1.0, zip(self.trained.scores, self.base.scores, strict=True)
        return [float(np.mean(mine[self.measure] - theirs[self.measure])) / by for mine, theirs in pairs]

    @property
    def share(self) -> Interval:
        """The difference as a share of the other side's mean."""
        by, found = abs(self.base.mean(self.measure)) or 1.0, self.decisive
        return Interval(found.mean / by, found.low / by, found.high / by)


@dataclass(frozen=True, slots=True)
class Report:
    """held, films: clips that were measured on, and the films they are of."""

    plan: Plan
    choice: Choice
    held: int
    films: int
    comparisons: Sequence[Comparison]


def compare(plan: Plan, say: Callable[[str], None] = lambda text: None, progress: Any = None) -> Report:
    """Trains what is not trained yet, measures, compares, and writes `ablation.json`. Raises ValueError."""
    choice, sides = prepare(plan)
    from generator import ablation

    held_folder = write_part(plan.folder, choice.held, str(plan.out / "held_out"))
    clips = ablation.held_clips(held_folder, plan.recipe)
    kinds = len({side.of_vaes for side in sides})
    say = _counting(say, (len(sides) + kinds) * plan.seeds)
    bases: dict[bool, Trained] = {}
    made = []
    for side in sides:
        if side.of_vaes not in bases:
            plain = Side(ALL, "base", plan.recipe, [choice.passing] * plan.seeds, side.of_vaes)
            bases[side.of_vaes] = _trained(plan, plain, choice, clips, say, progress)
        trained = _trained(plan, side, choice, clips, say, progress)
        made.append(_compared(trained, bases[side.of_vaes], clips))
    report = Report(plan, choice, len(clips.rows), len(set(clips.films)), made)
    (plan.out / "ablation.json").write_text(json.dumps(as_json(report), indent=1) + "\n")
    return report


def _counting(say: Callable[[str], None], total: int) -> Callable[[str], None]:
    """Says which training of how many begins."""
    numbers = itertools.count(1)
    return lambda text: say(f"training {next(numbers)} of {total}: {text}")


def prepare(plan: Plan) -> tuple[Choice, list[Side]]:
    """The clips and the sides, the plain one aside; whatever is wrong with the plan is said here, before any work."""
    if getattr(plan.recipe.data, "buckets", None):
        raise ValueError(f"recipe {plan.recipe.name} trains on buckets; a comparison needs a recipe of one size.")
    window = plan.recipe.data.fill * plan.recipe.data.frames / plan.recipe.data.fps * 1e6
    usable = (pc.field("end_us") - pc.field("start_us")) >= int(window)
    changed = [_changed(plan.recipe, settings) for settings in plan.model]
    choice = choose(plan.folder, plan.without, rule_names(plan.folder), plan.amounts, usable)
    sides = []
    for rule in plan.without:
        drawn = [choice.without(rule, plan.amounts.share, seed) for seed in range(plan.seeds)]
        sides.append(Side(f"without {rule}", "rule", plan.recipe, [ids for ids, _ in drawn], mixed_in=drawn[0][1]))
    for settings, recipe in zip(plan.model, changed, strict=True):
        of_vaes = _head(settings) in _OF_VAES
        sides.append(Side(" ".join(settings.split()), "model", recipe, [choice.passing] * plan.seeds, of_vaes))
    return choice, sides


def _changed(recipe: Recipe, settings: str) -> Recipe:
    """With all settings of a side."""
    heads = [_head(setting) for setting in settings.split()]
    for head in heads:
        if head in _FIXED:
            raise ValueError(
                f"--model {settings}: {head} is the same on both sides of a comparison; change the recipe itself."
            )
    if len({head in _OF_VAES for head in heads}) != 1:
        raise ValueError(
            f"--model {settings!r}: a side is about the VAE (vae., vae_stages.) or about the transformer; give each "
            "its own --model."
        )
    if heads[0] in _OF_VAES:  # then no transformer is trained, that would have to fit
        recipe = dataclasses.replace(recipe, stages=())
    changed = recipe
    for setting in settings.split():
        changed = replaced(_open_to(changed, setting), setting, "--model")
    if changed == recipe:
        raise ValueError(f"--model {settings}: that is what recipe {recipe.name} has already.")
    return changed


def _head(setting: str) -> str:
    return setting.strip().partition("=")[0].partition(".")[0]


def _open_to(recipe: Recipe, setting: str) -> Recipe:
    """With a transformer that has the papers' choices, where one of them is meant."""
    from generator.dit.choices import opened

    place, _, name = setting.partition("=")[0].rpartition(".")
    dit = opened(getattr(recipe.system, "dit", None), name) if place == "system.dit" else None
    if dit is None:
        return recipe
    return dataclasses.replace(recipe, system=dataclasses.replace(recipe.system, dit=dit))


def _trained(
    plan: Plan, side: Side, choice: Choice, clips: HeldClips, say: Callable[[str], None], progress: Any
) -> Trained:
    from generator import ablation

    vae_from = None
    if not side.of_vaes:  # all share the VAE of the plain recipe, so that losses are of the same latents
        alone = ablation.shortened(plan.recipe, 0, plan.steps, plan.vae_steps, vae_alone=True)
        vae_from = _train(plan, "vae", alone, choice.passing, None, progress) / "vae"
    folders, scores = [], []
    for seed, ids in enumerate(side.clips):
        recipe = ablation.shortened(side.recipe, seed, plan.steps, plan.vae_steps, side.of_vaes)
        say(f"{side.name}, seed {seed}")
        folders.append(_train(plan, f"{_slug(side.name)}-{seed}", recipe, ids, vae_from, progress))
        if side.of_vaes:
            scores.append(ablation.score_vae(folders[-1], clips))
        else:
            scores.append(ablation.score_system(folders[-1], clips, plan.recipe.system))
    return Trained(side, folders, scores)


def _train(plan: Plan, name: str, recipe: Recipe, ids: Sequence[str], vae_from: Path | None, tick: Any) -> Path:
    from generator.train import train

    place = f"{name}-{fingerprint(recipe, list(ids), None if vae_from is None else vae_from.parent.name)}"
    manifest = write_part(plan.folder, ids, str(plan.out / "manifests" / fingerprint(list(ids))))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "[0-9]+ of [0-9]+ clips have no caption")  # the same ones every time
        to = plan.out / "trainings" / place
        return train(manifest, recipe, to, tick, vae_from=vae_from, cache=plan.out / "cache")


def _compared(trained: Trained, base: Trained, clips: HeldClips) -> Comparison:
    from generator.ablation import BETTER_HIGH, CLEAN, LOSS, PSNR

    same = trained.side.of_vaes or _objective(trained.side.recipe) == _objective(base.side.recipe)
    measure = PSNR if trained.side.of_vaes else LOSS if same else CLEAN
    pairs = list(zip(trained.scores, base.scores, strict=True))
    differences = {
        name: interval(np.stack([mine[name] - theirs[name] for mine, theirs in pairs]), clips.films)
        for name in pairs[0][0]
    }
    if not same:
        del differences[LOSS]  # losses of two objectives are two things
    lacking = uncovered(len(pairs), len(set(clips.films)))
    return Comparison(trained, base, measure, measure in BETTER_HIGH, differences, lacking)


def _objective(recipe: Recipe) -> Any:
    return recipe.system.build().objective


def _slug(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", name)[:60]


def as_json(report: Report) -> dict[str, Any]:
    plan = report.plan
    return {
        "manifest": plan.folder,
        "recipe": plan.recipe.name,
        "steps": plan.steps,
        "vae_steps": plan.vae_steps,
        "seeds": plan.seeds,
        "clips": len(report.choice.passing),
        "held_out": report.held,
        "held_out_films": report.films,
        "comparisons": [
            {
                "side": c.trained.side.name,
                "kind": c.trained.side.kind,
                "mixed_in": c.trained.side.mixed_in,
                "decided_by": c.measure,
                "verdict": c.verdict,
                "means": {name: {"with": c.base.mean(name), "side": c.trained.mean(name)} for name in c.differences},
                "differences": {name: dataclasses.asdict(found) for name, found in c.differences.items()},
                "share_by_seed": c.by_seed,
                "trainings": [str(f.relative_to(plan.out)) for f in (*c.trained.folders, *c.base.folders)],
            }
            for c in report.comparisons
        ],
    }

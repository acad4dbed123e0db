"""A recipe: the frozen, complete description of a run."""

from __future__ import annotations

import ast
import dataclasses
import difflib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from captioners.captions import Captions
from captioners.from_signals import FromSignals
from curation.measure import MEASURE_ERROR
from dedup.concepts import Concepts
from dedup.copies import Copies
from dedup.descriptor import Descriptor
from dedup.fingerprint import Fingerprint
from dedup.resample import Resample
from filters.rules import Rule
from filters.shots.cuts import Cuts
from manifests import families, packs
from manifests.buckets import MOVIE_GEN_LENGTHS, SHORT_LENGTHS, Bucketing, Buckets
from manifests.ids import fingerprint
from manifests.media.container import Limits
from manifests.media.scan import Pieces
from manifests.reviews import REJECT
from manifests.schema import IDENTITY, merge
from manifests.store import Store
from manifests.types import Derived, Sampling, Signal

RECIPE_MODULE = "vidcurate_recipe_"
"""Modules made of users' recipe files begin so; workers cannot import them."""


@dataclass(frozen=True, slots=True)
class Parts:
    """How videos are grouped into parts, the unit of work and of resuming: a part is closed when it holds so many
    videos or so many megabytes."""

    videos: int = 32
    megabytes: float = 16.0


@dataclass(frozen=True, slots=True)
class Subset:
    """A training subset: kept clips that also pass these rules.

    by, share: of those, the ones with the largest values in column `by`, at most this share of all kept clips.
    """

    name: str
    rules: tuple[Rule, ...] = ()
    by: str = ""
    share: float = 1.0


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything that decides what a manifest contains.

    signals:  measured during the walk over the video
    costly:   measured afterwards from frame packs, only for clips that the rules on `signals` let through
    derived:  computed from those columns when clips are judged, in this order; one that is marked `early` reads columns
              of the walk alone, and is computed before the costly signals too
    rules:    what a clip must pass to be kept, in the order in which the report counts them
    captioner: says what kept clips show: from the signals, or by models that are asked in a stage of its own
    """

    name: str
    signals: tuple[Signal, ...]
    costly: tuple[Signal, ...] = ()
    derived: tuple[Derived, ...] = ()
    rules: tuple[Rule, ...] = ()
    subsets: tuple[Subset, ...] = ()
    cuts: Cuts = field(default_factory=Cuts)
    pieces: Pieces = field(default_factory=Pieces)
    limits: Limits = field(default_factory=Limits)
    pack: Sampling = packs.DEFAULT
    fingerprint: Fingerprint = field(default_factory=Fingerprint)
    descriptor: Descriptor = field(default_factory=Descriptor)
    copies: Copies = field(default_factory=Copies)
    concepts: Concepts = field(default_factory=Concepts)
    resample: Resample = field(default_factory=Resample)
    buckets: Bucketing = field(default_factory=lambda: Buckets(lengths=(*MOVIE_GEN_LENGTHS, *SHORT_LENGTHS)))
    captioner: FromSignals | Captions = field(default_factory=FromSignals)
    parts: Parts = field(default_factory=Parts)

    @property
    def walk(self) -> tuple[Signal, ...]:
        """Every signal of the walk, those of deduplication included."""
        return (*self.signals, self.fingerprint, self.descriptor)

    @property
    def walk_schema(self) -> pa.Schema:
        return merge(*(signal.schema for signal in self.walk))

    @property
    def scan_schema(self) -> pa.Schema:
        """Columns of the scan's parts."""
        return merge(IDENTITY, self.walk_schema, pa.schema([MEASURE_ERROR]))

    @property
    def costly_schema(self) -> pa.Schema:
        return merge(*(signal.schema for signal in self.costly))

    @property
    def measure_schema(self) -> pa.Schema:
        """Columns of the parts of costly signals."""
        return merge(pa.schema([IDENTITY.field("clip_id")]), self.costly_schema, pa.schema([MEASURE_ERROR]))

    @property
    def derived_schema(self) -> pa.Schema:
        return merge(*(derived.schema for derived in self.derived))

    @property
    def gate(self) -> tuple[Rule, ...]:
        """Rules that can be judged before the costly signals are measured."""
        late = {*self.costly_schema.names, *merge(*(d.schema for d in self.derived if not d.early)).names}
        late |= {*families.ADDED.names}
        return tuple(r for r in self.rules if not (columns_of(r) & late))

    @property
    def scan_stage(self) -> str:
        """Name of the folder of the scan's parts; changes with every setting that changes what a scan yields."""
        return f"scan-{fingerprint(self.cuts, self.pieces, self.limits, self.walk, self.pack)}"

    @property
    def measure_stage(self) -> str:
        return f"measure-{fingerprint(self.scan_stage, self.costly)}"


REVIEWED = Rule(
    "review",
    where=pc.field("review").is_null() | (pc.field("review") != REJECT),
    says="review is not reject",
    why="a person looked at it",
)
"""Joins the rules of a folder as soon as people have decided about some of its clips."""


def reviewed(recipe: Recipe, store: Store) -> Recipe:
    """`recipe` with the rule on people's decisions, where the folder has any and the recipe no rule of that name."""
    if not store.exists(families.REVIEWS) or any(rule.name == REVIEWED.name for rule in recipe.rules):
        return recipe
    return dataclasses.replace(recipe, rules=(*recipe.rules, REVIEWED))


def check_columns(recipe: Recipe) -> None:
    """Raises ValueError when a rule, subset or quota reads a column that the recipe does not measure."""
    known = {*IDENTITY.names, *recipe.walk_schema.names, *recipe.costly_schema.names, *recipe.derived_schema.names}
    known |= {*families.ADDED.names}
    rules = [(f"rule {rule.name}", rule.column) for rule in recipe.rules]
    for subset in recipe.subsets:
        rules += [(f"rule {subset.name}.{rule.name}", rule.column) for rule in subset.rules]
        rules.append((f"subset {subset.name}", subset.by))
    rules += [("concepts.vectors", recipe.concepts.vectors), ("copies.vectors", recipe.copies.vectors)]
    rules += [(f"quota {quota.name}", quota.column) for quota in recipe.resample.quotas]
    rules.append(("resample.exempt", recipe.resample.exempt))
    for who, column in rules:
        if column and column not in known:
            near = difflib.get_close_matches(column, known, 1)
            hint = f"; did you mean {near[0]}?" if near else "; add the signal that measures it."
            raise ValueError(f"recipe {recipe.name}: {who} reads column {column}, which nothing measures{hint}")


def columns_of(rule: Rule) -> set[str]:
    """Columns that a rule reads; for a free expression, those whose name occurs in its text."""
    if rule.where is None:
        return {rule.column}
    text = str(rule.where)
    return {word for word in text.replace("(", " ").replace(")", " ").replace(",", " ").split() if word.isidentifier()}


def with_settings(recipe: Recipe, settings: Sequence[str]) -> Recipe:
    """`recipe` with `key=value` settings applied: "copies.mirror=true", "rules.text.high=0.02", "rules.still=off".

    A dot goes into a field, or into the rule or subset of that name. Raises ValueError with one sentence.
    """
    for setting in settings:
        recipe = replaced(recipe, setting, "--set")
    return recipe


def replaced(settings: Any, setting: str, option: str) -> Any:
    """A frozen dataclass with one `key=value` applied, as `with_settings` does. option: named in what is raised."""
    key, equals, text = setting.partition("=")
    if not equals:
        raise ValueError(f"{option} {setting}: write key=value, e.g. copies.mirror=true.")
    return _replace(settings, key.strip().split("."), text.strip(), f"{option} {key.strip()}")


def _replace(value: Any, path: list[str], text: str, key: str) -> Any:
    head, rest = path[0], path[1:]
    if isinstance(value, tuple):
        names = [_name(item) for item in value]
        if head not in names:
            raise ValueError(f"{key}: there is no {head!r}; choose from {', '.join(names)}.")
        at = names.index(head)
        if not rest and text == "off":
            return value[:at] + value[at + 1 :]
        if not rest:
            raise ValueError(f"{key}: say which number of it, e.g. {key}.high={text}, or {key}=off.")
        return (*value[:at], _replace(value[at], rest, text, key), *value[at + 1 :])
    fields = [f.name for f in dataclasses.fields(value)] if dataclasses.is_dataclass(value) else []
    if head not in fields or head == "version":
        choices = f"choose from {', '.join(f for f in fields if f != 'version')}" if fields else "it has no settings"
        raise ValueError(f"{key}: there is no {head!r}; {choices}.")
    old = getattr(value, head)
    try:
        return dataclasses.replace(value, **{head: _replace(old, rest, text, key) if rest else _parse(old, text, key)})
    except TypeError as error:
        raise ValueError(f"{key}: {error}.") from None


def _name(item: Any) -> str:
    return getattr(item, "name", None) or type(item).__name__


def _parse(old: Any, text: str, key: str) -> Any:
    """`text` as a value of the kind that `old` is; several plain ones are separated by commas."""
    if isinstance(old, tuple) and old and all(isinstance(item, (str, int, float)) for item in old):
        return tuple(_parse(old[0], item.strip(), key) for item in text.split(",") if item.strip())
    if dataclasses.is_dataclass(old) or isinstance(old, tuple):
        raise ValueError(f"{key}: that is a group of settings; name one of them with a dot.")
    if isinstance(old, bool):
        if text.lower() in ("true", "yes", "on", "1"):
            return True
        if text.lower() in ("false", "no", "off", "0"):
            return False
        raise ValueError(f"{key}={text}: give true or false.")
    if isinstance(old, str):
        return text
    if text.lower() == "none":
        return None
    try:
        value = float(text) if text.lower() in ("inf", "-inf") else ast.literal_eval(text)
    except (ValueError, SyntaxError):
        raise ValueError(f"{key}={text}: that is not a number.") from None
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise ValueError(f"{key}={text}: that is not a number.")
    if old is None:
        return value
    if isinstance(old, int):
        if value != int(value):
            raise ValueError(f"{key}={text}: give a whole number.")
        return int(value)
    return float(value)

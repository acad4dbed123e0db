"""Which clips each side of a comparison trains on, and which are held out for all."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from manifests.ids import luck
from manifests.store import Store, read_clips

_LEAST = 10
_HELD, _DRAWN = 1, 2  # seeds of the two choices, so that one says nothing about the other


@dataclass(frozen=True, slots=True)
class Amounts:
    """clips: most to train on. held_out: most to measure on. share: of the side without a rule that only the rule
    rejects; None: as many as would be in it if the rule were dropped."""

    clips: int = 512
    held_out: int = 64
    share: float | None = None

    def __post_init__(self) -> None:
        if self.clips < 1 or self.held_out < 1:
            raise ValueError("--clips and --held-out must be at least 1.")
        if self.share is not None and not 0 < self.share <= 1:
            raise ValueError(f"--share must be above 0 and at most 1, got {self.share:g}.")


@dataclass(frozen=True, slots=True)
class Choice:
    """Ids of clips. passing: train on these with all rules. held: measured on. rejected: by rule, those that it alone
    rejects. pool: how many pass, the held-out ones aside, of which `passing` are some."""

    passing: tuple[str, ...]
    held: tuple[str, ...]
    rejected: dict[str, tuple[str, ...]]
    pool: int

    def without(self, rule: str, share: float | None, seed: int) -> tuple[tuple[str, ...], int]:
        """As many clips as `passing`, some of them such as only the rule rejects, and how many these are."""
        there, size = self.rejected[rule], len(self.passing)
        wanted = len(there) / (len(there) + self.pool) if share is None else share
        count = max(round(wanted * size), 1)
        if count > len(there):
            most = math.floor(100 * len(there) / size) / 100
            raise ValueError(
                f"--share {share:g} of {size} clips is {count}, but only {len(there)} are rejected by {rule} alone; "
                f"take at most --share {most:g}, or fewer --clips."
            )
        mixed_in = _first(there, count, seed)
        return tuple(sorted([*mixed_in, *_first(self.passing, size - count, seed)])), count


def choose(folder: str, rules: Sequence[str], known: Sequence[str], amounts: Amounts, usable: pc.Expression) -> Choice:
    """The clips of a manifest that count: `usable` ones. known: names of its rules.

    What is held out is decided by the clips' ids alone: a fifth of those that pass, at most `amounts.held_out`.
    Raises ValueError for an unknown rule, one that rejects no clip alone, and where there are too few clips.
    """
    unknown = [rule for rule in rules if rule not in known]
    if unknown:
        raise ValueError(f"--without {unknown[0]}: there is no such rule in {folder}; it has {', '.join(known)}.")
    table = read_clips(folder, ["clip_id", "failed_rules"], where=usable)
    failed = table["failed_rules"].combine_chunks()
    count = pc.list_value_length(failed)
    passing = _ids(table, pc.equal(count, 0))
    if len(passing) < _LEAST:
        raise ValueError(
            f"{folder}: {len(passing)} clips pass all rules and are long enough to train on; a comparison needs at "
            f"least {_LEAST}. Curate more videos, or loosen the rules with `vidcurate judge`."
        )
    held = _first(passing, min(amounts.held_out, max(len(passing) // 5, 2)), _HELD)
    train = sorted(set(passing) - set(held))
    only = pc.and_(pc.equal(count, 1), pc.is_valid(count))
    first = pc.list_element(failed.filter(only), 0)
    alone = table.filter(only)
    rejected = {rule: tuple(_ids(alone, pc.equal(first, rule))) for rule in rules}
    for rule, ids in rejected.items():
        if not ids:
            raise ValueError(
                f"--without {rule}: no clip that could be trained on is rejected by {rule} alone, so there is nothing "
                "to compare; the column 'only' of report.html shows what each rule alone rejects."
            )
    return Choice(tuple(_first(train, amounts.clips, _DRAWN)), tuple(held), rejected, len(train))


def write_part(folder: str, ids: Sequence[str], to: str) -> str:
    """A manifest of these clips alone, all of them sampled; returns its folder."""
    table = read_clips(folder, where=pc.is_in(pc.field("clip_id"), value_set=pa.array(ids, pa.string())))
    at = table.schema.get_field_index("sampled")
    table = table.set_column(at, table.schema.field(at), pa.array([True] * table.num_rows))
    Store(to).replace_table("clips.parquet", [table.sort_by("clip_id")])
    return to


def _ids(table: pa.Table, mask: pa.BooleanArray) -> list[str]:
    return sorted(table.filter(mask)["clip_id"].to_pylist())


def _first(ids: Sequence[str], count: int, seed: int) -> list[str]:
    """So many of them, drawn by their names."""
    ranked = sorted(zip(luck(ids, seed), ids, strict=True))
    return sorted(name for _, name in ranked[:count])


def rule_names(folder: str) -> list[str]:
    """Of the rules of a folder's recipe, and `copy`; where it has no recipe, those that rejected a clip."""
    from curation.decide import COPY
    from curation.folder import Folder

    if Store(folder).exists("run.json"):
        return [*(rule.name for rule in Folder(folder).recipe.rules), COPY]
    flat = pc.list_flatten(read_clips(folder, ["failed_rules"])["failed_rules"])
    return sorted(pc.unique(flat).to_pylist())

"""Which clips each side of a comparison trains on, and which are held out for all."""

from __future__ import annotations

import math
from collections import Counter
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
    rejects. pool: how many pass, those of held-out films aside, of which `passing` are some. films: of each clip in
    `held`, the id of its film."""

    passing: tuple[str, ...]
    held: tuple[str, ...]
    rejected: dict[str, tuple[str, ...]]
    pool: int
    films: dict[str, str]

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

    What is held out is whole films, decided by their ids: about a fifth of the clips that pass, of which at most
    `amounts.held_out` are measured on. No other clip of these films is trained on, nor a copy of one.
    Raises ValueError for an unknown rule, one that rejects no clip alone, and where there are too few clips or films.
    """
    unknown = [rule for rule in rules if rule not in known]
    if unknown:
        raise ValueError(f"--without {unknown[0]}: there is no such rule in {folder}; it has {', '.join(known)}.")
    table = _read(folder, usable)
    count = pc.list_value_length(table["failed_rules"])
    passes = pc.equal(count, 0)
    passing = table.filter(passes)
    if len(passing) < _LEAST:
        raise ValueError(
            f"{folder}: {len(passing)} clips pass all rules and are long enough to train on; a comparison needs at "
            f"least {_LEAST}. Curate more videos, or loosen the rules with `vidcurate judge`."
        )
    apart = _films(passing["film"].to_pylist(), folder)
    of_those = pc.is_in(table["film"], value_set=pa.array(sorted(apart), pa.string()))
    groups = table.filter(of_those)["copy_group"].unique().drop_null()
    there = pc.invert(pc.or_(of_those, pc.is_in(table["copy_group"], value_set=groups)))
    held = table.filter(pc.and_(passes, of_those))
    held = held.filter(pc.is_in(held["clip_id"], value_set=pa.array(_first(_ids(held), amounts.held_out, _HELD))))
    train = _ids(table.filter(pc.and_(passes, there)))
    alone = table.filter(pc.and_(pc.equal(count, 1), there))
    first = pc.list_element(alone["failed_rules"], 0)
    rejected = {rule: tuple(_ids(alone.filter(pc.equal(first, rule)))) for rule in rules}
    for rule, ids in rejected.items():
        if not ids:
            raise ValueError(
                f"--without {rule}: no clip that could be trained on is rejected by {rule} alone, so there is nothing "
                "to compare; the column 'only' of report.html shows what each rule alone rejects."
            )
    films = dict(zip(held["clip_id"].to_pylist(), held["film"].to_pylist(), strict=True))
    return Choice(tuple(_first(train, amounts.clips, _DRAWN)), tuple(sorted(films)), rejected, len(train), films)


def _read(folder: str, usable: pc.Expression) -> pa.Table:
    """Of the usable clips: clip_id, failed_rules, film and copy_group; a film is its file where it has no id."""
    columns = ["clip_id", "uri", "failed_rules"]
    table = read_clips(folder, columns, where=usable, optional=["video_id", "copy_group"])
    if "copy_group" not in table.column_names:
        table = table.append_column("copy_group", pa.nulls(len(table), pa.string()))
    film = pc.coalesce(table["video_id"], table["uri"]) if "video_id" in table.column_names else table["uri"]
    return table.append_column("film", film).combine_chunks()


def _films(of_clips: Sequence[str], folder: str) -> set[str]:
    """Those to hold out, by the order of their hashes: as many as have a fifth of the clips, two at least where there
    are four; one that would have more than its share is passed over. Raises ValueError where there is one film."""
    clips = Counter(of_clips)
    if len(clips) < 2:
        raise ValueError(
            f"{folder}: all clips that pass are of one film, so none can be held out that is unlike those trained on; "
            "curate more videos."
        )
    names = sorted(clips)
    ranked = [name for _, name in sorted(zip(luck(names, _HELD), names, strict=True))]
    room, found = max(len(of_clips) / 5, 2), set[str]()
    for name in ranked:
        if sum(clips[film] for film in found) + clips[name] <= room:
            found.add(name)
    return found or {min(ranked, key=lambda name: clips[name])}


def write_part(folder: str, ids: Sequence[str], to: str) -> str:
    """A manifest of these clips alone, all of them sampled; returns its folder."""
    table = read_clips(folder, where=pc.is_in(pc.field("clip_id"), value_set=pa.array(ids, pa.string())))
    at = table.schema.get_field_index("sampled")
    table = table.set_column(at, table.schema.field(at), pa.array([True] * table.num_rows))
    Store(to).replace_table("clips.parquet", [table.sort_by("clip_id")])
    return to


def _ids(table: pa.Table) -> list[str]:
    return sorted(table["clip_id"].to_pylist())


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

"""What votes say: majorities of pairs, and win rates with intervals, in all and by group.

A pair goes to the side that most of its voters chose, on each axis for itself; where no side has more, it is a tie. The
net win rate is Movie Gen's (arXiv 2410.13720): wins less losses, in per cent of all pairs.
"""

from __future__ import annotations

import csv
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from curation.judging.page import COLUMNS, VOTES
from curation.judging.prompts import CONCEPTS, MOTIONS

_DRAWS = 10_000


@dataclass(frozen=True, slots=True)
class Rates:
    """Of A against B on one axis, over pairs of one kind ("" for all, else `concept human` and so on).

    wins, losses, ties: pairs. net: wins less losses as a share of all, with its interval. complete: pairs with as many
    voters as the axis asks for.
    """

    axis: str
    kind: str
    wins: int
    losses: int
    ties: int
    net: float
    low: float
    high: float
    complete: int

    @property
    def pairs(self) -> int:
        return self.wins + self.losses + self.ties


@dataclass(frozen=True, slots=True)
class Count:
    """a, b: the folders. voters: by name, how many votes. needed: by axis. problems: votes that were left out, and why.
    agreement: share of the pairs, by axis, of which all voters say the same, of those with more than one."""

    a: str
    b: str
    rates: tuple[Rates, ...]
    voters: Mapping[str, int]
    needed: Mapping[str, int]
    agreement: Mapping[str, float]
    problems: tuple[str, ...]


def read_key(file: Path) -> dict[str, Any]:
    """Raises ValueError where it is none."""
    try:
        key = json.loads(file.read_text())
        assert {"page", "a", "b", "axes", "pairs"} <= key.keys()
    except (OSError, ValueError, AttributeError, AssertionError):
        raise ValueError(f"{file}: this is not the key that `vidcurate compare` wrote beside its page.") from None
    return dict(key)


def count(files: Sequence[Path], key: Mapping[str, Any], complete_only: bool = False) -> Count:
    """Counts tables of votes. Of a voter who voted twice on the same, the later vote counts.

    complete_only: leave pairs out that have fewer voters than the axis asks for.
    Raises ValueError for a file that is no table of votes of this page, and where no vote is left.
    """
    last: dict[tuple[str, str, str], tuple[str, str]] = {}
    problems = []
    for file in files:
        for line, row in _rows(file):
            wrong = _wrong(row, key)
            if wrong:
                problems.append(f"{file.name}, line {line}: {wrong}")
                continue
            place = (row["pair"], row["axis"], row["by"])
            if place not in last or last[place][0] <= row["at"]:
                last[place] = (row["at"], row["vote"])
    if not last:
        raise ValueError(
            f"no vote in {', '.join(f.name for f in files)} counts; {problems[0] if problems else 'empty'}."
        )
    cast: dict[tuple[str, str], list[str]] = defaultdict(list)
    for (pair, axis, _), (_, vote) in last.items():
        cast[pair, axis].append(_whose(vote, key["pairs"][pair]["first"]))
    rates, agreement = [], {}
    for axis, needed in key["axes"].items():
        votes = {pair: said for (pair, on), said in cast.items() if on == axis}
        several = [said for said in votes.values() if len(said) > 1]
        if several:
            agreement[axis] = sum(len(set(said)) == 1 for said in several) / len(several)
        if complete_only:
            votes = {pair: said for pair, said in votes.items() if len(said) >= needed}
        for kind, members in _kinds(votes, key["pairs"]):
            rates.append(_rates(axis, kind, [votes[pair] for pair in members], needed))
    voters = dict(Counter(by for _, _, by in last))
    return Count(key["a"], key["b"], tuple(rates), voters, key["axes"], agreement, tuple(problems))


def majority(votes: Iterable[str]) -> str:
    """a, b or tie, of such votes."""
    ranked = Counter(votes)
    return "a" if ranked["a"] > ranked["b"] else "b" if ranked["b"] > ranked["a"] else "tie"


def _rates(axis: str, kind: str, votes: Sequence[Sequence[str]], needed: int) -> Rates:
    results = [majority(said) for said in votes]
    score = np.array([{"a": 1, "b": -1, "tie": 0}[result] for result in results], float)
    rng = np.random.default_rng(0)
    drawn = score[rng.integers(len(score), size=(_DRAWS, len(score)))].mean(1)
    low, high = np.quantile(drawn, [0.025, 0.975])
    wins, losses, ties = (results.count(kind_) for kind_ in ("a", "b", "tie"))
    complete = sum(len(said) >= needed for said in votes)
    return Rates(axis, kind, wins, losses, ties, float(score.mean()), float(low), float(high), complete)


def _kinds(votes: Mapping[str, Any], about: Mapping[str, Any]) -> list[tuple[str, list[str]]]:
    """All pairs, then those of each concept and of each level of motion."""
    kinds: list[tuple[str, list[str]]] = [("", list(votes))] if votes else []
    for tag, known in (("concept", CONCEPTS), ("motion", MOTIONS)):
        found = {about[pair][tag] for pair in votes} - {""}
        for value in [*(v for v in known if v in found), *sorted(found - set(known))]:
            kinds.append((f"{tag} {value}", [pair for pair in votes if about[pair][tag] == value]))
    return kinds


def _whose(vote: str, first: str) -> str:
    if vote == "equal":
        return "tie"
    return first if vote == "first" else "ab".replace(first, "")


def _wrong(row: Mapping[str, str], key: Mapping[str, Any]) -> str:
    if row["page"] != key["page"]:
        return f"it is of page {row['page']}, the key of page {key['page']}"
    if row["pair"] not in key["pairs"]:
        return f"the page has no pair {row['pair']!r}"
    if row["axis"] not in key["axes"]:
        return f"the page has no axis {row['axis']!r}"
    if row["vote"] not in VOTES:
        return f"the vote {row['vote']!r} is none of {', '.join(VOTES)}"
    return "" if row["by"] else "nobody is named in the column by"


def _rows(file: Path) -> list[tuple[int, dict[str, str]]]:
    try:
        with file.open(newline="", encoding="utf-8-sig") as opened:
            lines = csv.DictReader(opened)
            if missing := [name for name in COLUMNS if name not in (lines.fieldnames or ())]:
                raise ValueError(f"{file}: lacks the column {missing[0]}; give a table that the page saved.")
            return [(lines.line_num, {name: (row[name] or "").strip() for name in COLUMNS}) for row in lines]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{file}: these votes cannot be read ({error}).") from None

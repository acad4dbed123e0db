"""Rules decide what signals only measure.

A rule is a named condition over columns. It is picklable, prints itself, and becomes a pyarrow expression that Parquet
scans push down. A clip fails a rule when the condition is false and also when it cannot be told because a value was
not measured: what was not measured is never kept by a rule that needed it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds


@dataclass(frozen=True, slots=True)
class Rule:
    """Keep a clip when `column` lies within [low, high]; None leaves that side open.

    name:   what a rejected clip is marked with
    why:    what the rule is for and where its number comes from, for the report
    where:  instead of column and bounds, any pyarrow expression
    says:   how an expression is shown, where its own text is hard to read
    """

    name: str
    column: str = ""
    low: float | None = None
    high: float | None = None
    why: str = ""
    where: pc.Expression | None = None
    says: str = ""

    def __post_init__(self) -> None:
        if self.where is None and (not self.column or (self.low is None and self.high is None)):
            raise ValueError(f"rule {self.name}: give a column with a low or high bound, or an expression.")

    @property
    def expression(self) -> pc.Expression:
        if self.where is not None:
            return self.where
        field, parts = pc.field(self.column), []
        if self.low is not None:
            parts.append(field >= self.low)
        if self.high is not None:
            parts.append(field <= self.high)
        return parts[0] if len(parts) == 1 else parts[0] & parts[1]

    def __str__(self) -> str:
        if self.where is not None:
            return self.says or str(self.where)
        if self.low is None:
            return f"{self.column} <= {self.high:g}"
        if self.high is None:
            return f"{self.column} >= {self.low:g}"
        return f"{self.low:g} <= {self.column} <= {self.high:g}"


def passes(rule: Rule, table: pa.Table) -> pa.BooleanArray:
    """For each row whether it passes; rows for which that cannot be told do not.

    Raises ValueError when the table lacks a column that the rule needs.
    """
    try:
        marked = ds.dataset(table).to_table(columns={"ok": pc.coalesce(rule.expression, pc.scalar(False))})
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, KeyError) as error:
        raise ValueError(f"rule {rule.name} ({rule}) cannot be applied: {str(error).splitlines()[0]}.") from None
    return marked["ok"].combine_chunks()


def judge(rules: Sequence[Rule], table: pa.Table) -> pa.ListArray:
    """For each row the names of all rules it failed, in the order of the rules."""
    return names_of([rule.name for rule in rules], failures(rules, table))


def failures(rules: Sequence[Rule], table: pa.Table) -> npt.NDArray[np.bool_]:
    """(rows, rules): where a clip fails a rule."""
    failed = np.zeros((table.num_rows, len(rules)), bool)
    for k, rule in enumerate(rules):
        failed[:, k] = ~passes(rule, table).to_numpy(zero_copy_only=False)
    return failed


def names_of(
    names: Sequence[str], marked: npt.NDArray[np.bool_], none: npt.NDArray[np.bool_] | None = None
) -> pa.ListArray:
    """For each row of (rows, names) the names that are marked, in their order; null in the rows of `none`."""
    offsets = np.concatenate([[0], np.cumsum(marked.sum(axis=1))]).astype(np.int32)
    values = pa.array(names, pa.string()).take(pa.array(np.nonzero(marked)[1]))
    missing = None if none is None else pa.array(none)
    return pa.ListArray.from_arrays(pa.array(offsets), values, mask=missing)

"""The table of features: every row is there, and what it names exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in (ROOT / "docs" / "features.md").read_text().splitlines()
    if re.match(r"\| \d+ \|", line)
]
NUMBERS = [int(row[0]) for row in ROWS]
NOT_YET: set[int] = set()
"""Rows that nothing here shows yet."""

PACKAGES = "curation|captioners|filters|dedup|generator|manifests|tests|benchmarks"


def test_rows_are_in_order_each_once_and_have_five_cells() -> None:
    assert sorted(set(NUMBERS)) == NUMBERS and set(NUMBERS) <= set(range(1, 120))
    assert all(len(row) == 5 and all(row) for row in ROWS)


def test_no_row_of_the_four_systems_is_missing() -> None:
    assert sorted(set(range(1, 120)) - set(NUMBERS) - NOT_YET) == []


def test_files_and_tests_that_are_named_exist() -> None:
    text = (ROOT / "docs" / "features.md").read_text()
    named = set(re.findall(rf"`((?:{PACKAGES})/[\w/.-]*)`", text)) | set(re.findall(r"\]\(([\w-]+\.md)\)", text))
    there = [name for name in named if (ROOT / name).exists() or (ROOT / "docs" / name).exists()]
    assert len(named) > 100 and sorted(named - set(there)) == []


@pytest.mark.parametrize("number", NUMBERS)
def test_each_row_names_something_that_shows_it(number: int) -> None:
    shown = ROWS[NUMBERS.index(number)][4]
    assert re.search(r"`tests/test_\w+\.py`|`vidcurate \w+|`python -m |`--only \w+`|the report|the funnel", shown)

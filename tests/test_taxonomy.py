"""The list of 600 things that people do."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from filters.learned import taxonomy


def test_there_are_exactly_600_and_no_two_are_alike() -> None:
    groups = taxonomy.by_kind()
    listed = [phrase for group in groups.values() for phrase in group]
    assert len(listed) == len(set(listed)) == len(taxonomy.phrases()) == 600
    assert len(groups) >= 20 and "" not in groups and min(map(len, groups.values())) >= 5
    bare = {re.sub(r"[^a-z]", "", phrase) for phrase in listed}
    assert len(bare) == 600, "nor do they differ by a hyphen alone"


def test_every_phrase_goes_on_from_a_person() -> None:
    for phrase in taxonomy.phrases():
        assert re.fullmatch(r"[a-z][a-z' -]*[a-z]", phrase), phrase
        assert 1 <= len(phrase.split()) <= 7, phrase
        words = re.split(r"[ -]", phrase)
        assert any(word.endswith("ing") for word in words[:3]), f"a person {phrase}?"


def test_a_list_of_ones_own_may_have_kinds(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("# about\nrunning\n## food\n cooking \n\neating\n## more\nrunning\n")
    assert taxonomy.by_kind(str(tmp_path / "mine.txt")) == {
        "": ("running",), "food": ("cooking", "eating"), "more": ("running",),
    }  # fmt: skip
    assert taxonomy.phrases(str(tmp_path / "mine.txt")) == ("running", "cooking", "eating")
    with pytest.raises(ValueError, match="cannot be read"):
        taxonomy.phrases(str(tmp_path / "none.txt"))

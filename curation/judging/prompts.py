"""Prompts with tags: what they are about, and how much moves.

The set is our own, in the form of Movie Gen Video Bench (arXiv 2410.13720, section 3.5.2): five groups of concepts,
three levels of motion, seven prompts in each cell. A file of your own has the same columns, separated by tabs.
"""

from __future__ import annotations

import csv
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

CONCEPTS = ("human", "animals", "nature", "physics", "unusual")
MOTIONS = ("low", "medium", "high")
OURS = Path(__file__).parent / "data" / "prompts.tsv"
_COLUMNS = ("concept", "motion", "prompt")


@dataclass(frozen=True, slots=True)
class Prompt:
    """id: its group, level and place among these, of which names of files are made."""

    id: str
    concept: str
    motion: str
    text: str


def read_prompts(file: Path = OURS) -> list[Prompt]:
    """Raises ValueError for a file without the columns, with an empty or a repeated prompt, or with none."""
    try:
        with file.open(newline="", encoding="utf-8-sig") as opened:
            lines = csv.DictReader(opened, delimiter="\t", quoting=csv.QUOTE_NONE)
            missing = [name for name in _COLUMNS if name not in (lines.fieldnames or ())]
            if missing:
                raise ValueError(f"{file}: lacks the column {missing[0]}; needed are {', '.join(_COLUMNS)}, with tabs.")
            rows = [{name: (line[name] or "").strip() for name in _COLUMNS} for line in lines]
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{file}: these prompts cannot be read ({error}).") from None
    places: Counter[tuple[str, str]] = Counter()
    seen: set[str] = set()
    prompts = []
    for number, row in enumerate(rows, 2):
        if not row["prompt"] or row["prompt"] in seen:
            raise ValueError(f"{file}, line {number}: the prompt is {'a repetition' if row['prompt'] else 'empty'}.")
        seen.add(row["prompt"])
        cell = (row["concept"], row["motion"])
        places[cell] += 1
        name = "-".join(_safe(word) for word in cell if word)
        prompts.append(Prompt(f"{name or 'prompt'}-{places[cell]:02d}", *cell, row["prompt"]))
    if not prompts:
        raise ValueError(f"{file}: no prompt in it.")
    return prompts


def spread(prompts: list[Prompt], count: int) -> list[Prompt]:
    """So many of them, from all groups and levels alike: the first of each cell, then the second, ..."""
    places: Counter[tuple[str, str]] = Counter()
    ranked = []
    for number, prompt in enumerate(prompts):
        places[prompt.concept, prompt.motion] += 1
        ranked.append((places[prompt.concept, prompt.motion], number))
    taken = {number for _, number in sorted(ranked)[:count]}
    return [prompt for number, prompt in enumerate(prompts) if number in taken]


def _safe(word: str) -> str:
    return "".join(letter if letter.isalnum() else "_" for letter in word)

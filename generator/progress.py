"""Who hears how far a training is."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

Progress = Callable[[str, int, int, Mapping[str, float | int | str]], None]
"""Called as progress(phase, done, total, record). The phases are `decode`, `vae`, `encode`, `dit` and `sample`; for
`vae` and `dit` the record is what log.jsonl says of a step, whether or not that step is written there; else empty."""


@contextmanager
def listener(progress: Progress | None) -> Iterator[Progress]:
    """`progress` itself; or, if there is none, bars on stderr, or a line every fifth where that is no terminal."""
    if progress is not None:
        yield progress
        return
    from rich.console import Console

    console = Console(stderr=True)
    if console.is_terminal:
        with _bars(console) as show:
            yield show
    else:
        yield _say


@contextmanager
def _bars(console: Console) -> Iterator[Progress]:
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    columns = (TextColumn("{task.description:>6}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Bars(*columns, TextColumn("{task.fields[said]}"), console=console) as bars:
        tasks = {}

        def show(phase: str, done: int, total: int, record: Mapping[str, float | int | str]) -> None:
            if phase not in tasks:
                tasks[phase] = bars.add_task(phase, total=total, said="")
            bars.update(tasks[phase], completed=done, said=_loss(record))

        yield show


def _say(phase: str, done: int, total: int, record: Mapping[str, float | int | str]) -> None:
    if done * 5 // total > (done - 1) * 5 // total:
        print(f"{phase:>6} {done}/{total} {_loss(record)}".rstrip(), file=sys.stderr)


def _loss(record: Mapping[str, float | int | str]) -> str:
    return f"loss {record['loss']:.4f}" if "loss" in record else ""

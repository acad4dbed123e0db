"""Who hears how far a training is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

Progress = Callable[[str, int, int, Mapping[str, float | int | str]], None]
"""Called as progress(phase, done, total, record). The phases are `decode`, `vae`, `encode`, `dit` and `sample`; for
`vae` and `dit` the record is what log.jsonl says of a step, whether or not that step is written there; else empty."""


@contextmanager
def listener(progress: Progress | None) -> Iterator[Progress]:
    """`progress` itself; or, if there is none, bars where stderr is a terminal and silence where it is not."""
    if progress is not None:
        yield progress
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    console = Console(stderr=True)
    columns = (TextColumn("{task.description:>6}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Bars(*columns, TextColumn("{task.fields[said]}"), console=console, disable=not console.is_terminal) as bars:
        tasks = {}

        def show(phase: str, done: int, total: int, record: Mapping[str, float | int | str]) -> None:
            if phase not in tasks:
                tasks[phase] = bars.add_task(phase, total=total, said="")
            said = f"loss {record['loss']:.4f}" if "loss" in record else ""
            bars.update(tasks[phase], completed=done, said=said)

        yield show

"""What a person sees while a run goes on: one line a stage with counts, speed and time left.

On a terminal, moving bars; elsewhere (a log file, CI) one plain line every few seconds.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

_EVERY = 10.0  # seconds between plain lines


class Board:
    """Stages with what is done and left of each."""

    def __init__(self, console: Console | None = None):
        self.console = console or Console(stderr=True)
        self._bars = Progress(
            SpinnerColumn(),
            TextColumn("{task.description:<10}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[unit]}  {task.fields[note]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self.console,
        )
        self._tasks: dict[str, TaskID] = {}
        self._clips: dict[str, int] = {}
        self._started: dict[str, float] = {}
        self._spoke = time.monotonic()

    @contextlib.contextmanager
    def shown(self) -> Iterator[Board]:
        if self.console.is_terminal:
            with self._bars:
                yield self
        else:
            yield self

    def stage(self, name: str, total: int, unit: str, done: int = 0) -> None:
        self._tasks[name] = self._bars.add_task(name, total=total, completed=done, unit=unit, note="")
        self._started[name], self._clips[name] = time.monotonic(), 0

    def advance(self, name: str, steps: int = 1, clips: int = 0) -> None:
        self._clips[name] += clips
        elapsed = max(time.monotonic() - self._started[name], 1e-3)
        speed = f"{self._clips[name] / elapsed:.1f} clips/s" if self._clips[name] else ""
        self._bars.update(self._tasks[name], advance=steps, note=speed)
        self._speak()

    def say(self, text: str) -> None:
        self.console.print(text, highlight=False, markup=False)

    def _speak(self) -> None:
        if self.console.is_terminal or time.monotonic() - self._spoke < _EVERY:
            return
        self._spoke = time.monotonic()
        lines = [
            f"{t.description} {int(t.completed)}/{int(t.total or 0)} {t.fields['unit']} {t.fields['note']}".strip()
            for t in self._bars.tasks
        ]
        self.say("; ".join(lines))

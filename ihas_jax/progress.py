"""Progress of long work: a live bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

_LINE_SECONDS = 10.0

console = Console(highlight=False, soft_wrap=True)


def log(message: str) -> None:
    """Prints one line, above any live bar."""
    console.print(message, markup=False)


class _RateColumn(ProgressColumn):
    """Rows per second."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:,.0f} {task.fields['unit']}/s")


class Tracker:
    """Counts finished units of one piece of work; made by `track`."""

    def __init__(
        self, description: str, total: int, unit: str, bar: Progress | None, done: int
    ) -> None:
        self._description, self._total, self._unit, self._bar = description, total, unit, bar
        self._start = self._last_line = time.monotonic()
        self._before = self._done = done
        if bar is not None:
            self._task = bar.add_task(description, total=total, unit=unit, completed=done)

    def advance(self, units: int) -> None:
        """Adds `units` finished units and redraws at most a few times a second."""
        self._done += units
        if self._bar is not None:
            self._bar.advance(self._task, units)
            return
        now = time.monotonic()
        if now - self._last_line >= _LINE_SECONDS:
            self._last_line = now
            rate = (self._done - self._before) / (now - self._start)
            share = f"{self._done / self._total:.0%}" if self._total else f"{self._done:,}"
            left = f", {(self._total - self._done) / rate:.0f} s left" if self._total else ""
            log(f"{self._description}: {share}, {rate:,.0f} {self._unit}/s{left}")


@contextmanager
def track(description: str, total: int, unit: str = "rows", *, done: int = 0) -> Iterator[Tracker]:
    """Shows the progress of work of `total` units (0: unknown) while the block runs.

    Units that were `done` before do not count in the rate.

    On a terminal a bar with units per second and time left; elsewhere a line every ten
    seconds, so that a log file of a short run stays short.
    """
    if not console.is_terminal:
        yield Tracker(description, total, unit, None, done)
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        _RateColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        yield Tracker(description, total, unit, bar, done)

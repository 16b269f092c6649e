"""Messages and progress of long work, through `logging` and on the command line.

The library logs as "ihas_jax"; a program chooses by `logging.basicConfig` which messages it shows.
A command line shows every message, live bars on a terminal, and tables.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Column
from rich.text import Text

from ihas_jax.names import printable
from ihas_jax.streams import steady_streams

_LINE_SECONDS = 10.0
_BAR_WIDTH = 70
"""The least width of a terminal, in characters, that has room for a bar and its numbers."""

console = Console(highlight=False, soft_wrap=True)
_logger = logging.getLogger("ihas_jax")


def say(message: str) -> None:
    """Logs one line; a command line prints it above any live bar."""
    _logger.info("%s", printable(message))


def warn(message: str) -> None:
    """Logs one line that the user should act on, as a warning."""
    _logger.warning("%s", printable(message))


def show(table: RenderableType) -> None:
    """Prints a table on a command line; a program that uses the library gets none."""
    if _at_command_line():
        console.print(table)


@contextmanager
def command_line() -> Iterator[list[str]]:
    """Prints messages, bars and tables while the block runs, in any encoding of the terminal.

    Yields:
      The names of the streams that have lost output so far, as `steady_streams`.
    """
    handler, level, propagate = _ConsoleHandler(), _logger.level, _logger.propagate
    _logger.addHandler(handler)
    _logger.setLevel(logging.INFO)
    _logger.propagate = False
    try:
        with steady_streams() as lost:
            yield lost
    finally:
        _logger.removeHandler(handler)
        _logger.setLevel(level)
        _logger.propagate = propagate


class _ConsoleHandler(logging.Handler):
    """Prints messages without a prefix."""

    def emit(self, record: logging.LogRecord) -> None:
        """Prints one message."""
        console.print(record.getMessage(), markup=False)


@contextmanager
def silent() -> Iterator[None]:
    """Shows nothing of the library while the block runs."""
    before, _logger.disabled = _logger.disabled, True
    try:
        yield
    finally:
        _logger.disabled = before


def _at_command_line() -> bool:
    shown = any(isinstance(handler, _ConsoleHandler) for handler in _logger.handlers)
    return shown and not _logger.disabled


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
            self._task = bar.add_task(
                printable(description), total=total, unit=unit, completed=done
            )

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
            known = self._total and rate  # before the first unit the time left is not known
            left = f", {(self._total - self._done) / rate:.0f} s left" if known else ""
            say(f"{self._description}: {share}, {rate:,.0f} {self._unit}/s{left}")


def _has_bars() -> bool:
    return console.is_terminal and _at_command_line()


@contextmanager
def bar_of_steps(description: str, total: int) -> Iterator[Callable[[int, int, str], None]]:
    """Shows a bar of a few long steps while the block runs, on a terminal alone.

    Bars of the steps themselves may stand below it.

    Yields:
      `move(done, total, note)`, which moves the bar; the note stands behind it.
    """
    if not _has_bars():
        yield lambda done, total, note: None
        return
    columns = (
        TextColumn("{task.description}", markup=False, table_column=Column(overflow="fold")),
        *((BarColumn(),) if console.width >= _BAR_WIDTH else ()),
        TextColumn("{task.completed} of {task.total}{task.fields[note]}", markup=False),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(printable(description), total=total, note="")
        yield lambda done, total, note: bar.update(task, completed=done, total=total, note=note)


@contextmanager
def track(description: str, total: int, unit: str = "rows", *, done: int = 0) -> Iterator[Tracker]:
    """Shows the progress of work of `total` units (0: unknown) while the block runs.

    Units that were `done` before do not count in the rate.

    A command line on a terminal shows a bar with units per second and the time left. Elsewhere a
    line is logged every ten seconds.
    """
    if not _has_bars():
        yield Tracker(description, total, unit, None, done)
        return
    columns = (
        TextColumn("{task.description}", markup=False, table_column=Column(overflow="fold")),
        *((BarColumn(),) if console.width >= _BAR_WIDTH else ()),
        TaskProgressColumn(table_column=Column(no_wrap=True)),
        _RateColumn(table_column=Column(no_wrap=True)),
        TimeRemainingColumn(table_column=Column(no_wrap=True)),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        yield Tracker(description, total, unit, bar, done)

"""The steps of a long piece of work, counted and timed, some of them beside each other."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from ihas_jax.pipeline.workers import Call, together
from ihas_jax.progress import bar_of_steps, say

_READ_BACK = 2.0
"""Seconds within which a step is done whose training is only read back."""


class Walk:
    """Says which step begins, of how many, and about how long the rest takes.

    Args:
      name: the name of the work in front of each line.
      total: the number of steps.
      event: records a step.
      workers: the number of steps beside each other, where their order does not matter.
      modules: what their processes import first, see `together`.
    """

    def __init__(
        self,
        name: str,
        total: int,
        event: Callable[[str, dict[str, Any]], None],
        workers: int = 1,
        modules: Sequence[str] = (),
    ) -> None:
        """Starts before the first step."""
        self._name, self._event, self._workers, self._modules = name, event, workers, modules
        self._total, self._done = total, 0
        self._seconds: list[float] = []
        self._move: Callable[[int, int, str], None] = _nowhere

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Shows a bar of all steps while the block runs, on a terminal."""
        with bar_of_steps(self._name, self._total) as self._move:
            yield
        self._move = _nowhere

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """A step, from its line to its end."""
        start = time.monotonic()
        say(f"[{self._name}] step {self._done + 1} of {self._total}: {name}{self._left()}")
        self._event("step", {"step": name})
        yield
        self._count(time.monotonic() - start)

    def each(self, calls: Sequence[Call], kept: Sequence[Any] = ()) -> list[Any]:
        """The results of calls, each of which is a step; none needs the result of another.

        See `together` for what is kept.
        """
        if self._workers == 1 or len(calls) < 2:
            return [self._alone(*call) for call in calls]
        first, last = self._done + 1, self._done + len(calls)
        beside = min(self._workers, len(calls))
        say(
            f"[{self._name}] steps {first} to {last} of {self._total}, {beside} at a time"
            f"{self._left()}"
        )
        results: list[Any] = [None] * len(calls)
        timed = [(name, _timed, (function, arguments)) for name, function, arguments in calls]
        with together(timed, self._workers, kept, self._modules) as finished:
            for place, (result, seconds) in finished:
                results[place], name = result, calls[place][0]
                self._event("step", {"step": name})
                self._count(seconds, beside)
                say(
                    f"[{self._name}] {self._done} of {self._total} steps are done, the last one "
                    f"is {name}{self._left()}"
                )
        return results

    def _alone(self, name: str, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        with self.step(name):
            return function(*arguments)

    def _count(self, seconds: float, beside: int = 1) -> None:
        """Counts a step; of several beside each other one ends in a part of its time."""
        self._done += 1
        if seconds > _READ_BACK:
            self._seconds.append(seconds / beside)
        self._move(self._done, self._total, self._left())

    def _left(self) -> str:
        """About how long the rest takes, if its steps are as long as those that were timed."""
        if not self._seconds:
            return ""
        each = sum(self._seconds) / len(self._seconds)
        return f", about {_duration(each * (self._total - self._done))} left at this pace"

    def skip(self, steps: int) -> None:
        """Counts steps that turn out not to be needed."""
        self._total -= steps
        self._move(self._done, self._total, self._left())


def _nowhere(done: int, total: int, note: str) -> None:
    """Moves no bar."""


def _timed(function: Callable[..., Any], arguments: tuple[Any, ...]) -> tuple[Any, float]:
    """The result of a call, and its seconds."""
    start = time.monotonic()
    return function(*arguments), time.monotonic() - start


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} minutes"

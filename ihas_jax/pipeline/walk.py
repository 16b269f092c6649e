"""The steps of a long piece of work, counted and timed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ihas_jax.progress import say

_READ_BACK = 2.0
"""Seconds within which a step is done whose training is only read back."""


class Walk:
    """Says which step begins, of how many, and about how long the rest takes.

    Args:
      name: the name of the work in front of each line.
      total: the number of steps.
      event: records that a step begins.
    """

    def __init__(self, name: str, total: int, event: Callable[[str, dict[str, Any]], None]) -> None:
        """Starts before the first step."""
        self._name, self._event = name, event
        self._total, self._done = total, 0
        self._seconds: list[float] = []

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """A step, from its line to its end."""
        left, start = "", time.monotonic()
        if self._seconds:
            each = sum(self._seconds) / len(self._seconds)
            left = f", about {_duration(each * (self._total - self._done))} left"
        say(f"[{self._name}] step {self._done + 1} of {self._total}: {name}{left}")
        self._event("step", {"step": name})
        yield
        self._done += 1
        if (seconds := time.monotonic() - start) > _READ_BACK:
            self._seconds.append(seconds)

    def skip(self, steps: int) -> None:
        """Counts steps that turn out not to be needed."""
        self._total -= steps


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} minutes"

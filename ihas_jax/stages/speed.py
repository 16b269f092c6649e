"""The time of functions that take turns, such as predictions, for a row."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

Name = TypeVar("Name")
_TURNS, _FEWEST_AT_ONCE, _MOST_AT_ONCE, _LEAST_ROWS = 5, 1_000, 100_000, 20_000


def take_turns(sides: Mapping[Name, Callable[[], float]], turns: int) -> dict[Name, float]:
    """The median of what each side returns; the first turn, which compiles, does not count.

    The order is another one in each turn, so that other work on the machine, and what the side
    before leaves in the caches, meet all sides alike.
    """
    found: dict[Name, list[float]] = {name: [] for name in sides}
    names, rng = [*sides], np.random.default_rng(0)
    for turn in range(turns + 1):
        for i in rng.permutation(len(names)):
            value = sides[names[i]]()
            if turn:
                found[names[i]].append(value)
    return {name: float(np.median(values)) for name, values in found.items()}


def microseconds_per_row(
    functions: Sequence[Callable[[np.ndarray], Any]], ids: np.ndarray
) -> list[float]:
    """Microseconds of each function for a row of ids `[n, N]`, up to 100,000 of them at once.

    The functions take turns; the median counts.
    """
    ids = ids[:_MOST_AT_ONCE]
    if len(ids) < _FEWEST_AT_ONCE:
        ids = np.resize(ids, (_FEWEST_AT_ONCE, ids.shape[1]))
    times = -(-_LEAST_ROWS // len(ids))  # a clock and a shared machine need some rows

    def side(function: Callable[[np.ndarray], Any]) -> Callable[[], float]:
        def turn() -> float:
            start = time.perf_counter()
            for _ in range(times):
                function(ids)
            return 1e6 * (time.perf_counter() - start) / (times * len(ids))

        return turn

    return [*take_turns(dict(enumerate(map(side, functions))), _TURNS).values()]

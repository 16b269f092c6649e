"""The time of functions that take turns, such as predictions, for a row."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from ihas_jax.processes import agreed

Name = TypeVar("Name")
_TURNS, _FEWEST_AT_ONCE, _MOST_AT_ONCE, _LEAST_ROWS = 5, 1_000, 100_000, 20_000
_TURNS_BESIDE, _MOST_BESIDE = 7, 20_000
"""So many turns that two functions that are equally fast have the same order in all of them by
chance in 2 of 128 cases, and the largest number of rows at once."""
_LEAST_BESIDE = 15_000.0
"""The microseconds that a turn of two functions takes at least: a busy machine disturbs less."""


def take_turns(sides: Mapping[Name, Callable[[], float]], turns: int) -> dict[Name, float]:
    """The median of what each side returns in its turns; see `each_turn`."""
    return {name: float(np.median(values)) for name, values in each_turn(sides, turns).items()}


def each_turn(sides: Mapping[Name, Callable[[], float]], turns: int) -> dict[Name, list[float]]:
    """What each side returns in each turn; the first turn, which compiles, does not count.

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
    return found


def microseconds_per_row(
    functions: Sequence[Callable[[np.ndarray], Any]], ids: np.ndarray
) -> list[float]:
    """Microseconds of each function for a row of ids `[n, N]`, up to 100,000 of them at once.

    The functions take turns; the median counts.
    """
    ids = _enough(ids[:_MOST_AT_ONCE])
    sides = _sides(functions, ids, -(-_LEAST_ROWS // len(ids)))  # a clock needs some rows
    return [*take_turns(dict(enumerate(sides)), _TURNS).values()]


def speed_beside(
    functions: Mapping[str, Callable[[np.ndarray], Any]], ids: np.ndarray
) -> dict[str, Any]:
    """Microseconds of two functions for a row of ids `[n, N]`, and their `ratio`.

    The ratio is that of the second function to the first one, turn by turn, so that other work on
    the machine hardly moves it. Up to 20,000 rows are predicted at once.

    Returns:
      Of each function and of the ratio the median (`middle`), the least (`low`) and the largest
      value (`high`) of as many `turns`.
    """
    ids, each = _enough(ids[:_MOST_BESIDE]), [*functions.values()]
    for _ in range(2):  # the first call compiles
        taken = len(ids) * sum(side() for side in _sides(each, ids, 1))
    # the processes of a job predict together, so equally often
    times = agreed(lambda: math.ceil(_LEAST_BESIDE / taken))
    sides = dict(zip(functions, _sides(each, ids, times), strict=True))
    found = each_turn(sides, _TURNS_BESIDE)
    values = {name: np.array(own) for name, own in found.items()}
    one, other = values.values()
    spreads = {name: _spread(own) for name, own in (values | {"ratio": other / one}).items()}
    return {**spreads, "turns": _TURNS_BESIDE}


def _spread(values: np.ndarray) -> dict[str, float]:
    found = {"middle": np.median(values), "low": values.min(), "high": values.max()}
    return {name: float(value) for name, value in found.items()}


def _enough(ids: np.ndarray) -> np.ndarray:
    """Ids of at least 1,000 rows, of which some are repeated where there are fewer."""
    return ids if len(ids) >= _FEWEST_AT_ONCE else np.resize(ids, (_FEWEST_AT_ONCE, ids.shape[1]))


def _sides(
    functions: Sequence[Callable[[np.ndarray], Any]], ids: np.ndarray, times: int
) -> list[Callable[[], float]]:
    """Functions that each measure the microseconds of a function for a row, in so many calls."""

    def side(function: Callable[[np.ndarray], Any]) -> Callable[[], float]:
        def turn() -> float:
            start = time.perf_counter()
            for _ in range(times):
                function(ids)
            return 1e6 * (time.perf_counter() - start) / (times * len(ids))

        return turn

    return [side(function) for function in functions]

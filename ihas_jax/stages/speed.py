"""The time of functions that take turns, such as predictions, for a row."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

Name = TypeVar("Name")
_TURNS, _FEWEST_AT_ONCE, _MOST_AT_ONCE, _LEAST_ROWS = 5, 1_000, 100_000, 20_000
_TURNS_BESIDE, _ROWS_BESIDE = 7, 5_000
"""So many turns that two functions that are equally fast have the same order in all of them by
chance in 2 of 128 cases, and the least number of rows in each."""


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
    return [*take_turns(dict(enumerate(_sides(functions, ids))), _TURNS).values()]


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
    sides = _sides([*functions.values()], ids[:_LEAST_ROWS], _ROWS_BESIDE)
    found = each_turn(dict(zip(functions, sides, strict=True)), _TURNS_BESIDE)
    times = {name: np.array(values) for name, values in found.items()}
    one, other = times.values()
    return {
        **{name: _spread(values) for name, values in (times | {"ratio": other / one}).items()},
        "turns": _TURNS_BESIDE,
    }


def _spread(values: np.ndarray) -> dict[str, float]:
    found = {"middle": np.median(values), "low": values.min(), "high": values.max()}
    return {name: float(value) for name, value in found.items()}


def _sides(
    functions: Sequence[Callable[[np.ndarray], Any]], ids: np.ndarray, least: int = _LEAST_ROWS
) -> list[Callable[[], float]]:
    """Functions that each measure the microseconds of a function for a row, in `least` rows."""
    ids = ids[:_MOST_AT_ONCE]
    if len(ids) < _FEWEST_AT_ONCE:
        ids = np.resize(ids, (_FEWEST_AT_ONCE, ids.shape[1]))
    times = -(-least // len(ids))  # a clock and a shared machine need some rows

    def side(function: Callable[[np.ndarray], Any]) -> Callable[[], float]:
        def turn() -> float:
            start = time.perf_counter()
            for _ in range(times):
                function(ids)
            return 1e6 * (time.perf_counter() - start) / (times * len(ids))

        return turn

    return [side(function) for function in functions]

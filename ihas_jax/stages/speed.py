"""The time of functions of ids, such as predictions, for a row."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

_TURNS, _FEWEST_AT_ONCE, _MOST_AT_ONCE, _LEAST_ROWS = 5, 1_000, 100_000, 20_000


def microseconds_per_row(
    functions: Sequence[Callable[[np.ndarray], Any]], ids: np.ndarray
) -> list[float]:
    """Microseconds of each function for a row of ids `[n, N]`, up to 100,000 of them at once.

    The functions take turns in another order each time, so that other work on the machine, and what
    the function before leaves in the caches, meet all alike; the median counts.
    """
    ids = ids[:_MOST_AT_ONCE]
    if len(ids) < _FEWEST_AT_ONCE:
        ids = np.resize(ids, (_FEWEST_AT_ONCE, ids.shape[1]))
    times = -(-_LEAST_ROWS // len(ids))  # a clock and a shared machine need some rows
    seconds: list[list[float]] = [[] for _ in functions]
    rng = np.random.default_rng(0)
    for turn in range(1 + _TURNS):
        for i in rng.permutation(len(functions)):
            start = time.perf_counter()
            for _ in range(times):
                functions[i](ids)
            if turn:  # the first one compiles
                seconds[i].append(time.perf_counter() - start)
    return [1e6 * float(np.median(taken)) / (times * len(ids)) for taken in seconds]

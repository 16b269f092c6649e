"""What work costs: seconds by the number of rows, from what was measured, and durations as text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Cost(NamedTuple):
    """Seconds of work on some rows: a part that does not depend on them, and a part for each."""

    fixed: float
    each: float

    def of(self, rows: float) -> float:
        """The seconds of the work on that number of rows."""
        return self.fixed + self.each * rows


def cost_of(measured: Sequence[tuple[float, float]]) -> Cost | None:
    """The cost that is nearest to pairs of rows and seconds, by least squares of relative errors.

    No part is below 0. With one number of rows all seconds are those of rows; without a pair there
    is no cost.
    """
    if not measured:
        return None
    rows, seconds = np.array(measured, float).T
    weights = 1 / np.maximum(seconds, 1e-9)
    if len(set(rows)) > 1:
        columns = np.stack([weights, weights * rows], axis=1)
        (fixed, each), *_ = np.linalg.lstsq(columns, weights * seconds, rcond=None)
        if fixed >= 0 and each >= 0:
            return Cost(float(fixed), float(each))
        if each < 0:
            return Cost(float(seconds.mean()), 0.0)
    return Cost(0.0, float((seconds / rows).mean()))


def duration(seconds: float) -> str:
    """A duration in the unit that suits it."""
    for unit, size, least in (("days", 86_400, 172_800), ("hours", 3600, 7200)):
        if seconds >= least:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds / 60:.0f} minutes" if seconds >= 120 else f"{seconds:.0f} s"

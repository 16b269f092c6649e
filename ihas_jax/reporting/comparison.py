"""Comparisons over seeds: means, deviations, paired differences."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import ttest_rel

from ihas_jax.training.metrics import auc_text

_ROUNDING = 1e-9


class Spread(NamedTuple):
    """Mean and standard deviation (n - 1) over seeds; the deviation of a single seed is nan."""

    mean: float
    deviation: float

    def __format__(self, digits: str) -> str:
        """Formats `mean ± deviation` by the format of a number, such as `.4f` or `+.4f`."""
        if math.isnan(self.mean):
            return "not defined"
        if math.isnan(self.deviation):
            return f"{self.mean:{digits}}"
        return f"{self.mean:{digits}} ± {self.deviation:{digits.lstrip('+')}}"


class Gain(NamedTuple):
    """A difference of two methods, paired by seed.

    Attributes:
      spread: mean and deviation of the difference.
      p: p-value of a paired t-test that the difference is zero; nan for a single seed or undefined
        values, and 1 if nothing differs.
    """

    spread: Spread
    p: float

    @property
    def p_text(self) -> str:
        """The p-value to three digits; empty if there is none."""
        if math.isnan(self.p):
            return ""
        return "<0.001" if self.p < 0.001 else f"{self.p:.3f}"


def spread(values: Sequence[float]) -> Spread:
    """Mean and deviation of values, one per seed."""
    numbers = np.asarray(values, float)
    deviation = float(numbers.std(ddof=1)) if len(numbers) > 1 else float("nan")
    return Spread(float(numbers.mean()), deviation)


def auc_spread(runs: Sequence[Mapping[str, Any]]) -> str:
    """Mean and deviation of the AUC over seeds to four digits, or why it is not defined."""
    undefined = [run for run in runs if math.isnan(run["auc"])]
    return auc_text(undefined[0]) if undefined else f"{spread([r['auc'] for r in runs]):.4f}"


def paired_gain(values: Sequence[float], base: Sequence[float]) -> Gain:
    """The difference of `values` from `base`, seed by seed."""
    gains = np.asarray(values, float) - np.asarray(base, float)
    if len(gains) < 2 or np.isnan(gains).any():
        return Gain(spread(gains.tolist()), float("nan"))
    if np.ptp(gains) <= _ROUNDING * np.abs(gains).max():  # no deviation to test by
        return Gain(spread(gains.tolist()), 0.0 if gains.any() else 1.0)
    return Gain(spread(gains.tolist()), float(ttest_rel(values, base).pvalue))

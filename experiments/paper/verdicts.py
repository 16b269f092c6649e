"""Whether differences over seeds bear a claim out: pure functions of numbers."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
from scipy.stats import nct, t

from ihas_jax.reporting.comparison import paired_gain, spread

Verdict = Literal["holds", "does not", "can't be told"]
Gains = Mapping[str, Sequence[float]]
"""Differences by seed that a claim says are positive, by the name of a comparison."""
_MOST_PAIRS = 1000


class Evidence(NamedTuple):
    """What the comparisons of a claim say for it and against it.

    Attributes:
      above: p-value that every gain is above 0.
      below: p-value that some gain is below the smallest effect of interest.
    """

    above: float
    below: float


def evidence(gains: Gains, smallest: float) -> Evidence:
    """The p-values of a claim that every one of some gains is positive.

    Each comparison has two paired t-tests, two-sided, of which only the side that is asked for
    counts. For the claim all have to be above 0, so the largest p-value is that of the claim
    (intersection-union test, Berger 1982); against it one comparison is enough, so the smallest
    p-value is multiplied by their number.

    Args:
      gains: differences by seed, of at least one comparison.
      smallest: the smallest effect of interest, in the unit of the gains.

    Returns:
      P-values, which are nan where one seed alone, or a value that is not defined, allows no test.
    """
    above = [_p(own, 0.0, sign=1) for own in gains.values()]
    below = [_p(own, smallest, sign=-1) for own in gains.values()]
    return Evidence(float(np.max(above)), float(np.minimum(1.0, len(below) * np.min(below))))


def _p(gains: Sequence[float], against: float, sign: int) -> float:
    """The p-value that a mean is on one side of a value; 1 where it is on the other side."""
    gain = paired_gain(gains, [against] * len(gains))
    other_side = sign * gain.spread.mean < 0 and not math.isnan(gain.p)
    return 1.0 if other_side else gain.p


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values that are adjusted for their number (Holm 1979); those that are nan do not count."""
    order = sorted((p, place) for place, p in enumerate(p_values) if not math.isnan(p))
    adjusted, highest = [math.nan] * len(p_values), 0.0
    for rank, (p, place) in enumerate(order):
        highest = max(highest, min(1.0, (len(order) - rank) * p))
        adjusted[place] = highest
    return adjusted


def power(deviation: float, pairs: int, effect: float, level: float) -> float:
    """The probability that a two-sided paired t-test finds an effect.

    Args:
      deviation: the standard deviation of the differences.
      pairs: their number.
      effect: their true mean.
      level: the level of the test.

    Returns:
      The probability, by the noncentral t distribution; nan for fewer than two pairs.
    """
    if pairs < 2 or math.isnan(deviation):
        return math.nan
    if deviation == 0:
        return 1.0
    freedom, center = pairs - 1, abs(effect) * math.sqrt(pairs) / deviation
    critical = t.isf(level / 2, freedom)
    found = float(nct.sf(critical, freedom, center) + nct.cdf(-critical, freedom, center))
    return 1.0 if math.isnan(found) else min(1.0, found)  # scipy gives up where it is nearly 1


def pairs_needed(deviation: float, effect: float, level: float, wanted: float = 0.8) -> int | None:
    """The least number of pairs with which `power` is as high as wanted; None if beyond 1,000."""
    pairs = range(2, _MOST_PAIRS + 1)
    if math.isnan(deviation) or power(deviation, pairs[-1], effect, level) < wanted:
        return None
    return pairs[bisect_left(pairs, wanted, key=lambda n: power(deviation, n, effect, level))]


def verdict(found: Evidence, level: float) -> Verdict:
    """What adjusted p-values say of a claim; a gain that is sure but small still holds."""
    if found.above < level:
        return "holds"
    return "does not" if found.below < level else "can't be told"


class Judgement(NamedTuple):
    """A claim on a log.

    Attributes:
      verdict: see `verdict`.
      evidence: p-values that are adjusted for the claims on the log.
      weakest: the comparison with the smallest mean gain.
      gains: that comparison's differences, by seed.
      power: that of the least powerful comparison to find the smallest effect of interest, at the
        level at which Holm's procedure ended.
      needed: the number of seeds for a power of 0.8; None if there is no such number.
    """

    verdict: Verdict
    evidence: Evidence
    weakest: str
    gains: Sequence[float]
    power: float
    needed: int | None


def judge(claims: Sequence[tuple[Gains, float]], level: float = 0.05) -> list[Judgement]:
    """Judges the claims on one log together: the chance of a wrong `holds` is at most the level.

    So is the chance of a wrong `does not`; each of the two families has a procedure of Holm.

    Args:
      claims: for each claim its gains, of at least one comparison, and its smallest effect of
        interest.
      level: the level of both families.
    """
    found = [evidence(gains, smallest) for gains, smallest in claims]
    adjusted = [Evidence(*pair) for pair in zip(*map(holm, zip(*found, strict=True)), strict=True)]
    undecided = sum(one.above >= level for one in adjusted)
    judged = []
    for (gains, smallest), own in zip(claims, adjusted, strict=True):
        weakest = min(gains, key=lambda name: np.nan_to_num(np.mean(gains[name]), nan=-np.inf))
        at = level / max(1, undecided)
        spreads = [(spread(values).deviation, len(values)) for values in gains.values()]
        least = float(np.min([power(*one, smallest, at) for one in spreads]))
        needed = pairs_needed(float(np.max([one for one, _ in spreads])), smallest, at)
        judged.append(Judgement(verdict(own, level), own, weakest, gains[weakest], least, needed))
    return judged

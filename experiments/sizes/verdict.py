"""The verdict on the goal: is a method worth more than a uniform size of as many numbers?"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import common

from ihas_jax.reporting.comparison import Gain
from sizes.rows import Found, Kind, Sizes, row_of

FLOOR = 0.0003
"""How much AUC a method may lose to the uniform size."""
LOSS = 0.002
"""Where the uniform size loses this much to the full size, a gain is asked for."""
GAIN, LEVEL = 0.001, 0.05
"""The gain over the uniform size that is asked for, and the p-value below which it counts."""
JUDGED = ("spectral", "ihas")
"""The methods that the goal is about, with their variants."""
GOAL = (
    f"A method must nowhere lie below the uniform size of the same budget by more than {FLOOR} of "
    f"AUC, and must lie above it by {GAIN} with p < {LEVEL} where the uniform size loses {LOSS} or "
    "more to the full size."
)


@dataclass(frozen=True)
class Verdict:
    """Whether a method reaches the goal at one budget.

    Attributes:
      gain: its AUC minus that of the uniform size, paired by seed.
      loss: the AUC of the full size minus that of the uniform size.
    """

    gain: Gain
    loss: float

    @property
    def defined(self) -> bool:
        """Whether there is an AUC at all."""
        return math.isfinite(self.gain.spread.mean) and math.isfinite(self.loss)

    @property
    def asked(self) -> bool:
        """Whether a gain is asked for."""
        return self.loss >= LOSS

    @property
    def not_below(self) -> bool:
        """Whether the method is not below the uniform size by more than the goal allows."""
        return self.gain.spread.mean >= -FLOOR

    @property
    def above(self) -> bool:
        """Whether the method is above the uniform size by as much as the goal asks for."""
        return self.gain.spread.mean >= GAIN and self.gain.p < LEVEL

    @property
    def reached(self) -> bool:
        """Whether both parts hold, as far as they are asked for."""
        return self.not_below and (self.above or not self.asked)

    @property
    def words(self) -> dict[str, str]:
        """The two parts of the goal and the outcome of each."""
        if not self.defined:
            return dict.fromkeys(("not below", "above"), "not defined")
        return {
            "not below": _word(self.not_below),
            "above": _word(self.above) if self.asked else "not asked for",
        }

    @property
    def content(self) -> dict[str, Any]:
        """The verdict as JSON."""
        (mean, deviation), p = self.gain
        facts = {"gain": mean, "deviation": deviation, "p": p, "uniform_loses": self.loss}
        return facts | self.words


def _word(holds: bool) -> str:
    return "holds" if holds else "does not hold"


def verdicts(sizes: Sizes, found: Found, budget: float) -> list[tuple[Kind, Verdict]]:
    """The verdicts on the judged methods that have scores at a budget."""
    uniform = found.get(row_of(sizes.kinds[0], budget))
    if uniform is None:
        return []
    loss = common.gain_over(uniform, found[sizes.full], "auc").spread.mean
    return [
        (kind, Verdict(common.gain_over(uniform, runs, "auc"), loss))
        for kind in sizes.kinds
        if kind.method in JUDGED and (runs := found.get(row_of(kind, budget)))
    ]


def verdict_content(sizes: Sizes, found: Found) -> dict[str, Any]:
    """All verdicts of a log as JSON, by budget and method."""
    return {
        str(budget): {k.name: v.content for k, v in verdicts(sizes, found, budget)}
        for budget in sizes.budgets
    }

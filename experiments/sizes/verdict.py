"""The verdict on the goal: is a method worth more than a uniform size of as many numbers?"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import common

from ihas_jax.reporting.comparison import Gain
from sizes.rows import Found, Kind, Sizes, percent, row_of

FLOOR = 0.0003
"""How much AUC a method may lose to the uniform size."""
LOSS = 0.002
"""Where the uniform size loses this much to the full size, a gain is asked for."""
GAIN, LEVEL = 0.001, 0.05
"""The gain over the uniform size that is asked for, and the p-value below which it counts."""
JUDGED = ("spectral", "ihas")
"""The methods that the goal is about, with their variants."""
GOAL = (
    f"The goal: nowhere below the uniform size of the same budget by more than {FLOOR} of AUC; and "
    f"above it by {GAIN} with p < {LEVEL} where the uniform size loses {LOSS} or more to the full "
    "size."
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


def verdict_lines(sizes: Sizes, found: Found) -> list[str]:
    """A paragraph of Markdown for each budget."""
    lines: list[str] = []
    for budget in sizes.budgets:
        judged = verdicts(sizes, found, budget)
        if judged:
            loss = judged[0][1].loss
            parts = [_sentence(kind, verdict) for kind, verdict in judged]
            lines += [f"**{percent(budget)}**: {_asks(loss)} {' '.join(parts)}", ""]
    return lines


def _asks(loss: float) -> str:
    if math.isnan(loss):
        return "the AUC is not defined."
    change = f"loses {loss:.4f} to" if loss >= 0 else f"gains {-loss:.4f} on"
    asks = f"a gain of {GAIN} is asked for" if loss >= LOSS else "no gain is asked for"
    return f"the uniform size {change} the full size, so {asks}."


def _sentence(kind: Kind, verdict: Verdict) -> str:
    if not verdict.defined:
        return f"{kind.title}: not defined."
    said = "; ".join(f"{part}, {word}" for part, word in verdict.words.items())
    p = verdict.gain.p_text
    equal = p if p.startswith("<") else f"= {p}"
    return f"{kind.title} ({verdict.gain.spread.mean:+.4f}, p {equal}): {said}."

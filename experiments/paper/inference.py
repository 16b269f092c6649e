"""What Figure 4 compares: models of a log with their AUC and the time of their predictions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import common
import numpy as np

from ihas_jax.reporting.comparison import spread

NONE, EXACT, COMPILED = "none", "ihas", "ihas_compiled"
"""The base model, and iHAS with each router."""
MOST_TIME, MOST_LOST = 1.0, 0.0005
"""The goal of the compiled router: time over the base model's, and AUC below the exact router's."""
HEADERS = ("method", "AUC", "AUC vs base", "p", "test split, ms", "µs per row", "time / base's")
GOAL_HEADERS = (
    *("log", "C", f"time / base's, at most {MOST_TIME:.2f}", ""),
    *(f"AUC vs exact router, at most {MOST_LOST} below", "p", ""),
)


@dataclass(frozen=True)
class Timed:
    """A model on a log.

    Attributes:
      title: its name in tables and figures.
      runs: its scores, by seed.
      milliseconds: the time of predicting all test rows, by seed.
    """

    title: str
    runs: common.Runs
    milliseconds: Sequence[float]

    @property
    def auc(self) -> float:
        """The mean test AUC."""
        return float(np.mean([run["auc"] for run in self.runs]))

    def ratios(self, base: Timed) -> list[float]:
        """The time over that of the base model, by seed."""
        pairs = zip(self.milliseconds, base.milliseconds, strict=True)
        return [own / other for own, other in pairs]


def rows_of(models: Mapping[str, Timed], test_rows: int) -> list[list[str]]:
    """The rows of the table of a log, whose first model is the base model."""
    base, *_ = models.values()
    return [
        [
            model.title,
            common.spread_cell(model.runs, "auc"),
            *common.gain_cells(base.runs, model.runs, "auc"),
            f"{spread(model.milliseconds):.2f}",
            f"{1e3 * np.mean(model.milliseconds) / test_rows:.2f}",
            "" if model is base else f"{spread(model.ratios(base)):.2f}",
        ]
        for model in models.values()
    ]


def goal_row(name: str, clusters: int, models: Mapping[str, Timed]) -> list[str]:
    """Whether iHAS with the compiled router is fast and accurate enough, by the means over seeds.

    Args:
      name: the log, as Markdown.
      clusters: C.
      models: the models of the log, among them base and iHAS with each router.
    """
    base, exact, compiled = (models[key] for key in (NONE, EXACT, COMPILED))
    ratio = spread(compiled.ratios(base))
    gain = common.gain_over(exact.runs, compiled.runs, "auc")
    return [
        *(name, str(clusters), f"{ratio:.2f}", _said(ratio.mean <= MOST_TIME)),
        *(f"{gain.spread:+.4f}", gain.p_text, _said(gain.spread.mean >= -MOST_LOST)),
    ]


def _said(reached: bool) -> str:
    return "reached" if reached else "missed"

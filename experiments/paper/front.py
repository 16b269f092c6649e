"""The models of pareto.py, and those of them that no other one equals or beats in size and AUC."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from common import Runs
from compare import Variant
from comparison import LogComparison
from reference import BASE, STUDENT, without_teachers
from sizes.rows import percent

from ihas_jax.reporting.scores import titles
from ihas_jax.selectors.registry import METHODS
from ihas_jax.stages.verdict import unbeaten

NONE = "none"


@dataclass(frozen=True)
class Point:
    """A model at one size.

    Attributes:
      method: the method, or `none` for the model of full size.
      taught: whether it learns from teachers; otherwise it learns from clicks.
      budget: the share of the table's numbers that it keeps; None for a model that can have no
        budget.
    """

    method: str
    taught: bool
    budget: float | None = None

    @property
    def name(self) -> str:
        """The name in files, by which its scores are kept; names of methods have no hyphen."""
        if self.method == NONE:
            return STUDENT if self.taught else BASE
        size = "" if self.budget is None else f"_{self.budget}"
        return f"{self.method}{size}" + ("" if self.taught else "-clicks")

    @property
    def line(self) -> tuple[str, bool]:
        """What the points of a line in the figure, and of a row in the table, share."""
        return self.method, self.taught

    @property
    def title(self) -> str:
        """The method, as tables and figures name it."""
        return "full size" if self.method == NONE else titles()[self.method]

    @property
    def source(self) -> str:
        """What the model learns from, in a word."""
        return "teachers" if self.taught else "clicks"

    def variant(self, arguments: LogComparison) -> Variant:
        """The model as `score_logs` trains it.

        The two models of full size are those of one run. The search of a method is shared by all
        of its budgets.

        Raises:
          InputError: the method is unknown, or the searched model is a teacher of the full size.
        """
        config = arguments.config_of(self.method, self.budget)
        size = "" if self.budget is None else f", {percent(self.budget)}"
        title = f"{self.title}{size}, {self.source}"
        if self.method == NONE:
            return Variant(self.name, NONE, title, config, self.name)
        config = config if self.taught else without_teachers(config)
        return Variant(self.name, self.name, title, config, self.method)


Found = Mapping[str, Runs]
"""The scores of a log by the name of a point; points that can't run have none."""


def points_of(methods: Sequence[str], budgets: Sequence[float], taught: bool) -> list[Point]:
    """The models of full size, then each method at each budget, from clicks and from teachers.

    A method that serves its searched model has one size.

    Args:
      methods: names of methods.
      budgets: shares of the table's numbers.
      taught: whether there are teachers.
    """
    sources = (False, True) if taught else (False,)
    points = [Point(NONE, source) for source in sources]
    for method in methods:
        sizes = (None,) if METHODS.find(method).serves_searched else budgets
        points += [Point(method, source, size) for source in sources for size in sizes]
    return points


def size_of(runs: Runs) -> float:
    """The mean number of parameters, those of routing included."""
    return float(np.mean([run["parameters"] + run["router_parameters"] for run in runs]))


def auc_of(runs: Runs) -> float:
    """The mean AUC; nan where a run has none."""
    return float(np.mean([run["auc"] for run in runs]))


def front_of(points: Sequence[Point], found: Found) -> list[Point]:
    """The points of the Pareto front of mean AUC against mean parameters, from the smallest on.

    No other model is at most as large with at least their AUC and better in one of the two. Points
    without scores, or without an AUC, are not on it.
    """
    scored = [p for p in points if p.name in found and math.isfinite(auc_of(found[p.name]))]
    costs = np.array([(size_of(found[p.name]), -auc_of(found[p.name])) for p in scored])
    return sorted((scored[i] for i in unbeaten(costs)), key=lambda p: size_of(found[p.name]))

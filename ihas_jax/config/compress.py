"""The choices of compression: what is tried on the way to the smallest good model."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from ihas_jax.config.bounds import NotNegative, Positive, Share, check_fields
from ihas_jax.errors import InputError

Selection = Literal["spectral", "uniform"]


@dataclass(frozen=True)
class CompressConfig:
    """What compression tries."""

    tolerance: NotNegative[float] = 5e-4
    """The AUC that the chosen model may lose to the best one, on validation rows. Where these all
    have the same label, there is no AUC, and the logloss counts."""
    standard_errors: NotNegative[float] = 2.0
    """The number of standard errors by which the chosen model may lose more than --tolerance, since
    few validation rows can't tell similar models apart. 2 is a certainty of about 95 %, and 0
    allows --tolerance alone. On validation rows the chosen model never loses more than
    --tolerance to the base model."""
    budget: tuple[Positive[Share[float]], ...] = (0.2, 0.1, 0.05, 0.025)
    """The shares of the base model's embedding table to try, such as 0.1 for a tenth of its
    numbers. The best model is sought among these sizes, the base model, and models that are
    candidates for teachers and smaller than the base model."""
    teachers: tuple[str, ...] = ("ffm", "dcnv2", "deepfm", "lr")
    """The click models that may become teachers, beside the base model; all learn from clicks.
    The teachers are those whose mean prediction of the validation rows is best. Without a name all
    models learn from clicks."""
    teacher_seeds: Positive[int] = 2
    """The number of seeds of each candidate that is among the best after its first seed."""
    students: tuple[str, ...] = ("dcnv2",)
    """The click models that are tried beside the base model, with a smaller D. The base model is
    always tried, with its own D."""
    student_dim: Positive[int] = 8
    """The embedding size D from which the sizes of --students are cut."""
    student_rank: NotNegative[int] = 8
    """The rank of the students' cross matrices (--model.cross-rank). 0 is full rank, which takes
    more room than the tables."""
    selections: tuple[Selection, ...] = ("spectral", "uniform")
    """How a size is reached: by what the numbers of a table are worth, or by a smaller D."""
    l2: tuple[NotNegative[float], ...] = (1e-5, 1e-4)
    """The coefficients of the L2 term that are tried for the base model and for each teacher.
    Students and what is cut from them have that of --optimizer.l2."""

    def __post_init__(self) -> None:
        """Raises: InputError: a value is out of range, named twice, or there is none."""
        check_fields(self)
        numbers = {"tolerance": (self.tolerance,), "standard-errors": (self.standard_errors,)}
        for flag, values in (numbers | {"l2": self.l2}).items():
            for value in values:
                if not math.isfinite(value):
                    raise InputError(f"--{flag} must be a finite number, not {value}.")
        for name in ("budget", "teachers", "students", "selections", "l2"):
            values = getattr(self, name)
            if len(set(values)) < len(values):
                raise InputError(f"--{name} names {_twice(values)} twice.")
        for name in ("budget", "selections", "l2"):
            if not getattr(self, name):
                raise InputError(f"--{name} needs at least one value.")


def _twice(values: tuple[object, ...]) -> object:
    return next(value for value in values if values.count(value) > 1)

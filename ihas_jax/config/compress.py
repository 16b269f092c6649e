"""The choices of compression: what is tried on the way to the smallest good model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ihas_jax.config.bounds import NotNegative, Positive, Share, check_fields
from ihas_jax.errors import InputError

Selection = Literal["spectral", "uniform"]


@dataclass(frozen=True)
class CompressConfig:
    """What compression tries."""

    tolerance: NotNegative[float] = 5e-4
    """The AUC that the chosen model may lose to the best one, on validation rows."""
    budget: tuple[Positive[Share[float]], ...] = (0.5, 0.25, 0.125, 0.0625, 0.03125)
    """The shares of the embedding table's numbers to try, such as 0.125 for an eighth."""
    teachers: tuple[str, ...] = ("ffm", "dcnv2", "deepfm", "lr")
    """The click models that may become teachers, beside the base model; all learn from clicks.
    The teachers are those whose mean prediction of the validation rows is best. Without a name all
    models learn from clicks."""
    teacher_seeds: Positive[int] = 2
    """The number of seeds of each candidate that is among the best after its first seed."""
    students: tuple[str, ...] = ("dcnv2",)
    """The click models that are tried at a smaller D, beside all selections of the base model."""
    selections: tuple[Selection, ...] = ("spectral", "uniform")
    """How a size is reached: by principal axes of the base model's student, or by a smaller D."""
    l2: tuple[NotNegative[float], ...] = (1e-5, 1e-4)
    """The coefficients of the L2 term that are tried for the base model and for each teacher.
    Compact models have that of --optimizer.l2."""

    def __post_init__(self) -> None:
        """Raises: InputError: a value is out of range, named twice, or there is none."""
        check_fields(self)
        for name in ("budget", "teachers", "students", "selections", "l2"):
            values = getattr(self, name)
            if len(set(values)) < len(values):
                raise InputError(f"--{name} names {_twice(values)} twice.")
        for name in ("budget", "selections", "l2"):
            if not getattr(self, name):
                raise InputError(f"--{name} needs at least one value.")


def _twice(values: tuple[object, ...]) -> object:
    return next(value for value in values if values.count(value) > 1)

"""The choices of methods that keep a share of a table by one rule: Spectral and the baselines."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ihas_jax.config.bounds import Falling, NotNegative, Positive, Share
from ihas_jax.config.methods import MethodConfig


@dataclass(frozen=True)
class SpectralConfig(MethodConfig):
    """Principal axes of a trained model, cut by what they are worth."""

    flag = "spectral"
    choice = ("kept", "cut", "clusters", "by")
    amount = ("kept",)

    kept: Positive[Share[float]] = 0.25
    """The share of the embedding table's numbers to keep."""
    cut: Literal["numbers", "axes"] = "numbers"
    """What is kept: single numbers of the turned table, or whole axes of fields.
    Whole axes make the retrained table really smaller; single numbers keep more of the accuracy."""
    steps: Falling[tuple[Positive[Share[float]], ...]] = ()
    """Falling shares of the table to which the model is cut, and trained at each, before the last.
    Every step turns what is left to new axes; by default the model is cut at once."""
    clusters: Positive[int] = 1
    """The number of clusters of rows; above 1 each has a model on the principal axes of its rows.
    The options of --cluster say how they are found."""
    by: Literal["loss", "weights"] = "loss"
    """What an axis is worth: the rise of the log loss without it, or the variance that it adds to
    the first layer of an MLP."""


@dataclass(frozen=True)
class UniformConfig(MethodConfig):
    """The baseline of a smaller size for all fields alike."""

    flag = "uniform"
    choice = ("dim",)
    amount = ("dim",)

    dim: Positive[int | None] = None
    """The embedding size of every field; a quarter of the model's by default."""


@dataclass(frozen=True)
class MixedConfig(MethodConfig):
    """The baseline of sizes by a field's number of values (Ginart et al., ISIT 2021)."""

    flag = "mixed"
    choice = ("alpha", "kept")
    amount = ("kept",)

    alpha: NotNegative[float] = 0.3
    """The size of a field is proportional to its number of values to the power of minus alpha."""
    kept: Positive[Share[float]] = 0.25
    """The share of the embedding table's numbers to keep."""


@dataclass(frozen=True)
class MagnitudeConfig(MethodConfig):
    """The baseline of pruning a trained table by magnitude."""

    flag = "magnitude"
    choice = ("kept", "structured")
    amount = ("kept",)

    kept: Positive[Share[float]] = 0.25
    """The share of the embedding table's numbers to keep."""
    structured: bool = False
    """Whether whole coordinates of fields are kept, by their norms, instead of single numbers."""


@dataclass(frozen=True)
class RandomConfig(MethodConfig):
    """The baseline of random coordinates."""

    flag = "random"
    choice = ("kept",)
    amount = ("kept",)

    kept: Positive[Share[float]] = 0.25
    """The share of the embedding table's numbers to keep."""

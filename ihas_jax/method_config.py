"""The choices of the selection methods that iHAS is compared with, one frozen dataclass each.

Pretraining, gate steps and the optimiser of the gates are in `config.SearchConfig`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ihas_jax.errors import InputError

MethodName = Literal[
    "none",
    "ihas",
    "autofield",
    "adafs_soft",
    "adafs_hard",
    "autodim",
    "pep",
    "optembed",
    "optfs",
    "sseds",
    "dimreg",
]


@dataclass(frozen=True)
class AutoFieldConfig:
    """AutoField (Wang et al., WWW 2022)."""

    weights: Literal["softmax", "gumbel"] = "gumbel"
    """The field weights in the search: with Gumbel noise, as in the paper, or plain softmax.
    Plain softmax is the default of the published code."""
    fields: int | None = None
    """The number of fields to keep; half of them by default."""
    anneal: float = 5e-5
    """gumbel: fall of the temperature per step, from 1 to 0.01."""

    def __post_init__(self) -> None:
        """Raises: InputError: a value is out of range; the message names its flag."""
        _positive("autofield.fields", self.fields)
        _not_negative("autofield.anneal", self.anneal)


@dataclass(frozen=True)
class AdaFSConfig:
    """AdaFS, soft and hard (Lin et al., KDD 2022)."""

    fields: int | None = None
    """adafs_hard: number of fields that an instance keeps; half of them by default."""
    relu: bool = True
    """Whether ReLU and dropout come before the softmax of the scores, as published."""
    dropout: float = 0.2
    """The dropout rate of the controller's scores."""
    reweight: bool = True
    """adafs_hard: whether the kept weights are divided by their sum."""
    weighted: bool = True
    """adafs_hard: whether kept fields are multiplied by their weights or by 1."""
    rescale: bool = True
    """Whether weights are multiplied by the number of kept fields.
    Without it, and without batch norm, the network's inputs shrink when pretraining ends."""
    unit_products: bool = True
    """Whether the batch norm of embeddings starts at a scale that suits sums of inner products.
    At this scale the inner products of all pairs of fields add up to a variance of 1.
    At scale 1, FM and similar models start with log-odds of ten and more."""

    def __post_init__(self) -> None:
        """Raises: InputError: a value is out of range; the message names its flag."""
        _positive("adafs.fields", self.fields)
        _share("adafs.dropout", self.dropout)


@dataclass(frozen=True)
class AutoDimConfig:
    """AutoDim (Zhao et al., WWW 2021)."""

    dims: tuple[int, ...] = (2, 4, 8, 16)
    """The candidate embedding sizes of a field; the largest is at most the model's size D."""
    anneal: float = 5e-5
    """The fall of the temperature of the Gumbel-softmax per step, from 1 to 0.01."""

    def __post_init__(self) -> None:
        """Raises: InputError: a value is out of range; the message names its flag."""
        if not self.dims or min(self.dims) < 1 or list(self.dims) != sorted(set(self.dims)):
            raise InputError(f"--autodim.dims must be sizes in ascending order, not {self.dims}.")
        _not_negative("autodim.anneal", self.anneal)


@dataclass(frozen=True)
class PepConfig:
    """PEP (Liu et al., ICLR 2021)."""

    thresholds: Literal[
        "global", "coordinate", "value", "field", "value_coordinate", "field_coordinate"
    ] = "value_coordinate"
    """What shares a threshold; in the published runs every number of the table has its own one."""
    start: float = -15.0
    """The start of the thresholds before the sigmoid (-150 in the published runs on long logs)."""
    end: float = 0.0
    """The planned end of the thresholds, at most 0; if it is near 0 they reach it later."""
    epochs: int = 20
    """The number of epochs in which thresholds would rise from start to end by their first step."""
    kept: float = 0.5
    """The share of the embedding table's numbers to keep; the search ends when it is reached."""
    ticket: bool = True
    """Whether retraining starts from the initial embeddings (the lottery ticket) or fresh ones."""
    stopping: Literal["valid", "test"] = "valid"
    """The split that decides when retraining stops; the published code takes the test split."""

    def __post_init__(self) -> None:
        """Raises: InputError: a value is out of range; the message names its flag."""
        _positive("pep.epochs", self.epochs)
        _positive("pep.kept", self.kept)
        _share("pep.kept", self.kept)
        if not self.start < self.end:
            raise InputError(f"--pep.start {self.start} must lie below --pep.end {self.end}.")


@dataclass(frozen=True)
class OptFSConfig:
    """OptFS (Lyu et al., WWW 2023)."""

    epochs: int = 10
    """The number of epochs of the search, which the bound of other trainings does not limit.
    Gates that the loss does not hold open close within half of it."""
    rewind: int = 1
    """Retraining starts from the weights after this number of epochs."""
    temperature: float = 1000.0
    """The temperature of the gates in the last epoch; it rises from 1 by equal factors."""
    weight: float = 0.05
    """The weight of the mean gate in the loss: the paper's lambda times the number of values."""

    def __post_init__(self) -> None:
        """Raises: InputError: a value is out of range; the message names its flag."""
        _not_negative("optfs.weight", self.weight)
        if not 0 <= self.rewind < self.epochs:
            raise InputError(
                f"--optfs.rewind {self.rewind} must be at least 0 and less than --optfs.epochs, "
                f"which is {self.epochs}."
            )
        if not self.temperature >= 1:
            raise InputError(f"--optfs.temperature must be at least 1, not {self.temperature}.")


@dataclass(frozen=True)
class OptEmbedConfig:
    """OptEmbed (Lyu et al., CIKM 2022)."""

    weight: float = 1e-3
    """The weight of the sum of exp(-threshold) over fields in the loss."""
    reach: float = 1.0
    """How far the penalty alone moves thresholds in `epochs`, which sets their step size.
    The unit is the mean L1 norm of an initial embedding."""
    epochs: int = 10
    """The number of epochs that `reach` refers to; the search itself stops early."""
    generations: int = 30
    """The number of generations of the evolution of widths."""
    mutants: int = 10
    """The number of candidates per generation that are mutated parents."""
    children: int = 10
    """The number of candidates per generation that cross two parents."""
    parents: int = 10
    """The number of best candidates so far from which the next generation comes."""
    mutation: float = 0.1
    """The probability that a mutant replaces the width of a field by a random one."""

    def __post_init__(self) -> None:
        """Raises: InputError: a value is out of range; the message names its flag."""
        for name in ("epochs", "mutants", "children", "parents"):
            _positive(f"optembed.{name}", getattr(self, name))
        _not_negative("optembed.generations", self.generations)
        _not_negative("optembed.weight", self.weight)
        _not_negative("optembed.reach", self.reach)
        _share("optembed.mutation", self.mutation)


@dataclass(frozen=True)
class SsedsConfig:
    """SSEDS (Qu et al., SIGIR 2022)."""

    kept: float = 0.5
    """The share of the K coordinates to keep (0.1 in published ports)."""

    def __post_init__(self) -> None:
        """Raises: InputError: a value is out of range; the message names its flag."""
        _share("sseds.kept", self.kept)


@dataclass(frozen=True)
class DimRegConfig:
    """DimReg, dimension regularisation by global gates, as ported to PyTorch in Autogrow."""

    weight: float = 0.1
    """The weight of the regulariser in the loss."""
    l1_ratio: float = 1.0
    """The factor of the mean gate in the regulariser; a larger factor keeps fewer coordinates."""
    slope: float = 5.0
    """The slope of the sigmoid of the gates."""

    def __post_init__(self) -> None:
        """Raises: InputError: a value is out of range; the message names its flag."""
        _not_negative("dimreg.weight", self.weight)
        _not_negative("dimreg.l1-ratio", self.l1_ratio)
        _positive("dimreg.slope", self.slope)


def _positive(flag: str, value: float | None) -> None:
    if value is not None and not value > 0:
        raise InputError(f"--{flag} must be positive, not {value}.")


def _not_negative(flag: str, value: float) -> None:
    if not value >= 0:
        raise InputError(f"--{flag} must not be negative, but is {value}.")


def _share(flag: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise InputError(f"--{flag} must lie between 0 and 1, not {value}.")

"""The choices of the selection methods that iHAS is compared with, one frozen dataclass each.

What they share (pretraining, gate steps, the gates' optimiser) is in `config.SearchConfig`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ihas_jax.errors import InputError

MethodName = Literal[
    "none", "ihas", "autofield", "adafs_soft", "adafs_hard", "autodim", "pep", "optembed", "optfs",
    "sseds", "dimreg",
]  # fmt: skip


@dataclass(frozen=True)
class AutoFieldConfig:
    """AutoField (Wang et al., WWW 2022)."""

    weights: Literal["softmax", "gumbel"] = "gumbel"
    """Field weights in the search: with Gumbel noise as in the paper, or the plain softmax that is
    the default of the published code."""
    fields: int | None = None
    """Fields to keep; half of them by default."""
    anneal: float = 5e-5
    """gumbel: fall of the temperature from 1 to .01, per step."""

    def __post_init__(self) -> None:
        """Raises: InputError: a value is out of range; the message names its flag."""
        _positive("autofield.fields", self.fields)
        _not_negative("autofield.anneal", self.anneal)


@dataclass(frozen=True)
class AdaFSConfig:
    """AdaFS, soft and hard (Lin et al., KDD 2022)."""

    fields: int | None = None
    """adafs_hard: fields that an instance keeps; half of them by default."""
    relu: bool = True
    """Whether the softmax sees ReLU and dropout of the controller's scores, as published."""
    dropout: float = 0.2
    """Dropout rate of the controller's scores."""
    reweight: bool = True
    """adafs_hard: whether the kept weights are divided by their sum."""
    weighted: bool = True
    """adafs_hard: whether kept fields are multiplied by their weights, rather than by 1."""
    rescale: bool = True
    """Multiply weights by the number of kept fields, for networks without batch norm, whose inputs
    would shrink when pretraining ends."""
    unit_products: bool = True
    """Start the embeddings' batch norm at the scale at which the inner products of all pairs of
    fields add up to a variance of 1, rather than at scale 1, at which FM and its kin start with
    log-odds in the tens."""

    def __post_init__(self) -> None:
        """Raises: InputError: a value is out of range; the message names its flag."""
        _positive("adafs.fields", self.fields)
        _share("adafs.dropout", self.dropout)


@dataclass(frozen=True)
class AutoDimConfig:
    """AutoDim (Zhao et al., WWW 2021)."""

    dims: tuple[int, ...] = (2, 4, 8, 16)
    """Candidate embedding sizes of a field, the largest at most the model's."""
    anneal: float = 5e-5
    """Fall of the Gumbel-softmax's temperature from 1 to .01, per step."""

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
    """What has a threshold of its own; the published runs give every number of the table one."""
    start: float = -15.0
    """Where thresholds start, before the sigmoid (-150 in the published runs on long logs)."""
    end: float = 0.0
    """Where weight decay drives them, at most 0; near 0 they arrive late."""
    epochs: int = 20
    """Epochs in which thresholds would rise from start to end at their first pace."""
    kept: float = 0.5
    """Share of the embedding table's numbers to keep; the search ends when it is reached."""
    ticket: bool = True
    """Retrain from the initial embeddings (the lottery ticket) rather than from fresh ones."""
    stopping: Literal["valid", "test"] = "valid"
    """Split that stops retraining; the published code looks at the test split."""

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
    """Length of the search, whatever the bound of other trainings; unopposed gates close by half of
    it."""
    rewind: int = 1
    """Epochs after which the weights are set aside that retraining starts from."""
    temperature: float = 1000.0
    """Temperature of the gates in the last epoch; it rises from 1 by equal factors."""
    weight: float = 0.05
    """Weight of the mean gate in the loss: the paper's lambda times the number of values."""

    def __post_init__(self) -> None:
        """Raises: InputError: a value is out of range; the message names its flag."""
        _not_negative("optfs.weight", self.weight)
        if not 0 <= self.rewind < self.epochs:
            raise InputError(
                f"--optfs.rewind {self.rewind} must lie between 0 and --optfs.epochs "
                f"{self.epochs}, less one."
            )
        if not self.temperature >= 1:
            raise InputError(f"--optfs.temperature must be at least 1, not {self.temperature}.")


@dataclass(frozen=True)
class OptEmbedConfig:
    """OptEmbed (Lyu et al., CIKM 2022)."""

    weight: float = 1e-3
    """Weight of the sum over fields of exp(-threshold) in the loss."""
    reach: float = 1.0
    """How far the penalty alone drives thresholds in so many epochs, as a multiple of an
    embedding's mean initial L1 norm; sets the step of their plain SGD."""
    epochs: int = 10
    """Epochs for which `reach` is meant; the search itself stops early."""
    generations: int = 30
    """Generations of the evolution of widths."""
    mutants: int = 10
    """Candidates of a generation that are mutated parents."""
    children: int = 10
    """Candidates of a generation that cross two parents."""
    parents: int = 10
    """Best candidates so far, from which the next generation comes."""
    mutation: float = 0.1
    """Probability that a mutant draws a field's width anew."""

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
    """Share of the K coordinates to keep (0.1 in published ports)."""

    def __post_init__(self) -> None:
        """Raises: InputError: a value is out of range; the message names its flag."""
        _share("sseds.kept", self.kept)


@dataclass(frozen=True)
class DimRegConfig:
    """DimReg, dimension regularisation by global gates, as ported to PyTorch in Autogrow."""

    weight: float = 0.1
    """Weight of the regulariser."""
    l1_ratio: float = 1.0
    """Factor of the mean gate in it, beside the polarisation; the larger, the fewer are kept."""
    slope: float = 5.0
    """Slope of the gates' sigmoid."""

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

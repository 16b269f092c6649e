"""The choices of each selection method, as a frozen dataclass.

Pretraining, gate steps and the optimiser of the gates are in `SearchConfig`, for all methods.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from ihas_jax.config.bounds import (
    Bound,
    NotNegative,
    Number,
    Positive,
    Share,
    at_least,
    check_fields,
)
from ihas_jax.errors import InputError

ThresholdRule = Literal["guarded", "literal", "half"]
MatmulDtype = Literal["float32", "bfloat16"]
_ASCENDING = Bound(
    lambda sizes: bool(sizes) and sizes[0] > 0 and list(sizes) == sorted(set(sizes)),
    "must be sizes in ascending order, not",
)


@dataclass(frozen=True)
class MethodConfig:
    """The choices of a method; every field of a subclass has a default.

    Attributes:
      flag: what stands before the fields in flags and in JSON, such as `pep` in `--pep.kept`.
      choice: the fields that matter to `Selector.choose` alone; runs that differ in them have the
        same search.
      amount: the fields that say how much is kept, whose place a budget takes.
    """

    flag: ClassVar[str]
    choice: ClassVar[tuple[str, ...]] = ()
    amount: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        """Raises: InputError: a value is out of range; the message names its flag."""
        check_fields(self, f"--{self.flag}.")
        self.check()

    def check(self) -> None:
        """Raises: InputError: values do not fit each other; the message names their flags."""
        return


@dataclass(frozen=True)
class GateConfig(MethodConfig):
    """The Bernoulli gates (paper sections 3.3.1 to 3.3.3)."""

    flag = "gates"

    temperature: Positive[float] = 0.1
    """The temperature tau of the relaxed sample in the backward pass."""
    l0_weight: Number[float] = 0.8
    """The weight lambda of sparsity in equation 5; alone it keeps (2 - lambda) / 4 of all gates."""
    weight: NotNegative[float] = 1e-3
    """The weight of equation 5 in the loss."""
    cost: NotNegative[float] = 0.0
    """The power of a field's number of values by which sparsity weighs its gates.
    With 0 all gates weigh alike, as in the paper; with 1 a gate weighs what it costs."""
    polarization: bool = True
    """Whether equation 5 has its polarisation term (off: ablation iHAS-3)."""
    reduction: Literal["mean", "sum"] = "mean"
    """How equation 5 is reduced over a batch; the paper's formula is 'sum' with weight 1."""
    threshold: ThresholdRule = "guarded"
    """The rule of deterministic selection: literal is the paper's, guarded withstands its failures,
    and half is 0.5 for all rows."""
    bins: Annotated[int | None, at_least(3)] = None
    """The number of histogram bins of the rule; by default 100 for literal and 20 for guarded."""
    instance_wise: bool = True
    """Whether gates depend on the instance; if not, all share probabilities (ablation iHAS-4)."""
    gradient_to_tables: bool = True
    """Whether gradients of the model step flow through the gates into the embedding tables."""
    inputs: Literal["raw", "unit"] = "raw"
    """What the gates see: embeddings as they are, or at unit variance, by a batch norm."""
    matmul: MatmulDtype = "float32"
    """The number format of the factors of the K x K products; bfloat16 is meant for GPUs."""
    rank: Positive[int] | None = None
    """The rank r of the gates' matrix w, which then is a product of K x r and r x K numbers.
    By default w is the paper's K x K matrix; a small rank makes the search and the router fast."""


@dataclass(frozen=True)
class ClusterConfig(MethodConfig):
    """Clustering, the choice of iHAS (Algorithm 1, lines 9 to 13)."""

    flag = "cluster"
    choice = (
        *("clusters", "batch_rows", "starts", "segment_rows", "max_passes", "tolerance"),
        *("router", "min_agreement", "majority", "min_rows", "cut", "axes"),
    )
    amount = ("majority",)

    clusters: Positive[int] = 2
    """The number of clusters C; 1 is one compact model for all rows (ablation iHAS-2)."""
    batch_rows: Positive[int] = 16384
    """The number of rows in a mini-batch of K-means."""
    starts: Positive[int] = 10
    """The number of K-means starts tried on the first mini-batch; the best one continues."""
    segment_rows: Positive[int] = 262_144
    """The number of training rows (at most all) between two checks whether K-means converged."""
    max_passes: Positive[int] = 10
    """The largest number of passes over the training rows."""
    tolerance: NotNegative[float] = 1e-3
    """Stop when the mean squared distance falls by less than this share between two checks."""
    router: Literal["exact", "compiled"] = "exact"
    """What routes a row: its masked embedding, or a sum of scores of its values, which is learnt
    from that, by which all rows are then assigned anew, and which takes a fraction of the time."""
    min_agreement: Share[float] = 0.9
    """The exact router is kept if the compiled one sends fewer validation rows the same way."""
    majority: Share[float] = 0.5
    """Keep a coordinate if at least this share of the rows of the cluster opens it."""
    min_rows: NotNegative[int] = 1000
    """A cluster with fewer training rows, or one class, is served by the model of all rows."""
    cut: Literal["numbers", "axes"] = "numbers"
    """What is kept under a budget: single numbers of the table, or whole coordinates of fields.
    They are chosen by what they are worth in the rows of a cluster whose gates are open."""
    axes: Literal["shared", "own"] = "shared"
    """Under a budget: the coordinates of the search, or the principal axes of each cluster's rows,
    which are chosen by their worth alone."""


@dataclass(frozen=True)
class AutoFieldConfig(MethodConfig):
    """AutoField (Wang et al., WWW 2022)."""

    flag = "autofield"
    choice = ("fields",)
    amount = ("fields",)

    weights: Literal["softmax", "gumbel"] = "gumbel"
    """The field weights in the search: with Gumbel noise, as in the paper, or plain softmax.
    Plain softmax is the default of the published code."""
    fields: Positive[int | None] = None
    """The number of fields to keep; half of them by default."""
    anneal: NotNegative[float] = 5e-5
    """gumbel: fall of the temperature per step, from 1 to 0.01."""


@dataclass(frozen=True)
class AdaFSConfig(MethodConfig):
    """AdaFS, soft and hard (Lin et al., KDD 2022)."""

    flag = "adafs"

    fields: Positive[int | None] = None
    """adafs_hard: number of fields that an instance keeps; half of them by default."""
    relu: bool = True
    """Whether ReLU and dropout come before the softmax of the scores, as published."""
    dropout: Share[float] = 0.2
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


@dataclass(frozen=True)
class AutoDimConfig(MethodConfig):
    """AutoDim (Zhao et al., WWW 2021)."""

    flag = "autodim"

    dims: Annotated[tuple[int, ...], _ASCENDING] = (2, 4, 8, 16)
    """The candidate embedding sizes of a field; the largest is at most the model's size D."""
    anneal: NotNegative[float] = 5e-5
    """The fall of the temperature of the Gumbel-softmax per step, from 1 to 0.01."""


@dataclass(frozen=True)
class AutoEmbConfig(MethodConfig):
    """AutoEmb (Zhao et al., ICDM 2021)."""

    flag = "autoemb"

    dims: Annotated[tuple[int, ...] | None, _ASCENDING] = None
    """The candidate embedding sizes of a value, which add up to the model's size D.
    By default an eighth of D, a quarter, and the rest: 2, 4 and 10 of 16."""
    hidden: Positive[int] = 32
    """The number of hidden units of a field's controller."""
    unit_products: bool = True
    """Whether the batch norms of candidates start at a scale that suits sums of inner products.
    It is the scale of --adafs.unit-products; without it the scale is 1, as published."""


@dataclass(frozen=True)
class PepConfig(MethodConfig):
    """PEP (Liu et al., ICLR 2021)."""

    flag = "pep"
    amount = ("kept",)

    thresholds: Literal[
        "global", "coordinate", "value", "field", "value_coordinate", "field_coordinate"
    ] = "value_coordinate"
    """What shares a threshold; in the published runs every number of the table has its own one."""
    start: float = -15.0
    """The start of the thresholds before the sigmoid (-150 in the published runs on long logs)."""
    end: float = 0.0
    """The planned end of the thresholds, at most 0; if it is near 0 they reach it later."""
    epochs: Positive[int] = 20
    """The number of epochs in which thresholds would rise from start to end by their first step."""
    kept: Positive[Share[float]] = 0.5
    """The share of the embedding table's numbers to keep; the search ends when it is reached."""
    ticket: bool = True
    """Whether retraining starts from the initial embeddings (the lottery ticket) or fresh ones."""
    stopping: Literal["valid", "test"] = "valid"
    """The split that decides when retraining stops; the published code takes the test split."""

    def check(self) -> None:
        """Raises: InputError: thresholds would not rise."""
        if not self.start < self.end:
            raise InputError(f"--pep.start {self.start} must lie below --pep.end {self.end}.")


@dataclass(frozen=True)
class OptFSConfig(MethodConfig):
    """OptFS (Lyu et al., WWW 2023)."""

    flag = "optfs"

    epochs: int = 10
    """The number of epochs of the search, which the bound of other trainings does not limit.
    Gates that the loss does not hold open close within half of it."""
    rewind: int = 1
    """Retraining starts from the weights after this number of epochs."""
    temperature: Annotated[float, at_least(1)] = 1000.0
    """The temperature of the gates in the last epoch; it rises from 1 by equal factors."""
    weight: NotNegative[float] = 0.05
    """The weight of the mean gate in the loss: the paper's lambda times the number of values."""

    def check(self) -> None:
        """Raises: InputError: the search does not reach the epoch of `rewind`."""
        if not 0 <= self.rewind < self.epochs:
            raise InputError(
                f"--optfs.rewind {self.rewind} must be at least 0 and less than --optfs.epochs, "
                f"which is {self.epochs}."
            )


@dataclass(frozen=True)
class OptEmbedConfig(MethodConfig):
    """OptEmbed (Lyu et al., CIKM 2022)."""

    flag = "optembed"
    choice = ("generations", "mutants", "children", "parents", "mutation")

    weight: NotNegative[float] = 1e-3
    """The weight of the sum of exp(-threshold) over fields in the loss."""
    reach: NotNegative[float] = 1.0
    """How far the penalty alone moves thresholds in `epochs`, which sets their step size.
    The unit is the mean L1 norm of an initial embedding."""
    epochs: Positive[int] = 10
    """The number of epochs that `reach` refers to; the search itself stops early."""
    generations: NotNegative[int] = 30
    """The number of generations of the evolution of widths."""
    mutants: Positive[int] = 10
    """The number of candidates per generation that are mutated parents."""
    children: Positive[int] = 10
    """The number of candidates per generation that cross two parents."""
    parents: Positive[int] = 10
    """The number of best candidates so far from which the next generation comes."""
    mutation: Share[float] = 0.1
    """The probability that a mutant replaces the width of a field by a random one."""


@dataclass(frozen=True)
class SsedsConfig(MethodConfig):
    """SSEDS (Qu et al., SIGIR 2022)."""

    flag = "sseds"
    choice = ("kept",)
    amount = ("kept",)

    kept: Share[float] = 0.5
    """The share of the K coordinates to keep (0.1 in published ports)."""


@dataclass(frozen=True)
class DimRegConfig(MethodConfig):
    """DimReg, dimension regularisation by global gates, as ported to PyTorch in Autogrow."""

    flag = "dimreg"

    weight: NotNegative[float] = 0.1
    """The weight of the regulariser in the loss."""
    l1_ratio: NotNegative[float] = 1.0
    """The factor of the mean gate in the regulariser; a larger factor keeps fewer coordinates."""
    slope: Positive[float] = 5.0
    """The slope of the sigmoid of the gates."""

"""Every choice of a run as frozen dataclasses, one per stage, with a JSON round trip.

The command line is made from these classes: the docstring of a field is the `--help` text.
"""

from __future__ import annotations

import dataclasses
import json
import math
import typing
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from ihas_jax.errors import InputError
from ihas_jax.method_config import (
    AdaFSConfig,
    AutoDimConfig,
    AutoFieldConfig,
    DimRegConfig,
    MethodName,
    OptEmbedConfig,
    OptFSConfig,
    PepConfig,
    SsedsConfig,
)
from ihas_jax.model_config import InitRule as InitRule
from ihas_jax.model_config import ModelConfig as ModelConfig
from ihas_jax.model_config import ModelName as ModelName

ThresholdRule = Literal["guarded", "literal"]
TableUpdates = Literal["dense", "rowwise"]
MatmulDtype = Literal["float32", "bfloat16"]
T = TypeVar("T")


@dataclass(frozen=True)
class AdamConfig:
    """Adam with L2 added to the gradient, as torch's `weight_decay` does."""

    learning_rate: float = 1e-3
    """The step size."""
    l2: float = 1e-6
    """The coefficient of the L2 term in the gradient."""


@dataclass(frozen=True)
class OptimizerConfig(AdamConfig):
    """Adam of the click model."""

    tables: TableUpdates = "dense"
    """Whether a step updates all rows of the embedding tables, or only those of the batch."""


@dataclass(frozen=True)
class TrainConfig:
    """The settings that all trainings share."""

    batch_size: int = 2048
    """The number of rows in a batch, B."""
    max_epochs: int = 30
    """The largest number of epochs of a training."""
    patience: int = 2
    """Stop after this number of epochs in which neither validation AUC nor logloss improved."""
    round_batches: int = 100
    """The number of batches in a jitted round, R; only speed depends on it."""
    device_data_gb: float = 8.0
    """Training rows up to this size stay on the device; a larger split is sent round by round."""
    block_rows: int = 1
    """Shuffle blocks of this number of neighbouring rows; above 1 for data on a slow disk."""
    checkpoint_seconds: float = 10.0
    """The least time between two checkpoints, longer if writing is slow; 0 writes one per round."""


@dataclass(frozen=True)
class GateConfig:
    """The Bernoulli gates (paper sections 3.3.1 to 3.3.3)."""

    temperature: float = 0.1
    """The temperature tau of the relaxed sample in the backward pass."""
    l0_weight: float = 0.8
    """The weight lambda of sparsity in equation 5; alone it keeps (2 - lambda) / 4 of all gates."""
    weight: float = 1e-3
    """The weight of equation 5 in the loss."""
    polarization: bool = True
    """Whether equation 5 has its polarisation term (off: ablation iHAS-3)."""
    reduction: Literal["mean", "sum"] = "mean"
    """How equation 5 is reduced over a batch; the paper's formula is 'sum' with weight 1."""
    threshold: ThresholdRule = "guarded"
    """The rule of deterministic selection: the paper's, or one that is guarded against failures."""
    bins: int | None = None
    """The number of histogram bins of the rule; by default 100 for literal and 20 for guarded."""
    instance_wise: bool = True
    """Whether gates depend on the instance; if not, all share probabilities (ablation iHAS-4)."""
    gradient_to_tables: bool = True
    """Whether gradients of the model step flow through the gates into the embedding tables."""
    matmul: MatmulDtype = "float32"
    """The number format of the factors of the K x K products; bfloat16 is meant for GPUs."""


@dataclass(frozen=True)
class SearchConfig:
    """The searching stage (Algorithm 1, lines 1 to 8)."""

    pretrain_epochs: int = 5
    """The number of epochs with all gates open before the search."""
    gate_every: int = 100
    """The number of training batches per gate update; use 1 to 5 for up to a few million rows."""
    gate_optimizer: AdamConfig = AdamConfig()
    """The optimiser of the gates."""
    stopping_share: float = 0.0
    """The share of the validation rows that decide when to stop and never move gates.
    With 0 all validation rows do both, as in the papers.
    Gates with many weights may then overfit those of a small log."""


@dataclass(frozen=True)
class ClusterConfig:
    """Clustering, the choice of iHAS (Algorithm 1, lines 9 to 13)."""

    clusters: int = 2
    """The number of clusters C; 1 is one compact model for all rows (ablation iHAS-2)."""
    batch_rows: int = 16384
    """The number of rows in a mini-batch of K-means, rounded up to a power of two."""
    starts: int = 10
    """The number of K-means starts tried on the first mini-batch; the best one continues."""
    segment_rows: int = 262_144
    """The number of training rows (at most all) between two checks whether K-means converged."""
    max_passes: int = 10
    """The largest number of passes over the training rows."""
    tolerance: float = 1e-3
    """Stop when the mean squared distance falls by less than this share between two checks."""
    majority: float = 0.5
    """Keep a coordinate if at least this share of the rows of the cluster opens it."""
    min_rows: int = 1000
    """A cluster with fewer training rows, or one class, is served by the model of all rows."""


@dataclass(frozen=True)
class RetrainConfig:
    """The retraining stage (Algorithm 1, lines 14 to 21)."""

    warm_start: bool = False
    """Start from the kept part of the searched tables instead of fresh random weights."""


@dataclass(frozen=True)
class Config:
    """A whole run."""

    method: MethodName = "ihas"
    """The selection method (see ihas_jax/selectors); none trains the click model alone."""
    model: ModelConfig = field(default_factory=ModelConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    gates: GateConfig = field(default_factory=GateConfig)
    search: SearchConfig = field(default_factory=SearchConfig)
    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    retrain: RetrainConfig = field(default_factory=RetrainConfig)
    autofield: AutoFieldConfig = field(default_factory=AutoFieldConfig)
    adafs: AdaFSConfig = field(default_factory=AdaFSConfig)
    autodim: AutoDimConfig = field(default_factory=AutoDimConfig)
    pep: PepConfig = field(default_factory=PepConfig)
    optembed: OptEmbedConfig = field(default_factory=OptEmbedConfig)
    optfs: OptFSConfig = field(default_factory=OptFSConfig)
    sseds: SsedsConfig = field(default_factory=SsedsConfig)
    dimreg: DimRegConfig = field(default_factory=DimRegConfig)
    seed: int = 0
    """The seed of initial weights, shuffling, gate noise and clustering."""

    def __post_init__(self) -> None:
        """Raises: InputError: a value is out of range; the message names its flag."""
        _check(self)


def to_json(config: Any) -> dict[str, Any]:
    """Any config dataclass as a JSON-ready dictionary."""
    return json.loads(json.dumps(dataclasses.asdict(config)))


def from_json(cls: type[T], values: dict[str, Any]) -> T:
    """The inverse of `to_json`; missing values take their defaults.

    Raises:
      InputError: a name is unknown.
    """
    hints = typing.get_type_hints(cls)
    names = {f.name for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    if unknown := set(values) - names:
        raise InputError(f"{cls.__name__} has no value named {', '.join(sorted(unknown))}.")
    decoded = {}
    for name, value in values.items():
        if dataclasses.is_dataclass(hints[name]):
            value = from_json(typing.cast(type, hints[name]), value)
        decoded[name] = tuple(value) if isinstance(value, list) else value
    return cls(**decoded)


def replaced(config: T, flag: str, value: Any) -> T:
    """A config in which one flag, such as `search.gate_every`, has another value.

    Raises:
      InputError: the value is out of range.
    """
    name, _, rest = flag.partition(".")
    part = replaced(getattr(config, name), rest, value) if rest else value
    return dataclasses.replace(typing.cast(Any, config), **{name: part})


def differences(old: Any, new: Any, prefix: str = "") -> list[str]:
    """The values in which two configs differ, as `search.gate_every: 100 -> 5`."""
    found = []
    for f in dataclasses.fields(old):
        a, b = getattr(old, f.name), getattr(new, f.name)
        if dataclasses.is_dataclass(a):
            found += differences(a, b, f"{prefix}{f.name}.")
        elif a != b:
            found.append(f"{prefix}{f.name}: {a} -> {b}")
    return found


def _check(config: Config) -> None:
    positive = {
        "optimizer.learning-rate": config.optimizer.learning_rate,
        "train.batch-size": config.train.batch_size,
        "train.max-epochs": config.train.max_epochs,
        "train.patience": config.train.patience,
        "train.round-batches": config.train.round_batches,
        "train.block-rows": config.train.block_rows,
        "gates.temperature": config.gates.temperature,
        "search.gate-every": config.search.gate_every,
        "search.gate-optimizer.learning-rate": config.search.gate_optimizer.learning_rate,
        "cluster.clusters": config.cluster.clusters,
        "cluster.batch-rows": config.cluster.batch_rows,
        "cluster.segment-rows": config.cluster.segment_rows,
        "cluster.starts": config.cluster.starts,
        "cluster.max-passes": config.cluster.max_passes,
    }
    for flag, value in positive.items():
        if not value > 0:
            raise InputError(f"--{flag} must be positive, not {value}.")
    not_negative = {
        "optimizer.l2": config.optimizer.l2,
        "train.device-data-gb": config.train.device_data_gb,
        "train.checkpoint-seconds": config.train.checkpoint_seconds,
        "gates.weight": config.gates.weight,
        "search.pretrain-epochs": config.search.pretrain_epochs,
        "search.gate-optimizer.l2": config.search.gate_optimizer.l2,
        "cluster.tolerance": config.cluster.tolerance,
        "cluster.min-rows": config.cluster.min_rows,
        "seed": config.seed,
    }
    for flag, value in not_negative.items():
        if not value >= 0:
            raise InputError(f"--{flag} must not be negative, but is {value}.")
    if config.seed >= 2**32:
        raise InputError(f"--seed must be less than 2^32, not {config.seed}.")
    if math.isnan(config.gates.l0_weight):
        raise InputError("--gates.l0-weight must be a number, not nan.")
    if not 0 <= config.search.stopping_share < 1:
        raise InputError(
            "--search.stopping-share must be at least 0 and less than 1, not "
            f"{config.search.stopping_share}."
        )
    if config.gates.bins is not None and config.gates.bins < 3:
        raise InputError(f"--gates.bins must be at least 3, not {config.gates.bins}.")
    if not 0 <= config.cluster.majority <= 1:
        raise InputError(
            f"--cluster.majority must lie between 0 and 1, not {config.cluster.majority}."
        )

"""Every choice of a run as frozen dataclasses, one per stage, with a JSON round trip.

The command line is made from these classes, so a field's docstring is its `--help` text.
"""

from __future__ import annotations

import dataclasses
import json
import math
import typing
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, TypeVar

import tyro

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

ThresholdRule = Literal["guarded", "literal"]
TableUpdates = Literal["dense", "rowwise"]
MatmulDtype = Literal["float32", "bfloat16"]
InitRule = Literal["balanced", "torch"]
LinearInit = Literal["zeros", "normal"]
ModelName = Literal[
    "lr", "fm", "ffm", "hofm", "dnn", "wide_deep", "afm", "nfm", "ncf", "fnfm", "ipnn", "opnn",
    "dcn", "deepfm", "xdeepfm", "autoint", "afn", "dcnv2", "finalmlp", "masknet", "gdcn",
]  # fmt: skip
T = TypeVar("T")


@dataclass(frozen=True)
class ModelConfig:
    """The click model."""

    name: Annotated[ModelName, tyro.conf.arg(name="model", prefix_name=False)] = "dnn"
    """Which click model (see ihas_jax/models); dnn, an MLP on embeddings, is the paper's."""
    dim: int = 16
    """Embedding size D of every field before selection."""
    hidden: tuple[int, ...] = (16, 8)
    """Widths of the MLP's hidden layers."""
    batch_norm: bool = False
    """Batch norm before each ReLU, as in the reference library but not in the paper's text."""
    dropout: float = 0.0
    """Dropout rate after each ReLU (0.2 in the reference library)."""
    init: InitRule = "balanced"
    """Initial weights of the MLP; with torch's a small MLP now and then fails to learn."""
    linear_init: LinearInit = "zeros"
    """Initial first-order weights; normal is the reference library's, and ruins small logs."""
    hofm_order: int = 3
    """hofm: the highest order of interactions, at least 2."""
    ncf_pair: tuple[int, int] = (0, 1)
    """ncf: places of the user's and the item's field, from 0 on."""
    cross_layers: int = 3
    """dcn, dcnv2, gdcn: layers of the cross network."""
    xdeepfm_cin: tuple[int, ...] = (16, 16)
    """xdeepfm: widths of the compressed interaction network."""
    afm_attention: int = 16
    """afm: width of the attention's hidden layer."""
    autoint_width: int = 64
    """autoint: width of the attention layers."""
    autoint_heads: int = 2
    """autoint: heads, which divide the width."""
    autoint_layers: int = 3
    """autoint: attention layers."""
    afn_neurons: int = 1500
    """afn: logarithmic neurons."""
    finalmlp_heads: int = 1
    """finalmlp: heads of the fusion, which divide the last hidden width."""
    finalmlp_gate: int = 64
    """finalmlp: width of the feature gates' hidden layer."""
    masknet_blocks: int = 3
    """masknet: parallel blocks."""
    masknet_width: int = 64
    """masknet: width of a block's output."""
    masknet_ratio: float = 1.0
    """masknet: width of a mask's hidden layer over that of its input."""

    def __post_init__(self) -> None:
        """Raises: InputError: a value is out of range; the message names its flag."""
        _check_model(self)


@dataclass(frozen=True)
class AdamConfig:
    """Adam with L2 added to the gradient, as torch's `weight_decay` does."""

    learning_rate: float = 1e-3
    """Step size."""
    l2: float = 1e-6
    """Coefficient of the L2 term in the gradient."""


@dataclass(frozen=True)
class OptimizerConfig(AdamConfig):
    """Adam of the click model."""

    tables: TableUpdates = "dense"
    """Rows of the embedding tables that a step updates: all of them, or those of the batch."""


@dataclass(frozen=True)
class TrainConfig:
    """What every training loop shares."""

    batch_size: int = 2048
    """Rows in a batch, B."""
    max_epochs: int = 30
    """Upper bound of the epochs of any training loop."""
    patience: int = 2
    """Stop after so many epochs in which neither validation AUC nor logloss improved."""
    round_batches: int = 100
    """Batches in one jitted round (R); results do not depend on it, speed does."""
    device_data_gb: float = 8.0
    """A training split up to this size stays on the device; a larger one arrives round by round."""
    block_rows: int = 1
    """Above 1: rows are shuffled in blocks of so many neighbours, for data on a slow disk."""
    checkpoint_seconds: float = 10.0
    """Least time between two checkpoints, longer where writing one is slow (0: every round)."""


@dataclass(frozen=True)
class GateConfig:
    """The Bernoulli gates (paper sections 3.3.1 to 3.3.3)."""

    temperature: float = 0.1
    """Temperature tau of the relaxed sample in the backward pass."""
    l0_weight: float = 0.8
    """Lambda, the sparsity term of equation 5; alone it keeps (2 - lambda) / 4 of the gates."""
    weight: float = 1e-3
    """Overall weight of equation 5 beside the click loss."""
    polarization: bool = True
    """Whether equation 5 has its polarisation term (off: ablation iHAS-3)."""
    reduction: Literal["mean", "sum"] = "mean"
    """How equation 5 adds up a batch; the paper's formula is 'sum' with weight 1."""
    threshold: ThresholdRule = "guarded"
    """Deterministic selection: the paper's rule, or the same guarded against its failures."""
    bins: int | None = None
    """Bins of the probability histogram; by default 100 for 'literal', 20 for 'guarded'."""
    instance_wise: bool = True
    """Gates depend on the instance; off: one probability vector for all (ablation iHAS-4)."""
    gradient_to_tables: bool = True
    """Whether the model step lets gradients flow through the gates into the embedding tables."""
    matmul: MatmulDtype = "float32"
    """Number format of the factors of the K x K products; bfloat16 is meant for GPUs."""


@dataclass(frozen=True)
class SearchConfig:
    """The searching stage (Algorithm 1, lines 1 to 8)."""

    pretrain_epochs: int = 5
    """Epochs with all gates open before the search."""
    gate_every: int = 100
    """Training batches per gate update; 1 to 5 for logs of up to a few million rows."""
    gate_optimizer: AdamConfig = AdamConfig()
    """The gates' own optimiser."""
    stopping_share: float = 0.0
    """Share of the validation rows that decide when to stop and never move gates; with 0 all rows
    do both, as in the papers, and gates with many weights may learn a small log's by heart."""


@dataclass(frozen=True)
class ClusterConfig:
    """The clustering stage (Algorithm 1, lines 9 to 13)."""

    clusters: int = 2
    """Number of clusters C (1: one compact model for all rows, ablation iHAS-2)."""
    batch_rows: int = 16384
    """Rows in one mini-batch of K-means, rounded up to a power of two."""
    starts: int = 10
    """Fits to the first mini-batch, of which that of the least distance goes on."""
    segment_rows: int = 262_144
    """Training rows, or all if there are fewer, between two checks whether K-means converged."""
    max_passes: int = 10
    """Upper bound of the passes over the training rows."""
    tolerance: float = 1e-3
    """Stop once the mean squared distance falls by less than this share between two checks."""
    majority: float = 0.5
    """A coordinate is kept where at least this share of the cluster's rows opens it."""
    min_rows: int = 1000
    """A cluster with fewer training rows, or a single class, is served by the all-rows model."""


@dataclass(frozen=True)
class RetrainConfig:
    """The retraining stage (Algorithm 1, lines 14 to 21)."""

    warm_start: bool = False
    """Start from the searched tables' kept coordinates instead of fresh random ones."""


@dataclass(frozen=True)
class Config:
    """A whole run."""

    method: MethodName = "ihas"
    """How embeddings are selected (see ihas_jax/selectors); none trains the click model alone."""
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
    """Seed of initial weights, shuffling, gate noise and clustering."""

    def __post_init__(self) -> None:
        """Raises: InputError: a value is out of range; the message names its flag."""
        _check(self)


def to_json(config: Any) -> dict[str, Any]:
    """Any config dataclass as a JSON-ready dictionary."""
    return json.loads(json.dumps(dataclasses.asdict(config)))


def from_json(cls: type[T], values: dict[str, Any]) -> T:
    """The inverse of `to_json`; missing values take their defaults.

    Raises:
      InputError: an unknown name.
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
    """A config with another value, such as of `search.gate_every`.

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


def _check_model(model: ModelConfig) -> None:
    for name in (
        "dim", "cross_layers", "afm_attention", "autoint_width", "autoint_heads", "autoint_layers",
        "afn_neurons", "finalmlp_heads", "finalmlp_gate", "masknet_blocks", "masknet_width",
        "masknet_ratio",
    ):  # fmt: skip
        if not getattr(model, name) > 0:
            flag = f"--model.{name.replace('_', '-')}"
            raise InputError(f"{flag} must be positive, not {getattr(model, name)}.")
    for flag, widths in {"hidden": model.hidden, "xdeepfm-cin": model.xdeepfm_cin}.items():
        if any(width <= 0 for width in widths):
            raise InputError(f"--model.{flag} must be positive widths, not {widths}.")
    if not 0 <= model.dropout <= 1:
        raise InputError(f"--model.dropout must lie between 0 and 1, not {model.dropout}.")
    if not model.xdeepfm_cin:
        raise InputError("--model.xdeepfm-cin needs at least one width.")
    if model.hofm_order < 2:
        raise InputError(f"--model.hofm-order must be at least 2, not {model.hofm_order}.")
    if model.autoint_width % model.autoint_heads:
        raise InputError(
            f"--model.autoint-heads {model.autoint_heads} must divide --model.autoint-width, "
            f"which is {model.autoint_width}."
        )
    if model.name == "finalmlp" and (not model.hidden or model.hidden[-1] % model.finalmlp_heads):
        raise InputError(
            f"--model.finalmlp-heads {model.finalmlp_heads} must divide the last width of "
            f"--model.hidden, which is {model.hidden}."
        )
    if min(model.ncf_pair) < 0 or model.ncf_pair[0] == model.ncf_pair[1]:
        raise InputError(f"--model.ncf-pair must be two fields' places, not {model.ncf_pair}.")

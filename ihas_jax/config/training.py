"""The choices of training, of the search and of retraining, which all methods share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from ihas_jax.config.bounds import Bound, Falling, NotNegative, Positive, Share

TableUpdates = Literal["auto", "dense", "deferred", "rowwise"]
TableSharding = Literal["replicated", "rows", "auto"]
Start = Literal["fresh", "tables", "searched", "shared"]
_FEW = Bound(lambda number: 2 <= number <= 8, "must be 2 to 8, not")
TeacherMean = Literal["probability", "log_odds"]


@dataclass(frozen=True)
class AdamConfig:
    """Adam with L2 added to the gradient, as torch's `weight_decay` does."""

    learning_rate: Positive[float] = 1e-3
    """The step size."""
    l2: NotNegative[float] = 1e-6
    """The coefficient of the L2 term in the gradient."""


@dataclass(frozen=True)
class OptimizerConfig(AdamConfig):
    """Adam of the click model."""

    tables: TableUpdates = "auto"
    """How a step updates the embedding tables.
    dense moves all rows, as the papers do, and rowwise those of its batch alone. With deferred a
    row also makes up for the steps that it has missed when a batch next has it, so that tables are
    nearly those of dense in little more than the time of rowwise. auto is dense, and deferred for
    each model of a run whose tables have more than 2 million numbers."""


@dataclass(frozen=True)
class TrainConfig:
    """The settings that all trainings share."""

    batch_size: Positive[int] = 2048
    """The number of rows in a batch, B."""
    max_epochs: Positive[int] = 30
    """The largest number of epochs of a training."""
    patience: Positive[int] = 2
    """Stop after this number of epochs in which neither validation AUC nor logloss improved."""
    finish: Falling[tuple[Positive[Share[float]], ...]] = ()
    """Falling factors of the learning rate by which a training that stopped early goes on.
    With each factor it goes on from its best epoch until it stops again, so it can't end below it.
    A search that moves gates has no finish."""
    round_batches: Positive[int] = 100
    """The number of batches in a jitted round, R; only speed depends on it."""
    device_data_gb: NotNegative[float] = 8.0
    """Training rows up to this size stay on the device; a larger split is sent round by round."""
    table_sharding: TableSharding = "auto"
    """Whether each device holds whole embedding tables, or all hold the rows of large ones between
    them. With auto they do the latter where whole tables, their moments and their best copy would
    take more than half of a device's memory."""
    block_rows: Positive[int] = 1
    """Shuffle blocks of this number of neighbouring rows; above 1 for data on a slow disk."""
    checkpoint_seconds: NotNegative[float] = 10.0
    """The least time between two checkpoints, longer if writing is slow; 0 writes one per round."""
    programs: str = "auto"
    """The folder that keeps compiled programs, so that the next run need not compile them.
    auto is what the variable IHAS_JAX_PROGRAMS says, or a folder in your cache; off keeps none."""


@dataclass(frozen=True)
class SearchConfig:
    """The searching stage (Algorithm 1, lines 1 to 8)."""

    pretrain_epochs: NotNegative[int] = 5
    """The number of epochs with all gates open before the search."""
    gate_every: Positive[int] = 100
    """The number of training batches per gate update; use 1 to 5 for up to a few million rows."""
    rotate: bool = False
    """Whether the pretrained model is turned to its principal axes before the search begins.
    The turned model computes what it did before; gates then choose among axes that mean something.
    """
    gate_optimizer: AdamConfig = AdamConfig()
    """The optimiser of the gates."""
    stopping_share: Annotated[
        float, Bound(lambda share: 0 <= share < 1, "must be at least 0 and less than 1, not")
    ] = 0.0
    """The share of the validation rows that decide when to stop and never move gates.
    With 0 all validation rows do both, as in the papers.
    Gates with many weights may then overfit those of a small log."""


@dataclass(frozen=True)
class RetrainConfig:
    """The retraining stage (Algorithm 1, lines 14 to 21)."""

    start: Start | None = None
    """The weights that retraining starts from, by default those that the method says.
    After a search on principal axes the default is searched.
    tables and searched are the kept part of the searched tables, or of the whole searched model.
    With shared, one model of all rows is trained first, and each cluster goes on from its network
    over its table, and keeps what it learns only if that is better on validation rows."""
    group_by: str | None = None
    """The name of a field whose values are clustered, in place of rows, by which network answers
    them best. It needs --retrain.start shared and a method without other clusters."""
    groups: Annotated[int | None, _FEW] = None
    """The number of clusters of --retrain.group-by; by default as many as take a quarter more
    memory than one model, up to 8."""
    teachers: tuple[str, ...] = ()
    """The click models whose mean prediction is learnt in place of clicks, such as dnn:4 gdcn ffm.
    A number after a colon is a number of seeds; base and search are the models of the run.
    The search learns from the teachers too, unless its model is one of them."""
    teacher_weight: Share[float] = 1.0
    """The weight of the teachers in the labels of training rows; the clicks have the rest."""
    teacher_mean: TeacherMean = "probability"
    """Whether the mean of the teachers is taken of their probabilities or of their log-odds."""
    teacher_folds: Positive[int] = 1
    """Above 1, a teacher is trained once without each of this number of parts of the rows, and each
    part is predicted by the training without it."""

"""What a selection method is: a transform of looked-up embeddings, and the stages it needs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jax.numpy as jnp
import optax
from jax import Array

from ihas_jax.config import AdamConfig
from ihas_jax.models.base import (
    EMBEDDING,
    SELECTOR,
    BatchStats,
    Model,
    Params,
    RowNumbers,
    apply_network,
    factored,
    lookup_rows,
    row_numbers,
)
from ihas_jax.nn.embedding import Rows
from ihas_jax.selectors.selection import Found, Selection
from ihas_jax.training.optimizers import l2_adam

SelectorParams = dict[str, Any]
_NONE: dict[str, Any] = {}


class Weights(NamedTuple):
    """What a selector computes with.

    Attributes:
      gates: what its own optimiser learns; in a search `params["selector"]`.
      layers: what is learnt with the network; `params["network"]["selector"]`.
      stats: what no gradient moves, such as running statistics or a count of steps;
        `batch_stats["selector"]`.
    """

    gates: SelectorParams
    layers: SelectorParams = _NONE
    stats: BatchStats = _NONE


class Looked(NamedTuple):
    """A batch's rows of the embedding table.

    Attributes:
      embeddings: `[B, N, D]`.
      places: `[B, N]` int32, their row numbers in the table `[V, D]`.
      first_row: place of the first instance in the whole batch, where devices share it.
    """

    embeddings: Array
    places: Array
    first_row: Array | int = 0


class Applied(NamedTuple):
    """Result of a selection in training.

    Attributes:
      embeddings: `[B, N, D]` after it.
      penalty: `[]`, added to the loss that moves the gates.
      stats: the new `Weights.stats`.
    """

    embeddings: Array
    penalty: Array
    stats: BatchStats


class Selected(NamedTuple):
    """Result of a deterministic selection.

    Attributes:
      embeddings: `[B, N, D]` after it.
      masks: `[B, K]` of 0 and 1: the coordinates that it leaves, or would leave for retraining
        where the selection is soft.
    """

    embeddings: Array
    masks: Array


Select = Callable[[Weights, Looked, Array], Applied]
"""A selection in training: weights, rows and a PRNG key."""


@dataclass(frozen=True)
class Recipe:
    """The stages of a method: what moves its gates, how long, and what comes of the search.

    Attributes:
      gates: the batches whose loss moves the gates: those of validation rows in turn with
        training steps (bi-level), the training batches themselves, or none.
      outcome: 'clusters' of rows with a compact model each, one compact model of a 'selection',
        or the 'search' model itself.
      epochs: length of the search; None stops early and keeps the best epoch.
      rewind: epochs of the search after which the weights are set aside to start retraining from.
      start: weights of retraining: 'fresh' ones, the 'initial' embeddings or all initial weights
        of the search, or those set aside ('rewound').
      until: share of kept coordinates at which the search ends.
      stopping: split that decides when retraining stops.
    """

    gates: Literal["validation", "training", "never"]
    outcome: Literal["clusters", "selection", "search"]
    epochs: int | None = None
    rewind: int = 0
    start: Literal["fresh", "initial_embeddings", "initial", "rewound"] = "fresh"
    until: float | None = None
    stopping: Literal["valid", "test"] = "valid"


class Selector(ABC):
    """A transform of embeddings `[B, N, D]` with weights of its own.

    All methods are pure; subclasses are frozen dataclasses of static choices.
    """

    @property
    def summed_penalty(self) -> bool:
        """Whether the penalty is a sum over the batch rather than a mean."""
        return False

    @property
    @abstractmethod
    def recipe(self) -> Recipe:
        """The stages that the method needs."""

    @abstractmethod
    def init(self, key: Array) -> Weights:
        """Fresh weights."""

    @abstractmethod
    def sample(self, weights: Weights, looked: Looked, key: Array) -> Applied:
        """The selection while the model is searched."""

    @abstractmethod
    def select(self, weights: Weights, looked: Looked) -> Selected:
        """The deterministic selection of evaluation."""

    def open(self, weights: Weights, looked: Looked, key: Array) -> Applied:
        """The embeddings of pretraining, with nothing selected; `key` as in `sample`.

        It is asked for where there are layers, which are learnt from the start.
        """
        return Applied(looked.embeddings, jnp.zeros(()), weights.stats)

    def pass_through(self, weights: Weights, looked: Looked) -> Array:
        """The embeddings `[B, N, D]` of evaluation with nothing selected."""
        return looked.embeddings

    def over(self, axis_name: str | None) -> Selector:
        """The same selector for batches that the devices of a mapped axis share."""
        return self

    def optimizer(self, config: AdamConfig) -> optax.GradientTransformation:
        """What updates the gates."""
        return l2_adam(config)

    def kept(self, weights: Weights, params: Params) -> Array:
        """Share `[]` of the embedding table's coordinates that are kept.

        Methods whose search ends at a share of them say so; for others all are.

        Args:
          weights: the selector's weights.
          params: the parameters of the search, with the table.
        """
        return jnp.ones(())

    def choose(self, found: Found) -> Selection:
        """What is kept for retraining, where the recipe's outcome is a selection."""
        raise NotImplementedError(f"{type(self).__name__} chooses nothing")


def weights_of(params: Params, batch_stats: BatchStats) -> Weights:
    """A selector's weights among those of a search."""
    return Weights(
        params.get(SELECTOR, {}), params["network"].get(SELECTOR, {}), batch_stats.get(SELECTOR, {})
    )


def looked_up(
    rows: Mapping[str, Rows], numbers: RowNumbers, first_row: Array | int = 0
) -> tuple[str, Looked]:
    """The only group of a uniform embedding table, and its rows as a selector sees them.

    Args:
      rows: looked-up rows of every table,
      numbers: and their numbers.
      first_row: place of the first instance in the whole batch.
    """
    ((group, embeddings),) = rows[EMBEDDING].items()
    return group, Looked(embeddings, numbers[EMBEDDING][group], first_row)


def evaluated(
    model: Model, params: Params, batch_stats: BatchStats, ids: Array
) -> tuple[Looked, Callable[[Array], Array]]:
    """The embeddings of a batch, and the network as a function of what a selection makes of them.

    Args:
      model: the click model, whose embedding table is uniform.
      params: its parameters.
      batch_stats: its statistics; factors among them multiply the embeddings beforehand.
      ids: `[B, N]`.

    Returns:
      The looked-up rows, and `logits(embeddings [B, N, D]) -> [B]`, without dropout.
    """
    numbers = row_numbers(model, ids, batch_stats)
    rows = factored(lookup_rows(params["tables"], numbers), numbers, batch_stats)
    group, looked = looked_up(rows, numbers)

    def logits(embeddings: Array) -> Array:
        selected = {**rows, EMBEDDING: {group: embeddings}}
        return apply_network(model, params["network"], batch_stats, selected)[0]

    return looked, logits

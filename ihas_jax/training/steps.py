"""Pure training steps of a click model, and rounds of them.

A step is `step(state, batch) -> (state, metrics)`; a round loops a step over batches that it
gathers from rows resident on the device. Both run under `jit`, `vmap`, `pmap` and on a mesh.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, TypeVar, cast

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jax import Array, lax

from ihas_jax.config import OptimizerConfig
from ihas_jax.errors import InputError
from ihas_jax.models.base import (
    EMBEDDING,
    SELECTOR,
    BatchStats,
    Model,
    Params,
    RowNumbers,
    apply_network,
    factored,
    init_model,
    lookup_rows,
    row_numbers,
)
from ihas_jax.nn.embedding import Rows
from ihas_jax.selectors.base import Select, looked_up, weights_of
from ihas_jax.training.optimizers import l2_adam, make_table_optimizer

Metrics = dict[str, Array]
State = TypeVar("State")


class Batch(NamedTuple):
    """Rows of a log: `ids [B, N]` int32, `labels [B]` 0 or 1 of any dtype.

    Steps check their shapes; under `jit` they can't check their values, as `Dataset` does.
    """

    ids: Array
    labels: Array


@struct.dataclass
class TrainState:
    """Everything that changes while a click model is trained.

    Attributes:
      step: `[]` int32, batches seen.
      key: base PRNG key; step t draws from `fold_in(key, t)`.
      params: `{"tables", "network"}`; a search adds a third subtree, "selector".
      batch_stats: running statistics of batch norm.
      table_optimizer: optimiser state of the tables.
      network_optimizer: optimiser state of the network.
    """

    step: Array
    key: Array
    params: Params
    batch_stats: BatchStats
    table_optimizer: optax.OptState
    network_optimizer: optax.OptState


AnyTrainState = TypeVar("AnyTrainState", bound=TrainState)


class TrainStep(Protocol):
    """`step(state, batch) -> (state, metrics)`, for a `TrainState` of any kind."""

    def __call__(self, state: AnyTrainState, batch: Batch) -> tuple[AnyTrainState, Metrics]:
        """One update."""


def init_train(key: Array, model: Model, config: OptimizerConfig) -> TrainState:
    """A fresh state; the key seeds the initial weights and the noise of training."""
    weights_key, noise_key = jax.random.split(key)
    params, batch_stats = init_model(weights_key, model)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        key=noise_key,
        params=params,
        batch_stats=batch_stats,
        table_optimizer=make_table_optimizer(config).init(params["tables"]),
        network_optimizer=l2_adam(config).init(params["network"]),
    )


def first_row(batch: Batch, axis_name: str | None) -> Array | int:
    """Place of this device's first row in the whole batch."""
    return 0 if axis_name is None else lax.axis_index(axis_name) * batch.ids.shape[0]


def click_loss(
    model: Model,
    params: Params,
    batch_stats: BatchStats,
    rows: dict[str, Rows],
    numbers: RowNumbers,
    batch: Batch,
    key: Array,
    select: Select | None,
    axis_name: str | None,
) -> tuple[Array, tuple[Array, BatchStats]]:
    """Mean binary cross-entropy of a batch (equation 3), then `(penalty, batch_stats)`.

    Of `params` the tables are not used: `rows` are those of `numbers` in them. `select` transforms
    the embedding table's rows, which must be uniform.

    Raises:
      InputError: there is not one label for each row.
    """
    penalty = jnp.zeros(())
    select_key, dropout_key = jax.random.split(key)
    if select is not None:
        first = first_row(batch, axis_name)
        group, looked = looked_up(rows, numbers, first)
        embeddings, penalty, stats = select(weights_of(params, batch_stats), looked, select_key)
        rows = rows | {EMBEDDING: {group: embeddings}}
        batch_stats = batch_stats | ({SELECTOR: stats} if stats else {})
    inputs = factored(rows, numbers, batch_stats)
    if axis_name is not None:
        dropout_key = jax.random.fold_in(dropout_key, lax.axis_index(axis_name))
    logits, batch_stats = apply_network(
        model, params["network"], batch_stats, inputs, dropout_key=dropout_key
    )
    if batch.labels.shape != logits.shape:  # else each label would meet each row
        raise InputError(
            f"The labels of a batch have the shape {list(batch.labels.shape)}; "
            f"{list(logits.shape)} is needed, one for each row of its ids."
        )
    labels = batch.labels.astype(logits.dtype)
    loss = optax.sigmoid_binary_cross_entropy(logits, labels).mean()
    return loss, (penalty, batch_stats)


def make_train_step(
    config: OptimizerConfig,
    model: Model,
    *,
    select: Select | None = None,
    gates: optax.GradientTransformation | None = None,
    axis_name: str | None = None,
) -> TrainStep:
    """A step of `{tables, network}` on the click loss.

    Args:
      config: the optimiser's choices.
      model: the click model, built with the same `axis_name`.
      select: a selection method's transform of the embeddings.
      gates: optimiser of its gates, `params["selector"]`, to learn them on the same batch, with
        its state in `state.selector_optimizer`; the penalty is then part of the loss.
      axis_name: mapped axis (pmap, vmap, shard_map) over which gradients are averaged.

    Returns:
      `step(state, batch) -> (state, {"loss": []})`.
    """
    optimizer = l2_adam(config)
    tables_optimizer = make_table_optimizer(config, axis_name)

    def step(state: AnyTrainState, batch: Batch) -> tuple[AnyTrainState, Metrics]:
        tables = state.params["tables"]
        key = jax.random.fold_in(state.key, state.step)
        learnt = {name: state.params[name] for name in ("network", *([SELECTOR] if gates else []))}

        def loss_of(rows: dict[str, Rows], learnt: Params) -> tuple[Array, Any]:
            loss, (penalty, batch_stats) = click_loss(
                model, state.params | learnt, state.batch_stats, rows, numbers, batch, key,
                select, axis_name,
            )  # fmt: skip
            return loss + penalty if gates else loss, (loss, batch_stats)

        with jax.named_scope("gather"):
            numbers = row_numbers(model, batch.ids, state.batch_stats)
            rows = lookup_rows(tables, numbers)
        (_, (loss, batch_stats)), (row_grads, grads) = jax.value_and_grad(
            loss_of, argnums=(0, 1), has_aux=True
        )(rows, learnt)
        if axis_name is not None:
            loss, grads = lax.pmean((loss, grads), axis_name)
        with jax.named_scope("update"):
            tables, table_state = tables_optimizer.update(
                tables, state.table_optimizer, numbers, row_grads
            )
            updates = {}
            updates["network"], network_state = optimizer.update(
                grads["network"], state.network_optimizer, learnt["network"]
            )
            more: dict[str, Any] = {}
            if gates:
                updates[SELECTOR], more["selector_optimizer"] = gates.update(
                    grads[SELECTOR], cast(Any, state).selector_optimizer, learnt[SELECTOR]
                )
        state = dataclasses.replace(
            state,
            step=state.step + 1,
            params=state.params | {"tables": tables} | optax.apply_updates(learnt, updates),
            batch_stats=batch_stats,
            table_optimizer=table_state,
            network_optimizer=network_state,
            **more,
        )
        return state, {"loss": loss}

    return step


def make_round(
    step: Callable[[State, Batch], tuple[State, Metrics]],
) -> Callable[[State, Batch, Array, Array | None], tuple[State, Metrics]]:
    """A round: `round_(state, data, rows, count=None) -> (state, mean metrics)`.

    `data` holds rows on the device, `rows [R, B]` says which of them make each batch, and `count`
    how many of the batches to take: a shorter round at the end of an epoch compiles nothing.
    """

    def round_(
        state: State, data: Batch, rows: Array, count: Array | None = None
    ) -> tuple[State, Metrics]:
        return repeat(lambda s, r: step(s, take(data, r)), state, rows, count)

    return round_


def repeat(
    step: Callable[[State, Array], tuple[State, Metrics]],
    state: State,
    rows: Array,
    count: Array | None = None,
) -> tuple[State, Metrics]:
    """Applies `step(state, rows[i])` to the first `count` of `rows [R, B]`, or to all.

    Returns:
      The state and the mean of each metric.
    """
    rows = jnp.asarray(rows)
    number = len(rows) if count is None else count
    _, shapes = jax.eval_shape(step, state, rows[0])
    sums = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)

    def body(i: Array, carry: tuple[State, Metrics]) -> tuple[State, Metrics]:
        state, metrics = step(carry[0], rows[i])
        return state, jax.tree.map(jnp.add, carry[1], metrics)

    state, sums = lax.fori_loop(0, number, body, (state, sums))
    return state, jax.tree.map(lambda leaf: leaf / number, sums)


def take(data: Batch, rows: Array) -> Batch:
    """The batch of the given row numbers."""
    return Batch(*(part.at[rows].get(mode="promise_in_bounds") for part in data))

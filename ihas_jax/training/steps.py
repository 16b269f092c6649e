"""Pure training steps of a click model: `step(state, batch) -> (state, metrics)`.

Steps, and the rounds of them in `ihas_jax.training.rounds`, run under `jit`, `vmap`, `pmap` and on
a mesh.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jax import Array, lax

from ihas_jax.config import OptimizerConfig
from ihas_jax.errors import InputError
from ihas_jax.models.base import (
    NETWORK,
    TABLES,
    Constants,
    Model,
    Params,
    Stats,
    Variables,
    VectorsByTable,
)
from ihas_jax.models.forward import (
    Output,
    Transform,
    forward,
    init_model,
    table_index,
)
from ihas_jax.training.optimizers import TableOptimizer, l2_adam, make_table_optimizer
from ihas_jax.training.row_tables import current_vectors, settle_tables

TRAINING, VALIDATION = "training", "validation"
"""Names of the splits that batches of steps come from, and of the PRNG keys of the steps."""
Metrics = dict[str, Array]
Optimizers = Mapping[str, TableOptimizer | optax.GradientTransformation]
"""The optimiser of each subtree of the parameters; that of `tables` is a `TableOptimizer`."""


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
      step: `[]` int32, training batches seen.
      pace: `[]` float32, a factor of all learning rates; a part of the state, so that trainings
        with smaller steps share one program.
      keys: base PRNG keys; step t draws from `fold_in(keys["training"], t)`, and a step on a
        validation batch after it from `fold_in(keys["validation"], t)`.
      params: subtrees `tables` and `network`; a search adds `selector`, and `layers` if its
        selector has any.
      stats: running statistics of the `network`, and in a search of the `selector`.
      constants: arrays of the model that training leaves alone.
      optimizers: the optimiser state of each subtree of `params`.
    """

    step: Array
    pace: Array
    keys: dict[str, Array]
    params: Params
    stats: Stats
    constants: Constants
    optimizers: dict[str, optax.OptState]

    @property
    def variables(self) -> Variables:
        """The variables of the model."""
        return Variables(self.params, self.stats, self.constants)


Step = Callable[[TrainState, Batch], tuple[TrainState, Metrics]]


def model_optimizers(config: OptimizerConfig) -> Optimizers:
    """The optimisers of a click model's own subtrees, `tables` and `network`."""
    return {TABLES: make_table_optimizer(config), NETWORK: l2_adam(config)}


def init_train(key: Array, model: Model, config: OptimizerConfig) -> TrainState:
    """A fresh state; the key seeds the initial weights and the noise of training."""
    weights_key, noise_key = jax.random.split(key)
    params, stats, constants = init_model(weights_key, model)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        pace=jnp.ones((), jnp.float32),
        keys={TRAINING: noise_key},
        params=params,
        stats=stats,
        constants=constants,
        optimizers={n: o.init(params[n]) for n, o in model_optimizers(config).items()},
    )


def settle(state: TrainState) -> TrainState:
    """The state with tables that owe no step, as dense Adam would have left them.

    Only `deferred` updates of tables owe any. A training settles before it validates; whoever calls
    steps by hand does so before the parameters are used for anything but a further step.
    """
    tables, own = settle_tables(state.params[TABLES], state.optimizers.get(TABLES), state.pace)
    return dataclasses.replace(
        state,
        params=state.params | {TABLES: tables},
        optimizers=state.optimizers if own is None else state.optimizers | {TABLES: own},
    )


def click_loss(logits: Array, labels: Array) -> Array:
    """Mean binary cross-entropy `[]` of logits `[B]` and labels `[B]` (equation 3).

    Raises:
      InputError: there is not one label for each row.
    """
    if labels.shape != logits.shape:  # else each label would meet each row
        raise InputError(
            f"The labels of a batch have the shape {list(labels.shape)}; "
            f"{list(logits.shape)} is needed, one for each row of its ids."
        )
    return optax.sigmoid_binary_cross_entropy(logits, labels.astype(logits.dtype)).mean()


def make_step(
    model: Model,
    learns: Optimizers,
    *,
    transform: Transform | None = None,
    penalised: bool = False,
    on: str = TRAINING,
) -> Step:
    """Makes a step that updates some subtrees of the parameters by the click loss of a batch.

    Base model and pretraining learn `{tables, network}`; so does the bi-level model step under a
    selection; a joint step learns `{tables, network, selector}` and a gate step `{selector}`.

    Args:
      model: the click model. If it was built with an `axis_name`, the step averages over that
        mapped axis, and so runs on parts of a batch under pmap, vmap or shard_map alone.
      learns: the optimiser of each subtree that the step updates.
      transform: the transform of the embeddings by a selection method.
      penalised: whether the transform's penalty is part of the loss.
      on: 'training', or 'validation' for batches that move gates: such a step is not counted, and
        leaves all running statistics unchanged.

    Returns:
      `step(state, batch) -> (state, {"loss": []})`; with `penalised` also `penalty`.
    """
    tables = cast(TableOptimizer | None, learns.get(TABLES))
    argnums = (0,) if tables is None else (0, 1)
    axis_name = model.axis_name

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        key = jax.random.fold_in(state.keys[on], state.step)
        learnt = {name: state.params[name] for name in learns if name != TABLES}

        def loss_of(learnt: Params, vectors: VectorsByTable) -> tuple[Array, tuple[Array, Output]]:
            variables = state.variables._replace(params=state.params | learnt)
            output = forward(
                model,
                variables,
                batch.ids,
                transform,
                vectors=vectors,
                key=key,
                axis_name=axis_name,
            )
            loss = click_loss(output.logits, batch.labels)
            return loss + output.penalty if penalised else loss, (loss, output)

        with jax.named_scope("gather"):
            index = table_index(model, state.variables, batch.ids)
            arguments = (state.params[TABLES], state.optimizers.get(TABLES), index, state.pace)
            if tables is None:
                vectors = current_vectors(*arguments)
            else:
                vectors, reading = tables.read(*arguments, axis_name)
        grads, (loss, output) = jax.grad(loss_of, argnums=argnums, has_aux=True)(learnt, vectors)
        metrics = {"loss": loss} | ({"penalty": jnp.asarray(output.penalty)} if penalised else {})
        if axis_name is not None:
            metrics, own = lax.pmean((metrics, grads[0]), axis_name)
            grads = (own, *grads[1:])
        with jax.named_scope("update"):
            params, optimizers = state.params, state.optimizers
            if tables is not None:
                updated, table_state = tables.update(
                    params[TABLES], optimizers[TABLES], reading, grads[1], state.pace, axis_name
                )
                params = params | {TABLES: updated}
                optimizers = optimizers | {TABLES: table_state}
            for name, tree in learnt.items():
                updates, own_state = cast(Any, learns[name]).update(
                    grads[0][name], optimizers[name], tree
                )
                updates = jax.tree.map(lambda leaf: state.pace * leaf, updates)
                params = params | {name: optax.apply_updates(tree, updates)}
                optimizers = optimizers | {name: own_state}
        state = dataclasses.replace(state, params=params, optimizers=optimizers)
        if on == TRAINING:
            state = dataclasses.replace(state, step=state.step + 1, stats=output.stats)
        return state, metrics

    return step

"""Training of a click model without gates: the base model, and pretraining before the search."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import jax
import numpy as np
from jax import Array

from ihas_jax.config import OptimizerConfig
from ihas_jax.data.dataset import Split
from ihas_jax.models.base import (
    SELECTOR,
    BatchStats,
    Model,
    Params,
    apply_network,
    factored,
    lookup_rows,
    row_numbers,
)
from ihas_jax.selectors.base import Selector, Weights, evaluated, weights_of
from ihas_jax.stages.run import Run
from ihas_jax.training.loop import Fitted, Task, fit
from ihas_jax.training.metrics import Scores, score
from ihas_jax.training.optimizers import l2_adam
from ihas_jax.training.steps import (
    Batch,
    Metrics,
    TrainState,
    init_train,
    make_round,
    make_train_step,
)
from ihas_jax.training.streaming import Streamed

# one program: operation by operation it would take longer to compile than a short training
_init = jax.jit(init_train, static_argnums=(1, 2))


def predict(model: Model, params: Params, batch_stats: BatchStats, ids: Array) -> Array:
    """Click probabilities `[B]` of a click model for ids `[B, N]`.

    Raises:
      InputError: the ids are not integers `[B, N]`, or, outside of `jit`, one is none of its field.
    """
    numbers = row_numbers(model, ids, batch_stats)
    rows = factored(lookup_rows(params["tables"], numbers), numbers, batch_stats)
    logits, _ = apply_network(model, params["network"], batch_stats, rows)
    return jax.nn.sigmoid(logits)


def streamed_predict(model: Model, description: str) -> Streamed:
    """`predict` over any number of rows; its parameters are `(params, batch_stats)`."""
    return _predictor(model).named(description)


@lru_cache(maxsize=8)
def _predictor(model: Model) -> Streamed:
    """One program for each model, however often it is trained and evaluated."""
    return Streamed(lambda weights, ids: predict(model, weights[0], weights[1], ids), "predict")


def train_base(run: Run) -> Fitted:
    """Trains the click model with every coordinate of every field, with early stopping."""
    model = run.model()
    return fit(base_task(run, model), fresh_state(run, "base", model), run.event)


def base_task(run: Run, model: Model) -> Task:
    """The training of `train_base`, from `fresh_state(run, "base", model)`."""
    return model_task(run, "base", model)


def pretrain(run: Run, selector: Selector) -> Fitted:
    """Trains `search.pretrain_epochs` epochs with nothing selected (Algorithm 1, line 2)."""
    model = run.model()
    state = pretrain_state(run, model, selector)
    return fit(pretrain_task(run, model, selector), state, run.event)


def pretrain_task(run: Run, model: Model, selector: Selector) -> Task:
    """The training of `pretrain`, from `pretrain_state`."""
    task = model_task(run, "search/pretrain", model, epochs=run.config.search.pretrain_epochs)
    if not jax.eval_shape(selector.init, run.key("layers")).layers:
        return task
    step = make_train_step(run.config.optimizer, model, select=selector.open)

    def predict_open(weights: tuple[Params, BatchStats], ids: Array) -> Array:
        params, batch_stats = weights
        looked, logits = evaluated(model, params, batch_stats, ids)
        embeddings = selector.pass_through(weights_of(params, batch_stats), looked)
        return jax.nn.sigmoid(logits(embeddings))

    predictor = Streamed(predict_open, "[search/pretrain] validation")

    def evaluate(params: Params, batch_stats: BatchStats) -> tuple[Scores, dict[str, float]]:
        valid = run.data.valid
        return score(valid.labels, predictor((params, batch_stats), valid.ids)), {}

    return dataclasses.replace(task, round_=without_gates(make_round(step)), evaluate=evaluate)


def pretrain_state(run: Run, model: Model, selector: Selector) -> TrainState:
    """What `pretrain` starts from: a fresh state, with the selector's layers if it has any."""
    state = fresh_state(run, "search/pretrain", model)
    return add_layers(state, jax.jit(selector.init)(run.key("layers")), run.config.optimizer)


def add_layers(state: TrainState, weights: Weights, config: OptimizerConfig) -> TrainState:
    """A state whose network has a selector's layers, which are learnt with it.

    A selector without layers changes nothing.
    """
    if not weights.layers:
        return state
    network = state.params["network"] | {SELECTOR: weights.layers}
    return dataclasses.replace(
        state,
        params=state.params | {"network": network},
        batch_stats=state.batch_stats | ({SELECTOR: weights.stats} if weights.stats else {}),
        network_optimizer=l2_adam(config).init(network),
    )


def train_model(
    run: Run,
    name: str,
    model: Model,
    *,
    rows: np.ndarray | None = None,
    valid: Split | None = None,
    start: Callable[[TrainState], TrainState] = lambda state: state,
) -> Fitted:
    """Trains the task of `model_task`; `start` changes the fresh state before training."""
    task = model_task(run, name, model, rows=rows, valid=valid)
    return fit(task, start(fresh_state(run, name, model)), run.event)


def fresh_state(run: Run, name: str, model: Model) -> TrainState:
    """What the training of a model called `name` starts from."""
    return _init(run.key(name), model, run.config.optimizer)


def model_task(
    run: Run,
    name: str,
    model: Model,
    *,
    rows: np.ndarray | None = None,
    valid: Split | None = None,
    epochs: int | None = None,
) -> Task:
    """The training of a click model on (some of) the training rows.

    Args:
      run: the run it belongs to.
      name: its folder within the run, and the name of its seeds.
      model: the click model.
      rows: training rows to use; all by default.
      valid: rows that decide when to stop; the validation split by default.
      epochs: train exactly so long and keep the last epoch, instead of stopping early.
    """
    predictor = streamed_predict(model, f"[{name}] validation")
    ids, labels = valid or run.data.valid

    def evaluate(params: Params, batch_stats: BatchStats) -> tuple[Scores, dict[str, float]]:
        return score(labels, predictor((params, batch_stats), ids)), {}

    return Task(
        name=name,
        directory=run.workdir / name,
        rounds=run.rounds(name, rows=rows, epochs=epochs),
        round_=plain_round(run.config.optimizer, model),
        evaluate=evaluate,
        config=run.config.train,
        early_stopping=epochs is None,
    )


@lru_cache(maxsize=8)
def plain_round(config: OptimizerConfig, model: Model) -> Callable[..., tuple[TrainState, Metrics]]:
    """A round of training steps in the form that `training.loop` calls.

    The same config and model give the same function, so that pretraining takes the program of the
    base model.
    """
    return without_gates(make_round(make_train_step(config, model)))


def without_gates(
    round_: Callable[..., tuple[TrainState, Metrics]],
) -> Callable[..., tuple[TrainState, Metrics]]:
    """A round that is called with a search's batches for gates, and has no use for them."""

    def call(
        state: TrainState, data: Batch, rows: Array, gate_data: Any, gate_rows: Any, count: Array
    ) -> tuple[TrainState, Metrics]:
        return round_(state, data, rows, count)

    return call

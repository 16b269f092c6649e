"""The searching stage as pure functions: bi-level updates of a click model and its gates.

Two optimisers over separate parameter subtrees: one step of `{tables, network}` on each
training batch, one step of the selector on a validation batch every `gate_every` batches
(Algorithm 1, lines 3 to 8). First order: the gate step takes the model as it is.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jax import Array, lax

from ihas_jax.config import Config
from ihas_jax.models.base import EMBEDDING, BatchStats, Model, Params, apply_network, lookup_rows
from ihas_jax.progress import log
from ihas_jax.selectors.base import Selected, Selector
from ihas_jax.stages.pretrain import pretrain
from ihas_jax.stages.run import Run
from ihas_jax.training.loop import Fitted, Task, fit
from ihas_jax.training.metrics import Scores, score
from ihas_jax.training.optimizers import l2_adam
from ihas_jax.training.steps import (
    Batch,
    Metrics,
    TrainState,
    click_loss,
    init_train,
    make_train_step,
    repeat,
    take,
)
from ihas_jax.training.streaming import Streamed

_FEW_UPDATES = 20
_LARGE_GATES = 1e9


@struct.dataclass
class SearchState(TrainState):
    """A `TrainState` whose `params` hold the selector as a third subtree.

    Attributes:
      selector_optimizer: optimiser state of the selector.
      selector_key: base PRNG key of the gate steps' noise.
    """

    selector_optimizer: optax.OptState
    selector_key: Array


def init_search(
    key: Array,
    config: Config,
    model: Model,
    selector: Selector,
    pretrained: TrainState | None = None,
) -> SearchState:
    """A fresh selector beside a pretrained model with its optimiser state, or a fresh model.

    Steps are counted anew and noise is drawn from keys of the search's own.
    """
    model_key, selector_key, noise_key, train_key = jax.random.split(key, 4)
    if pretrained is None:
        pretrained = init_train(model_key, model, config.optimizer)
    params = jax.jit(selector.init)(selector_key)
    return SearchState(
        step=jnp.zeros((), jnp.int32),
        key=train_key,
        params=pretrained.params | {"selector": params},
        batch_stats=pretrained.batch_stats,
        table_optimizer=pretrained.table_optimizer,
        network_optimizer=pretrained.network_optimizer,
        selector_optimizer=l2_adam(config.search.gate_optimizer).init(params),
        selector_key=noise_key,
    )


def make_model_step(
    config: Config, model: Model, selector: Selector, *, axis_name: str | None = None
) -> Callable[[SearchState, Batch], tuple[SearchState, Metrics]]:
    """A step of `{tables, network}` on a training batch under stochastic gates (line 5)."""
    train_step = make_train_step(config.optimizer, model, axis_name=axis_name)

    def step(state: SearchState, batch: Batch) -> tuple[SearchState, Metrics]:
        def select(embeddings: Array, key: Array, first: Array | int) -> tuple[Array, Array]:
            return selector.sample(state.params["selector"], embeddings, key, first)

        return train_step(state, batch, select)

    return step


def make_gate_step(
    config: Config, model: Model, selector: Selector, *, axis_name: str | None = None
) -> Callable[[SearchState, Batch], tuple[SearchState, Metrics]]:
    """A step of the selector on a validation batch: equation 3 plus equation 5 (line 7).

    Batch norm uses the batch's statistics and leaves the running ones alone.
    """
    optimizer = l2_adam(config.search.gate_optimizer)

    def step(state: SearchState, batch: Batch) -> tuple[SearchState, Metrics]:
        rows = lookup_rows(model, state.params["tables"], batch.ids)
        key = jax.random.fold_in(state.selector_key, state.step)

        def loss_of(params: Params) -> tuple[Array, tuple[Array, Array]]:
            def select(embeddings: Array, key: Array, first: Array | int) -> tuple[Array, Array]:
                return selector.sample(params, embeddings, key, first)

            loss, (penalty, _) = click_loss(
                model, state.params["network"], state.batch_stats, rows, batch, key, select,
                axis_name,
            )  # fmt: skip
            if axis_name is not None and config.gates.reduction == "sum":
                # gradients are averaged over the axis, a sum over the whole batch is not
                penalty *= lax.psum(1, axis_name)
            return loss + penalty, (loss, penalty)

        grads, (loss, penalty) = jax.grad(loss_of, has_aux=True)(state.params["selector"])
        if axis_name is not None:
            grads, loss, penalty = lax.pmean((grads, loss, penalty), axis_name)
        updates, optimizer_state = optimizer.update(
            grads, state.selector_optimizer, state.params["selector"]
        )
        selector_params = optax.apply_updates(state.params["selector"], updates)
        state = dataclasses.replace(
            state,
            params=state.params | {"selector": selector_params},
            selector_optimizer=optimizer_state,
        )
        return state, {"gate_loss": loss, "penalty": penalty}

    return step


def make_search_round(
    config: Config, model: Model, selector: Selector, *, axis_name: str | None = None
) -> Callable[..., tuple[SearchState, Metrics]]:
    """A round of the bi-level search as one loop on the device.

    Returns:
      `round_(state, data, rows, gate_data, gate_rows, count=None) -> (state, {"loss": []})`: a
      model step on each of the first `count` batches of `rows [R, B]` of `data`, and whenever
      `state.step` reaches a multiple of `gate_every` a gate step on the next batch of
      `gate_rows [G, B]` of `gate_data`.
    """
    model_step = make_model_step(config, model, selector, axis_name=axis_name)
    gate_step = make_gate_step(config, model, selector, axis_name=axis_name)
    every = config.search.gate_every

    def round_(
        state: SearchState,
        data: Batch,
        rows: Array,
        gate_data: Batch,
        gate_rows: Array,
        count: Array | None = None,
    ) -> tuple[SearchState, Metrics]:
        first_update = state.step // every

        def update(state: SearchState) -> tuple[Any, Any]:
            batch = take(gate_data, jnp.asarray(gate_rows)[state.step // every - 1 - first_update])
            state, _ = gate_step(state, batch)
            return state.params["selector"], state.selector_optimizer

        def keep(state: SearchState) -> tuple[Any, Any]:
            return state.params["selector"], state.selector_optimizer

        def body(state: SearchState, batch_rows: Array) -> tuple[SearchState, Metrics]:
            state, metrics = model_step(state, take(data, batch_rows))
            # only the selector passes through the branch, so that no table is copied
            params, optimizer_state = lax.cond(state.step % every == 0, update, keep, state)
            state = dataclasses.replace(
                state,
                params=state.params | {"selector": params},
                selector_optimizer=optimizer_state,
            )
            return state, metrics

        return repeat(body, state, rows, count)

    return round_


def predict_selected(
    model: Model, selector: Selector, params: Params, batch_stats: BatchStats, ids: Array
) -> tuple[Array, Selected]:
    """Click probabilities `[B]` of the searched model with deterministic gates (iHAS-1)."""
    rows = lookup_rows(model, params["tables"], ids)
    (group,) = rows[EMBEDDING]
    selected = selector.select(params["selector"], rows[EMBEDDING][group])
    rows = rows | {EMBEDDING: {group: selected.embeddings}}
    logits, _ = apply_network(model, params["network"], batch_stats, rows)
    return jax.nn.sigmoid(logits), selected


def search(run: Run, selector: Selector) -> tuple[Fitted, Fitted]:
    """Pretrains, then searches until the validation score with deterministic gates stalls.

    Returns:
      The pretrained model and the searched one.
    """
    model = run.model()
    pretrained = pretrain(run)
    state = init_search(run.key("search"), run.config, model, selector, pretrained.state)
    return pretrained, fit(search_task(run, model, selector), state, run.event)


def search_task(run: Run, model: Model, selector: Selector) -> Task:
    """The training of a search, without its pretraining."""
    config, data = run.config, run.data

    def evaluate_batch(weights: tuple[Params, BatchStats], ids: Array) -> tuple[Array, Array]:
        probs, selected = predict_selected(model, selector, weights[0], weights[1], ids)
        return probs, selected.masks.mean(axis=1)

    predictor = Streamed(evaluate_batch, "[search] validation")

    def evaluate(params: Params, batch_stats: BatchStats) -> tuple[Scores, dict[str, float]]:
        probs, kept = predictor((params, batch_stats), data.valid.ids)
        facts = {"kept": float(kept.mean()), "kept_deviation": float(kept.std())}
        return score(data.valid.labels, probs), facts

    rounds = run.rounds("search", gate_every=config.search.gate_every)
    updates = rounds.feed.batches_per_epoch // config.search.gate_every
    if updates < _FEW_UPDATES:
        log(
            f"[search] only {updates} gate updates per epoch: the gates will hardly move. For a "
            "log of this size use --preset small, or a smaller --search.gate-every."
        )
    gate_bytes = 4 * model.embedding.coordinates**2
    if config.gates.instance_wise and gate_bytes > _LARGE_GATES:
        log(
            f"[search] the gates' layer takes {gate_bytes / 1e9:.1f} GB, and with its optimiser "
            f"three times as much, for {model.embedding.coordinates:,} coordinates. A model with "
            "one vector for each field, or a smaller --model.dim, takes far less."
        )
    return Task(
        name="search",
        directory=run.workdir / "search",
        rounds=rounds,
        round_=make_search_round(config, model, selector),
        evaluate=evaluate,
        config=config.train,
    )

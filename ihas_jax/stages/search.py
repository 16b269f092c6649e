"""The searching stage as pure functions: bi-level updates of a click model and its gates.

Two optimisers over separate parameter subtrees: one step of `{tables, network}` on each
training batch, one step of the selector on a validation batch every `gate_every` batches
(Algorithm 1, lines 3 to 8). First order: the gate step takes the model as it is.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct
from jax import Array, lax

from ihas_jax.config import Config
from ihas_jax.data.dataset import Split
from ihas_jax.models.base import (
    SELECTOR,
    BatchStats,
    Model,
    Params,
    lookup_rows,
    row_numbers,
)
from ihas_jax.presets import preset
from ihas_jax.progress import warn
from ihas_jax.selectors.base import Selected, Selector, evaluated, weights_of
from ihas_jax.stages.pretrain import add_layers, pretrain
from ihas_jax.stages.run import Run
from ihas_jax.training.loop import Fitted, Task, fit
from ihas_jax.training.metrics import Scores, score
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

    Steps are counted anew and noise is drawn from keys of the search's own. A selector with
    layers has them from pretraining.
    """
    model_key, selector_key, noise_key, train_key = jax.random.split(key, 4)
    weights = jax.jit(selector.init)(selector_key)
    if pretrained is None:
        fresh = init_train(model_key, model, config.optimizer)
        pretrained = add_layers(fresh, weights, config.optimizer)
    stats = weights.stats | pretrained.batch_stats.get(SELECTOR, {})
    return SearchState(
        step=jnp.zeros((), jnp.int32),
        key=train_key,
        params=pretrained.params | {SELECTOR: weights.gates},
        batch_stats=pretrained.batch_stats | ({SELECTOR: stats} if stats else {}),
        table_optimizer=pretrained.table_optimizer,
        network_optimizer=pretrained.network_optimizer,
        selector_optimizer=selector.optimizer(config.search.gate_optimizer).init(weights.gates),
        selector_key=noise_key,
    )


def make_model_step(
    config: Config, model: Model, selector: Selector, *, axis_name: str | None = None
) -> Callable[[SearchState, Batch], tuple[SearchState, Metrics]]:
    """A step of `{tables, network}` on a training batch under stochastic selection (line 5).

    It moves the gates too where the selector's recipe learns them on training batches.
    """
    selector = selector.over(axis_name)
    joint = selector.recipe.gates == "training"
    gates = selector.optimizer(config.search.gate_optimizer) if joint else None
    return make_train_step(
        config.optimizer, model, select=selector.sample, gates=gates, axis_name=axis_name
    )


def make_gate_step(
    config: Config, model: Model, selector: Selector, *, axis_name: str | None = None
) -> Callable[[SearchState, Batch], tuple[SearchState, Metrics]]:
    """A step of the selector on a validation batch: equation 3 plus equation 5 (line 7).

    Batch norm uses the batch's statistics and leaves the running ones alone.
    """
    selector = selector.over(axis_name)
    optimizer = selector.optimizer(config.search.gate_optimizer)

    def step(state: SearchState, batch: Batch) -> tuple[SearchState, Metrics]:
        numbers = row_numbers(model, batch.ids, state.batch_stats)
        rows = lookup_rows(state.params["tables"], numbers)
        key = jax.random.fold_in(state.selector_key, state.step)

        def loss_of(gates: Params) -> tuple[Array, tuple[Array, Array]]:
            loss, (penalty, _) = click_loss(
                model, state.params | {SELECTOR: gates}, state.batch_stats, rows, numbers, batch,
                key, selector.sample, axis_name,
            )  # fmt: skip
            if axis_name is not None and selector.summed_penalty:
                # gradients are averaged over the axis, a sum over the whole batch is not
                penalty *= lax.psum(1, axis_name)
            return loss + penalty, (loss, penalty)

        grads, (loss, penalty) = jax.grad(loss_of, has_aux=True)(state.params[SELECTOR])
        if axis_name is not None:
            grads, loss, penalty = lax.pmean((grads, loss, penalty), axis_name)
        updates, optimizer_state = optimizer.update(
            grads, state.selector_optimizer, state.params[SELECTOR]
        )
        gates = optax.apply_updates(state.params[SELECTOR], updates)
        state = dataclasses.replace(
            state, params=state.params | {SELECTOR: gates}, selector_optimizer=optimizer_state
        )
        return state, {"gate_loss": loss, "penalty": penalty}

    return step


def make_search_round(
    config: Config, model: Model, selector: Selector, *, axis_name: str | None = None
) -> Callable[..., tuple[SearchState, Metrics]]:
    """A round of the search as one loop on the device.

    Without gate steps where the recipe does not learn on validation batches.

    Returns:
      `round_(state, data, rows, gate_data, gate_rows, count=None) -> (state, {"loss": []})`: a
      model step on each of the first `count` batches of `rows [R, B]` of `data`, and whenever
      `state.step` reaches a multiple of `gate_every` a gate step on the next batch of
      `gate_rows [G, B]` of `gate_data`.
    """
    model_step = make_model_step(config, model, selector, axis_name=axis_name)
    gate_step = make_gate_step(config, model, selector, axis_name=axis_name)
    every = config.search.gate_every
    bilevel = selector.recipe.gates == "validation"

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
            return state.params[SELECTOR], state.selector_optimizer

        def keep(state: SearchState) -> tuple[Any, Any]:
            return state.params[SELECTOR], state.selector_optimizer

        def body(state: SearchState, batch_rows: Array) -> tuple[SearchState, Metrics]:
            state, metrics = model_step(state, take(data, batch_rows))
            if not bilevel:
                return state, metrics
            # only the selector passes through the branch, so that no table is copied
            params, optimizer_state = lax.cond(state.step % every == 0, update, keep, state)
            state = dataclasses.replace(
                state,
                params=state.params | {SELECTOR: params},
                selector_optimizer=optimizer_state,
            )
            return state, metrics

        return repeat(body, state, rows, count)

    return round_


def predict_selected(
    model: Model, selector: Selector, params: Params, batch_stats: BatchStats, ids: Array
) -> tuple[Array, Selected]:
    """Click probabilities `[B]` of the searched model with deterministic selection (iHAS-1).

    Raises:
      InputError: the ids are not integers `[B, N]`, or, outside of `jit`, one is none of its field.
    """
    looked, logits = evaluated(model, params, batch_stats, ids)
    selected = selector.select(weights_of(params, batch_stats), looked)
    return jax.nn.sigmoid(logits(selected.embeddings)), selected


def streamed_selected(model: Model, selector: Selector, description: str) -> Streamed:
    """`predict_selected` over any number of rows, with the parameters `(params, batch_stats)`.

    Gives probabilities `[n]`, and the share `[n]` of coordinates that each row keeps.
    """
    return _predictor(model, selector).named(description)


@lru_cache(maxsize=8)
def _predictor(model: Model, selector: Selector) -> Streamed:
    """One program for each searched model, in validation and evaluation of all its seeds."""

    def batch(weights: tuple[Params, BatchStats], ids: Array) -> tuple[Array, Array]:
        probs, selected = predict_selected(model, selector, weights[0], weights[1], ids)
        return probs, selected.masks.mean(axis=1)

    return Streamed(batch, "search")


@lru_cache(maxsize=8)
def _search_round(config: Config, model: Model, selector: Selector) -> Callable[..., Any]:
    """One round for each search, before and after rewinding and of all its seeds."""
    return make_search_round(config, model, selector)


class Searches(NamedTuple):
    """The trainings of a searching stage.

    Attributes:
      pretrained: with nothing selected.
      rewound: the first `recipe.rewind` epochs of the search, where retraining goes back to them.
      fitted: the search.
    """

    pretrained: Fitted
    rewound: Fitted | None
    fitted: Fitted

    @property
    def seconds(self) -> float:
        """Time spent in all of them."""
        return sum(fitted.seconds for fitted in self if fitted is not None)


def search(run: Run, selector: Selector) -> Searches:
    """Pretrains, then searches as the selector's recipe says.

    Without a length in the recipe the search ends when the validation score with deterministic
    selection stalls.
    """
    model, recipe = run.model(), selector.recipe
    _warn(run, model, selector)
    pretrained = pretrain(run, selector)
    state = init_search(run.key("search"), run.config, model, selector, pretrained.state)
    rewound = None
    if recipe.rewind:
        first = search_task(run, model, selector, "search/rewind", recipe.rewind)
        rewound = fit(first, state, run.event)
        state = rewound.state
    epochs = None if recipe.epochs is None else recipe.epochs - recipe.rewind
    task = search_task(run, model, selector, epochs=epochs)
    return Searches(pretrained, rewound, fit(task, state, run.event))


def search_task(
    run: Run, model: Model, selector: Selector, name: str = "search", epochs: int | None = None
) -> Task:
    """The training of a search, without its pretraining.

    Args:
      run: the run it belongs to.
      model: the click model.
      selector: its selector.
      name: its folder within the run, and the name of its seeds.
      epochs: train exactly so long and keep the last epoch, instead of stopping early.
    """
    config, recipe = run.config, selector.recipe
    bilevel = recipe.gates == "validation"
    gate_rows, stopping = split_validation(run) if bilevel else (None, run.data.valid)
    predictor = streamed_selected(model, selector, f"[{name}] validation")
    kept_of_table = jax.jit(lambda params, stats: selector.kept(weights_of(params, stats), params))

    def evaluate(params: Params, batch_stats: BatchStats) -> tuple[Scores, dict[str, float]]:
        probs, kept = predictor((params, batch_stats), stopping.ids)
        facts = {"kept": float(kept.mean()), "kept_deviation": float(kept.std())}
        if recipe.until is not None:
            facts["kept_of_table"] = float(kept_of_table(params, batch_stats))
        return score(stopping.labels, probs), facts

    def ended(facts: dict[str, float]) -> bool:
        return recipe.until is not None and facts["kept_of_table"] <= recipe.until

    gate_every = config.search.gate_every if bilevel else 0
    return Task(
        name=name,
        directory=run.workdir / name,
        rounds=run.rounds(name, epochs=epochs, gate_every=gate_every, gate_rows=gate_rows),
        round_=_search_round(dataclasses.replace(config, seed=0), model, selector),
        evaluate=evaluate,
        config=config.train,
        early_stopping=epochs is None and recipe.until is None,
        ended=ended,
    )


def split_validation(run: Run) -> tuple[np.ndarray | None, Split]:
    """Validation rows that move the gates, None for all, and those that decide when to stop."""
    valid, share = run.data.valid, run.config.search.stopping_share
    if not share:
        return None, valid
    rng = np.random.Generator(np.random.Philox(run.seed("search/stopping")))
    order = rng.permutation(len(valid.labels)).astype(np.int32)
    number = min(max(1, round(share * len(order))), len(order) - 1)
    stopping = np.sort(order[:number])
    return np.sort(order[number:]), Split(valid.ids[stopping], valid.labels[stopping])


def _warn(run: Run, model: Model, selector: Selector) -> None:
    """Says so where gates can't move or take much memory."""
    updates = run.epoch_steps // run.config.search.gate_every
    if selector.recipe.gates == "validation" and updates < _FEW_UPDATES:
        warn(
            f"[search] only {updates} gate updates per epoch: the gates will hardly move. For a "
            f"log of this size {_remedy(run.config)}."
        )
    gates = jax.eval_shape(selector.init, run.key("search")).gates
    gate_bytes = sum(4 * leaf.size for leaf in jax.tree.leaves(gates))
    if gate_bytes > _LARGE_GATES:
        warn(
            f"[search] the gates take {gate_bytes / 1e9:.1f} GB, and with their optimiser "
            f"three times as much, for {model.embedding.coordinates:,} coordinates. A model with "
            "one vector for each field, or a smaller --model.dim, takes far less."
        )


def _remedy(config: Config) -> str:
    """Flags by which the gates of a run would move more; a preset only to a run without one."""
    every, batch = config.search.gate_every, config.train.batch_size
    paper, small = preset("paper", method=config.method), preset("small", method=config.method)
    if (every, batch) == (paper.search.gate_every, paper.train.batch_size):
        return "use --preset small, or a smaller --search.gate-every"
    ways = []
    if every > 1:
        ways.append(f"--search.gate-every {min(small.search.gate_every, every - 1)}")
    if batch > 32:
        ways.append(f"--train.batch-size {min(small.train.batch_size, batch // 2)}")
    ways.append("a larger --search.gate-optimizer.learning-rate")
    return f"choose {' or '.join(ways)}"

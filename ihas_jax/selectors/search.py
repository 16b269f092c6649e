"""The search as pure functions: two optimisers over separate subtrees of the parameters.

A bi-level search takes one step of `{tables, network}` on each training batch, and one step of the
selector on a validation batch every `gate_every` batches (Algorithm 1, lines 3 to 8). It is first
order: the gate step holds the model fixed. A joint search moves all subtrees on training
batches.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ihas_jax.config import Config, OptimizerConfig
from ihas_jax.models.base import SELECTOR, TABLES, Model
from ihas_jax.models.local import splitting_mesh
from ihas_jax.models.placing import make
from ihas_jax.selectors.base import LAYERS, Pretraining, Sampling, Selector, Weights
from ihas_jax.training.optimizers import init_beside, l2_adam
from ihas_jax.training.rounds import Round, make_round
from ihas_jax.training.steps import (
    TRAINING,
    VALIDATION,
    Optimizers,
    Step,
    TrainState,
    init_train,
    make_step,
    model_optimizers,
)


def has_layers(selector: Selector) -> bool:
    """Whether a selector has layers that are learnt with the network, from pretraining on."""
    return bool(jax.eval_shape(selector.init, jax.random.key(0)).layers)


def add_layers(state: TrainState, weights: Weights, config: OptimizerConfig) -> TrainState:
    """A state with a selector's layers among its parameters, if the selector has any."""
    if not weights.layers:
        return state
    return dataclasses.replace(
        state,
        params=state.params | {LAYERS: weights.layers},
        stats=state.stats | ({SELECTOR: weights.stats} if weights.stats else {}),
        optimizers=state.optimizers | {LAYERS: l2_adam(config).init(weights.layers)},
    )


def init_search(
    key: Array,
    config: Config,
    model: Model,
    selector: Selector,
    pretrained: TrainState | None = None,
) -> TrainState:
    """The state of a fresh selector and a pretrained model with its optimiser state.

    Without a pretrained model a fresh one is made. Steps are counted from 0, and the search draws
    its noise from new keys. The layers of a selector come from pretraining.
    """
    model_key, selector_key, noise_key, train_key = jax.random.split(key, 4)
    tables = {} if pretrained is None else pretrained.params[TABLES]
    weights = init_weights(selector, selector_key, tables)
    if pretrained is None:
        fresh = init_train(model_key, model, config.optimizer)
        pretrained = add_layers(fresh, weights, config.optimizer)
    stats = weights.stats | pretrained.stats.get(SELECTOR, {})
    gates = init_beside(selector.optimizer(config.search.gate_optimizer).init, weights.gates)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        pace=jnp.ones((), jnp.float32),
        keys={TRAINING: train_key, VALIDATION: noise_key},
        params=pretrained.params | {SELECTOR: weights.gates},
        stats=pretrained.stats | ({SELECTOR: stats} if stats else {}),
        constants=pretrained.constants,
        optimizers=pretrained.optimizers | {SELECTOR: gates},
    )


def init_weights(selector: Selector, key: Array, tables: dict[str, Any]) -> Weights:
    """Fresh weights, on the host if they have a row for each row of tables on the host."""
    if not any(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(tables)):
        return jax.jit(selector.init)(key)
    named = make(lambda key: {SELECTOR: selector.init(key)}, splitting_mesh(), key, beside=tables)
    return named[SELECTOR]


def make_pretraining_step(config: Config, model: Model, selector: Selector) -> Step:
    """A step of the click model with nothing selected (line 2).

    With a selector without layers it is the step of the base model.
    """
    if not has_layers(selector):
        return make_step(model, model_optimizers(config.optimizer))
    transform = Pretraining(selector.with_axis(model.axis_name))
    learns = _model_learns(config, selector)
    return make_step(model, learns, transform=transform)


def make_model_step(config: Config, model: Model, selector: Selector) -> Step:
    """A step of `{tables, network}` on a training batch under stochastic selection (line 5).

    Where the recipe learns the gates on training batches, the step moves them too, and the penalty
    is part of the loss.
    """
    selector = selector.with_axis(model.axis_name)
    learns = _model_learns(config, selector)
    joint = selector.recipe.gate_batches == "training"
    if joint:
        learns = {**learns, SELECTOR: selector.optimizer(config.search.gate_optimizer)}
    transform = Sampling(selector)
    return make_step(model, learns, transform=transform, penalised=joint)


def make_gate_step(config: Config, model: Model, selector: Selector) -> Step:
    """A step of the selector on a validation batch: equation 3 plus equation 5 (line 7).

    Batch norm uses the batch's statistics and leaves the running ones alone.
    """
    selector = selector.with_axis(model.axis_name)
    return make_step(
        model,
        {SELECTOR: selector.optimizer(config.search.gate_optimizer)},
        transform=Sampling(selector),
        penalised=True,
        on=VALIDATION,
    )


def make_search_round(config: Config, model: Model, selector: Selector) -> Round:
    """A round of the search as one loop on the device; see `make_round`.

    There are no gate steps where the recipe does not learn on validation batches.
    """
    model_step = make_model_step(config, model, selector)
    if selector.recipe.gate_batches != "validation":
        return make_round(model_step)
    gate_step = make_gate_step(config, model, selector)
    return make_round(model_step, gate_step, moves=(SELECTOR,), every=config.search.gate_every)


def _model_learns(config: Config, selector: Selector) -> Optimizers:
    """The optimisers of the click model, and of the selector's layers if there are any."""
    learns = model_optimizers(config.optimizer)
    return {**learns, LAYERS: l2_adam(config.optimizer)} if has_layers(selector) else learns

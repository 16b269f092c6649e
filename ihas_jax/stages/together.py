"""Networks over one table that learn together with the groups of values that they answer."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ihas_jax import checksums
from ihas_jax.files import read_json, write_json
from ihas_jax.models.base import GROUPS, NETWORK, Model, Variables
from ihas_jax.models.forward import forward
from ihas_jax.models.grouped import grouped_model, network_of, stack_networks
from ihas_jax.models.placing import copied
from ihas_jax.models.streaming import Streamed
from ihas_jax.processes import agreed, by_first
from ihas_jax.progress import say
from ihas_jax.selectors.by_value import ValueRouter
from ihas_jax.stages.base import model_task, plain_round, train_runs
from ihas_jax.stages.run import Run
from ihas_jax.stages.shared import PACES
from ihas_jax.training.steps import TRAINING, TrainState, model_optimizers
from ihas_jax.training.task import Trained

_EPOCHS = 8
"""Epochs after each of which the values are grouped anew."""
_NOISE = 0.1
"""What sets the networks apart at first, as a multiple of the deviation of their weights."""


def learn_together(
    run: Run, model: Model, name: str, number: int, first: Trained, field: int
) -> tuple[Trained, ValueRouter]:
    """Trains table and networks in turns with the groups, then with smaller steps.

    Values and networks find each other as in hard expectation maximisation: the networks learn
    from the rows of their values, and each value goes to the network that answers it best. With
    one network there is nothing to group, and nothing that sets it apart from the first one.

    Args:
      run: the run.
      model: the click model.
      name: the name of the training.
      number: C, how many networks there are.
      first: the training from which table and networks go on.
      field: the field whose values are grouped.

    Returns:
      The training of the grouped model, and the groups.
    """
    grouped, stage = grouped_model(model, number), f"retrain/{name}"
    rng = np.random.Generator(np.random.Philox(run.seed(stage)))
    size = run.data.schema.sizes[field]
    groups = ValueRouter(field, rng.integers(number, size=size).astype(np.uint8))
    noise = _NOISE if number > 1 else 0.0
    copies = stack_networks(first.variables, number, noise, run.key(f"{stage}/noise"))
    state = _fresh(run, stage, first.state, copies)
    round_ = plain_round(run.config.optimizer, grouped)
    for epoch in range(_EPOCHS):
        part = f"{stage}_{epoch}"
        task = model_task(run, part, grouped, epochs=1, round_=round_)
        (trained,) = train_runs([run], [task], [_with(state, groups)])
        state = trained.state
        if number > 1:
            groups = regrouped(run, model, part, trained.variables, groups)
    task = model_task(run, stage, grouped, round_=round_, start_counts=True)
    begun = _with(_fresh(run, task.name, state, state.variables, PACES[0]), groups)
    (trained,) = train_runs([run], [replace(task, finish=PACES[1:])], [begun])
    return trained, groups


def _fresh(
    run: Run, name: str, state: TrainState, variables: Variables, pace: float = 1.0
) -> TrainState:
    """A state of some variables, in new arrays, as if no step had been taken."""
    params, stats, constants = copied(tuple(variables))
    optimizers = model_optimizers(run.config.optimizer)
    return replace(
        state,
        step=jnp.zeros_like(state.step),
        pace=jnp.full_like(state.pace, pace),
        keys={TRAINING: run.key(name)},
        params=params,
        stats=stats,
        constants=constants,
        optimizers={part: one.init(params[part]) for part, one in optimizers.items()},
    )


def _with(state: TrainState, groups: ValueRouter) -> TrainState:
    of_value = {"field": jnp.int32(groups.field), "of_value": jnp.asarray(groups.of_value)}
    return replace(state, constants=state.constants | {GROUPS: of_value})


def regrouped(
    run: Run, model: Model, name: str, variables: Variables, groups: ValueRouter
) -> ValueRouter:
    """Each value with the network that has the least loss on its training rows; kept in a file.

    A value without training rows, such as one that was never seen, goes to the network that has the
    least loss on all rows, of those that other values have chosen.
    """
    path = run.workdir / name / "groups.json"
    if (found := _read_groups(path)) is not None:
        return replace(groups, of_value=found)
    ids = run.data.train.ids
    labels = run.data.train.labels if run.taught is None else run.taught
    number = jax.tree.leaves(variables.params[NETWORK])[0].shape[0]
    sums = np.zeros((len(groups.of_value), number))
    for part, logits in _every_network(model).chunks(variables, ids, title=f"[{name}] groups"):
        values, wanted = ids[part, groups.field], labels[part, None].astype(np.float64)
        losses = np.logaddexp(0.0, logits.astype(np.float64)) - wanted * logits
        for g in range(number):
            sums[:, g] += np.bincount(values, losses[:, g], minlength=len(sums))
    seen = sums.any(axis=1)
    chosen = np.unique(sums[seen].argmin(axis=1))
    others = chosen[sums.sum(axis=0)[chosen].argmin()]
    of_value = np.where(seen, sums.argmin(axis=1), others).astype(np.uint8)
    of_value = agreed(lambda: of_value)  # machines may differ in their last bits
    moved = float((of_value != groups.of_value)[ids[:, groups.field]].mean())
    say(f"[{name}] {moved:.1%} of the training rows go to another network")
    _write_groups(path, of_value)
    return replace(groups, of_value=of_value)


@by_first
def _read_groups(path: Path) -> np.ndarray | None:
    return np.array(read_json(path)["of_value"], np.uint8) if path.exists() else None


@by_first
def _write_groups(path: Path, of_value: np.ndarray) -> None:
    checksums.start(path.parent)
    write_json(path, {"of_value": of_value.tolist()})


@lru_cache(maxsize=8)
def _every_network(model: Model) -> Streamed:
    """A program from the variables of a grouped model and ids to logits `[n, C]`."""

    def batch(variables: Variables, ids: Array) -> Array:
        number = jax.tree.leaves(variables.params[NETWORK])[0].shape[0]

        def answer(group: Array) -> Array:
            return forward(model, network_of(variables, group), ids).logits

        return jax.vmap(answer)(jnp.arange(number)).T

    return Streamed(batch)

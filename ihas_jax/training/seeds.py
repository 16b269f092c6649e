"""Several seeds at once: their states stacked, one `vmap` over a round, and the loop around it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ihas_jax.errors import InputError
from ihas_jax.models.placing import put, shardings
from ihas_jax.training.checkpoint import Checkpoints
from ihas_jax.training.layout import compile_round, compile_settle, stacked_shardings
from ihas_jax.training.loop import Trainer, train
from ihas_jax.training.parallel import computing_on
from ihas_jax.training.steps import Metrics, TrainState
from ihas_jax.training.task import Event, Task, Trained


def stack_seeds(states: Sequence[TrainState]) -> TrainState:
    """Stacks the states of S seeds: each leaf but `step` gets a first axis of length S.

    The seeds run in lockstep, so `step` stays one number, and what depends on it alone, such as
    whether the gates are updated, stays a branch under `vmap`.

    Raises:
      ValueError: the states are not at the same step.
    """
    steps = [int(state.step) for state in states]
    if len(set(steps)) != 1:
        raise ValueError(f"seeds run side by side from the same step, not from {steps}")
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
    # a copy, since a state that is donated takes its arrays with it
    return dataclasses.replace(stacked, step=jnp.copy(states[0].step))


def unstack_seed(state: TrainState, i: Array | int) -> TrainState:
    """The state of the `i`-th seed of a stacked state, in new arrays."""
    one = jax.tree.map(lambda leaf: leaf[i], dataclasses.replace(cast(Any, state), step=None))
    return dataclasses.replace(one, step=jnp.copy(state.step))


def over_seeds(
    round_: Callable[..., tuple[TrainState, Metrics]],
    state: TrainState,
    in_axes: tuple[Any, ...],
) -> Callable[..., tuple[TrainState, Metrics]]:
    """A round (or step) of S seeds as one program.

    Args:
      round_: `round_(state, *arguments) -> (state, metrics)` of one seed.
      state: a state, of one seed or stacked; only its structure is used.
      in_axes: for each further argument as in `jax.vmap`: None where the seeds share it (data
        on the device, the count of batches), 0 where each has its own (`rows [S, R, B]`).

    Returns:
      `round_` for a state from `stack_seeds`; each metric is `[S]`.
    """
    axes = dataclasses.replace(jax.tree.map(lambda _: 0, state), step=None)
    return jax.vmap(round_, in_axes=(axes, *in_axes), out_axes=(axes, 0))


def train_seeds(
    tasks: Sequence[Task], states: Sequence[TrainState], events: Sequence[Event]
) -> list[Trained]:
    """Trains tasks side by side that differ in their seed and folder alone.

    Every task stops early, keeps its best epoch and leaves checkpoints as if it were alone, with
    the same numbers up to float rounding. This function and `train` resume from each other's
    checkpoints. Seeds that a kill left at different rounds are trained in separate groups. The
    seconds of each task are those of all tasks. A single task is trained by `train`.

    Raises:
      InputError: the rows don't stay on the device, or a number of one of the seeds is not finite.
    """
    if len(tasks) == 1:
        return [train(tasks[0], states[0], events[0])]
    if not all(task.rounds.resident for task in tasks):
        raise InputError(
            "Seeds train side by side only where the rows stay on the device; raise "
            "--train.device-data-gb, or train one seed after the other."
        )
    with ExitStack() as stack:
        trainers = [
            Trainer(task, state, event, stack.enter_context(Checkpoints(task.directory)))
            for task, state, event in zip(tasks, states, events, strict=True)
        ]
        groups: dict[tuple[int, int], list[Trainer]] = {}
        for trainer in trainers:
            if not trainer.progress.finished:
                place = (trainer.progress.epoch, trainer.progress.round)
                groups.setdefault(place, []).append(trainer)
        for group in groups.values():
            if len(group) == 1:
                group[0].train()
            else:
                _train(group)
    return [trainer.trained() for trainer in trainers]


def _train(trainers: list[Trainer]) -> None:
    """Trains until all seeds are finished.

    A finished seed stays in the stack, so that shapes do not change; its results are ignored.
    """
    for trainer in trainers:
        trainer.begin()
    rounds, mesh = trainers[0].task.rounds, trainers[0].mesh
    data, gate_data = trainers[0].transfer(rounds.split, rounds.gate_split)
    single = trainers[0].state
    state = stack_seeds([trainer.state for trainer in trainers])
    state = jax.tree.map(put, state, stacked_shardings(single, mesh))
    together = over_seeds(trainers[0].task.round_, state, (None, 0, None, 0, None))
    round_ = compile_round(together, single, mesh, seeds=True)
    settle = compile_settle(single, mesh, partial(over_seeds, state=state, in_axes=()))
    one = jax.jit(unstack_seed, out_shardings=shardings(single, mesh))
    del single
    for trainer in trainers:
        trainer.state = None  # its copy is in the stack
    while left := {i: t for i, t in enumerate(trainers) if not t.progress.finished}:
        first = next(iter(left.values()))
        with first.track() as bar:
            while first.progress.round < rounds.per_epoch:
                items = [next(trainer.iterator)[0] for trainer in trainers]
                rows = _stack_rows([item.rows for item in items], mesh)
                gate_rows = _stack_rows([item.gate_rows for item in items], mesh)
                batches = items[0].batches
                with computing_on(mesh):
                    state, metrics = round_(
                        state, data, rows, gate_data, gate_rows, np.int32(batches)
                    )
                values = jax.device_get(metrics)
                for i, trainer in left.items():
                    trainer.count({name: value[i] for name, value in values.items()}, batches)
                bar.advance(batches * first.task.config.batch_size)
                if first.progress.round < rounds.per_epoch and first.due(len(left)):
                    for i, trainer in left.items():
                        trainer.state = one(state, i)
                        trainer.save()
                        trainer.state = None
        state = settle(state)
        for i, trainer in left.items():
            trainer.state = one(state, i)
            trainer.close_epoch()
        if first.due(len(left)) or any(trainer.progress.finished for trainer in left.values()):
            for trainer in left.values():
                trainer.save()
        for trainer in left.values():
            if not trainer.progress.finished:
                trainer.state = None


def _stack_rows(parts: list[np.ndarray], mesh: Mesh) -> Array:
    """Puts the row numbers `[S, R, B]` of all seeds on the mesh, split along B."""
    spec = PartitionSpec(None, None, mesh.axis_names)
    return put(np.stack(parts), NamedSharding(mesh, spec))

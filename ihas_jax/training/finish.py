"""The finish of a training: smaller steps from its best epoch, as often as the task says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ihas_jax.models.placing import copied
from ihas_jax.training.seeds import train_seeds
from ihas_jax.training.steps import TrainState
from ihas_jax.training.task import Event, Task, Trained


def train_to_finish(
    tasks: Sequence[Task], states: Sequence[TrainState], events: Sequence[Event]
) -> list[Trained]:
    """Trains tasks as `train_seeds` does, then each from its best epoch at its `finish` paces.

    What a finish starts from is a candidate of early stopping, so a finish can't end below it.
    Each finish has new moments of Adam and other noise, and a folder in that of the task, from
    which a killed run resumes bit for bit.

    Raises:
      InputError: as `train_seeds`.
    """
    trained = train_seeds(tasks, states, events)
    for i in range(len(tasks[0].finish)):
        followers = [_follower(task, i) for task in tasks]
        begun = [_restart(*pair, i) for pair in zip(tasks, trained, strict=True)]
        after = train_seeds(followers, begun, events)
        trained = [_joined(*pair) for pair in zip(trained, after, strict=True)]
    return trained


def _follower(task: Task, i: int) -> Task:
    return replace(
        task,
        name=f"{task.name}/finish_{i}",
        directory=task.directory / f"finish_{i}",
        start_counts=True,
    )


def _restart(task: Task, trained: Trained, i: int) -> TrainState:
    """The state of the best epoch, as if no step had been taken, with smaller steps."""
    state, best = trained.state, trained.variables
    # training takes the arrays of its start
    params, stats, constants = copied((best.params, best.stats, best.constants))
    return replace(
        state,
        step=jnp.zeros_like(state.step),
        pace=jnp.full_like(state.pace, task.finish[i]),
        keys={name: jax.random.fold_in(key, i) for name, key in state.keys.items()},
        params=params,
        stats=stats,
        constants=constants,
        optimizers=jax.tree.map(_zeros, state.optimizers),
    )


def _zeros(leaf: Any) -> Any:
    return np.zeros_like(leaf) if isinstance(leaf, np.ndarray) else jnp.zeros_like(leaf)


def _joined(before: Trained, after: Trained) -> Trained:
    """The result of a training and of its finish, whose epochs count on from those before."""
    number = 1 + max((facts["epoch"] for facts in before.history), default=-1)
    epochs = [
        facts | {"epoch": number + facts["epoch"]}
        for facts in after.history
        if facts["epoch"] >= 0  # the start is the best epoch of before
    ]
    return replace(
        after, history=[*before.history, *epochs], seconds=before.seconds + after.seconds
    )

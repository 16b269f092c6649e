"""Rounds: a step looped on the device over batches that it gathers from rows resident there."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import TypeVar

import jax
import jax.numpy as jnp
import optax
from jax import Array, lax

from ihas_jax.models.base import Params
from ihas_jax.training.dealing import Dealt, take_dealt
from ihas_jax.training.steps import Batch, Metrics, Step, TrainState
from ihas_jax.training.stopping import GATE, STEPS

State = TypeVar("State")
Moved = tuple[Params, dict[str, optax.OptState]]
Round = Callable[..., tuple[TrainState, Metrics]]
"""`round_(state, data, rows, gate_data=None, gate_rows=None, count=None) -> (state, metrics)`."""


def make_round(
    step: Step, gate_step: Step | None = None, *, moves: Sequence[str] = (), every: int = 1
) -> Round:
    """Makes a round: one loop of training steps on the device, with gate steps between them.

    Args:
      step: a step on training batches.
      gate_step: a step on validation batches.
      moves: the subtrees of the parameters that the gate step updates.
      every: a gate step follows whenever `state.step` reaches a multiple of it.

    Returns:
      `round_(state, data, rows, gate_data, gate_rows, count=None) -> (state, mean metrics)`: a
      step on each of the first `count` batches of `rows [R, B]` of `data`, or on all, and gate
      steps on the batches `gate_rows [G, B]` of `gate_data` in turn. A shorter round at the end of
      an epoch compiles nothing. Metrics are those of the training steps; with gate steps also
      `gate_steps`, their number, and the means of their own metrics, such as `gate_loss` and
      `gate_penalty`, which are 0 without a gate step.

    Raises:
      ValueError: there is a gate step without `moves`, or the other way round.
    """
    if (gate_step is None) != (not moves):
        raise ValueError(f"a round with gate steps names what they move, not {tuple(moves)}")

    def moved(state: TrainState) -> Moved:
        return {n: state.params[n] for n in moves}, {n: state.optimizers[n] for n in moves}

    def named(metrics: Metrics) -> Metrics:
        return {f"{GATE}{name}": value for name, value in metrics.items()}

    def round_(
        state: TrainState,
        data: Batch | Dealt,
        rows: Array,
        gate_data: Batch | Dealt | None = None,
        gate_rows: Array | None = None,
        count: Array | None = None,
    ) -> tuple[TrainState, Metrics]:
        first = state.step // every

        def update(state: TrainState) -> tuple[Moved, Metrics]:
            assert gate_step is not None and gate_data is not None
            batch = take(gate_data, jnp.asarray(gate_rows)[state.step // every - 1 - first])
            state, metrics = gate_step(state, batch)
            return moved(state), named(metrics)

        def leave(state: TrainState) -> tuple[Moved, Metrics]:
            _, shapes = jax.eval_shape(update, state)
            return moved(state), jax.tree.map(
                lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes
            )

        def body(state: TrainState, batch_rows: Array) -> tuple[TrainState, Metrics]:
            state, metrics = step(state, take(data, batch_rows))
            if gate_step is None:
                return state, metrics
            # only what the gate step moves passes through the branch, so that no table is copied
            (params, optimizers), gates = lax.cond(state.step % every == 0, update, leave, state)
            state = dataclasses.replace(
                state,
                params=state.params | params,
                optimizers=state.optimizers | optimizers,
            )
            return state, metrics | gates

        state, metrics = repeat(body, state, rows, count)
        if gate_step is None:
            return state, metrics
        number, steps = len(rows) if count is None else count, state.step // every - first
        each = number / jnp.maximum(steps, 1)
        means = {n: each * value if n.startswith(GATE) else value for n, value in metrics.items()}
        return state, means | {STEPS: steps}

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


def take(data: Batch | Dealt, rows: Array) -> Batch:
    """The batch of the rows with the given numbers."""
    if isinstance(data, Dealt):
        return Batch(*take_dealt(data, rows))
    return Batch(*(part.at[rows].get(mode="promise_in_bounds") for part in data))

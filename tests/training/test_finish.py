"""The finish of a training: where it starts from, what it keeps, and how it resumes."""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ihas_jax.training.finish import train_to_finish
from ihas_jax.training.loop import train
from ihas_jax.training.metrics import Scores
from ihas_jax.training.steps import init_train


def adding(number):
    """A round that adds a number to every weight at a pace of 1, and one to every moment."""

    def round_(state, data, rows, gate_data, gate_rows, count):
        params = jax.tree.map(lambda leaf: leaf + number * state.pace * count, state.params)
        optimizers = jax.tree.map(lambda leaf: leaf + 1, state.optimizers)
        state = state.replace(step=state.step + count, params=params, optimizers=optimizers)
        return state, {"loss": jnp.float32(0.5)}

    return round_


@pytest.fixture
def begin(tiny):
    """A state of zeros."""

    def make():
        state = init_train(tiny.key, tiny.model, tiny.config.optimizer)
        return state.replace(params=jax.tree.map(jnp.zeros_like, state.params))

    return make


def peaked(best):
    """Scores of variables, the best where a weight has a value."""

    def evaluate(variables):
        away = abs(weight(variables.params) - best)
        return Scores(0.9 - 0.001 * away, 0.3 + 0.001 * away), {}

    return evaluate


def weight(params) -> float:
    (value,) = {float(leaf.reshape(-1)[0]) for leaf in jax.tree.leaves(params)}
    return value


def no_event(kind, facts):
    pass


def test_a_finish_goes_on_from_the_best_epoch_at_its_own_pace(make_task, begin):
    """Epochs of five batches: 5, 10 (the best, nearest to 12), 15, 20; then 11, 12, 13, 14."""
    task = make_task(adding(1.0), peaked(12), patience=2)
    task = replace(task, finish=(0.2,))
    (found,) = train_to_finish([task], [begin()], [no_event])
    assert weight(found.variables.params) == pytest.approx(12)
    assert weight(found.state.params) == pytest.approx(14)
    assert [facts["epoch"] for facts in found.history] == list(range(8))
    assert found.state.step == 4 * 5
    rounds = 4 * task.rounds.per_epoch
    moments = [float(leaf.reshape(-1)[0]) for leaf in jax.tree.leaves(found.state.optimizers)]
    assert set(moments) == {rounds}  # counted from 0 again


def test_a_finish_that_does_not_help_keeps_the_best_epoch(make_task, begin):
    task = replace(make_task(adding(1.0), peaked(10)), finish=(3.0, -3.0))
    (found,) = train_to_finish([task], [begin()], [no_event])
    assert weight(found.variables.params) == 10
    plain = train(replace(task, directory=task.directory.with_name("plain")), begin(), no_event)
    assert found.history[: len(plain.history)] == plain.history


def test_noise_of_a_finish_is_new(make_task, begin):
    seen = []

    def round_(state, *args):
        jax.debug.callback(lambda key: seen.append(np.asarray(key).tolist()),
                           jax.random.key_data(state.keys["training"]))  # fmt: skip
        return adding(1.0)(state, *args)

    task = replace(make_task(round_, peaked(5), patience=1), finish=(1.0, 1.0))
    train_to_finish([task], [begin()], [no_event])
    assert len({tuple(key) for key in seen}) == 3


def test_a_killed_finish_resumes(make_task, begin):
    def task(name):
        made = make_task(adding(1.0), peaked(12), name=name, patience=2, checkpoint_seconds=0)
        return replace(made, finish=(0.2, 0.1))

    def kill(kind, facts):
        if facts.get("stage", "").endswith("finish_0") and facts["epoch"] == 2:
            raise KeyboardInterrupt

    (whole,) = train_to_finish([task("whole")], [begin()], [no_event])
    with pytest.raises(KeyboardInterrupt):
        train_to_finish([task("cut")], [begin()], [kill])
    (resumed,) = train_to_finish([task("cut")], [begin()], [no_event])
    assert resumed.history == whole.history
    jax.tree.map(np.testing.assert_array_equal, resumed.variables, whole.variables)


def test_seeds_that_stop_at_different_epochs_finish_side_by_side(make_task, begin):
    tasks = [
        replace(make_task(adding(1.0), peaked(best), name=f"seed_{best}"), finish=(0.2,))
        for best in (7, 17)
    ]
    found = train_to_finish(tasks, [begin(), begin()], [no_event] * 2)
    assert [round(weight(one.variables.params)) for one in found] == [7, 17]

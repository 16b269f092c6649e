from __future__ import annotations

import time
from dataclasses import replace
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ihas_jax.config import TrainConfig
from ihas_jax.errors import InputError
from ihas_jax.training.checkpoint import Checkpoints
from ihas_jax.training.loop import Trainer, train
from ihas_jax.training.metrics import Scores, score
from ihas_jax.training.seeds import train_seeds
from ihas_jax.training.steps import init_train
from ihas_jax.training.stopping import Progress


@pytest.fixture
def state(tiny):
    """A fresh one for every call: training takes the arrays of the state it is given."""
    return lambda: init_train(tiny.key, tiny.model, tiny.config.optimizer)


def counting(state, data, rows, gate_data, gate_rows, count):
    """A round that writes its number of batches into every weight."""
    step = state.step + count
    params = jax.tree.map(lambda leaf: jnp.full_like(leaf, step), state.params)
    return state.replace(step=step, params=params), {"loss": jnp.float32(0.5)}


def scripted(*scores):
    left = list(scores)
    return lambda variables: (Scores(*left.pop(0)), {})


def weight(params) -> float:
    (value,) = {float(leaf.reshape(-1)[0]) for leaf in jax.tree.leaves(params)}
    return value


def no_event(kind, facts):
    pass


NAN = float("nan")


@pytest.mark.parametrize(
    ("scores", "epochs", "kept"),
    [
        # the AUC falls and the logloss too, which says that it is still learning
        ([(0.6, 0.7), (0.5, 0.6), (0.5, 0.5), (0.7, 0.6), (0.6, 0.6), (0.6, 0.6)], 6, 3),
        # neither improves for two epochs
        ([(0.6, 0.5), (0.7, 0.6), (0.6, 0.5), (0.6, 0.5)], 4, 1),
        # an equal AUC is no better one: the first stays
        ([(0.6, 0.5), (0.6, 0.5), (0.6, 0.5)], 3, 0),
        # one class: by logloss
        ([(NAN, 0.6), (NAN, 0.5), (NAN, 0.55), (NAN, 0.5)], 4, 1),
    ],
)
def test_early_stopping(make_task, state, scores, epochs, kept):
    trained = train(make_task(counting, scripted(*scores)), state(), no_event)
    assert [facts["epoch"] for facts in trained.history] == list(range(epochs))
    assert weight(trained.variables.params) == 5 * (kept + 1)
    assert weight(trained.state.params) == 5 * epochs


@pytest.mark.parametrize(
    ("scores", "epochs", "kept"),
    [
        # no epoch is as good as the start, and the logloss never falls
        ([(0.8, 0.3), (0.7, 0.4), (0.75, 0.4)], 2, -1),
        # the second epoch is better; an equal one would not be
        ([(0.8, 0.3), (0.8, 0.4), (0.9, 0.4), (0.9, 0.5), (0.7, 0.5)], 4, 1),
    ],
)
def test_a_start_that_counts_is_a_candidate(make_task, state, scores, epochs, kept):
    begun = state()
    first = np.asarray(begun.params["network"]["mlp"]["output"]["kernel"])
    task = replace(make_task(counting, scripted(*scores)), start_counts=True)
    trained = train(task, begun, no_event)
    assert [facts["epoch"] for facts in trained.history] == list(range(-1, epochs))
    assert trained.history[0] == {"epoch": -1, "auc": 0.8, "logloss": 0.3}
    if kept < 0:
        found = trained.variables.params["network"]["mlp"]["output"]["kernel"]
        np.testing.assert_array_equal(found, first)
    else:
        assert weight(trained.variables.params) == 5 * (kept + 1)
    again = train(replace(task, evaluate=None), state(), no_event)
    assert again.history == trained.history
    jax.tree.map(np.testing.assert_array_equal, again.variables, trained.variables)


@pytest.mark.parametrize(
    ("worse", "early_stopping", "warned"),
    [(0.52, True, True), (0.51, True, False), (0.52, False, False)],
)
def test_an_auc_at_the_cost_of_the_logloss_is_said(
    make_task, state, caplog, worse, early_stopping, warned
):
    scores = scripted((0.6, 0.5), (0.7, worse), (0.65, 0.9))
    task = make_task(counting, scores, epochs=3)
    train(replace(task, early_stopping=early_stopping), state(), no_event)
    assert ("keeps epoch 1 for its AUC" in caplog.text) == warned
    if warned:
        assert "validation logloss of 0.5200 is above the 0.5000 of epoch 0" in caplog.text


def test_without_early_stopping_the_last_epoch_is_kept(make_task, state):
    task = make_task(counting, scripted((0.9, 0.1), (0.5, 0.5), (0.4, 0.6), (0.3, 0.7)), epochs=4)
    trained = train(replace(task, early_stopping=False), state(), no_event)
    assert len(trained.history) == 4
    assert weight(trained.variables.params) == 20


def test_a_finished_task_is_read_back(make_task, state):
    first = train(
        make_task(counting, scripted((0.6, 0.5), (0.5, 0.4)), epochs=2), state(), no_event
    )
    again = train(make_task(None, None, epochs=2), state(), no_event)
    assert again.history == first.history
    assert again.seconds == first.seconds > 0
    assert weight(again.variables.params) == weight(first.variables.params) == 5


def test_the_loss_of_an_epoch_is_the_mean_over_its_batches_alone(make_task, state):
    def round_(state, *args):
        state, _ = counting(state, *args)
        # 5 batches in rounds of 2, 2 and 1, whose mean losses are the batches counted so far
        return state, {"loss": state.step.astype(jnp.float32)}

    task = make_task(round_, scripted((0.6, 0.5), (0.7, 0.4)), epochs=2)
    trained = train(task, state(), no_event)
    losses = [facts["loss"] for facts in trained.history]
    assert losses == pytest.approx([(2 * 2 + 2 * 4 + 5) / 5, (2 * 7 + 2 * 9 + 10) / 5])


def test_facts_that_mean_the_end_are_those_of_the_last_epoch(make_task, state):
    facts = iter([0.9, 0.5, 0.1])
    task = make_task(counting, lambda variables: (Scores(0.6, 0.5), {"kept": next(facts)}))
    task = replace(task, early_stopping=False, is_last=lambda facts: facts["kept"] <= 0.5)
    trained = train(task, state(), no_event)
    assert [facts["kept"] for facts in trained.history] == [0.9, 0.5]
    assert weight(trained.variables.params) == 10


@pytest.mark.parametrize(
    ("least", "cost", "runs", "due"),
    [(0, 9, 1, True), (90, 1, 1, True), (110, 1, 1, False), (1, 6, 1, False), (1, 4, 2, False)],
)
def test_checkpoints_take_a_twentieth_of_the_time(monkeypatch, least, cost, runs, due):
    """100 seconds after the last one, which took `cost` seconds for each of the runs."""
    trainer = Trainer.__new__(Trainer)
    trainer.task = SimpleNamespace(config=TrainConfig(checkpoint_seconds=least))
    trainer._saved, trainer._cost = 50.0, float(cost)
    monkeypatch.setattr(time, "monotonic", lambda: 150.0)
    assert trainer.due(runs) == due


def test_no_epochs_leave_the_first_weights(make_task, state):
    trained = train(make_task(None, None, epochs=0), state(), no_event)
    assert trained.history == []
    jax.tree.map(np.testing.assert_array_equal, trained.variables, state().variables)


def newest(task, like):
    with Checkpoints(task.directory) as checkpoints:
        items = {"params": like.params, "state": like.replace(params=None)}
        return checkpoints.restore(items | {"best": {"params": like.params}})


@pytest.mark.parametrize("where", ["loss", "weight", "logloss"])
def test_a_number_that_is_not_finite_stops_with_the_last_good_checkpoint(make_task, state, where):
    def round_(state, *args):
        state, metrics = counting(state, *args)
        bad = state.step == 9  # epoch 1, round 1
        if where == "loss":
            metrics = {"loss": jnp.where(bad, jnp.nan, metrics["loss"])}
        if where == "weight":
            params = jax.tree.map(lambda leaf: jnp.where(bad, jnp.inf, leaf), state.params)
            state = state.replace(params=params)
        return state, metrics

    scores = scripted((0.6, 0.5), (0.6, NAN) if where == "logloss" else (0.7, 0.5))
    task = make_task(round_, scores, epochs=3, checkpoint_seconds=0)
    with pytest.raises(InputError) as error:
        train(task, state(), no_event)
    message = str(error.value)
    what = {"loss": "loss", "weight": "largest weight", "logloss": "validation logloss"}[where]
    assert f"The {what} of 'base' became {'inf' if where == 'weight' else 'nan'}" in message
    assert "in epoch 1" in message
    assert str(task.directory) in message
    assert "--optimizer.learning-rate" in message
    items, facts = newest(task, state())
    place = {"loss": 1, "weight": 1, "logloss": 2}[where]
    assert (facts["epoch"], facts["round"]) == (1, place)
    assert weight(items["params"]) == 5 + 2 * place
    assert weight(items["best"]["params"]) == 5


def test_a_resumed_task_goes_on_at_its_place_in_the_data(make_task, state):
    def round_(state, data, rows, *args):
        return counting(state, data, rows, *args)[0], {"loss": rows[0, 0].astype(jnp.float32)}

    def task(name):
        scores = (Scores(0.6, 0.5), {})
        return make_task(round_, lambda variables: scores, epochs=3, name=name,
                         patience=9, checkpoint_seconds=0)  # fmt: skip

    def kill(kind, facts):
        if facts["epoch"] == 1:
            raise KeyboardInterrupt

    whole = train(task("whole"), state(), no_event)
    with pytest.raises(KeyboardInterrupt):
        train(task("cut"), state(), kill)
    resumed = train(task("cut"), state(), no_event)
    assert resumed.history == whole.history
    assert weight(resumed.state.params) == 15


def test_the_best_epoch_before_a_kill_keeps_its_constants(make_task, state):
    """Rounds after the kill take the arrays of their state, which must not be those of the best."""
    mask = np.arange(24, dtype=np.float32).reshape(12, 2)

    def masked():
        return state().replace(constants={"factors": {"width_2": jnp.asarray(mask)}})

    def task(scores):
        return make_task(counting, scripted(*scores), epochs=2, checkpoint_seconds=0)

    with pytest.raises(IndexError):  # after the second epoch there is nothing left to say
        train(task([(0.9, 0.5)]), masked(), no_event)
    resumed = train(task([(0.7, 0.6)]), masked(), no_event)
    assert weight(resumed.variables.params) == 5
    np.testing.assert_array_equal(resumed.variables.constants["factors"]["width_2"], mask)


@pytest.mark.parametrize("together", [False, True])
def test_validation_predictions_that_are_nan_name_what_diverged(make_task, state, tiny, together):
    labels = np.asarray(tiny.data.labels)

    def evaluate(variables):
        return score(labels, np.full(len(labels), NAN)), {}

    task = make_task(counting, evaluate, epochs=3)
    words = (
        "^The validation prediction of 'base' became nan in epoch 0, round .*Checkpoints of "
        "earlier rounds .*Try a smaller --optimizer.learning-rate"
    )
    with pytest.raises(InputError, match=words):
        if together:
            other = replace(task, directory=task.directory.with_name("other"))
            train_seeds([task, other], [state(), state()], [no_event, no_event])
        else:
            train(task, state(), no_event)


def test_metrics_of_gate_steps_are_means_over_the_gate_steps_of_an_epoch():
    progress = Progress()
    progress.add({"loss": 0.5, "gate_loss": 0.6, "gate_steps": 1.0}, 4)
    progress.add({"loss": 0.2, "gate_loss": 0.3, "gate_steps": 2.0}, 2)
    assert progress.means(6) == pytest.approx({"loss": 2.4 / 6, "gate_loss": 1.2 / 3})
    progress = Progress()
    progress.add({"loss": 0.5, "gate_loss": 0.0, "gate_steps": 0.0}, 4)
    assert progress.means(4) == {"loss": 0.5}

"""Retraining: the rows of each expert, the rows that stop it, and the weights it starts from."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ihas_jax.config import RetrainConfig
from ihas_jax.config.methods import PepConfig
from ihas_jax.models.base import Variables
from ihas_jax.models.forward import init_model
from ihas_jax.nn.axes import identity
from ihas_jax.selectors.plan import Expert, Plan, single
from ihas_jax.selectors.selection import Selection
from ihas_jax.stages import retrain
from ihas_jax.stages.base import fresh_state
from ihas_jax.stages.run import Run
from ihas_jax.stages.search import SearchRuns, pretrain_state

KEPT = ((0, 1),) * 3


@pytest.fixture
def begun(tiny, small, tmp_path, monkeypatch):
    """The tasks and first states of the experts of a plan, none of which is trained."""

    def begin(plan, method="ihas", *options, **parts):
        config = dataclasses.replace(tiny.config.having(*options), method=method, **parts)
        run = Run(config, small, tmp_path)
        monkeypatch.setattr(retrain, "train_runs", lambda runs, tasks, states: [(*tasks, *states)])
        search = SearchRuns(None, weights(run, 7.0), weights(run, 5.0))
        return run, retrain.retrain(run, plan, search)[1]

    return begin


def weights(run, value):
    """What a training left where all its weights are one number."""
    like = jax.eval_shape(lambda: init_model(jax.random.key(0), run.model))
    filled = jax.tree.map(lambda leaf: jnp.full(leaf.shape, value, leaf.dtype), like)
    return SimpleNamespace(variables=Variables(*filled))


def label_of(task, state):
    """The only label of the rows that stop a training; None where there are both."""
    return task.evaluate(state.variables)[0].only_label


def test_an_expert_is_trained_and_stopped_by_its_own_rows(begun):
    rows, valid_rows = np.array([3, 5, 8], np.int32), np.array([0, 4], np.int32)
    experts = (
        Expert(Selection(KEPT), "cluster_0", rows, valid_rows),
        Expert(Selection(KEPT), "all"),
    )
    run, ((first, state), (second, other)) = begun(Plan(experts, (0, 1), (None, "it is small")))
    assert [first.name, second.name] == ["retrain/cluster_0", "retrain/all"]
    assert {*first.rounds.feed(0, 1).ravel().tolist()} == {3, 5, 8}
    assert second.rounds.feed.end == 24
    assert (label_of(first, state), label_of(second, other)) == (0, None)
    assert first.early_stopping and second.early_stopping
    assert first.rounds.epochs == run.config.train.max_epochs


@pytest.mark.parametrize(("split", "label"), [("valid", None), ("test", 1)])
def test_a_recipe_names_the_split_that_stops(begun, split, label):
    _, ((task, state),) = begun(single(Selection(KEPT)), "pep", PepConfig(stopping=split))
    assert label_of(task, state) == label


def all_equal(tree, value):
    return all((leaf == value).all() for leaf in jax.tree.leaves(tree))


def test_rewound_weights_are_those_set_aside_and_factors_are_constants(begun):
    _, ((task, state),) = begun(single(Selection(KEPT, scale=2.0)), "optfs")
    assert all_equal(state.params, 7.0)
    assert not task.start_counts  # its AUC may be high where its logloss is poor
    assert all_equal(state.constants, 2.0) and jax.tree.leaves(state.constants)


def test_initial_embeddings_leave_the_network_fresh(begun):
    run, ((_, state),) = begun(single(Selection(KEPT)), "pep")
    network = fresh_state(run, "retrain", run.model).params["network"]
    tables = pretrain_state(run).params["tables"]
    expected = {"tables": tables, "network": network}
    jax.tree.map(np.testing.assert_array_equal, state.params, expected)


@pytest.mark.parametrize("start", ["tables", "searched"])
def test_a_start_from_searched_tables_has_them_on_the_axes_of_the_choice(
    begun, start, tiny, small, tmp_path
):
    raw = identity(Run(tiny.config, small, tmp_path).model.embedding)
    axes = raw._replace(forward=3 * raw.forward, backward=raw.backward / 3)
    plan = single(Selection(KEPT))
    plan = dataclasses.replace(plan, experts=(dataclasses.replace(plan.experts[0], axes=axes),))
    _, ((_, state),) = begun(plan, retrain=RetrainConfig(start=start))
    assert all_equal(state.params["tables"], 15.0)


@pytest.mark.parametrize("start", [None, "fresh", "tables", "searched"])
def test_a_start_takes_the_searched_tables_alone_or_all(begun, start):
    plan = single(Selection(((0,), (1,), (0, 1))))
    run, ((task, state),) = begun(plan, retrain=RetrainConfig(start=start))
    assert all_equal(state.params["tables"], 5.0) == (start in ("tables", "searched"))
    assert task.start_counts == (start == "searched")
    if start == "searched":
        assert all_equal(state.params["network"], 5.0)
    else:
        fresh = fresh_state(run, "retrain", run.expert_model(plan.experts[0])).params
        jax.tree.map(np.testing.assert_array_equal, state.params["network"], fresh["network"])

"""Rounds of real steps: where their rows are, what they compile, how they resume."""

from __future__ import annotations

import json
import logging
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ihas_jax.models.predict import predictor
from ihas_jax.selectors.search import init_search, make_search_round
from ihas_jax.stages.base import plain_round
from ihas_jax.training.loop import train
from ihas_jax.training.metrics import score
from ihas_jax.training.steps import init_train


def no_event(kind, facts):
    pass


@pytest.fixture(scope="module")
def real(tiny):
    """Real rounds, by kind: (round, evaluate, fresh state)."""
    labels = np.asarray(tiny.data.labels)
    predict = predictor(tiny.model)

    def evaluate(variables):
        ids = np.asarray(tiny.data.ids)
        return score(labels, predict(variables, ids, title="validation").probs), {}

    optimizer = tiny.config.optimizer
    return {
        "base": (
            plain_round(optimizer, tiny.model),
            evaluate,
            lambda: init_train(tiny.key, tiny.model, optimizer),
        ),
        "search": (
            make_search_round(tiny.config, tiny.model, tiny.selector),
            evaluate,
            lambda: init_search(tiny.key, tiny.config, tiny.model, tiny.selector),
        ),
    }


@pytest.mark.parametrize("kind", ["base", "search"])
def test_streamed_rows_give_the_same_bits_as_resident_ones(make_task, real, kind):
    round_, evaluate, fresh = real[kind]
    results = []
    for resident in (True, False):
        task = make_task(
            round_,
            evaluate,
            resident=resident,
            gates=kind == "search",
            epochs=3,
            name=f"{kind}-{resident}",
        )
        results.append(train(task, fresh(), no_event))
    a, b = results
    assert a.history == b.history
    assert not jnp.array_equal(
        jax.tree.leaves(a.variables.params)[0], jax.tree.leaves(fresh().params)[0]
    )
    jax.tree.map(
        np.testing.assert_array_equal,
        (a.variables, a.state.variables),
        (b.variables, b.state.variables),
    )


@pytest.mark.parametrize("kind", ["base", "search"])
def test_rounds_of_another_length_give_the_same_losses(make_task, real, kind):
    round_, evaluate, fresh = real[kind]
    histories = []
    for length in (1, 2, 5):
        task = make_task(round_, evaluate, gates=kind == "search", epochs=2, name=f"{kind}{length}")
        task = replace(task, rounds=replace(task.rounds, round_batches=length))
        histories.append(train(task, fresh(), no_event).history)
    for history in histories[1:]:
        for ours, theirs in zip(history, histories[0], strict=True):
            assert ours == pytest.approx(theirs, rel=1e-5)


def test_nothing_is_compiled_after_the_first_epoch(make_task, real, caplog, monkeypatch):
    round_, evaluate, fresh = real["search"]
    compiled = []

    def event(kind, facts):
        compiled.append([r.message for r in caplog.records if "XLA compilation" in r.message])

    monkeypatch.setattr(logging.getLogger("jax"), "propagate", True)
    with jax.log_compiles(), caplog.at_level(logging.WARNING):

        def fresh_round(*arguments):  # not compiled by another test
            return round_(*arguments)

        task = make_task(fresh_round, evaluate, gates=True, epochs=4, patience=9)
        train(task, fresh(), event)
    assert len(compiled) == 4
    assert compiled[0]
    # after the first epoch's event its best weights are copied for the first time
    assert compiled[1] == compiled[2] == compiled[3]
    # an epoch has rounds of 2, 2 and 1 batches
    assert sum("jit(fresh_round)" in message for message in compiled[3]) == 1


def test_a_resumed_task_continues_bit_for_bit(make_task, real):
    round_, evaluate, fresh = real["search"]
    whole = train(
        make_task(round_, evaluate, gates=True, epochs=3, name="whole"), fresh(), no_event
    )
    calls = 0

    class KilledError(Exception):
        pass

    def event(kind, facts):
        nonlocal calls
        calls += 1
        if facts.get("epoch") == 1 and kind == "epoch":
            raise KilledError

    with pytest.raises(KilledError):
        train(
            make_task(round_, evaluate, gates=True, epochs=3, name="cut", checkpoint_seconds=0),
            fresh(),
            event,
        )
    events = []
    resumed = train(
        make_task(round_, evaluate, gates=True, epochs=3, name="cut", checkpoint_seconds=0),
        fresh(),
        lambda kind, facts: events.append((kind, facts)),
    )
    assert events[0] == ("resume", {"stage": "cut", "epoch": 1, "round": 2})
    assert json.dumps(resumed.history) == json.dumps(whole.history)
    jax.tree.map(
        np.testing.assert_array_equal,
        (resumed.variables, resumed.state.variables, resumed.state.optimizers),
        (whole.variables, whole.state.variables, whole.state.optimizers),
    )

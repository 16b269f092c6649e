from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ihas_jax.config import TrainConfig
from ihas_jax.data.batches import Feed, Rounds
from ihas_jax.data.dataset import Split
from ihas_jax.errors import InputError
from ihas_jax.models.predict import predictor
from ihas_jax.selectors.search import init_search, make_search_round
from ihas_jax.stages.base import plain_round
from ihas_jax.training.loop import Trainer, train
from ihas_jax.training.metrics import Scores, score
from ihas_jax.training.seeds import over_seeds, stack_seeds, train_seeds, unstack_seed
from ihas_jax.training.steps import Batch, init_train
from ihas_jax.training.task import Task

SEEDS = (3, 4, 5)
CLOSE = {"rtol": 1e-5, "atol": 1e-6}  # a batched product may add its terms in another order


@pytest.fixture(scope="module")
def parts(tiny, request):
    """A round of one seed and the first state of each, by kind and update of the tables."""
    kind, tables = request.param.split()
    optimizer = dataclasses.replace(tiny.config.optimizer, tables=tables)
    config = dataclasses.replace(tiny.config, optimizer=optimizer)
    if kind == "base":
        round_, init = plain_round(optimizer, tiny.model), init_train
        arguments = (tiny.model, optimizer)
    else:
        round_ = make_search_round(config, tiny.model, tiny.selector)
        init, arguments = init_search, (config, tiny.model, tiny.selector)
    start = jax.jit(lambda key: init(key, *arguments))
    states = [start(jax.random.key(seed)) for seed in SEEDS]
    data = Batch(*map(jnp.asarray, tiny.data))
    return SimpleNamespace(kind=kind, round_=round_, states=states, data=data)


def comparable(state):
    """Without the scratch vectors of row-wise tables, which may hold anything."""
    tables = state.optimizers["tables"]
    if hasattr(tables, "scratch"):
        tables = dataclasses.replace(tables, scratch=None)
    return dataclasses.replace(state, keys=None, optimizers=state.optimizers | {"tables": tables})


def assert_close(found, expected):
    assert type(found) is type(expected)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, **CLOSE),
        comparable(found),
        comparable(expected),
    )
    assert found.keys.keys() == expected.keys.keys()
    assert all((found.keys[name] == key).all() for name, key in expected.keys.items())


def gate_updates(state):
    return [int(n) for n in jax.tree.leaves(state.optimizers["selector"]) if n.dtype == np.int32]


@pytest.mark.parametrize(
    "parts", ["base dense", "search rowwise", "search deferred"], indirect=True
)
def test_stacked_rounds_are_the_rounds_of_each_seed(parts):
    """Rounds of 3 batches with gates every 2: the first has one gate step, the second two."""
    rng = np.random.default_rng(1)
    alone = jax.jit(parts.round_)
    axes = (None, 0, None, 0, None)
    together = jax.jit(over_seeds(parts.round_, parts.states[0], axes), donate_argnums=0)
    one = jax.jit(unstack_seed)
    stacked, states = stack_seeds(parts.states), parts.states
    for updates in (1, 3):
        rows, gate_rows = (rng.integers(40, size=(3, n, 8)).astype(np.int32) for n in (3, 2))
        count = np.int32(3)
        stacked, metrics = together(stacked, parts.data, rows, parts.data, gate_rows, count)
        results = [
            alone(state, parts.data, rows[i], parts.data, gate_rows[i], count)
            for i, state in enumerate(states)
        ]
        states = [state for state, _ in results]
        assert metrics["loss"].shape == (3,)
        for i, (state, single) in enumerate(results):
            found = one(stacked, i)
            assert_close(found, state)
            np.testing.assert_allclose(metrics["loss"][i], single["loss"], **CLOSE)
            if parts.kind == "search":
                assert gate_updates(found) == [updates]
    assert int(stacked.step) == 6
    tables = jax.tree.leaves(stacked.params["tables"])[0]
    assert not np.allclose(tables[0], tables[1])
    # nothing of the first states was donated
    assert [int(state.step) for state in parts.states] == [0, 0, 0]


def branches(jaxpr):
    """Equations of all conditionals with a single predicate, through loops and calls."""
    for equation in jaxpr.eqns:
        if equation.primitive.name == "cond":
            yield equation
        for value in equation.params.values():
            for inner in value if isinstance(value, tuple | list) else [value]:
                if hasattr(inner, "jaxpr"):
                    yield from branches(inner.jaxpr)


@pytest.mark.parametrize("parts", ["search rowwise"], indirect=True)
@pytest.mark.parametrize("lockstep", [True, False])
def test_the_gates_update_stays_a_branch_under_vmap(parts, lockstep):
    """With a step per seed `vmap` would compute the gate step of every batch and throw it away."""
    stacked = stack_seeds(parts.states)
    rows = np.zeros((3, 3, 8), np.int32)
    arguments = (stacked, parts.data, rows, parts.data, rows, np.int32(3))
    if lockstep:
        function = over_seeds(parts.round_, stacked, (None, 0, None, 0, None))
    else:
        arguments = (stacked.replace(step=jnp.zeros(3, jnp.int32)), *arguments[1:])
        function = jax.vmap(parts.round_, in_axes=(0, None, 0, None, 0, None))
    found = list(branches(jax.make_jaxpr(function)(*arguments).jaxpr))
    assert len(found) == lockstep


@pytest.mark.parametrize("parts", ["base dense"], indirect=True)
def test_seeds_at_different_steps_are_refused(parts):
    states = [parts.states[0], parts.states[1].replace(step=jnp.int32(7))]
    with pytest.raises(ValueError, match=r"same step, not from \[0, 7\]"):
        stack_seeds(states)


@pytest.fixture(scope="module")
def make_task(tiny, tmp_path_factory):
    """The task of a seed on 40 rows: 5 batches of 8 in rounds of 2, so 3 rounds an epoch."""
    split = Split(np.asarray(tiny.data.ids), np.asarray(tiny.data.labels))
    rows = np.arange(40, dtype=np.int32)
    root = tmp_path_factory.mktemp("seeds")

    def make(seed, round_, evaluate, *, folder, epochs=2, resident=True, **config):
        gates = {"gate_split": split, "gate_feed": Feed(rows, 8, seed + 100), "gate_every": 2}
        rounds = Rounds(split, Feed(rows, 8, seed), 2, epochs, resident, **gates)
        train = TrainConfig(**{"batch_size": 8, "checkpoint_seconds": 3600, "patience": 2} | config)
        return Task("base", root / folder / str(seed), rounds, round_, evaluate, train)

    return make


def counting(state, data, rows, gate_data, gate_rows, count):
    """A round that adds the number of its batches to every weight, which then is the loss."""
    params = jax.tree.map(lambda leaf: leaf + count, state.params)
    loss = jax.tree.leaves(params)[0].max()
    return state.replace(step=state.step + count, params=params), {"loss": loss}


def scripted(*scores):
    left = list(scores)
    return lambda variables: (Scores(*left.pop(0)), {})


@pytest.fixture
def zeros(tiny):
    """States whose weights are all the seed's number times 1000."""

    def make(seed):
        state = init_train(jax.random.key(seed), tiny.model, tiny.config.optimizer)
        params = jax.tree.map(lambda leaf: jnp.full_like(leaf, 1000 * seed), state.params)
        return state.replace(params=params)

    return make


def weight(params) -> float:
    (value,) = {float(leaf.reshape(-1)[0]) for leaf in jax.tree.leaves(params)}
    return value


def test_each_seed_stops_for_itself_and_keeps_its_best(make_task, zeros):
    worse = (0.6, 0.6)
    scripts = [
        [(0.7, 0.5), worse, worse],  # best in epoch 0, stops after three
        [(0.6, 0.5), (0.7, 0.4), (0.8, 0.3), (0.9, 0.2), (0.8, 0.1), worse],  # runs to the end
        [(0.6, 0.5), (0.7, 0.4), worse, worse],  # best in epoch 1, stops after four
    ]
    events = [[], [], []]
    tasks = [
        make_task(s, counting, scripted(*scripts[s]), folder="stops", epochs=6) for s in range(3)
    ]
    record = [lambda kind, facts, own=own: own.append((kind, facts["epoch"])) for own in events]
    states = [zeros(s) for s in range(3)]
    fitted = train_seeds(tasks, states, record)
    assert [len(one.history) for one in fitted] == [3, 6, 4]
    first = [one.history[0]["loss"] for one in fitted]  # rounds of 2, 2 and 1 batches
    assert first == pytest.approx([s * 1000 + (2 * 2 + 2 * 4 + 5) / 5 for s in range(3)])
    assert [weight(one.variables.params) for one in fitted] == [5, 1020, 2010]
    assert [weight(one.state.params) for one in fitted] == [15, 1030, 2020]
    assert [int(one.state.step) for one in fitted] == [15, 30, 20]
    assert events == [[("epoch", e) for e in range(n)] for n in (3, 6, 4)]
    for s, one in enumerate(fitted):  # `fit` of the seed alone finds its end
        again = train(make_task(s, None, None, folder="stops", epochs=6), zeros(s), None)
        assert again.history == one.history
        assert weight(again.variables.params) == weight(one.variables.params)
        assert weight(again.state.params) == weight(one.state.params)


def test_rows_that_do_not_stay_on_the_device_are_refused(make_task, zeros):
    tasks = [make_task(s, counting, scripted(), folder="host", resident=False) for s in (0, 1)]
    with pytest.raises(InputError, match=r"--train\.device-data-gb"):
        train_seeds(tasks, [zeros(0), zeros(1)], [None, None])
    assert not tasks[0].directory.exists()


class KilledError(Exception):
    pass


def no_event(kind, facts):
    pass


@pytest.fixture(scope="module")
def search(tiny, make_task):
    """Tasks and fresh states of a real search, and what seeds 3 and 4 alone end with."""
    labels, ids = np.asarray(tiny.data.labels), np.asarray(tiny.data.ids)
    predict = predictor(tiny.model)
    config, model, selector = tiny.config, tiny.model, tiny.selector
    round_ = make_search_round(config, model, selector)
    start = jax.jit(lambda key: init_search(key, config, model, selector))

    def evaluate(variables):
        return score(labels, predict(variables, ids, title="validation").probs), {}

    def task(seed, folder, **config):
        return make_task(seed, round_, evaluate, folder=folder, **config)

    def fresh(seed):
        return start(jax.random.key(seed))

    alone = {seed: train(task(seed, "alone"), fresh(seed), no_event) for seed in (3, 4)}
    return SimpleNamespace(task=task, fresh=fresh, alone=alone)


@pytest.mark.parametrize(
    ("saves", "places"),
    # each of two seeds saves after every round
    [(4, [2, 2]), (3, [2, 1])],
    ids=["between rounds", "between the saves of two seeds"],
)
def test_killed_seeds_go_on_to_the_same_numbers(search, saves, places, monkeypatch):
    done = []

    def save(trainer):
        if len(done) == saves:
            raise KilledError
        done.append(trainer)
        write(trainer)

    def train_both(event):
        tasks = [search.task(s, f"killed after {saves}", checkpoint_seconds=0) for s in (3, 4)]
        return train_seeds(tasks, [search.fresh(s) for s in (3, 4)], [event, event])

    with monkeypatch.context() as patch, pytest.raises(KilledError):
        write = Trainer.save
        patch.setattr(Trainer, "save", save)
        train_both(no_event)
    events = []
    resumed = train_both(lambda kind, facts: events.append((kind, facts)))
    assert [facts["round"] for kind, facts in events if kind == "resume"] == places
    for found, expected in zip(resumed, search.alone.values(), strict=True):
        for ours, theirs in zip(found.history, expected.history, strict=True):
            assert ours == pytest.approx(theirs, rel=1e-5, abs=1e-6)
        assert_close(found.state, expected.state)
        for ours, theirs in zip(
            *map(jax.tree.leaves, (found.variables, expected.variables)), strict=True
        ):
            np.testing.assert_allclose(ours, theirs, **CLOSE)


def test_seeds_go_on_with_what_fit_of_one_has_left(search):
    tasks = [search.task(seed, "mixed") for seed in (3, 4)]
    states = [search.fresh(seed) for seed in (3, 4)]
    first = train(tasks[0], search.fresh(3), no_event)
    found = train_seeds(tasks, states, [None, no_event])
    assert found[0].history == first.history
    assert found[1].history == search.alone[4].history  # alone too, so to the last bit

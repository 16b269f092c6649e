"""The trainings that a recipe asks for: names, lengths, early stopping, where each begins."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from ihas_jax.config import SearchConfig
from ihas_jax.config.methods import OptFSConfig, PepConfig
from ihas_jax.data.dataset import Dataset, Split
from ihas_jax.data.schema import Field, Schema
from ihas_jax.stages import search
from ihas_jax.stages.run import Run


@pytest.fixture
def trainings(tiny, tmp_path, monkeypatch):
    """The tasks and first states of the trainings of a method, none of which is run."""

    def record(method, *options):
        fields = tuple(
            Field(f"f{n}", tuple("abcdefg"[: size - 1])) for n, size in enumerate(tiny.sizes)
        )
        split = Split(np.asarray(tiny.data.ids), np.asarray(tiny.data.labels))
        config = dataclasses.replace(
            tiny.config.having(*options), method=method, search=SearchConfig(pretrain_epochs=3)
        )
        run = Run(config, Dataset(Schema("label", fields), split, split, split), tmp_path)
        done = []

        def train_runs(runs, tasks, states):
            done.append(tasks[0])
            state = dataclasses.replace(states[0], step=states[0].step + 1)
            return [SimpleNamespace(state=state, variables=len(done), seconds=1.0)]

        monkeypatch.setattr(search, "train_runs", train_runs)
        (found,) = search.search([run])
        return done, found

    return record


def test_a_search_with_a_length_and_a_rewind_is_three_trainings(trainings):
    tasks, found = trainings("optfs", OptFSConfig(epochs=7, rewind=2))
    assert [task.name for task in tasks] == ["search/pretrain", "search/rewind", "search"]
    assert [task.rounds.epochs for task in tasks] == [3, 2, 5]
    assert not any(task.early_stopping for task in tasks)
    assert found.rewound is not None and int(found.rewound.state.step) == 1
    assert int(found.searched.state.step) == 2  # the search goes on from the rewound state
    assert found.seconds == 3.0
    assert all(task.rounds.gate_every == 0 for task in tasks)


def test_a_bilevel_search_stops_early_and_has_gate_batches(trainings):
    tasks, found = trainings("ihas")
    assert [task.name for task in tasks] == ["search/pretrain", "search"]
    assert [task.early_stopping for task in tasks] == [False, True]
    assert [task.rounds.gate_every for task in tasks] == [0, 100]
    assert found.rewound is None and found.seconds == 2.0
    for name in ("tables", "network"):  # the search goes on from the pretrained model
        trees = (found.pretrained.state.params[name], found.searched.state.params[name])
        jax.tree.map(np.testing.assert_array_equal, *trees)


def test_rows_that_decide_when_to_stop_can_be_kept_from_the_gates(tiny, small, tmp_path):
    def split(share):
        config = dataclasses.replace(tiny.config, search=SearchConfig(stopping_share=share))
        return search.split_validation(Run(config, small, tmp_path))

    gate_rows, stopping = split(0.3)  # of 10 rows
    rest = np.setdiff1d(np.arange(10), gate_rows)
    assert (len(gate_rows), len(rest)) == (7, 3)
    np.testing.assert_array_equal(stopping.ids, small.valid.ids[rest])
    np.testing.assert_array_equal(stopping.labels, small.valid.labels[rest])
    assert [len(split(share)[1].labels) for share in (0.01, 0.99)] == [1, 9]
    gate_rows, stopping = split(0.0)
    assert gate_rows is None and stopping is small.valid


def test_a_search_that_ends_at_a_share_keeps_its_last_epoch(trainings):
    tasks, _ = trainings("pep", PepConfig(kept=0.3))
    assert [task.name for task in tasks] == ["search/pretrain", "search"]
    assert not tasks[1].early_stopping
    assert tasks[1].is_last({"kept_of_table": 0.3})
    assert not tasks[1].is_last({"kept_of_table": 0.31})

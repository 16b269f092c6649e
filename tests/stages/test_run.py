"""What a run gives its stages: keys, seeds, click models, batches and the event log."""

from __future__ import annotations

import dataclasses
import json
import resource
from itertools import product

import jax
import numpy as np
import pytest

from ihas_jax.config import TrainConfig
from ihas_jax.selectors.plan import Expert
from ihas_jax.selectors.selection import Selection
from ihas_jax.stages import run as runs
from ihas_jax.stages.run import Run

KEPT = ((0,), (0, 1), ())


@pytest.fixture
def run(tiny, small, tmp_path):
    train = TrainConfig(batch_size=7, max_epochs=5)
    return Run(dataclasses.replace(tiny.config, train=train), small, tmp_path)


def test_keys_and_seeds_tell_parts_and_seeds_apart(run):
    found = []
    for name, seed in product(("base", "search"), (1, 2)):
        other = dataclasses.replace(run, config=dataclasses.replace(run.config, seed=seed))
        found.append((jax.random.key_data(other.key(name)).tolist(), other.seed(name)))
        assert other.seed(name) == other.seed(name)
    keys, seeds = zip(*found, strict=True)
    assert len({*map(tuple, keys)}) == len(set(seeds)) == 4


def test_a_model_starts_from_the_click_rate_of_its_own_rows(run, small, monkeypatch):
    rates, _ = [], run.model
    monkeypatch.setattr(runs, "build_model", lambda *_, click_rate, **__: rates.append(click_rate))
    labels = small.train.labels
    clicks, others = np.flatnonzero(labels), np.flatnonzero(labels == 0)
    for rows in (None, np.append(clicks[:3], others[:1]), clicks[:2], others[:2]):
        run.expert_model(Expert(Selection(KEPT), rows=rows))
    assert rates == pytest.approx([labels.mean(), 0.75, 1 - 1e-4, 1e-4])


def test_an_epoch_ends_with_a_part_of_a_batch(run):
    assert run.epoch_steps == 4  # 24 rows by 7


def test_gate_batches_are_of_the_given_validation_rows(run, small):
    rounds = run.rounds("search", gate_every=2)
    assert rounds.split is small.train and rounds.gate_split is small.valid
    assert drawn(rounds.gate_feed) == set(range(10))
    some = np.array([2, 3, 7], np.int32)
    assert drawn(run.rounds("search", gate_every=2, gate_rows=some).gate_feed) == {2, 3, 7}
    assert run.rounds("search").gate_feed is None


def drawn(feed):
    """Row numbers of an epoch of batches."""
    return {*feed(0, feed.batches_per_epoch).ravel().tolist()}


def test_training_batches_are_of_the_given_rows_and_epochs(run):
    assert run.rounds("base").epochs == 5
    assert [run.rounds("base", epochs=n).epochs for n in (0, 3)] == [0, 3]
    assert drawn(run.rounds("base").feed) == set(range(24))
    assert drawn(run.rounds("base", rows=np.array([4, 9], np.int32)).feed) == {4, 9}


def test_an_event_that_the_disk_does_not_take_leaves_no_half_line(run):
    run.event("plan", {"kept": float("nan")})
    log = run.workdir / "log.jsonl"
    before = log.read_bytes()
    assert json.loads(before)["event"] == "plan" and json.loads(before)["kept"] is None
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 10, hard))
    try:
        with pytest.raises(OSError, match="No space left"):
            run.event("stage", {"stage": "search"})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert log.read_bytes() == before

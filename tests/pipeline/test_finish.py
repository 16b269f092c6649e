"""Runs whose trainings go on with smaller steps."""

from __future__ import annotations

import dataclasses
import logging

import jax
import numpy as np
import pytest

from ihas_jax.config import Config, ModelConfig, OptimizerConfig, RetrainConfig, TrainConfig
from ihas_jax.config.shares import SpectralConfig
from ihas_jax.errors import InputError
from ihas_jax.pipeline.fit import fit
from ihas_jax.stages.base import train_base
from ihas_jax.stages.run import Run
from ihas_jax.stages.search import search_task

PLAIN = Config(
    method="spectral",
    model=ModelConfig(dim=4, hidden=(8, 4)),
    optimizer=OptimizerConfig(learning_rate=0.05),
    train=TrainConfig(batch_size=100, round_batches=4, max_epochs=5, patience=1),
    retrain=RetrainConfig(teachers=("lr",)),
    options=(SpectralConfig(kept=0.5),),
)
FINISHED = dataclasses.replace(PLAIN, train=dataclasses.replace(PLAIN.train, finish=(0.2, 0.04)))


@pytest.fixture(scope="module")
def finished(log, tmp_path_factory):
    return fit(FINISHED, log, tmp_path_factory.mktemp("finish") / "run")


def test_base_teachers_and_compact_models_are_finished(finished):
    for training in ("base", "teach/lr_0", "search", "retrain"):
        for i in (0, 1):
            assert (finished.workdir / training / f"finish_{i}").is_dir()
    assert not (finished.workdir / "search" / "pretrain" / "finish_0").exists()


@pytest.mark.parametrize("method", ["ihas", "optfs", "pep", "adafs_soft"])
def test_a_search_that_moves_gates_has_no_finish(log, tmp_path, method):
    run = Run(dataclasses.replace(FINISHED, method=method, options=()), log, tmp_path)
    assert search_task(run).finish == ()


def test_a_finish_goes_on_from_the_training_as_it_would_end(finished, log, tmp_path):
    run, plain = Run(FINISHED, log, finished.workdir), Run(PLAIN, log, tmp_path)
    (after,), (before,) = train_base([run]), train_base([plain])
    assert after.history[: len(before.history)] == before.history
    assert [facts["epoch"] for facts in after.history] == list(range(len(after.history)))
    best = [max(facts["auc"] for facts in trained.history) for trained in (before, after)]
    assert best[1] > best[0]  # on this log small steps help
    assert after.seconds > 0


def test_a_finish_takes_smaller_steps_with_the_program_of_the_training(
    log, tmp_path, caplog, monkeypatch
):
    """A model of its own, so that no other test has compiled it."""
    config = dataclasses.replace(FINISHED, model=ModelConfig(dim=3, hidden=(7,)))
    monkeypatch.setattr(logging.getLogger("jax"), "propagate", True)
    with jax.log_compiles(), caplog.at_level(logging.WARNING):
        (trained,) = train_base([Run(config, log, tmp_path)])
    compiled = [r.message for r in caplog.records if "XLA compilation" in r.message]
    assert sum("jit(round_)" in message for message in compiled) == 1
    assert float(trained.state.pace) == pytest.approx(0.04)


def test_a_finished_run_is_read_back(finished, log):
    run = Run(FINISHED, log, finished.workdir)
    (first,), (second,) = train_base([run]), train_base([run])
    assert first.history == second.history
    jax.tree.map(np.testing.assert_array_equal, first.variables, second.variables)


@pytest.mark.parametrize("shares", [(0.2, 0.5), (0.2, 0.2), (2.0,), (0.0,)])
def test_factors_must_be_falling_shares(shares):
    with pytest.raises(InputError, match=r"--train\.finish|--finish"):
        dataclasses.replace(FINISHED, train=dataclasses.replace(FINISHED.train, finish=shares))

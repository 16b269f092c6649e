"""The pool of click models: which means teach, and what members are called."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest

from ihas_jax.config import Config, ModelConfig, OptimizerConfig, RetrainConfig
from ihas_jax.models.predict import predictor
from ihas_jax.stages.pool import best_mean, mean_facts, train_member, write_lessons
from ihas_jax.stages.run import Run
from ihas_jax.stages.trials import Trial
from ihas_jax.training.metrics import logloss, score


def test_errors_that_cancel_are_averaged():
    labels = np.array([1, 0, 1, 0])
    high, low = np.array([0.9, 0.6, 0.9, 0.6]), np.array([0.4, 0.1, 0.4, 0.1])
    poor = np.array([0.1, 0.9, 0.1, 0.9])
    chosen = best_mean(labels, [poor, high, low])
    assert sorted(chosen[:2]) == [1, 2] and 0 not in chosen


def test_one_that_is_best_alone_teaches_alone():
    labels = np.array([1, 0, 1, 0])
    assert best_mean(labels, [np.full(4, 0.5), np.array([0.9, 0.1, 0.9, 0.1])]) == (1,)


@pytest.mark.parametrize("seed", range(5))
def test_greedy_steps_are_those_of_trying_each(seed):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, 60)
    probs = [np.clip(labels * 0.4 + 0.6 * rng.random(60), 0.01, 0.99) for _ in range(5)]
    chosen = best_mean(labels, probs)
    loss = logloss(labels, np.mean([probs[i] for i in chosen], axis=0))
    assert loss <= min(logloss(labels, own) for own in probs)
    for i in range(len(chosen)):
        before = [probs[j] for j in chosen[:i]]
        tried = [logloss(labels, np.mean([*before, own], axis=0)) for own in probs]
        assert chosen[i] == int(np.argmin(tried))


@pytest.mark.parametrize(
    ("model", "steps", "number", "name"),
    [
        (ModelConfig(), {"l2": 1e-5}, 0, "dnn_1e-05"),
        (ModelConfig(), {"l2": 1.0000001e-5}, 0, "dnn_1.0000001e-05"),
        (ModelConfig("fm", batch_norm=True), {"l2": 0.0}, 2, "fm_0_norm_2"),
        (ModelConfig(dropout=0.25), {"l2": 1e-4}, 0, "dnn_0.0001_dropout_0.25"),
        (ModelConfig(), {"l2": 0.0, "learning_rate": 0.3}, 1, "dnn_0_rate_0.3_1"),
    ],
)
def test_names_tell_what_is_tried(model, steps, number, name):
    usual = Config()
    optimizer = OptimizerConfig(**{"learning_rate": usual.optimizer.learning_rate, **steps})
    assert Trial(model, optimizer, number).name(usual) == name


def test_a_member_has_its_own_seed_and_predicts_once(tiny, small, tmp_path):
    run = Run(tiny.config, small, tmp_path)
    steps = dataclasses.replace(tiny.config.optimizer, l2=1e-5)
    first, second = (train_member(run, Trial(tiny.config.model, steps, n)) for n in (0, 1))
    assert (first.name, second.name) == ("dnn_1e-05", "dnn_1e-05_1")
    assert first.run.config.seed != second.run.config.seed
    assert first.run.config.optimizer.l2 == 1e-5
    probs = predictor(first.run.model)(first.trained.variables, small.valid.ids, title="x").probs
    np.testing.assert_array_equal(first.probs, probs)
    assert first.scores == score(small.valid.labels, probs)
    (tmp_path / "teach").mkdir()
    write_lessons(run, first)
    path = tmp_path / "teach" / "dnn_1e-05.train.npy"
    expected = predictor(first.run.model)(first.trained.variables, small.train.ids, title="x").probs
    np.testing.assert_array_equal(np.load(path), expected)
    written = path.stat().st_mtime_ns
    write_lessons(run, first)
    assert path.stat().st_mtime_ns == written


def test_the_mean_of_members_counts_each_as_often_as_it_is_named():
    rng = np.random.default_rng(0)
    valid, test = (SimpleNamespace(labels=rng.integers(0, 2, 50)) for _ in range(2))
    data = SimpleNamespace(valid=valid, test=test)
    few, many = (
        SimpleNamespace(probs=rng.uniform(0.1, 0.9, size=len(valid.labels))) for _ in range(2)
    )
    members = [few, many, many]
    taught = SimpleNamespace(test=rng.uniform(0.1, 0.9, size=len(test.labels)), parameters=7)
    odds = np.mean([np.log(one.probs / (1 - one.probs)) for one in members], axis=0)
    means = {"probability": np.mean([one.probs for one in members], axis=0)}
    means["log_odds"] = 1 / (1 + np.exp(-odds))
    for kind, mean in means.items():
        config = dataclasses.replace(Config(), retrain=RetrainConfig(teacher_mean=kind))
        run = SimpleNamespace(data=data, config=config)
        facts = mean_facts(run, members, taught)
        expected = score(valid.labels, mean)
        assert facts["valid_auc"] == pytest.approx(expected.auc)
        assert facts["valid_logloss"] == pytest.approx(expected.logloss)
        assert facts["auc"] == pytest.approx(score(test.labels, taught.test).auc)
        assert (facts["parameters"], facts["bytes"]) == (7, 28)

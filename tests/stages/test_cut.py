"""A trained model that is cut without training."""

from __future__ import annotations

import dataclasses
import json

import jax
import numpy as np
import pytest

from ihas_jax.config import Config, ModelConfig, OptimizerConfig, SearchConfig, TrainConfig
from ihas_jax.config.shares import SpectralConfig
from ihas_jax.data.synthetic import SyntheticConfig, synthetic
from ihas_jax.errors import InputError
from ihas_jax.pipeline.fit import fit
from ihas_jax.serving.storage import load_bundle, save_bundle
from ihas_jax.stages.cut import can_be_cut, cut, measure_cut
from ihas_jax.stages.run import Run
from ihas_jax.stages.students import searched, whole_bundle
from ihas_jax.training.metrics import score

PLAIN = Config(
    method="none",
    model=ModelConfig(dim=4, hidden=(8, 4)),
    optimizer=OptimizerConfig(learning_rate=0.02),
    train=TrainConfig(batch_size=100, round_batches=4, max_epochs=4),
    search=SearchConfig(pretrain_epochs=0),
)


@pytest.fixture(scope="module")
def log():
    return synthetic(SyntheticConfig(rows=4000, own=2, noise=2, values=30))


@pytest.fixture(scope="module")
def whole(log, tmp_path_factory):
    return load_bundle(fit(PLAIN, log, tmp_path_factory.mktemp("cut") / "run").workdir)


def loss(bundle, split):
    return score(split.labels, bundle.predict_ids(split.ids)).logloss


def test_a_cut_to_everything_predicts_as_before(whole, log):
    made = cut(whole, 1.0, log.train.ids)
    before, after = (b.predict_ids(log.test.ids) for b in (whole, made))
    np.testing.assert_allclose(after, before, atol=2e-6)
    assert made.parameters == whole.parameters


@pytest.mark.parametrize("model", ["dnn", "deepfm", "fm", "autoint", "lr"])
def test_the_bundle_of_a_run_is_cut_as_by_its_training_rows(log, tmp_path, model):
    """Models whose axes are shifted, turned, or their own; and one that is read back."""
    config = dataclasses.replace(PLAIN, model=dataclasses.replace(PLAIN.model, name=model))
    bundle = load_bundle(fit(config, log, tmp_path / "run").workdir)
    own, given = cut(bundle, 0.4), cut(bundle, 0.4, log.train.ids)
    assert own.models[0].model == given.models[0].model
    jax.tree.map(np.testing.assert_array_equal, own.models[0].variables, given.models[0].variables)
    assert own.usage is None


def test_a_model_that_is_cut_is_not_whole(whole, log):
    """At 80 % every field keeps each coordinate for some value, and other values do without."""
    made = cut(whole, 0.8, log.train.ids)
    assert made.models[0].model.embedding.kept is None
    assert can_be_cut(whole) and not can_be_cut(made)
    with pytest.raises(InputError, match="Only one click model of full size can be cut"):
        cut(made, 0.8, log.train.ids)


def test_a_bundle_that_knows_of_no_rows_needs_some(whole):
    with pytest.raises(InputError, match=r"how often values occur\. Give ids"):
        cut(dataclasses.replace(whole, usage=None), 0.5)


def test_the_usage_is_that_of_the_training_rows(whole, log):
    counts = [
        np.bincount(log.train.ids[:, f], minlength=size) for f, size in enumerate(log.schema.sizes)
    ]
    np.testing.assert_array_equal(whole.usage.counts, np.concatenate(counts))
    assert whole.usage.counts.dtype == np.int64 and whole.usage.curvature.dtype == np.float64


@pytest.mark.parametrize("budget", [0.5, 0.25, 0.1])
def test_a_cut_keeps_to_its_budget(whole, log, budget):
    made = cut(whole, budget, log.train.ids)
    params = made.models[0].variables.params
    left = sum(np.count_nonzero(leaf) for leaf in params["tables"]["embedding"].values())
    numbers = whole.models[0].model.embedding.parameters
    assert 0.98 * budget * numbers <= left <= budget * numbers
    assert made.parameters == left + sum(leaf.size for leaf in jax.tree.leaves(params["network"]))
    assert made.config.budget == budget and made.config.method == "spectral"


def test_what_is_cut_last_is_worth_least(whole, log):
    """The measured rise of the logloss grows as the predicted one, and is near it while small."""
    cuts = [measure_cut(whole, budget, log.train.ids) for budget in (0.9, 0.6, 0.3, 0.1)]
    before = loss(whole, log.train)
    rises = [loss(one.bundle, log.train) - before for one in cuts]
    predicted = [one.rise for one in cuts]
    assert predicted == sorted(predicted) and rises == sorted(rises)
    assert [one.share for one in cuts] == sorted((one.share for one in cuts), reverse=True)
    assert abs(rises[1] - predicted[1]) < 0.5 * predicted[3]


def test_a_cut_is_that_of_spectral_before_its_training(whole, log, tmp_path):
    """Spectral from the same model: one that is searched with the seed and rows of the base."""
    config = dataclasses.replace(PLAIN, method="spectral", budget=0.25, options=(SpectralConfig(),))
    run = fit(config, log, tmp_path / "run")
    start = next(f for f in _history(run.workdir) if f["stage"] == "retrain")
    assert start["epoch"] == -1
    searched = dataclasses.replace(whole, models=(_searched(config, log, run.workdir),))
    made = cut(searched, 0.25, log.train.ids)
    found = score(log.valid.labels, made.predict_ids(log.valid.ids))
    assert found.auc == pytest.approx(start["auc"], abs=1e-6)
    assert found.logloss == pytest.approx(start["logloss"], abs=1e-5)


def _history(folder):
    lines = (folder / "log.jsonl").read_text().splitlines()
    return [line for line in map(json.loads, lines) if line["event"] == "epoch"]


def _searched(config, log, folder):
    run = Run(config, log, folder)
    return whole_bundle(run, searched(run)).models[0]


def test_a_cut_bundle_is_saved_and_read_back(whole, log, tmp_path):
    made = cut(whole, 0.3, log.train.ids)
    save_bundle(made, tmp_path / "bundle")
    again = load_bundle(tmp_path / "bundle")
    np.testing.assert_array_equal(again.predict_ids(log.test.ids), made.predict_ids(log.test.ids))
    assert (again.parameters, again.bytes) == (made.parameters, made.bytes)


@pytest.mark.parametrize(
    ("budget", "words"),
    [
        (0.0, "above 0"),
        (1.5, "at most 1"),
        (0.001, "at least"),
        ("0.5", "not '0.5'"),
        (None, "not None"),
    ],
)
def test_budgets_without_room_are_refused(whole, log, budget, words):
    with pytest.raises(InputError, match=words):
        cut(whole, budget, log.train.ids)


def test_rows_of_another_log_are_refused(whole, log):
    with pytest.raises(InputError, match="field"):
        cut(whole, 0.5, log.train.ids + 1000)


def test_only_a_whole_model_can_be_cut(whole, log):
    made = cut(whole, 0.05, log.train.ids)
    assert made.models[0].model.embedding.kept is not None
    with pytest.raises(InputError, match="of full size can be cut"):
        cut(made, 0.01, log.train.ids)


def test_a_path_is_no_bundle():
    with pytest.raises(
        InputError, match=r"must be a Bundle, not a str. Read one with ihas.load_bundle"
    ):
        cut("runs/mine", 0.5)

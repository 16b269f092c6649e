"""Runs with teachers, from their training to the metrics."""

from __future__ import annotations

import dataclasses
import json
import logging
import shutil

import jax
import numpy as np
import pytest

from ihas_jax.config import (
    ClusterConfig,
    Config,
    ModelConfig,
    OptimizerConfig,
    RetrainConfig,
    SearchConfig,
    TrainConfig,
)
from ihas_jax.errors import InputError
from ihas_jax.flags import replaced
from ihas_jax.models.predict import predictor
from ihas_jax.pipeline import stages
from ihas_jax.pipeline.fit import fit, fit_seeds
from ihas_jax.pipeline.reuse import reuse_stages
from ihas_jax.selectors.plan import ENTRIES
from ihas_jax.serving.storage import load_bundle
from ihas_jax.stages import teach as teach_module
from ihas_jax.stages.base import fresh_state, model_task, train_base, train_runs
from ihas_jax.stages.run import Run
from ihas_jax.stages.search import search, searched_transform
from ihas_jax.stages.teach import check_teachers, fold_rows
from ihas_jax.training.loop import train
from ihas_jax.training.metrics import score

PLAIN = Config(
    method="none",
    model=ModelConfig(dim=4, hidden=(8, 4)),
    optimizer=OptimizerConfig(learning_rate=0.02),
    train=TrainConfig(batch_size=100, round_batches=4, max_epochs=2),
    search=SearchConfig(pretrain_epochs=1, gate_every=2),
    options=(ClusterConfig(min_rows=100),),
)


def taught(*teachers, method="none", **choices):
    retrain = RetrainConfig(teachers=teachers, **choices)
    return dataclasses.replace(PLAIN, method=method, retrain=retrain)


@pytest.fixture(scope="module")
def student(log, tmp_path_factory):
    config = taught("dnn:2", "base", teacher_weight=0.75)
    return config, fit(config, log, tmp_path_factory.mktemp("teaching") / "student")


@pytest.fixture(scope="module")
def after_search(log, tmp_path_factory):
    config = taught("lr", "search", method="ihas", teacher_folds=2)
    return config, fit(config, log, tmp_path_factory.mktemp("teaching") / "after")


def loaded(result, name):
    return np.load(result.workdir / "teach" / f"{name}.npy")


def trained(run, name, model, rows=None):
    """The variables of a finished training."""
    task = model_task(run, name, model, rows=rows)
    found = train(task, fresh_state(run, name, model), lambda kind, facts: None)
    return found.variables


def test_files_equal_direct_predictions(student, log):
    config, result = student
    run = Run(config, log, result.workdir)
    (base,) = train_base([run])
    models = {"base": base.variables}
    models |= {f"dnn_{i}": trained(run, f"teach/dnn_{i}", run.model) for i in range(2)}
    for name, variables in models.items():
        for split in ("train", "test"):
            direct = predictor(run.model)(variables, getattr(log, split).ids, title="").probs
            np.testing.assert_array_equal(loaded(result, f"{name}.{split}"), direct)
    assert (loaded(result, "dnn_0.train") != loaded(result, "dnn_1.train")).all()


def test_metrics_have_base_teachers_and_student(student, log):
    result = student[1]
    metrics = json.loads((result.workdir / "metrics.json").read_text())
    assert list(metrics["seconds"]) == ["base", "teach", "retrain", "evaluate", "compiling"]
    assert set(metrics) <= {*ENTRIES}
    mean = np.mean([loaded(result, f"{n}.test") for n in ("dnn_0", "dnn_1", "base")], axis=0)
    assert metrics["teacher"]["auc"] == pytest.approx(score(log.test.labels, mean).auc)
    assert metrics["teacher"]["parameters"] == 3 * metrics["base"]["parameters"]
    assert metrics["teacher"]["models"] == ["dnn:2", "base"]
    probs = load_bundle(result.workdir).predict_ids(log.test.ids)
    assert metrics["student"]["logloss"] == pytest.approx(score(log.test.labels, probs).logloss)
    assert metrics["student"]["parameters"] == metrics["base"]["parameters"]
    assert metrics["student"]["auc"] != metrics["base"]["auc"]
    curves = json.loads((result.workdir / "curves.json").read_text())
    assert list(curves["histories"]) == ["base", "student", "teacher dnn_0", "teacher dnn_1"]
    text = (result.workdir / "report.md").read_text()
    assert (
        "| teacher: dnn:2 base |" in text and "| student |" in text and "| teacher dnn_1 |" in text
    )


def test_students_learn_blended_labels_and_stop_on_clicks(student, log, tmp_path, monkeypatch):
    config, result = student
    shutil.copytree(result.workdir, tmp_path / "run")
    (tmp_path / "run" / "metrics.json").unlink()
    seen = []

    def begin(run):
        seen.append(run)
        raise KeyboardInterrupt

    monkeypatch.setattr(stages, "train_student", begin)
    with pytest.raises(KeyboardInterrupt):
        fit(config, log, tmp_path / "run")
    (run,) = seen
    means = [loaded(result, f"{name}.train") for name in ("dnn_0", "dnn_1", "base")]
    expected = 0.75 * np.mean(means, axis=0) + 0.25 * log.train.labels
    np.testing.assert_allclose(run.rounds("x").split.labels, expected, rtol=1e-6)
    np.testing.assert_array_equal(run.data.valid.labels, log.valid.labels)


def test_the_searched_model_teaches_and_folds_have_not_seen_their_rows(after_search, log):
    config, result = after_search
    metrics = json.loads((result.workdir / "metrics.json").read_text())
    order = ["base", "search", "choose", "teach", "retrain", "evaluate", "compiling"]
    assert list(metrics["seconds"]) == order
    run = Run(config, log, result.workdir)
    (found,) = search([run])
    model, transform = run.searched_model, searched_transform(run)
    direct = predictor(model, transform)(found.variables, log.train.ids, title="").probs
    np.testing.assert_array_equal(loaded(result, "search.train"), direct)
    lr = run.build(dataclasses.replace(config.model, name="lr"))
    tests, everyone = [], []
    for fold in range(2):
        seen, unseen = fold_rows(run, fold)
        assert not set(seen) & set(unseen) and len(seen) + len(unseen) == len(log.train.labels)
        variables = trained(run, f"teach/lr_0/fold_{fold}", lr, seen)
        direct = predictor(lr)(variables, log.train.ids[unseen], title="").probs
        np.testing.assert_array_equal(loaded(result, "lr_0.train")[unseen], direct)
        tests.append(predictor(lr)(variables, log.test.ids, title="").probs)
        everyone += unseen.tolist()
    assert sorted(everyone) == list(range(len(log.train.labels)))
    np.testing.assert_allclose(loaded(result, "lr_0.test"), np.mean(tests, axis=0), rtol=1e-6)


def variables_of(result):
    return [served.variables for served in load_bundle(result.workdir).models]


def test_a_weight_of_zero_is_plain_training_bit_for_bit(log, tmp_path):
    plain = fit(dataclasses.replace(PLAIN, method="sseds"), log, tmp_path / "plain")
    config = taught("lr", method="sseds", teacher_weight=0.0)
    zero = fit(config, log, tmp_path / "zero")
    full = fit(replaced(config, "retrain.teacher-weight", 1.0), log, tmp_path / "full")
    jax.tree.map(np.testing.assert_array_equal, variables_of(zero), variables_of(plain))
    assert zero.metrics["search"] == plain.metrics["search"]
    # with a weight the search is taught, too
    assert full.metrics["search"]["logloss"] != plain.metrics["search"]["logloss"]
    assert full.metrics["base"] == plain.metrics["base"]


def test_seeds_of_a_teacher_are_one_program(log, tmp_path, caplog, monkeypatch):
    config = dataclasses.replace(taught("gdcn:3"), model=ModelConfig(dim=3, hidden=(5,)))
    fit(config, log, tmp_path / "run", "base")
    monkeypatch.setattr(logging.getLogger("jax"), "propagate", True)
    with jax.log_compiles(), caplog.at_level(logging.WARNING):
        fit(config, log, tmp_path / "run", "teach")
    compiled = [r.message for r in caplog.records if "XLA compilation" in r.message]
    assert sum("jit(round_)" in message for message in compiled) == 1
    assert sum("jit(mapped)" in message for message in compiled) <= 3  # one for each split


def test_a_lost_prediction_is_made_again(student, log, tmp_path):
    config, result = student
    shutil.copytree(result.workdir, tmp_path / "run")
    for name in ("teach/dnn_1.test.npy", "metrics.json", "bundle/bundle.json"):
        (tmp_path / "run" / name).unlink()
    shutil.rmtree(tmp_path / "run" / "retrain")
    again = fit(config, log, tmp_path / "run")
    for name in ("base", "teacher", "student"):
        assert again.metrics[name] == result.metrics[name]


def test_teachers_trained_side_by_side_say_what_they_say_alone(student, log, tmp_path, monkeypatch):
    """As on an accelerator, where the seeds of a teacher are one program."""
    config, alone = student
    monkeypatch.setattr(teach_module, "_train_side_by_side", lambda run: True)
    trained = []
    monkeypatch.setattr(
        teach_module,
        "train_runs",
        lambda runs, tasks, states: (
            trained.append([task.name for task in tasks]) or train_runs(runs, tasks, states)
        ),
    )
    fit(config, log, tmp_path / "run")
    assert ["teach/dnn_0", "teach/dnn_1"] in trained
    for name in ("dnn_0", "dnn_1"):
        for split in ("train", "test"):
            ours, theirs = (
                np.load(folder / "teach" / f"{name}.{split}.npy")
                for folder in (tmp_path / "run", alone.workdir)
            )
            np.testing.assert_allclose(ours, theirs, atol=1e-4)
    first, second = (np.load(tmp_path / "run" / "teach" / f"dnn_{i}.test.npy") for i in (0, 1))
    assert np.abs(first - second).max() > 1e-3


@pytest.mark.parametrize("method", ["none", "sseds"])
def test_seeds_together_are_taught_as_alone(log, tmp_path, method):
    """The second seed, since labels of the first one must not be those of all."""
    config = taught("lr", "base", method=method)
    alone = fit(replaced(config, "seed", 1), log, tmp_path / "alone").metrics
    first, second = fit_seeds(config, log, {0: tmp_path / "0", 1: tmp_path / "1"})
    for name in {"teacher", "student", "search", method} & alone.keys():
        assert second.metrics[name]["auc"] == pytest.approx(alone[name]["auc"], abs=2e-4)
        assert first.metrics[name]["auc"] != second.metrics[name]["auc"]


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (taught("ncf"), None),
        (replaced(taught("finalmlp"), "model.hidden", ()), "--retrain.teachers finalmlp can't be"),
        (replaced(taught("ncf"), "model.ncf_pair", (0, 99)), "--retrain.teachers ncf can't be"),
        (taught("lr", teacher_folds=900), "--retrain.teacher-folds 900 is too many for 1600"),
        (taught("search", method="uniform"), "--method uniform trains no searched model"),
        (taught("search", method="adafs_soft"), "--method adafs_soft serves its searched model"),
        (taught("search", method="sseds"), None),
    ],
)
def test_teachers_that_can_not_teach_are_refused_at_the_start(log, tmp_path, config, words):
    config = replaced(config, "search.pretrain_epochs", 0)
    run = Run(config, log, tmp_path)
    if words is None:
        check_teachers(run)
        return
    with pytest.raises(InputError, match=words):
        check_teachers(run)


def test_a_base_model_that_teaches_is_trained_first(log, tmp_path):
    with pytest.raises(InputError, match="'base'"):
        fit(taught("lr", "base"), log, tmp_path / "run", "teach")


@pytest.mark.parametrize(
    ("flag", "value", "same"),
    [
        ("method", "sseds", {"base", "teach"}),
        ("model.name", "fm", set()),  # the base model is a teacher
        ("retrain.teachers", ("dnn:2",), {"base"}),
        ("retrain.teacher_weight", 0.5, {"base", "teach"}),
        ("retrain.teacher_folds", 2, {"base"}),
        ("train.batch_size", 50, set()),
        ("seed", 1, set()),
    ],
)
def test_stages_are_reused_that_nothing_touches(student, log, tmp_path, flag, value, same):
    config, result = student
    reuse_stages(replaced(config, flag, value), log, tmp_path / "run", result.workdir)
    folders = ("base", "teach", "search")
    assert {name for name in folders if (tmp_path / "run" / name).exists()} == same
    if "teach" in same:
        copied = {path.name for path in (tmp_path / "run" / "teach").iterdir()}
        assert {"dnn_0.train.npy", "dnn_0.json", "checksums.json"} <= copied
        assert "dnn_0" not in copied  # checkpoints


@pytest.mark.parametrize(
    ("flag", "value", "same"),
    [
        ("cluster.clusters", 3, {"base", "search", "teach"}),
        ("gates.weight", 0.5, {"base"}),  # the searched model is a teacher
        ("retrain.teacher_weight", 0.5, {"base", "search", "teach"}),
        ("retrain.teachers", ("lr",), {"base"}),  # the search is taught, then
        ("retrain.teachers", ("search",), {"base", "search"}),
    ],
)
def test_a_searched_teacher_needs_the_same_search(after_search, log, tmp_path, flag, value, same):
    config, result = after_search
    reuse_stages(replaced(config, flag, value), log, tmp_path / "run", result.workdir)
    folders = ("base", "teach", "search")
    assert {name for name in folders if (tmp_path / "run" / name).exists()} == same


def test_a_model_by_another_search_learns_from_the_same_teachers(log, tmp_path):
    config = taught("lr", method="sseds")
    searched = fit(config, log, tmp_path / "dnn")
    found = fit(
        replaced(config, "model.name", "wide_deep"), log, tmp_path / "wd",
        searched_by=searched.workdir,
    )  # fmt: skip
    assert found.metrics["teacher"] == searched.metrics["teacher"]
    assert not (found.workdir / "teach" / "lr_0").exists()

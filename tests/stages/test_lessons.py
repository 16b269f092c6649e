"""What students learn: the mean of teachers, blended with clicks, from files of the run."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest

from ihas_jax import checksums
from ihas_jax.config import RetrainConfig
from ihas_jax.errors import InputError
from ihas_jax.files import write_json
from ihas_jax.models.forward import init_model
from ihas_jax.models.predict import predictor
from ihas_jax.stages import lessons
from ihas_jax.stages.lessons import Speaker, blend, mean_prediction, read_lessons, write_predictions
from ihas_jax.stages.run import Run


def test_means_of_probabilities_and_of_log_odds():
    probs = [np.float32([0.5, 0.2]), np.float32([0.9, 0.8])]
    np.testing.assert_allclose(mean_prediction(probs, "probability"), [0.7, 0.5], rtol=1e-7)
    # the odds 1 and 9 have the mean log-odds log 3; 1/4 and 4 have 0
    np.testing.assert_allclose(mean_prediction(probs, "log_odds"), [0.75, 0.5], rtol=1e-6)


def test_a_sure_teacher_has_finite_log_odds():
    found = mean_prediction([np.float32([0.0, 1.0]), np.float32([0.5, 0.5])], "log_odds")
    odds = np.sqrt(1e-7 / (1 - 1e-7))
    np.testing.assert_allclose(found, [odds / (1 + odds), 1 / (1 + odds)], rtol=1e-9)


def test_labels_are_blended_with_clicks():
    clicks, probs = np.uint8([0, 1, 1]), np.array([0.5, 0.5, 0.1])
    np.testing.assert_allclose(blend(clicks, probs, 0.25), [0.125, 0.875, 0.775])
    np.testing.assert_array_equal(blend(clicks, probs, 0.0), clicks)
    np.testing.assert_array_equal(blend(clicks, probs, 1.0), probs)


@pytest.fixture
def run(tiny, small, tmp_path):
    retrain = RetrainConfig(teachers=("dnn:2",), teacher_weight=0.5)
    checksums.start(tmp_path)
    (tmp_path / lessons.FOLDER).mkdir()
    checksums.start(tmp_path / lessons.FOLDER)
    return Run(dataclasses.replace(tiny.config, retrain=retrain), small, tmp_path)


def test_files_have_what_the_models_predict_of_their_rows(run, small, monkeypatch):
    first, second = (init_model(run.key(name), run.model) for name in ("first", "second"))
    even, odd = (np.arange(start, 24, 2, dtype=np.int32) for start in (0, 1))
    speakers = [
        Speaker(run.model, first, rows=even),
        Speaker(run.model, second, rows=odd),
    ]
    write_predictions(run, "dnn_0", speakers, [{"epoch": 0}], 2.0)
    write_predictions(run, "dnn_1", [Speaker(run.model, second)], [], 0.0)
    predict = predictor(run.model)
    (one, two), (one_test, two_test) = (
        [predict(variables, split.ids, title="").probs for variables in (first, second)]
        for split in (small.train, small.test)
    )
    mixed = np.where(np.arange(24) % 2 == 0, one, two)
    np.testing.assert_array_equal(np.load(run.workdir / "teach/dnn_0.train.npy"), mixed)
    monkeypatch.setattr(lessons, "_CHUNK_ROWS", 7)
    taught = read_lessons(run)
    expected = (mixed.astype(float) + two) / 4 + small.train.labels / 2
    np.testing.assert_allclose(taught.labels, expected, rtol=1e-6)
    assert taught.labels.dtype == np.float32
    expected = ((one_test.astype(float) + two_test) / 2 + two_test) / 2
    np.testing.assert_allclose(taught.test, expected, rtol=1e-6)
    assert taught.histories == {"dnn_0": [{"epoch": 0}]} and taught.seconds > 2
    size = sum(leaf.size for leaf in [*_leaves(first), *_leaves(second), *_leaves(second)])
    assert taught.parameters == size


@pytest.mark.parametrize("kind", ["probability", "log_odds"])
def test_training_and_test_rows_have_the_mean_that_is_asked_for(run, small, kind):
    retrain = dataclasses.replace(run.config.retrain, teacher_mean=kind, teacher_weight=1.0)
    run = dataclasses.replace(run, config=dataclasses.replace(run.config, retrain=retrain))
    near = init_model(run.key("x"), run.model)
    far = jax.tree.map(lambda leaf: 9 * leaf, near)
    for name, variables in (("dnn_0", near), ("dnn_1", far)):
        write_predictions(run, name, [Speaker(run.model, variables)], [], 0.0)
    taught, predict = read_lessons(run), predictor(run.model)
    for split, found in ((small.train, taught.labels), (small.test, taught.test)):
        probs = [predict(variables, split.ids, title="").probs for variables in (near, far)]
        np.testing.assert_allclose(found, mean_prediction(probs, kind), rtol=1e-6)
        other = mean_prediction(probs, "log_odds" if kind == "probability" else "probability")
        assert np.abs(found - other).max() > 1e-3


def _leaves(variables):
    network = variables.params["network"]["mlp"]
    return [
        *variables.params["tables"]["embedding"].values(),
        *(layer[name] for layer in network.values() for name in layer),
    ]


def test_predictions_are_there_when_all_files_are_and_undamaged(run, caplog):
    speaker = Speaker(run.model, init_model(run.key("x"), run.model))
    assert not lessons.has_predictions(run, "dnn_0")
    write_predictions(run, "dnn_0", [speaker], [], 0.0)
    assert lessons.has_predictions(run, "dnn_0")
    path = run.workdir / "teach/dnn_0.train.npy"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert not lessons.has_predictions(run, "dnn_0")
    assert "dnn_0.train.npy is missing or damaged; the teacher predicts again" in caplog.text
    write_predictions(run, "dnn_0", [speaker], [], 0.0)
    assert lessons.has_predictions(run, "dnn_0")
    path.unlink()
    assert not lessons.has_predictions(run, "dnn_0")


def test_a_prediction_that_is_no_number_names_the_teacher(run):
    fresh = init_model(run.key("x"), run.model)
    broken = jax.tree.map(lambda leaf: leaf * np.nan, fresh)
    with pytest.raises(InputError, match="A prediction of the teacher dnn_0 is not a number"):
        write_predictions(run, "dnn_0", [Speaker(run.model, broken)], [], 0.0)
    assert not lessons.has_predictions(run, "dnn_0")


def test_a_kill_before_the_facts_means_no_predictions(run, monkeypatch):
    def killed(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(lessons, "write_json", killed)
    speaker = Speaker(run.model, init_model(run.key("x"), run.model))
    with pytest.raises(KeyboardInterrupt):
        write_predictions(run, "dnn_0", [speaker], [], 0.0)
    assert not lessons.has_predictions(run, "dnn_0")
    monkeypatch.setattr(lessons, "write_json", write_json)
    write_predictions(run, "dnn_0", [speaker], [], 0.0)
    assert lessons.has_predictions(run, "dnn_0")

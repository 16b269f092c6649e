from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from ihas_jax.errors import InputError
from ihas_jax.training.metrics import Scores, auc, auc_of_counts, auc_text, logloss, score

pairs = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 6)), min_size=2, max_size=60).filter(
    lambda rows: len({label for label, _ in rows}) == 2
)


@given(rows=pairs)
def test_auc_is_that_of_scikit_learn_with_any_ties(rows):
    labels = np.array([label for label, _ in rows], np.uint8)
    probs = np.array([value for _, value in rows], np.float32) / np.float32(6)
    np.testing.assert_allclose(auc(labels, probs), roc_auc_score(labels, probs), rtol=1e-12)


def test_auc_of_many_rows_is_exact():
    rng = np.random.default_rng(0)
    labels = (rng.random(50_000) < 0.03).astype(np.uint8)
    probs = np.round(rng.random(50_000) + 0.2 * labels, 3).astype(np.float32)
    np.testing.assert_allclose(auc(labels, probs), roc_auc_score(labels, probs), rtol=1e-12)


@pytest.mark.parametrize(
    ("labels", "probs", "expected"),
    [
        ([0, 1], [0.2, 0.7], 1.0),
        ([1, 0], [0.2, 0.7], 0.0),
        ([0, 1, 0, 1], [0.5, 0.5, 0.5, 0.5], 0.5),
        ([0, 1, 0, 1], [0.1, 0.4, 0.4, 0.8], 0.875),  # of four pairs 3 won, 1 tied
    ],
)
def test_auc_by_hand(labels, probs, expected):
    assert auc(np.array(labels), np.array(probs)) == expected


def test_auc_of_counts_by_hand():
    counts = np.array(
        [
            [[1, 2, 1], [0, 1, 1]],  # a click beats 1 + 2/2 of 4 others, the other one 3 + 1/2
            [[0, 0, 3], [2, 0, 0]],
            [[4, 0, 0], [0, 0, 0]],
        ]
    )
    np.testing.assert_array_equal(auc_of_counts(counts), [5.5 / 8, 0, np.nan])


@pytest.mark.parametrize("label", [0, 1])
def test_auc_of_one_class_is_not_a_number_and_logloss_takes_its_place(label):
    labels, probs = np.full(3, label, np.uint8), np.array([0.2, 0.5, 0.5])
    scores = score(labels, probs)
    assert np.isnan(scores.auc)
    assert scores.objective == -scores.logloss
    assert Scores(0.7, 0.4).objective == 0.7


def test_logloss_by_hand():
    labels, probs = np.array([1, 0, 1, 0], np.uint8), np.array([0.8, 0.8, 0.5, 0.1], np.float64)
    expected = -(np.log(0.8) + np.log(0.2) + np.log(0.5) + np.log(0.9)) / 4
    np.testing.assert_allclose(logloss(labels, probs), expected, rtol=1e-12)
    assert score(labels, probs).logloss == logloss(labels, probs)


def test_logloss_of_a_certain_mistake_is_finite():
    probs = np.array([0.0, 1.0], np.float32)
    np.testing.assert_allclose(logloss(np.array([1, 0]), probs), -np.log(1e-7), rtol=1e-7)
    np.testing.assert_allclose(logloss(np.array([0, 1]), probs), 1e-7, rtol=1e-6)


def test_scores_read_as_the_field_writes_them():
    assert str(Scores(0.78123, 0.37897)) == "AUC: 0.7812 - logloss: 0.3790"


@pytest.mark.parametrize("label", [0, 1])
def test_the_auc_of_one_class_is_said_to_be_none(label):
    scores = score(np.full(3, label, np.uint8), np.array([0.2, 0.5, 0.7], np.float32))
    words = f"not defined: all rows have label {label}"
    assert str(scores).startswith(f"AUC: {words} - logloss: ")
    assert scores.facts["only_label"] == label
    assert auc_text(scores.facts) == words
    both = score(np.array([0, 1], np.uint8), np.array([0.2, 0.5], np.float32))
    assert str(both).startswith("AUC: 1.0000 - ") and "only_label" not in both.facts


NAN = float("nan")


@pytest.mark.parametrize(
    ("labels", "probs", "words"),
    [
        ([-1, 1], [0.2, 0.7], r"label in row 0 is -1; .*use \(labels > 0\)\.astype\(np\.uint8\)"),
        ([0, 1, 5], [0.2, 0.7, 0.7], "label in row 2 is 5"),
        ([0, 0.5], [0.2, 0.7], r"label in row 1 is 0\.5"),
        ([0, NAN], [0.2, 0.7], "label in row 1 is nan"),
        ([[0], [1]], [0.2, 0.7], r"labels are int64 of the shape \[2, 1\]; .*labels\[:, i\]"),
        ([0, 1], [[0.8, 0.2], [0.3, 0.7]], r"probabilities are float64 of the shape \[2, 2\]"),
        (["0", "1"], [0.2, 0.7], "labels are <U1"),
        ([0, None], [0.2, 0.7], "labels are object"),
        (np.ma.masked_array([0, 1], [0, 1]), [0.2, 0.7], "none of them missing"),
        ([0, 1], ["a", "b"], "probabilities are <U1"),
        ([0, 1, 1], [0.2, 0.7], "3 labels and 2 probabilities"),
        ([], [], "0 labels and 0 probabilities"),
        ([0, 1, 1], [0.2, NAN, NAN], r"prediction in row 1 is nan, as are 66\.7% of all"),
        ([1, 0] * 6, [NAN] * 12, r"prediction in row 0 is nan, as are 100\.0% of all"),
    ],
)
@pytest.mark.parametrize("function", [auc, logloss, score])
def test_what_has_no_score_is_refused(function, labels, probs, words):
    with pytest.raises(InputError, match=words):
        function(
            labels if isinstance(labels, np.ma.MaskedArray) else np.array(labels), np.array(probs)
        )


@pytest.mark.parametrize("function", [auc, logloss, score])
def test_rows_of_several_lengths_have_no_score(function):
    with pytest.raises(InputError, match=r"probabilities are not an array \[n\] of numbers"):
        function([0, 1], [[0.1], [0.2, 0.3]])


@pytest.mark.parametrize("wrong", [-0.1, 1.5, float("inf")])
def test_a_logloss_is_of_probabilities_and_an_auc_of_any_order(wrong):
    labels, numbers = np.array([0, 1, 1]), np.array([0.5, 0.6, wrong])
    for function in (logloss, score):
        with pytest.raises(InputError, match=rf"probability in row 2 is {wrong}"):
            function(labels, numbers)
    assert auc(labels, numbers) == (0.5 if wrong < 0 else 1.0)


@pytest.mark.parametrize("kind", [bool, np.int8, np.float32, list])
def test_labels_of_any_kind_count_alike(kind):
    labels, probs = [0, 1, 0, 1], [0.1, 0.4, 0.4, 0.8]
    given = labels if kind is list else np.array(labels, kind)
    assert auc(given, probs) == 0.875
    assert logloss(given, probs) == logloss(np.array(labels), np.array(probs))

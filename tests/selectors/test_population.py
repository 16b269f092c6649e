from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ihas_jax.data.dataset import Split
from ihas_jax.models import build_model
from ihas_jax.models.base import FACTORS, Variables
from ihas_jax.models.forward import init_model
from ihas_jax.selectors.population import (
    class_counts,
    make_population_auc,
    prefix_masks,
)
from ihas_jax.training.metrics import DivergedError, auc

D = 4
KEY = jax.random.key(1)
pytestmark = pytest.mark.usefixtures("float64")


def test_a_width_of_w_shows_the_first_w_coordinates():
    found = prefix_masks(jnp.array([[1, 3], [2, 2]]), 3)
    expected = [[[1, 0, 0], [1, 1, 1]], [[1, 1, 0], [1, 1, 0]]]
    np.testing.assert_array_equal(found, expected)


def test_log_odds_fall_into_equal_bins_by_class_and_rows_that_do_not_count_into_none():
    width = 1 / 1024
    logits = np.array([[-20, -16, -16 + 1.5 * width, 0, 16 - width / 2, 99, 0], np.zeros(7)])
    labels = np.array([0, 1, 0, 1, 1, 1, 0], np.int32)
    valid = np.array([1, 1, 1, 1, 1, 1, 0], bool)
    found = np.asarray(class_counts(logits, labels, valid))
    assert found.shape == (2, 2, 1 << 15)
    expected = np.zeros_like(found)
    expected[0, 0, [0, 1]] = 1
    expected[0, 1, [0, 1 << 14, (1 << 15) - 1]] = 1, 1, 2
    expected[1, :, 1 << 14] = 2, 4
    np.testing.assert_array_equal(found, expected)


SIZES = (50, 30, 40)


def test_all_candidates_score_a_half_where_no_row_is_a_click(tiny):
    model = build_model(tiny.config.model, SIZES)
    score = make_population_auc(model, Split(np.zeros((8, 3), np.int32), np.zeros(8, np.uint8)))
    np.testing.assert_array_equal(score(init_model(KEY, model), np.array(WIDTHS[:2])), [0.5, 0.5])


@pytest.fixture(scope="module")
def trained(tiny):
    """A model with numbers of size one, some values removed, and rows for more than one batch."""
    with jax.enable_x64(True):
        model = build_model(dataclasses.replace(tiny.config.model, dim=D), SIZES)
        rng = np.random.default_rng(0)
        shapes = jax.eval_shape(lambda key: init_model(key, model), KEY).params
        params = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape), shapes)
        factors = (np.arange(120) % 4 > 0).astype(float)[:, None]
        ids = np.stack([rng.integers(size, size=5000) for size in SIZES], 1).astype(np.int32)
        labels = rng.integers(2, size=5000).astype(np.uint8)
        score = make_population_auc(model, Split(ids, labels))

        def scores(widths):
            variables = Variables(params, constants={FACTORS: {"width_4": factors}})
            return score(variables, np.array(widths, np.int32))

        yield scores, params, factors, ids, labels


def log_odds(params, factors, ids, widths):
    """The model's formula: rows of the table, cut off after each field's width, through the MLP."""
    x = (params["tables"]["embedding"]["width_4"] * factors)[ids + np.array([0, 50, 80])]
    x = np.where(np.arange(D) < np.array(widths)[:, None], x, 0).reshape(len(ids), -1)
    hidden, output = (params["network"]["mlp"][name] for name in ("hidden_0", "output"))
    x = np.maximum(x @ hidden["kernel"] + hidden["bias"], 0)
    return (x @ output["kernel"] + output["bias"])[:, 0]


def tied(labels, values):
    """Share of the pairs of a click and another row that have the same value."""
    same = np.unique(values, return_inverse=True)[1]
    others, clicks = (np.bincount(same[labels == k], minlength=same.max() + 1) for k in (0, 1))
    return (others * clicks).sum() / (others.sum() * clicks.sum())


WIDTHS = [[4, 4, 4], [1, 1, 1], [2, 4, 1], [3, 1, 2]]


def test_scores_of_a_population_are_aucs_up_to_pairs_in_the_same_bin(trained):
    scores, *parts, labels = trained
    found = scores(WIDTHS)
    assert found.dtype == np.float64
    for widths, score in zip(WIDTHS, found, strict=True):
        logits = log_odds(*parts, widths)
        bins = np.floor((logits + 16) * 1024)
        np.testing.assert_allclose(score, auc(labels, bins), rtol=1e-12)
        bound = (tied(labels, bins) - tied(labels, logits)) / 2
        assert abs(score - auc(labels, logits)) <= bound
        assert 0 < bound < 5e-4
    assert np.ptp(found) > 10 * bound


def test_a_candidate_scores_the_same_alone(trained):
    scores = trained[0]
    np.testing.assert_array_equal(scores(WIDTHS[2:3]), scores(WIDTHS)[2:3])


def test_a_model_that_diverged_has_no_scores(trained):
    scores, _, factors, *_ = trained
    before = factors[7, 0]
    factors[7, 0] = np.nan  # of the first field's value 7, whose first coordinate all widths see
    try:
        with pytest.raises(DivergedError, match=r"nan: .* --optimizer\.learning-rate"):
            scores(WIDTHS)
    finally:
        factors[7, 0] = before
    assert np.isfinite(scores(WIDTHS)).all()

"""Axes of trained models: what is counted, measured, predicted and recognised."""

from __future__ import annotations

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ihas_jax.config import ModelConfig
from ihas_jax.errors import InputError
from ihas_jax.models import build_model
from ihas_jax.models.base import EMBEDDING, FACTORS, Variables
from ihas_jax.models.cut import cut_network
from ihas_jax.models.forward import forward, init_model
from ihas_jax.nn.compact import slice_table
from ihas_jax.selectors.axes import find_axes
from ihas_jax.selectors.turning import turn
from ihas_jax.selectors.usage import count_values, logit_moments

SIZES, DIM, ROWS = (7, 12, 2, 5), 4, 600
STARTS = np.array([0, 7, 19, 21])


def draw(name, **choices):
    """A model of random weights, and rows in which the last values of a field do not occur."""
    choices = {"dim": DIM, "hidden": (3, 2)} | choices
    model = build_model(ModelConfig(name, **choices), SIZES)
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(lambda key: init_model(key, model), jax.random.key(0)).params
    params = jax.tree.map(
        lambda leaf: jnp.asarray(rng.normal(size=leaf.shape, scale=0.5), jnp.float32), shapes
    )
    columns = [np.minimum(rng.geometric(0.4, size=ROWS) - 1, max(0, s - 2)) for s in SIZES]
    ids = np.stack(columns, axis=1).astype(np.int32)
    ids[:, 2] = rng.integers(2, size=ROWS)
    return SimpleNamespace(model=model, variables=Variables(params), ids=ids)


@pytest.fixture(scope="module")
def dnn():
    return draw("dnn")


def arrays(variables):
    """The table, and the layers of the MLP, in float64."""
    (table,) = variables.params["tables"][EMBEDDING].values()
    layers = variables.params["network"]["mlp"]
    return np.asarray(table, float), jax.tree.map(lambda leaf: np.asarray(leaf, float), layers)


def units(table, layers, ids):
    """Pre-activations of the first layer, row by row from the definition."""
    first = layers["hidden_0"]
    flat = table[ids + STARTS].reshape(len(ids), -1)
    return flat @ first["kernel"] + first["bias"]


def test_values_are_counted_in_all_rows_or_in_some(dnn):
    for rows in (None, np.array([3, 5, 5, 100, 599])):
        some = dnn.ids if rows is None else dnn.ids[rows]
        expected = [int((some[:, n] == v).sum()) for n in range(4) for v in range(SIZES[n])]
        found = count_values(SIZES, dnn.ids, rows)
        assert found.tolist() == expected
    assert 0 in found


def test_chunks_of_rows_are_added_up(dnn, monkeypatch):
    expected = count_values(SIZES, dnn.ids)
    monkeypatch.setattr("ihas_jax.selectors.usage._CHUNK", 7)
    np.testing.assert_array_equal(count_values(SIZES, dnn.ids), expected)


def gradients(variables, ids):
    """Gradients of the logit `[n, N, D]` and the logits, by hand for the MLP of two layers."""
    table, layers = arrays(variables)
    z = units(table, layers, ids)
    second = np.maximum(z, 0) @ layers["hidden_1"]["kernel"] + layers["hidden_1"]["bias"]
    logits = (np.maximum(second, 0) @ layers["output"]["kernel"] + layers["output"]["bias"])[:, 0]
    back = (second > 0) * layers["output"]["kernel"][:, 0]
    back = (back @ layers["hidden_1"]["kernel"].T) * (z > 0)
    return (back @ layers["hidden_0"]["kernel"].T).reshape(len(ids), 4, DIM), logits


def test_moments_of_gradients_are_weighted_by_the_curvature_of_the_loss(dnn):
    slopes, logits = gradients(dnn.variables, dnn.ids)
    weights = 1 / (2 + np.exp(logits) + np.exp(-logits))
    expected = np.einsum("b,bnc,bnd->ncd", weights, slopes, slopes) / ROWS
    found = logit_moments(dnn.model, dnn.variables, dnn.ids)
    assert found.shape == (4, 1, DIM, DIM) and found.dtype == np.float64
    np.testing.assert_allclose(found[:, 0], expected, rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize("rows", [None, np.arange(100, 250)])
def test_the_predicted_loss_of_variance_is_the_measured_one(dnn, rows):
    axes = find_axes(dnn.model, dnn.variables, dnn.ids, rows, by="weights")
    turned = turn(dnn.model, dnn.variables, axes)
    table, layers = arrays(turned)
    ids = dnn.ids if rows is None else dnn.ids[rows]
    rng = np.random.default_rng(3)
    for _ in range(10):
        mask = rng.random((4, DIM)) < 0.5
        for n in range(4):  # fields are correlated, so one at a time
            alone = np.ones((4, DIM), bool)
            alone[n] = mask[n]
            cut = table * np.repeat(alone, SIZES, axis=0)
            gaps = units(table, layers, ids) - units(cut, layers, ids)
            np.testing.assert_allclose(gaps.mean(axis=0), 0, atol=1e-6)
            cost = axes.importance[n].ravel()[~mask[n]].sum()
            assert cost == pytest.approx(gaps.var(axis=0).sum(), rel=1e-4)


def test_no_other_axes_of_a_field_lose_less_variance(dnn):
    axes = find_axes(dnn.model, dnn.variables, dnn.ids, by="weights")
    table, layers = arrays(dnn.variables)
    kernel = layers["hidden_0"]["kernel"].reshape(4, DIM, -1)
    for n in range(4):
        e = table[dnn.ids[:, n] + STARTS[n]]
        s = np.linalg.svd((e - e.mean(axis=0)) @ kernel[n] / np.sqrt(ROWS), compute_uv=False)
        tail = np.append(s**2, np.zeros(DIM - len(s)))
        np.testing.assert_allclose(axes.importance[n, 0], tail, rtol=1e-4, atol=1e-6)


def keep(case, variables, kept):
    """The logits of any ids by the model with some coordinates alone."""
    compact = build_model(ModelConfig("dnn", dim=DIM, hidden=(3, 2)), SIZES, kept=kept)
    shapes = jax.eval_shape(lambda key: init_model(key, compact), jax.random.key(0)).params
    params = variables.params
    table = slice_table(case.model.embedding, params["tables"][EMBEDDING], compact.embedding)
    network = cut_network(case.model, compact, params["network"], shapes["network"])
    return forward(compact, Variables({"tables": {EMBEDDING: table}, "network": network}), case.ids)


@pytest.mark.parametrize("by", ["loss", "weights"])
def test_a_planted_rank_is_recognised_and_costs_nothing_to_cut_to(dnn, by):
    rng = np.random.default_rng(1)
    parts = [rng.normal(size=(s, 2)) @ rng.normal(size=(2, DIM)) + 1 for s in SIZES]
    table = {"width_4": jnp.asarray(np.concatenate(parts), jnp.float32)}
    variables = Variables(dnn.variables.params | {"tables": {EMBEDDING: table}})
    axes = find_axes(dnn.model, variables, dnn.ids, by=by)
    worth = axes.importance[:, 0]
    # two values differ in one direction, more in two
    ranks = (worth > 1e-10 * worth.max()).sum(axis=1)
    assert ranks.tolist() == [2, 2, 1, 2]
    assert worth[:, 2:].max() < 1e-12 * worth.max()
    cut = keep(dnn, turn(dnn.model, variables, axes), tuple(tuple(range(r)) for r in ranks))
    whole = forward(dnn.model, variables, dnn.ids).logits
    np.testing.assert_allclose(cut.logits, whole, rtol=1e-5, atol=1e-5)


def test_axes_that_no_unit_reads_are_worth_nothing():
    case = draw("dnn", hidden=(2,))
    axes = find_axes(case.model, case.variables, case.ids, by="weights")
    worth = axes.importance[:, 0]
    assert worth[:, 1].min() >= 0 and worth[:2, 1].min() > 1e-4
    assert worth[:, 2:].max() < 1e-12


def test_a_model_of_inner_products_is_measured_about_the_means():
    case = draw("fm")
    axes = find_axes(case.model, case.variables, case.ids)
    turned = turn(case.model, case.variables, axes)
    (table,) = turned.params["tables"][EMBEDDING].values()
    e = np.asarray(table, float)[case.ids + STARTS]  # [n, N, D]
    np.testing.assert_allclose(e.mean(axis=0), 0, atol=1e-6)
    logits = np.asarray(forward(case.model, turned, case.ids).logits, float)
    weights = 1 / (2 + np.exp(logits) + np.exp(-logits))
    for n in range(4):
        others = e.sum(axis=1) - e[:, n]
        read = (weights[:, None] * others**2).mean(axis=0)
        np.testing.assert_allclose(
            axes.importance[n, 0], (e[:, n] ** 2).mean(axis=0) * read, rtol=1e-3, atol=1e-7
        )


def test_the_sample_for_the_curvature_is_spread_over_the_rows(dnn, monkeypatch):
    seen = []
    monkeypatch.setattr("ihas_jax.selectors.usage._SAMPLE", 100)
    monkeypatch.setattr(
        "ihas_jax.selectors.usage.logit_moments",
        lambda model, variables, ids: seen.append(ids) or logit_moments(model, variables, ids),
    )
    find_axes(dnn.model, dnn.variables, dnn.ids)
    find_axes(dnn.model, dnn.variables, dnn.ids, np.arange(50, 350))
    np.testing.assert_array_equal(seen[0], dnn.ids[::6])
    np.testing.assert_array_equal(seen[1], dnn.ids[50:350:3])


def test_what_has_no_axes_is_refused(dnn):
    with pytest.raises(ValueError, match="need rows"):
        find_axes(dnn.model, dnn.variables, dnn.ids, np.array([], int))
    factors = dnn.variables._replace(constants={FACTORS: {"width_4": jnp.ones((26, 1))}})
    compact = build_model(ModelConfig("dnn", dim=DIM, hidden=(3, 2)), SIZES, kept=((0,),) * 4)
    axes = find_axes(dnn.model, dnn.variables, dnn.ids)
    for model, variables in ((dnn.model, factors), (compact, dnn.variables)):
        with pytest.raises(ValueError, match="uniform table without factors"):
            find_axes(model, variables, dnn.ids)
        with pytest.raises(ValueError, match="uniform table without factors"):
            turn(model, variables, axes)
    fm = draw("fm")
    with pytest.raises(InputError, match="linear units alone"):
        find_axes(fm.model, fm.variables, fm.ids, by="weights")


def test_turning_leaves_other_arrays_alone(dnn):
    params = dnn.variables.params | {"selector": {"theta": jnp.ones(3)}}
    axes = find_axes(dnn.model, dnn.variables, dnn.ids)
    turned = turn(dnn.model, Variables(params, {"a": 1}), axes)
    assert turned.params["selector"] is params["selector"] and turned.stats == {"a": 1}
    first = turned.params["network"]["mlp"]["hidden_1"]
    np.testing.assert_array_equal(first["kernel"], params["network"]["mlp"]["hidden_1"]["kernel"])

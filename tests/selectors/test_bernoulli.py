from __future__ import annotations

import dataclasses
from functools import partial
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import expit

from ihas_jax.config import ClusterConfig, GateConfig
from ihas_jax.errors import InputError
from ihas_jax.models.forward import Lookup
from ihas_jax.nn.gates import half_product, select_gates
from ihas_jax.selectors.base import Recipe, Weights
from ihas_jax.selectors.bernoulli import BernoulliGates, build_bernoulli, field_costs

N, D, K = 3, 2, 6
E = np.random.default_rng(0).normal(size=(8, N, D))
KEY = jax.random.key(1)
pytestmark = pytest.mark.usefixtures("float64")


@partial(jax.jit, static_argnums=0)
def sample(gates, params, embeddings, key, first_row=0):
    """Embeddings after a stochastic selection, and the penalty."""
    places = jnp.zeros(embeddings.shape[:2], jnp.int32)
    return gates.sample(Weights(params), Lookup(embeddings, places, first_row), key)[:2]


def select(gates, params, embeddings):
    """The deterministic selection: vectors and masks, and what is behind them."""
    places = jnp.zeros(embeddings.shape[:2], jnp.int32)
    selected = jax.jit(gates.select)(Weights(params), Lookup(embeddings, places))
    assert selected.penalty == 0
    return SimpleNamespace(vectors=selected.vectors, masks=selected.masks, **selected.shown)


def make(**options):
    """A selector, and parameters of its shapes with numbers of size one."""
    gates = BernoulliGates(GateConfig(**options), K)
    rng = np.random.default_rng(2)
    fresh = jax.eval_shape(gates.init, KEY).gates
    return gates, jax.tree.map(lambda leaf: rng.normal(size=leaf.shape), fresh)


def test_probabilities_are_the_sigmoid_of_a_linear_layer():
    gates, params = make()
    layer = params["linear"]
    assert layer["kernel"].shape == (K, K) and layer["bias"].shape == (K,)
    expected = expit(E.reshape(8, K) @ layer["kernel"] + layer["bias"])
    found = select(gates, params, E)
    np.testing.assert_allclose(found.probs, expected, rtol=1e-12)
    assert np.ptp(expected, axis=0).min() > 0.1


@pytest.mark.parametrize("options", [{"threshold": "guarded"}, {"threshold": "literal", "bins": 9}])
def test_selection_multiplies_by_the_mask_of_the_configured_rule(options):
    gates, params = make(**options)
    found = select(gates, params, E)
    rule, bins = options["threshold"], options.get("bins", GateConfig.bins)
    masks, thresholds = select_gates(found.probs, rule=rule, bins=bins)
    np.testing.assert_array_equal(found.masks, masks)
    np.testing.assert_array_equal(found.thresholds, thresholds)
    np.testing.assert_array_equal(found.vectors, E * np.asarray(masks).reshape(8, N, D))
    assert 0 < found.masks.mean() < 1


def test_gates_may_see_inputs_at_unit_variance():
    gates, params = make(inputs="unit")
    fresh = jax.jit(gates.init)(KEY)
    lookup = Lookup(0.01 * E + 3.0, jnp.zeros(E.shape[:2], jnp.int32))
    flat = np.asarray(lookup.vectors).reshape(8, K)
    mean, var = flat.mean(axis=0), flat.var(axis=0)
    made = jax.jit(gates.sample)(Weights(params, stats=fresh.stats), lookup, KEY)
    running = made.stats["inputs"]
    np.testing.assert_allclose(running["mean"], 0.1 * mean, rtol=1e-6)
    np.testing.assert_allclose(running["var"], 0.9 + 0.1 * var, rtol=1e-6)
    unit = (flat - mean) / np.sqrt(var + 1e-5)
    masks = make()[0].sample(Weights(params), Lookup(unit.reshape(E.shape), None), KEY).vectors
    opened = np.asarray(masks) != 0
    np.testing.assert_array_equal(np.asarray(made.vectors) != 0, opened)
    stats = {"inputs": {"mean": mean, "var": var}}
    found = jax.jit(gates.select)(Weights(params, stats=stats), lookup).shown["probs"]
    layer = params["linear"]
    np.testing.assert_allclose(found, expit(unit @ layer["kernel"] + layer["bias"]), rtol=1e-6)


def test_sparsity_weighs_gates_by_what_their_fields_cost():
    assert field_costs((1, 4, 16), 0.5) == pytest.approx((3 / 7, 6 / 7, 12 / 7))
    gates, params = make(l0_weight=0.4, weight=1.0)
    dear = dataclasses.replace(gates, costs=(1.0, 3.0, 0.5))
    (_, plain), (_, weighed) = (sample(own, params, E, KEY) for own in (gates, dear))
    probs = select(gates, params, E).probs
    more = 0.4 * (probs @ np.repeat([0.0, 2.0, -0.5], D)).mean()
    assert float(weighed - plain) == pytest.approx(float(more))


def test_without_instance_wise_all_instances_have_one_vector():
    gates, params = make(instance_wise=False)
    assert jax.tree.map(jnp.shape, params) == {"vector": (K,)}
    found = select(gates, params, E)
    np.testing.assert_allclose(found.probs, np.tile(expit(params["vector"]), (8, 1)), rtol=1e-12)
    assert (found.masks == found.masks[0]).all()


def test_the_global_vector_starts_small_and_uniform():
    start = BernoulliGates(GateConfig(instance_wise=False), 400).init(KEY).gates["vector"]
    assert 0.99 / 20 < np.abs(start).max() <= 1 / 20
    assert abs(start.mean()) < 4 / 20 * np.sqrt(1 / 3 / 400)


@pytest.mark.parametrize("connected", [True, False])
def test_gradient_to_tables_decides_whether_gates_move_the_tables(connected):
    gates, params = make(gradient_to_tables=connected)
    upstream = np.random.default_rng(3).normal(size=E.shape)

    def selected(embeddings):
        out, _ = sample(gates, params, embeddings, KEY)
        return (upstream * out).sum()

    out, _ = sample(gates, params, E, KEY)
    masks = np.asarray(out) / E
    gradient = jax.jit(jax.grad(selected))(E)
    through_masks = np.abs(gradient - upstream * masks).max()
    assert through_masks > 0.1 if connected else through_masks < 1e-12


def test_the_gates_always_learn_from_the_loss():
    gates, params = make(gradient_to_tables=False)
    gradient = jax.grad(lambda p: sample(gates, p, E, KEY)[0].sum())(params)
    assert all(np.abs(leaf).max() > 0.01 for leaf in jax.tree.leaves(gradient))


def test_samples_open_each_gate_as_often_as_its_probability_says():
    gates, params = make()
    probs = np.asarray(select(gates, params, E).probs)
    draws = 4000

    @jax.jit
    def mean_mask(key):
        keys = jax.random.split(key, draws)
        return jax.vmap(lambda k: sample(gates, params, E, k)[0] / E)(keys).mean(axis=0)

    error = np.sqrt(probs * (1 - probs) / draws)
    assert (np.abs(mean_mask(KEY).reshape(8, K) - probs) < 4 * error).all()


def test_rows_of_a_part_of_the_batch_draw_as_in_the_whole():
    gates, params = make()
    whole, _ = sample(gates, params, E, KEY)
    second, _ = sample(gates, params, E[4:], KEY, 4)
    np.testing.assert_array_equal(second, whole[4:])


@pytest.mark.parametrize("polarization", [True, False])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_the_penalty_is_equation_5_times_its_weight(polarization, reduction):
    options = {"l0_weight": 0.3, "weight": 0.05, "polarization": polarization}
    gates, params = make(**options, reduction=reduction)
    p = np.asarray(select(gates, params, E).probs)
    deviation = np.abs(p - p.mean(axis=1, keepdims=True)) if polarization else 0
    total = 0.05 * (0.3 * p - deviation).sum()
    _, found = sample(gates, params, E, KEY)
    np.testing.assert_allclose(found, total if reduction == "sum" else total / 8, rtol=1e-12)
    heavier = BernoulliGates(dataclasses.replace(gates.config, weight=0.1), K)
    np.testing.assert_allclose(sample(heavier, params, E, KEY)[1], 2 * found)


def test_bfloat16_rounds_the_factors_of_the_product_and_nothing_else():
    gates, params = make(matmul="bfloat16")

    def rounded(array):
        return np.asarray(jnp.asarray(array, jnp.bfloat16), np.float64)

    layer = params["linear"]
    logits = rounded(E.reshape(8, K)) @ rounded(layer["kernel"]) + layer["bias"]
    found = select(gates, params, E)
    np.testing.assert_allclose(found.probs, expit(logits), rtol=1e-6)
    assert not np.allclose(found.probs, select(*make(), E).probs, rtol=1e-4)


@pytest.mark.parametrize("matmul", ["float32", "bfloat16"])
def test_a_matrix_of_small_rank_is_a_product(matmul):
    gates, params = make(rank=2, matmul=matmul)
    layer = params["linear"]
    shapes = {name: part.shape for name, part in layer.items()}
    assert shapes == {"factor": (K, 2), "kernel": (2, K), "bias": (K,)}
    logits = E.reshape(8, K) @ (layer["factor"] @ layer["kernel"]) + layer["bias"]
    found = select(gates, params, E)
    tolerance = 1e-10 if matmul == "float32" else 0.1
    np.testing.assert_allclose(found.probs, expit(logits), rtol=tolerance)
    if matmul == "bfloat16":
        assert not np.allclose(found.probs, expit(logits), rtol=1e-4)


@pytest.mark.parametrize("rank", [None, 1, 20])
def test_first_logits_vary_as_those_of_the_whole_matrix(rank):
    """The variance of a logit is |x|^2 / 3K from the matrix, and 1 / 3K from the bias."""
    coordinates = 60
    gates = BernoulliGates(GateConfig(rank=rank), coordinates)
    x = np.random.default_rng(4).normal(size=(1, coordinates))
    keys = jax.random.split(KEY, 2000)
    logits = jax.vmap(lambda key: gates.logits(gates.init(key).gates, jnp.asarray(x)))(keys)
    expected = ((x**2).sum() + 1) / (3 * coordinates)
    np.testing.assert_allclose(np.var(logits), expected, rtol=0.05)
    assert abs(np.mean(logits)) < 0.02


def test_a_rank_that_saves_nothing_is_refused(tiny):
    options = GateConfig(rank=3)
    with pytest.raises(InputError, match=r"--gates.rank 3 has as many numbers as the whole matrix"):
        build_bernoulli(tiny.config.having(options), tiny.model, 20)
    build_bernoulli(tiny.config.having(dataclasses.replace(options, rank=2)), tiny.model, 20)


def test_bfloat16_rounds_the_factors_of_the_gradients_products_too():
    rng = np.random.default_rng(3)
    x, y, g = (rng.normal(size=shape) for shape in ((8, 6), (6, 5), (8, 5)))

    def rounded(array):
        return np.asarray(jnp.asarray(array, jnp.bfloat16), np.float64)

    product, pull_back = jax.vjp(half_product, x, y)
    np.testing.assert_allclose(product, rounded(x) @ rounded(y), rtol=1e-6)
    for found, a, b in zip(pull_back(g), (g, x.T), (y.T, g), strict=True):
        assert found.dtype == x.dtype
        np.testing.assert_allclose(found, rounded(a) @ rounded(b), rtol=1e-6)


def test_the_search_is_bilevel_and_needs_rows_for_its_clusters(tiny):
    config = tiny.config.having(ClusterConfig(clusters=5, batch_rows=30))
    gates = build_bernoulli(config, tiny.model, 20)
    assert gates == BernoulliGates(config.of(GateConfig), K, config.of(ClusterConfig))
    assert gates.recipe == Recipe(gate_batches="validation")
    gates.check(5)
    with pytest.raises(InputError, match=r"--cluster\.clusters 5 is more than the 4 rows"):
        gates.check(4)
    small = dataclasses.replace(gates, cluster=ClusterConfig(clusters=31, batch_rows=30))
    with pytest.raises(InputError, match=r"31 is more than the 30 rows .* --cluster\.batch-rows"):
        small.check(1000)

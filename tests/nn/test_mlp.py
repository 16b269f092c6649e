from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ihas_jax.nn.mlp import MLP, Linear

X = np.random.default_rng(0).normal(size=(32, 6))


def reference(variables, x, batch_norm, train):
    """The network in NumPy, layer by layer."""
    params = variables["params"]
    for i in range(2):
        x = x @ params[f"hidden_{i}"]["kernel"] + params[f"hidden_{i}"]["bias"]
        if batch_norm:
            stats, norm = variables["batch_stats"][f"norm_{i}"], params[f"norm_{i}"]
            mean, var = (x.mean(axis=0), x.var(axis=0)) if train else (stats["mean"], stats["var"])
            x = (x - mean) / np.sqrt(var + 1e-5) * norm["scale"] + norm["bias"]
        x = np.maximum(x, 0)
    return (x @ params["output"]["kernel"] + params["output"]["bias"])[:, 0]


def scrambled(mlp):
    """Float64 parameters with every number away from where it starts."""
    variables = jax.jit(lambda key: mlp.init(key, X, train=False))(jax.random.key(0))
    rng = np.random.default_rng(1)
    return jax.tree.map(
        lambda leaf: np.float64(leaf) + rng.uniform(0.1, 0.5, leaf.shape), variables
    )


def test_without_batch_norm_it_is_what_numpy_computes(float64):
    mlp = MLP((5, 4))
    variables = scrambled(mlp)
    expected = reference(variables, X, batch_norm=False, train=False)
    assert expected.shape == (32,) and expected.std() > 0.1
    for train in (False, True):
        found = jax.jit(lambda v, train=train: mlp.apply(v, X, train=train))(variables)
        np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_batch_norm_uses_the_running_statistics_in_evaluation_and_the_batch_in_training(float64):
    mlp = MLP((5, 4), batch_norm=True)
    variables = scrambled(mlp)
    expected = reference(variables, X, batch_norm=True, train=False)
    evaluate = jax.jit(lambda v: mlp.apply(v, X, train=False))
    np.testing.assert_allclose(evaluate(variables), expected, rtol=1e-10)
    train = jax.jit(lambda v: mlp.apply(v, X, train=True, mutable=["batch_stats"]))
    logits, updated = train(variables)
    expected = reference(variables, X, batch_norm=True, train=True)
    # flax computes the variance as E[x^2] - E[x]^2
    np.testing.assert_allclose(logits, expected, rtol=1e-9)
    layer = variables["params"]["hidden_0"]
    hidden = X @ layer["kernel"] + layer["bias"]
    old, new = variables["batch_stats"]["norm_0"], updated["batch_stats"]["norm_0"]
    # the running variance takes the biased one
    for name, batch in {"mean": hidden.mean(axis=0), "var": hidden.var(axis=0)}.items():
        np.testing.assert_allclose(new[name], 0.9 * old[name] + 0.1 * batch, rtol=1e-9)


def assert_uniform(values, bound):
    """Statistics of uniforms on [-bound, bound], by the standard errors of their moments."""
    unit = np.asarray(values, np.float64).ravel() / bound
    assert np.abs(unit).max() <= 1
    assert abs(unit.mean()) < 4 * np.sqrt(1 / 3 / unit.size)
    assert abs((unit**2).mean() - 1 / 3) < 4 * np.sqrt((1 / 5 - 1 / 9) / unit.size)


def test_a_linear_layer_starts_as_in_torch():
    params = Linear(300).init(jax.random.key(0), jnp.zeros((1, 100)))["params"]["linear"]
    assert params["kernel"].shape == (100, 300)
    assert_uniform(params["kernel"], 0.1)
    assert_uniform(params["bias"], 0.1)


@pytest.fixture(scope="module", params=["balanced", "torch"])
def fresh(request):
    mlp = MLP((400, 500), init_rule=request.param, prior=-1.5)
    init = jax.jit(lambda key: mlp.init(key, jnp.zeros((1, 25)), train=False))
    return request.param, init(jax.random.key(0))["params"]


def test_weights_start_within_one_over_root_fan_in(fresh):
    _, params = fresh
    assert_uniform(params["hidden_0"]["kernel"], 1 / 5)
    assert_uniform(params["hidden_1"]["kernel"], 1 / 20)
    assert_uniform(params["output"]["kernel"], 500**-0.5)


def test_biases_start_as_in_torch_or_at_zero_and_the_prior(fresh):
    rule, params = fresh
    if rule == "torch":
        assert_uniform(params["hidden_0"]["bias"], 1 / 5)
        assert_uniform(params["hidden_1"]["bias"], 1 / 20)
        assert abs(params["output"]["bias"][0]) <= 500**-0.5
    else:
        assert not np.asarray(params["hidden_0"]["bias"]).any()
        assert not np.asarray(params["hidden_1"]["bias"]).any()
        np.testing.assert_array_equal(params["output"]["bias"], [-1.5])


def test_balanced_output_weights_alternate_in_sign(fresh):
    rule, params = fresh
    signs = np.sign(np.asarray(params["output"]["kernel"])[:, 0])
    if rule == "balanced":
        np.testing.assert_array_equal(signs, np.tile([1, -1], 250))
    else:
        assert abs(signs.sum()) < 4 * np.sqrt(500)
        assert (signs[1:] == signs[:-1]).any()


def test_an_input_of_zeros_gets_the_prior():
    mlp = MLP((5, 4), prior=0.7)
    variables = mlp.init(jax.random.key(0), X, train=False)
    np.testing.assert_array_equal(
        mlp.apply(variables, np.zeros_like(X), train=False), np.full(32, np.float32(0.7))
    )


def test_without_the_output_layer_it_returns_the_last_hidden_units():
    mlp = MLP((5, 4), output=False)
    variables = mlp.init(jax.random.key(0), X, train=False)
    hidden = mlp.apply(variables, X, train=False)
    assert hidden.shape == (32, 4) and "output" not in variables["params"]
    assert (np.asarray(hidden) >= 0).all()


def test_dropout_drops_the_stated_share_in_training_only():
    mlp = MLP((1000,), dropout=0.2, output=False)
    x = np.ones((20, 3), np.float32)
    variables = mlp.init(jax.random.key(0), x, train=False)
    kept = np.asarray(mlp.apply(variables, x, train=False))
    rngs = {"dropout": jax.random.key(1)}
    dropped = np.asarray(mlp.apply(variables, x, train=True, rngs=rngs))
    alive = kept > 0
    survived = dropped[alive] > 0
    assert abs(survived.mean() - 0.8) < 4 * np.sqrt(0.16 / survived.size)
    np.testing.assert_allclose(dropped[alive][survived], kept[alive][survived] / 0.8, rtol=1e-6)

"""A bias in front of a batch norm has a gradient of exactly zero, and all else is as it was."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from ihas_jax.nn import mlp
from ihas_jax.nn.mlp import MLP


@pytest.mark.parametrize("rule", ["torch", "balanced"])
def test_gradients_are_those_of_the_usual_layer_but_the_biases(monkeypatch, rule):
    x = jax.random.normal(jax.random.key(0), (64, 5))
    network = MLP((7, 6), batch_norm=True, init_rule=rule)

    def loss_and_gradients():
        variables = network.init(jax.random.key(1), x, train=True)

        def loss(params):
            out, _ = network.apply(
                variables | {"params": params}, x, train=True, mutable=["batch_stats"]
            )
            return jnp.sum(jnp.tanh(out) * x[:, 0])

        return variables, *jax.jit(jax.value_and_grad(loss))(variables["params"])

    variables, value, gradients = loss_and_gradients()
    monkeypatch.setattr(mlp, "DenseBeforeNorm", nn.Dense)
    usual, usual_value, expected = loss_and_gradients()
    jax.tree.map(np.testing.assert_array_equal, variables, usual)
    np.testing.assert_allclose(value, usual_value, rtol=1e-6)
    for name in ("hidden_0", "hidden_1"):
        assert not np.asarray(gradients[name]["bias"]).any()
        assert 0 < np.abs(expected[name]["bias"]).max() < 1e-4  # noise
        expected[name]["bias"] = gradients[name]["bias"]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), gradients, expected)


def test_a_bias_counts_where_no_norm_follows():
    x = jax.random.normal(jax.random.key(0), (64, 5))
    network = MLP((7,))
    variables = network.init(jax.random.key(1), x, train=True)
    gradients = jax.grad(lambda v: network.apply(v, x, train=True).sum())(variables)
    assert np.abs(gradients["params"]["hidden_0"]["bias"]).min() > 0.01

"""A model with a network for each group of rows, beside the models of the groups one by one."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ihas_jax.config import ModelConfig
from ihas_jax.models import MODELS, build_model
from ihas_jax.models.base import GROUPS, NETWORK
from ihas_jax.models.forward import forward, init_model
from ihas_jax.models.grouped import grouped_model, network_of, stack_networks

SIZES, GROUP_COUNT, FIELD = (4, 7, 3), 3, 1


@pytest.fixture(scope="module", params=sorted(MODELS))
def case(request):
    """A grouped model, its variables, rows, and the group of each row."""
    config = ModelConfig(
        request.param, dim=4, hidden=(6, 3), batch_norm=True, finalmlp_heads=1, afn_neurons=5
    )
    model = build_model(config, SIZES, click_rate=0.3)
    variables = init_model(jax.random.key(0), model)
    variables = stack_networks(variables, GROUP_COUNT, 0.5, jax.random.key(1))
    rng = np.random.default_rng(0)
    ids = np.stack([rng.integers(size, size=50) for size in SIZES], axis=1).astype(np.int32)
    of_value = rng.integers(GROUP_COUNT, size=SIZES[FIELD]).astype(np.int32)
    groups = {"field": jnp.int32(FIELD), "of_value": jnp.asarray(of_value)}
    variables = variables._replace(constants={**variables.constants, GROUPS: groups})
    return model, variables, ids, of_value[ids[:, FIELD]]


def test_each_row_is_answered_by_the_network_of_its_group(case):
    model, variables, ids, group = case
    logits = forward(grouped_model(model, GROUP_COUNT), variables, ids).logits
    own = [forward(model, network_of(variables, g), ids).logits for g in range(GROUP_COUNT)]
    expected = np.stack(own)[group, np.arange(len(ids))]
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-6)
    assert len({*group.tolist()}) == GROUP_COUNT
    # a network of one bias has no deviation to draw noise by
    varied = any(leaf[0].size > 1 for leaf in jax.tree.leaves(variables.params[NETWORK]))
    assert (np.abs(own[0] - own[1]).max() > 1e-3) == varied


def test_a_group_moves_its_own_network_alone(case):
    model, variables, ids, group = case
    grouped = grouped_model(model, GROUP_COUNT)

    def loss(network):
        params = variables.params | {NETWORK: network}
        logits = forward(grouped, variables._replace(params=params), ids).logits
        return (logits * (group == 1)).sum()

    gradients = jax.tree.leaves(jax.grad(loss)(variables.params[NETWORK]))
    moved = np.stack([np.abs(leaf).reshape(GROUP_COUNT, -1).max(axis=1) for leaf in gradients])
    assert not moved[:, [0, 2]].any() and moved[:, 1].any()


def test_without_noise_all_networks_are_the_one_that_they_come_from():
    model = build_model(ModelConfig(dim=4, hidden=(6, 3), batch_norm=True), SIZES)
    variables = init_model(jax.random.key(0), model)
    stacked = stack_networks(variables, 2, 0.0, jax.random.key(1))
    for g in range(2):
        jax.tree.map(np.testing.assert_array_equal, network_of(stacked, g), variables)


def test_the_devices_of_an_axis_share_the_batches_of_a_grouped_model_too():
    model = build_model(ModelConfig(dim=4, hidden=(6,)), SIZES, axis_name="data")
    assert grouped_model(model, GROUP_COUNT).axis_name == model.axis_name == "data"

from __future__ import annotations

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ihas_jax.config import ModelConfig
from ihas_jax.models import build_model
from ihas_jax.models.base import EMBEDDING, apply_network, count_parameters, init_model, lookup_rows
from ihas_jax.nn.embedding import slice_table
from ihas_jax.training.steps import Batch, click_loss

LAYERS = {"hidden_0": "0", "hidden_1": "4", "output": "8"}
NORMS = {"norm_0": "1", "norm_1": "5"}


def as_params(arrays, prefix):
    """The parameters of the reference library's FNN under our names."""
    mlp = {}
    for ours, theirs in LAYERS.items():
        name = f"{prefix}/mlp.mlp.{theirs}"
        mlp[ours] = {"kernel": arrays[f"{name}.weight"].T, "bias": arrays[f"{name}.bias"]}
    for ours, theirs in NORMS.items():
        name = f"{prefix}/mlp.mlp.{theirs}"
        mlp[ours] = {"scale": arrays[f"{name}.weight"], "bias": arrays[f"{name}.bias"]}
    table = {"width_16": arrays[f"{prefix}/embedding.embedding.weight"]}
    return {"tables": {EMBEDDING: table}, "network": {"mlp": mlp}}


def as_batch_stats(arrays):
    return {
        "mlp": {
            ours: {
                "mean": arrays[f"w/mlp.mlp.{theirs}.running_mean"],
                "var": arrays[f"w/mlp.mlp.{theirs}.running_var"],
            }
            for ours, theirs in NORMS.items()
        }
    }


@pytest.fixture(scope="module")
def fnn(golden):
    """The reference FNN, its weights in our model, and what ours computes."""
    arrays = golden("fnn")
    sizes = tuple(int(size) for size in arrays["field_dims"])
    model = build_model(ModelConfig(batch_norm=True), sizes)
    params = jax.tree.map(jnp.asarray, as_params(arrays, "w"))
    stats = jax.tree.map(jnp.asarray, as_batch_stats(arrays))
    batch = Batch(arrays["ids"].astype(np.int32), arrays["labels"])
    key = jax.random.key(0)

    @jax.jit
    def compute(params):
        def loss_of(params):
            rows = lookup_rows(model, params["tables"], batch.ids)
            loss, _ = click_loss(model, params["network"], stats, rows, batch, key, None, None)
            return loss

        rows = lookup_rows(model, params["tables"], batch.ids)
        evaluated, _ = apply_network(model, params["network"], stats, rows)
        trained, _ = apply_network(model, params["network"], stats, rows, dropout_key=key)
        loss, gradients = jax.value_and_grad(loss_of)(params)
        return jax.nn.sigmoid(evaluated), jax.nn.sigmoid(trained), loss, gradients

    names = ("evaluated", "trained", "loss", "gradients")
    found = dict(zip(names, compute(params), strict=True))
    fresh = jax.eval_shape(lambda key: init_model(key, model), key)
    return SimpleNamespace(arrays=arrays, params=params, stats=stats, fresh=fresh, **found)


def test_the_reference_fnn_has_the_same_parameters(fnn):
    expected = jax.tree.map(jnp.shape, fnn.fresh)
    assert jax.tree.map(jnp.shape, (fnn.params, fnn.stats)) == expected


def test_probabilities_in_evaluation_are_those_of_the_reference(fnn):
    np.testing.assert_allclose(fnn.evaluated, fnn.arrays["prob_eval"], rtol=0, atol=2e-6)


def test_probabilities_and_loss_in_training_are_those_of_the_reference(fnn):
    np.testing.assert_allclose(fnn.trained, fnn.arrays["prob_train"], rtol=0, atol=2e-6)
    np.testing.assert_allclose(fnn.loss, fnn.arrays["loss_train"], rtol=0, atol=2e-6)


def test_the_gradient_of_every_parameter_is_that_of_the_reference(fnn):
    expected = as_params(fnn.arrays, "g")
    paths = jax.tree.leaves_with_path(fnn.gradients)
    assert len(paths) == 11
    for (path, found), want in zip(paths, jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(
            found, want, rtol=1e-5, atol=2e-6, err_msg=jax.tree_util.keystr(path)
        )
    assert np.abs(expected["tables"][EMBEDDING]["width_16"]).max() > 1e-4


def test_the_number_of_parameters_is_that_of_the_reference_fnn():
    # methods.md section 2: 22 fields, 13,328 values, d = 16, MLP (16, 16) with batch norm
    sizes = (13_328 - 21, *(1,) * 21)
    model = build_model(ModelConfig(hidden=(16, 16), batch_norm=True), sizes)
    params, _ = jax.eval_shape(lambda key: init_model(key, model), jax.random.key(0))
    assert count_parameters(params) == 219_249


SIZES, KEPT = (3, 4, 2, 5), ((0, 2), (), (1,), (0, 1, 2))
MASK = np.array([[j in field for j in range(3)] for field in KEPT], np.float32)
# the first layer's inputs of the compact model: by width, then field, then coordinate
COLUMNS = [9, 10, 11, 0, 2, 7]


def test_a_compact_model_equals_its_masked_full_size_twin():
    config = ModelConfig(dim=3, hidden=(4, 3))
    full = build_model(config, SIZES, click_rate=0.2)
    compact = build_model(config, SIZES, kept=KEPT, click_rate=0.2)
    rng = np.random.default_rng(0)
    ids = np.stack([rng.integers(size, size=20) for size in SIZES], axis=1).astype(np.int32)

    @jax.jit
    def compute(key):
        params, _ = init_model(key, full)
        table = slice_table(full.embedding, params["tables"][EMBEDDING], compact.embedding)
        mlp = params["network"]["mlp"]
        kernel = mlp["hidden_0"]["kernel"][np.array(COLUMNS)]
        twin = {
            "tables": {EMBEDDING: table},
            "network": {"mlp": mlp | {"hidden_0": mlp["hidden_0"] | {"kernel": kernel}}},
        }
        rows = lookup_rows(full, params["tables"], ids)
        rows[EMBEDDING]["width_3"] = rows[EMBEDDING]["width_3"] * MASK
        expected, _ = apply_network(full, params["network"], {}, rows)
        rows = lookup_rows(compact, twin["tables"], ids)
        found, _ = apply_network(compact, twin["network"], {}, rows)
        return params, twin, expected, found

    params, twin, expected, found = compute(jax.random.key(0))
    # equal but for the order in which a layer adds up its inputs
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert np.asarray(expected).std() > 0
    shapes, _ = jax.eval_shape(lambda key: init_model(key, compact), jax.random.key(0))
    assert jax.tree.map(jnp.shape, twin) == jax.tree.map(jnp.shape, shapes)
    removed = 3 * 1 + 4 * 3 + 2 * 2 + (12 - 6) * 4
    assert count_parameters(params) - count_parameters(shapes) == removed


def test_the_output_starts_at_the_log_odds_of_a_click():
    model = build_model(ModelConfig(dim=3, hidden=(4,)), SIZES, click_rate=0.2)
    params, _ = init_model(jax.random.key(0), model)
    np.testing.assert_allclose(
        params["network"]["mlp"]["output"]["bias"], np.log([0.2 / 0.8]), rtol=1e-6
    )
    even = build_model(ModelConfig(dim=3, hidden=(4,)), SIZES)
    params, _ = init_model(jax.random.key(0), even)
    np.testing.assert_array_equal(params["network"]["mlp"]["output"]["bias"], [0])

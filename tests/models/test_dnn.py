from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from ihas_jax.config import ModelConfig
from ihas_jax.models import build_model
from ihas_jax.models.base import EMBEDDING, apply_network, count_parameters, init_model, lookup_rows
from ihas_jax.nn.embedding import slice_table

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

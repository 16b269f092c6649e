"""Bundles with drawn weights, in memory, and their answers by ONNX."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import onnx
import onnxruntime

from ihas_jax.config import Config
from ihas_jax.data.schema import Field, Schema
from ihas_jax.models import build_model
from ihas_jax.models.forward import init_model
from ihas_jax.serving.bundle import Bundle, Served
from ihas_jax.serving.export.check import TOLERANCE
from ihas_jax.serving.export.onnx_model import onnx_model

SIZES = (3, 4, 2, 5, 3)
KEPT = ((0, 1), (), (0, 1, 2, 3), (2,), (0, 3))
SCHEMA = Schema("y", tuple(Field(f"f{n}", tuple("abcd"[: s - 1])) for n, s in enumerate(SIZES)))


def every_row():
    """Every combination of ids."""
    grid = np.meshgrid(*map(np.arange, SIZES), indexing="ij")
    return np.stack([part.ravel() for part in grid], axis=1).astype(np.int32)


def drawn(tree, seed=0):
    """The floats of a tree drawn anew: none is 0, no variance negative, and logits small."""
    rng = np.random.default_rng(seed)

    def draw(path, leaf):
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            return leaf
        numbers = 1.5 * rng.normal(size=leaf.shape) / max(3.0, leaf.size**0.25)
        if getattr(path[-1], "key", "") == "var":
            numbers = abs(numbers) + 0.5
        return jnp.asarray(numbers, leaf.dtype)

    return jax.tree.map_with_path(draw, tree)


def served(config, seed=0, **shape):
    """A click model with drawn weights."""
    model = build_model(config, SIZES, **shape)
    variables = init_model(jax.random.key(seed), model)
    params, stats = drawn((variables.params, variables.stats), seed)
    return Served(model, variables._replace(params=params, stats=stats), 1, 1)


def bundle_of(*models, config=None, **routed):
    """A bundle of models."""
    config = config or Config()
    return Bundle(config, config.model, SCHEMA, models, **routed)


def run_onnx(model, ids):
    """Probabilities and clusters of ids by onnxruntime."""
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    return session.run(["probability", "cluster"], {"ids": ids})


def assert_answers_as(bundle):
    """ONNX has the answers of the bundle, for any number of rows."""
    ids = every_row()
    expected = bundle.predict_ids(ids)
    model = onnx_model(bundle)
    for number in (len(ids), 1, 0):
        probs, clusters = run_onnx(model, ids[:number])
        assert (probs.dtype, clusters.dtype) == (np.float32, np.int32)
        np.testing.assert_allclose(probs, expected[:number], rtol=0, atol=TOLERANCE)
        np.testing.assert_array_equal(clusters, bundle.assign(ids[:number]))
    assert np.std(expected) > 1e-4

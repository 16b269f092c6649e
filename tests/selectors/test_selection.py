"""What a method chose makes a compact model that computes what the masked full-size one does."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ihas_jax.config import Config, ModelConfig
from ihas_jax.data.store import Split
from ihas_jax.method_config import AutoDimConfig, OptEmbedConfig
from ihas_jax.models import build_model
from ihas_jax.models.base import (
    EMBEDDING,
    FACTORS,
    SELECTOR,
    apply_network,
    count_parameters,
    cut_network,
    init_model,
    lookup_rows,
)
from ihas_jax.nn.embedding import slice_table
from ihas_jax.selectors.registry import build_selector
from ihas_jax.selectors.selection import Found, Selection, whole
from ihas_jax.stages.choose import folded
from ihas_jax.stages.cluster import majority_coordinates
from ihas_jax.stages.pretrain import predict
from ihas_jax.training.loop import Fitted

SIZES, DIM = (5, 3, 4), 4
V = sum(SIZES)
CONFIG = Config(
    model=ModelConfig(name="deepfm", dim=DIM, hidden=(5,), batch_norm=True, linear_init="normal"),
    autodim=AutoDimConfig(dims=(1, 2, 4)),
    optembed=OptEmbedConfig(generations=1, mutants=2, children=2, parents=2),
)
FULL = build_model(CONFIG.model, SIZES)
IDS = np.stack([np.arange(40) % size for size in SIZES], axis=1).astype(np.int32)
METHODS = ("ihas", "autofield", "autodim", "pep", "optembed", "optfs", "sseds", "dimreg")
pytestmark = pytest.mark.usefixtures("float64")


def draw(rng, shapes):
    """Weights of these shapes with variances above 0."""

    def leaf(path, shape):
        numbers = rng.normal(size=shape.shape)
        return abs(numbers) + 0.5 if getattr(path[-1], "key", "") == "var" else numbers

    return jax.tree.map_with_path(leaf, shapes)


def choose(method, rng):
    """What a method keeps of a model whose weights and gates are random numbers."""
    params, stats = draw(rng, jax.eval_shape(lambda: init_model(jax.random.key(0), FULL)))
    if method == "ihas":
        kept = majority_coordinates(rng.uniform(size=len(SIZES) * DIM), DIM, 0.5)
        return params, stats, Selection(kept)
    selector = build_selector(dataclasses.replace(CONFIG, method=method), FULL, 10)
    weights = draw(rng, jax.eval_shape(selector.init, jax.random.key(0)))
    searched = params | {SELECTOR: weights.gates}
    valid = Split(IDS, rng.integers(2, size=len(IDS)).astype(np.uint8))
    found = Found(FULL, searched, stats | {SELECTOR: weights.stats}, valid, jax.random.key(1))
    return params, stats, selector.choose(found)


@jax.jit
def masked(params, stats, mask):
    """Probabilities of the full-size model whose table is multiplied by `mask [V, D]`."""
    rows = lookup_rows(FULL, params["tables"], IDS)
    ((group, table),) = params["tables"][EMBEDDING].items()
    places = IDS + np.array([0, *np.cumsum(SIZES)[:-1]])
    rows[EMBEDDING] = {group: (table * mask)[places]}
    return jax.nn.sigmoid(apply_network(FULL, params["network"], stats, rows)[0])


def compact(params, stats, selection):
    """The compact model with its share of the weights."""
    model = build_model(CONFIG.model, SIZES, kept=selection.kept)
    like, _ = jax.eval_shape(lambda: init_model(jax.random.key(0), model))
    tables = {
        name: slice_table(FULL.tables[name], table, model.tables[name])
        for name, table in params["tables"].items()
    }
    network = cut_network(FULL, model, params["network"], like["network"])
    if selection.factors is not None:
        stats = stats | {FACTORS: selection.factor_table(model.embedding)}
    return model, {"tables": tables, "network": network}, stats


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("seed", range(2))
def test_the_compact_model_is_the_masked_full_size_model(method, seed):
    rng = np.random.default_rng(seed)
    params, stats, selection = choose(method, rng)
    mask = np.repeat(
        [[float(j in field) for j in range(DIM)] for field in selection.kept], SIZES, axis=0
    )
    if selection.factors is not None:
        mask = mask * selection.factors
    assert 0 < np.count_nonzero(mask) < V * DIM
    expected = masked(params, stats, mask)
    model, weights, own = compact(params, stats, selection)
    found = jax.jit(lambda p, s: predict(model, p, s, IDS))(weights, own)
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    fitted = Fitted(weights, own, None, [], 0.0)
    bare, rest = folded(model, fitted)
    assert FACTORS not in rest
    np.testing.assert_allclose(
        jax.jit(lambda p, s: predict(model, p, s, IDS))(bare, rest), expected, rtol=1e-12
    )
    left = count_parameters(weights) - model.embedding.parameters
    assert left + selection.parameters(FULL.embedding) == left + np.count_nonzero(mask)


@given(seed=st.integers(0, 10**6), columns=st.sampled_from([None, 1, DIM]))
def test_sizes_are_counted_alike_for_structure_and_masks(seed, columns):
    rng = np.random.default_rng(seed)
    kept = tuple(tuple(np.flatnonzero(rng.integers(2, size=DIM)).tolist()) for _ in SIZES)
    factors = None if columns is None else rng.integers(2, size=(V, columns)).astype(np.float32)
    selection = Selection(kept, factors)
    mask = np.repeat([[j in field for j in range(DIM)] for field in kept], SIZES, axis=0)
    mask = mask * (np.ones((V, 1)) if factors is None else factors)
    spec = FULL.embedding
    by_field = [int(part.sum()) for part in np.split(mask, np.cumsum(SIZES)[:-1])]
    assert selection.parameters_by_field(spec) == by_field
    bits = 0 if factors is None else factors.size
    assert selection.bytes(spec) == 4 * mask.sum() + (bits + 7) // 8


def test_all_coordinates_are_the_whole():
    assert whole(FULL.embedding) == ((0, 1, 2, 3),) * 3
    assert Selection(whole(FULL.embedding)).parameters(FULL.embedding) == V * DIM

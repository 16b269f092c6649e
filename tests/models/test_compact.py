"""A compact model is its full-size twin with masked rows, for every click model."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from ihas_jax.config import ModelConfig
from ihas_jax.errors import InputError
from ihas_jax.models import build_model
from ihas_jax.models.base import EMBEDDING, Model, Variables, count_parameters
from ihas_jax.models.cut import cut_network
from ihas_jax.models.forward import Transformed, forward, init_model
from ihas_jax.nn.compact import slice_table
from ihas_jax.nn.embedding import EmbeddingSpec

SIZES, DRAWS = (3, 4, 2, 5, 3), 2
MLP = {"mlp/hidden_0/kernel"}
CROSS = MLP | {"output/kernel", "crosses/bias_0", "crosses/bias_1"}
MATRIX = CROSS | {"crosses/weight_0", "crosses/weight_1"}
# weights that a compact model has fewer of, beside its embedding table
SHRINK = {
    "lr": set(),
    "fm": set(),
    "ffm": set(),
    "hofm": set(),
    "dnn": MLP,
    "wide_deep": MLP,
    "afm": set(),
    "nfm": set(),
    "ncf": MLP,
    "fnfm": set(),
    "ipnn": MLP,
    "opnn": MLP,
    "dcn": CROSS | {"crosses/weight_0", "crosses/weight_1"},
    "deepfm": MLP,
    "xdeepfm": MLP,
    "autoint": MLP,
    "afn": set(),
    "dcnv2": MATRIX,
    "finalmlp": {
        f"{name}/{leaf}"
        for stream in ("first", "second")
        for name, leaf in (
            (stream, "hidden_0/kernel"),
            (f"{stream}_gate", "output/kernel"),
            (f"{stream}_gate", "output/bias"),
        )
    },
    "masknet": set(),
    "gdcn": MATRIX | {"crosses/gate_0", "crosses/gate_1"},
}


def draw_kept(rng, spec):
    """One field removed, one whole, the others ragged."""
    removed, whole, *_ = rng.permutation(len(spec.sizes))
    kept = []
    for n in range(len(spec.sizes)):
        # vectors of one number can't be ragged
        number = rng.integers(1, spec.dim) if spec.dim > 1 else rng.integers(2)
        number = {removed: 0, whole: spec.dim}.get(n, number)
        kept.append(tuple(sorted(rng.permutation(spec.dim)[:number].tolist())))
    return tuple(kept)


def draw_weights(rng, model):
    """Weights without a zero, and statistics of batch norm, from float64 normals."""

    def draw(path, leaf):
        numbers = rng.normal(size=leaf.shape)
        return abs(numbers) + 0.5 if path[-1].key == "var" else numbers

    shapes = jax.eval_shape(lambda key: init_model(key, model), jax.random.key(0))
    return jax.tree.map_with_path(draw, shapes)


def names(tree):
    return ["/".join(entry.key for entry in path) for path, _ in jax.tree.leaves_with_path(tree)]


@pytest.fixture(scope="module")
def twins(small):
    return make_twins(dataclasses.replace(small, batch_norm=True))


def make_twins(config):
    """A full-size model with random weights, compact ones with their share, what both compute."""
    full = build_model(config, SIZES)
    rng = np.random.default_rng(7)
    ids = np.stack([rng.integers(size, size=16) for size in SIZES], axis=1).astype(np.int32)
    weights = rng.normal(size=16)

    def compute(model, params, stats, mask):
        def masked(variables, lookup, key):
            return Transformed(lookup.vectors * mask)

        def objective(params):
            variables, transform = Variables(params, stats), None if mask is None else masked
            trained = forward(model, variables, ids, transform, key=jax.random.key(0))
            evaluated = forward(model, variables, ids, transform).logits
            return trained.logits @ weights, (evaluated, trained)

        gradients, (evaluated, trained) = jax.grad(objective, has_aux=True)(params)
        return {
            "evaluated": evaluated,
            "trained": trained.logits,
            "stats": trained.stats,
            "grads": gradients,
        }

    compute = jax.jit(compute, static_argnums=0)
    draws = []
    with jax.enable_x64(True):
        for _ in range(DRAWS):
            kept = draw_kept(rng, full.embedding)
            compact = build_model(config, SIZES, kept=kept)
            spec, dim = compact.embedding, full.embedding.dim
            mask = np.array([[j in field for j in range(dim)] for field in kept], float)
            fresh = jax.eval_shape(
                lambda key, compact=compact: init_model(key, compact), jax.random.key(0)
            )
            shapes = fresh.params
            params, stats, _ = draw_weights(rng, full)
            found = {}
            if config.name == "dcn":
                found["biased"] = compute(full, params, stats, mask)
                for i in range(config.cross_layers):
                    # not in place: what is computed above may still have to read the same memory
                    crosses = params["network"]["crosses"]
                    crosses[f"bias_{i}"] = crosses[f"bias_{i}"] * mask.ravel()
            tables = dict(params["tables"])
            tables[EMBEDDING] = slice_table(full.embedding, tables[EMBEDDING], spec)
            network = cut_network(full, compact, params["network"], shapes["network"])
            twin = {"tables": tables, "network": network}
            assert jax.tree.map(jnp.shape, Variables(twin, stats)) == jax.tree.map(jnp.shape, fresh)
            found["full"] = compute(full, params, stats, mask)
            found["compact"] = compute(compact, twin, stats, None)
            found = jax.tree.map(np.asarray, found)
            draws.append(
                SimpleNamespace(model=compact, spec=spec, shapes=shapes, mask=mask, **found)
            )
        shapes = jax.eval_shape(lambda key: init_model(key, full), jax.random.key(0)).params
    return SimpleNamespace(name=config.name, full=full, shapes=shapes, draws=draws)


def assert_close(found, expected):
    """Equal but for the order of additions."""
    assert names(found) == names(expected)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert a.dtype == b.dtype == np.float64
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("mode", ["evaluated", "trained"])
def test_a_compact_model_has_the_logits_of_its_masked_full_size_twin(twins, mode):
    for draw in twins.draws:
        assert np.std(draw.full[mode]) > 0.01
        assert_close({"": draw.compact[mode]}, {"": draw.full[mode]})


@pytest.mark.parametrize("name", ["dnn", "wide_deep", "ncf", "opnn", *("dcn", "dcnv2", "gdcn")])
def test_a_compact_model_without_hidden_layers_is_its_masked_twin(name):
    for draw in make_twins(ModelConfig(name=name, dim=4, hidden=())).draws:
        assert_close(draw.compact["evaluated"], draw.full["evaluated"])


@pytest.mark.parametrize("name", ["dcnv2", "gdcn"])
def test_a_compact_model_with_crosses_of_low_rank_is_its_masked_twin(name):
    config = ModelConfig(name=name, dim=4, hidden=(8,), cross_layers=2, cross_rank=3)
    made = make_twins(config)
    crosses = made.shapes["network"]["crosses"]
    assert crosses["weight_0_in"].shape == (20, 3) and crosses["weight_0_out"].shape == (3, 20)
    for draw in made.draws:
        assert_close(draw.compact["evaluated"], draw.full["evaluated"])


def test_a_network_whose_axes_do_not_hold_the_coordinates_is_not_cut():
    class Folded(nn.Module):
        """Reads the coordinates in pairs of neighbours."""

        kernel: int

    def model(kept=None):
        spec = EmbeddingSpec(SIZES, 4, kept)
        return Model({EMBEDDING: spec}, Folded(spec.coordinates))

    kept = ((0, 1),) * len(SIZES)
    tree, like = {"kernel": jnp.zeros(15)}, {"kernel": jnp.zeros(8)}
    with pytest.raises(InputError, match=r"axis of 15 entries .* --retrain.start fresh"):
        cut_network(model(), model(kept), tree, like)


def test_training_leaves_a_compact_model_the_batch_statistics_of_its_twin(twins):
    for draw in twins.draws:
        assert_close(draw.compact["stats"], draw.full["stats"])


def test_kept_coordinates_get_the_gradients_that_they_get_in_the_twin(twins):
    for draw in twins.draws:
        found, expected = (dict(side["grads"]["tables"]) for side in (draw.compact, draw.full))
        (table,) = expected[EMBEDDING].values()
        removed = np.repeat(draw.mask == 0, SIZES, axis=0)
        assert removed.any() and not table[removed].any()
        with jax.enable_x64(True):
            sliced = slice_table(twins.full.embedding, expected[EMBEDDING], draw.spec)
        expected[EMBEDDING] = jax.tree.map(np.asarray, sliced)
        assert_close(found, expected)
        assert all(np.abs(leaf).max() > 1e-3 for leaf in jax.tree.leaves(found))


def test_network_weights_get_the_gradients_that_they_get_in_the_twin(twins):
    for draw in twins.draws:
        gradients, shapes = draw.full["grads"]["network"], draw.shapes["network"]
        expected = cut_network(twins.full, draw.model, gradients, shapes)
        assert_close(draw.compact["grads"]["network"], expected)


def test_a_compact_table_is_smaller_and_so_are_the_weights_that_meet_its_coordinates(twins):
    shapes, dim = twins.shapes, twins.full.embedding.dim
    assert count_parameters(shapes["tables"][EMBEDDING]) == sum(SIZES) * dim
    for draw in twins.draws:
        widths = draw.mask.sum(axis=1).astype(int)
        assert min(widths) == 0 and max(widths) == dim
        number = count_parameters(draw.shapes["tables"][EMBEDDING])
        assert number == np.dot(SIZES, widths) == draw.spec.parameters
        networks = shapes["network"], draw.shapes["network"]
        pairs = zip(*map(jax.tree.leaves, networks), names(networks[0]), strict=True)
        assert {name for full, compact, name in pairs if full.size > compact.size} == SHRINK[
            twins.name
        ]
        tables, fewer = dict(shapes["tables"]), dict(draw.shapes["tables"])
        assert tables.pop(EMBEDDING) != fewer.pop(EMBEDDING)
        assert tables == fewer


@pytest.mark.parametrize("small", ["dcn"], indirect=True)
@pytest.mark.parametrize("mode", ["evaluated", "trained"])
def test_a_cross_network_with_biases_at_removed_coordinates_has_no_compact_twin(twins, mode):
    for draw in twins.draws:
        assert np.abs(draw.biased[mode] - draw.compact[mode]).min() > 1e-3

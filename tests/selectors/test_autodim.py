from __future__ import annotations

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import softmax

from ihas_jax.config import ModelConfig
from ihas_jax.config.methods import AutoDimConfig
from ihas_jax.errors import InputError
from ihas_jax.models import build_model
from ihas_jax.models.forward import Lookup
from ihas_jax.nn.embedding import EmbeddingSpec
from ihas_jax.selectors.autodim import AutoDim, build_autodim
from ihas_jax.selectors.base import Recipe

SIZES, B, N, D, DIMS = (3, 2, 4), 6, 3, 4, (1, 3, 4)
SELECTOR = AutoDim(AutoDimConfig(dims=DIMS, anneal=1e-3), EmbeddingSpec(SIZES, D))
E = np.random.default_rng(0).normal(0.3, 0.7, size=(B, N, D))
KEY = jax.random.key(1)
pytestmark = pytest.mark.usefixtures("float64")


def lookup(embeddings):
    return Lookup(embeddings, np.zeros((len(embeddings), N), np.int32))


def numbers(steps):
    """Weights after so many steps with numbers of size one, variances positive."""
    rng = np.random.default_rng(2)
    fresh = jax.eval_shape(SELECTOR.init, KEY)
    weights = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape), fresh)
    for stats in weights.stats["norms"].values():
        stats["var"] = np.exp(stats["var"])
    return weights._replace(stats=weights.stats | {"steps": np.asarray(steps, np.int32)})


def reference(weights, embeddings, mix, *, train):
    """The weighted sum of candidates in NumPy, and the new statistics."""
    mixed, norms = np.zeros_like(embeddings), {}
    for k, size in enumerate(DIMS):
        layer, old = weights.layers[f"size_{size}"], weights.stats["norms"][f"size_{size}"]
        x = np.einsum("bnd,de->bne", embeddings[:, :, :size], layer["kernel"]) + layer["bias"]
        new = {"mean": x.mean(axis=(0, 1)), "var": x.var(axis=(0, 1))} if train else old
        norms[f"size_{size}"] = {name: 0.9 * old[name] + 0.1 * new[name] for name in old}
        x = (x - new["mean"]) / np.sqrt(new["var"] + 1e-5)
        mixed += mix[None, :, k, None] * x
    return mixed, norms


def assert_trees_close(found, expected):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10), found, expected)


def searched_mix(alpha, cooled):
    noise = np.asarray(jax.random.gumbel(KEY, alpha.shape))
    return softmax((alpha + noise) / cooled, axis=1)


sample, select = jax.jit(SELECTOR.sample), jax.jit(SELECTOR.select)


@pytest.mark.parametrize(("steps", "cooled"), [(0, 1.0), (400, 0.6), (5000, 0.01)])
def test_the_search_sums_normalised_candidates_by_noisy_weights(steps, cooled):
    weights = numbers(steps)
    sampled = sample(weights, lookup(E), KEY)
    mix = searched_mix(weights.gates["alpha"], cooled)
    embeddings, norms = reference(weights, E, mix, train=True)
    np.testing.assert_allclose(sampled.vectors, embeddings, rtol=1e-9)
    assert_trees_close(sampled.stats["norms"], norms)
    assert sampled.stats["steps"] == steps + 1 and sampled.stats["steps"].dtype == jnp.int32
    assert sampled.penalty == 0


@pytest.mark.parametrize(("steps", "cooled"), [(0, 1.0), (400, 0.6)])
def test_evaluation_has_no_noise_and_running_statistics(steps, cooled):
    weights = numbers(steps)
    selected = select(weights, lookup(E))
    mix = softmax(weights.gates["alpha"] / cooled, axis=1)
    expected, _ = reference(weights, E, mix, train=False)
    np.testing.assert_allclose(selected.vectors, expected, rtol=1e-10)
    np.testing.assert_array_equal(selected.masks, np.ones((B, N * D)))


def test_pretraining_has_equal_weights_and_does_not_move_the_clock():
    weights = numbers(7)._replace(gates={})
    trained = jax.jit(SELECTOR.pretrain)(weights, lookup(E), KEY)
    mix = np.full((N, len(DIMS)), 1 / 3)
    embeddings, norms = reference(weights, E, mix, train=True)
    np.testing.assert_allclose(trained.vectors, embeddings, rtol=1e-10)
    assert_trees_close(trained.stats, {"norms": norms, "steps": 7})
    expected, _ = reference(weights, E, mix, train=False)
    evaluated = SELECTOR.pretrain(weights, lookup(E), None)
    np.testing.assert_allclose(evaluated.vectors, expected, rtol=1e-10)


def differences(f, x, step=1e-6):
    """The gradient of f at x by central differences."""
    gradient = np.zeros_like(x)
    for i in np.ndindex(x.shape):
        shift = np.zeros_like(x)
        shift[i] = step
        gradient[i] = (f(x + shift) - f(x - shift)) / (2 * step)
    return gradient


def test_alpha_layers_and_embeddings_learn_from_the_sum():
    weights, upstream = numbers(400), np.random.default_rng(3).normal(size=E.shape)

    @jax.jit
    @partial(jax.grad, argnums=(0, 1, 2))
    def gradient(embeddings, gates, layers):
        moved = weights._replace(gates=gates, layers=layers)
        return (upstream * SELECTOR.sample(moved, lookup(embeddings), KEY).vectors).sum()

    def total(embeddings=E, alpha=weights.gates["alpha"], layers=weights.layers):
        moved = weights._replace(layers=layers)
        mix = searched_mix(alpha, 0.6)
        return (upstream * reference(moved, embeddings, mix, train=True)[0]).sum()

    to_embeddings, to_gates, to_layers = gradient(E, weights.gates, weights.layers)
    np.testing.assert_allclose(to_embeddings, differences(total, E), atol=1e-7)
    alpha = differences(lambda a: total(alpha=a), weights.gates["alpha"])
    np.testing.assert_allclose(to_gates["alpha"], alpha, atol=1e-7)
    layer = weights.layers["size_3"]
    kernel = differences(
        lambda k: total(layers=weights.layers | {"size_3": layer | {"kernel": k}}), layer["kernel"]
    )
    np.testing.assert_allclose(to_layers["size_3"]["kernel"], kernel, atol=1e-7)
    assert np.abs(alpha).max() > 0.01 and np.abs(kernel).max() > 0.01


def test_a_batch_split_across_devices_is_treated_as_a_whole():
    selector, weights = SELECTOR.with_axis("devices"), numbers(0)

    @jax.jit
    @partial(jax.vmap, axis_name="devices")
    def split(embeddings):
        return selector.sample(weights, lookup(embeddings), KEY)

    sampled = split(E.reshape(2, B // 2, N, D))
    mix = searched_mix(weights.gates["alpha"], 1.0)
    embeddings, norms = reference(weights, E, mix, train=True)
    np.testing.assert_allclose(sampled.vectors.reshape(E.shape), embeddings, rtol=1e-10)
    for device in range(2):
        found = jax.tree.map(lambda leaf, i=device: leaf[i], sampled.stats["norms"])
        assert_trees_close(found, norms)


def test_fresh_fields_prefer_no_size_and_layers_are_torchs():
    selector = AutoDim(AutoDimConfig(dims=(4, 16)), EmbeddingSpec(SIZES, 40))
    fresh = jax.jit(selector.init)(KEY)
    np.testing.assert_array_equal(fresh.gates["alpha"], np.zeros((N, 2)))
    assert fresh.layers.keys() == fresh.stats["norms"].keys() == {"size_4", "size_16"}
    for size in (4, 16):
        layer, norm = fresh.layers[f"size_{size}"], fresh.stats["norms"][f"size_{size}"]
        assert layer["kernel"].shape == (size, 40) and layer["bias"].shape == (40,)
        for leaf in layer.values():
            assert 0.8 * size**-0.5 < np.abs(leaf).max() <= size**-0.5
        np.testing.assert_array_equal(norm["mean"], np.zeros(40))
        np.testing.assert_array_equal(norm["var"], np.ones(40))
    assert fresh.stats["steps"] == 0
    # or the search would be compiled a second time
    assert not any(leaf.weak_type for leaf in jax.tree.leaves(fresh))


def test_each_field_keeps_its_best_size_and_of_equal_ones_the_smallest(choose):
    alpha = jnp.array([[0.1, 0.3, 0.2], [0.0, 0.0, 0.0], [-1.0, -2.0, 5.0]])
    selection = choose(SELECTOR, {"selector": {"alpha": alpha}})
    assert selection.kept == ((0, 1, 2), (0,), (0, 1, 2, 3))
    assert selection.parameters(SELECTOR.spec) == 3 * 3 + 2 * 1 + 4 * 4


def test_the_selector_is_that_of_the_config(tiny):
    dims = AutoDimConfig(dims=(1, 2))
    config = tiny.config.having(dims)
    selector = build_autodim(config, tiny.model, 20)
    assert selector == AutoDim(dims, tiny.model.embedding)
    assert selector.recipe == Recipe(gate_batches="validation")


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("dnn", r"--autodim\.dims has a size of 16, .* have only 8\. .* change --model\.dim\."),
        (
            "lr",
            r"--autodim\.dims has a size of 16, .* --model lr have only 1\. .* change --model\.$",
        ),
        ("ffm", r"--model ffm, whose embeddings are 3 vectors"),
    ],
)
def test_models_without_room_for_a_choice_of_sizes_are_refused(tiny, model, message):
    config = dataclasses.replace(tiny.config, model=ModelConfig(model, dim=8))
    with pytest.raises(InputError, match=message):
        build_autodim(config, build_model(config.model, SIZES), 20)

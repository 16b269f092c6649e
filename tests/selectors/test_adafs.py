from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import softmax

from ihas_jax.config.methods import AdaFSConfig
from ihas_jax.errors import InputError
from ihas_jax.models.forward import Lookup
from ihas_jax.nn.embedding import EmbeddingSpec
from ihas_jax.nn.noise import fixed_draws
from ihas_jax.selectors.adafs import (
    AdaFS,
    build_adafs_hard,
    build_adafs_soft,
    field_weights,
    row_dropout,
)
from ihas_jax.selectors.base import Recipe
from ihas_jax.selectors.fields import top_fields
from ihas_jax.selectors.normalize import unit_product_scale
from ihas_jax.selectors.plan import SearchResult

B, N, D = 6, 4, 2
SPEC = EmbeddingSpec((3, 2, 4, 2), D)
E = np.random.default_rng(0).normal(0.3, 0.7, size=(B, N, D))
KEY = jax.random.key(1)
pytestmark = pytest.mark.usefixtures("float64")

VARIANTS = [
    AdaFS(AdaFSConfig(dropout=0.4), SPEC),
    AdaFS(AdaFSConfig(dropout=0.4), SPEC, fields=2),
    AdaFS(AdaFSConfig(dropout=0.4, relu=False, rescale=False), SPEC),
    AdaFS(AdaFSConfig(dropout=0.4, reweight=False, rescale=False), SPEC, fields=3),
    AdaFS(AdaFSConfig(dropout=0.4, weighted=False), SPEC, fields=3),
]


def numbers():
    """Weights of the selector's shapes with numbers of size one, variances positive."""
    rng = np.random.default_rng(2)
    fresh = jax.eval_shape(VARIANTS[0].init, KEY)
    weights = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape), fresh)
    for stats in weights.stats.values():
        stats["var"] = np.exp(stats["var"])
    return weights


WEIGHTS = numbers()


def lookup(embeddings, first_row=0):
    return Lookup(embeddings, np.zeros((len(embeddings), N), np.int32), first_row)


def moments(x):
    """Mean and biased variance over all axes but the last."""
    flat = x.reshape(-1, x.shape[-1])
    return {"mean": flat.mean(axis=0), "var": flat.var(axis=0)}


def norm(x, stats, affine):
    return (x - stats["mean"]) / np.sqrt(stats["var"] + 1e-5) * affine["scale"] + affine["bias"]


def moved(old, new):
    return {name: 0.9 * old[name] + 0.1 * new[name] for name in old}


def drawn(rate):
    """The factors of dropout, row by row."""
    kept = [jax.random.bernoulli(jax.random.fold_in(KEY, row), 1 - rate, (N,)) for row in range(B)]
    return np.array(kept) / (1 - rate)


def weigh(scores, config, fields):
    """Weights of the fields, and which are kept."""
    weights, mask = softmax(scores, axis=1), np.ones_like(scores)
    if fields is not None:
        mask = np.zeros_like(scores)
        draws = np.asarray(fixed_draws(np.zeros(scores.shape, np.int32)))
        ranks = np.where(scores > 0, scores, -draws) if config.relu else scores
        best = np.argsort(-ranks, axis=1)[:, :fields]
        np.put_along_axis(mask, best, 1, axis=1)
        if not config.weighted:
            return mask, mask
        weights = weights * mask
        if config.reweight:
            weights = weights / weights.sum(axis=1, keepdims=True)
    return weights * (mask[0].sum() if config.rescale else 1), mask


def reference(selector, weights, embeddings, factors=None):
    """The selection in NumPy; with factors of dropout that of training."""
    train, (gates, layers, stats) = factors is not None, weights
    first = moments(embeddings) if train else stats["embeddings"]
    e = norm(embeddings, first, layers["norm"])
    scores = e.reshape(B, N * D) @ gates["linear"]["kernel"] + gates["linear"]["bias"]
    second = moments(scores) if train else stats["controller"]
    scores = norm(scores, second, gates["norm"])
    if selector.config.relu:
        scores = np.maximum(scores, 0) * (factors if train else 1)
    a, mask = weigh(scores, selector.config, selector.fields)
    new = {
        "embeddings": moved(stats["embeddings"], first),
        "controller": moved(stats["controller"], second),
    }
    return e * a[:, :, None], mask, new


def assert_trees_close(found, expected):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10), found, expected)


@pytest.mark.parametrize("selector", VARIANTS)
def test_training_weighs_the_fields_by_the_batchs_statistics_and_dropout(selector):
    sampled = jax.jit(selector.sample)(WEIGHTS, lookup(E), KEY)
    embeddings, _, stats = reference(selector, WEIGHTS, E, drawn(0.4))
    np.testing.assert_allclose(sampled.vectors, embeddings, rtol=1e-10)
    assert_trees_close(sampled.stats, stats)
    assert sampled.penalty == 0 and sampled.masks is None


@pytest.mark.parametrize("selector", VARIANTS)
def test_evaluation_weighs_them_by_the_running_statistics_without_dropout(selector):
    selected = jax.jit(selector.select)(WEIGHTS, lookup(E))
    embeddings, mask, _ = reference(selector, WEIGHTS, E)
    np.testing.assert_allclose(selected.vectors, embeddings, rtol=1e-10)
    np.testing.assert_array_equal(selected.masks, np.repeat(mask, D, axis=1))
    assert selected.masks.shape == (B, N * D)
    assert np.ptp(mask.sum(axis=1)) == 0 and mask.mean() == (selector.fields or N) / N


def test_pretraining_has_the_batch_norm_of_the_embeddings_alone():
    selector, weights = VARIANTS[0], WEIGHTS._replace(gates={})
    trained = jax.jit(selector.pretrain)(weights, lookup(E), KEY)
    batch = moments(E)
    np.testing.assert_allclose(trained.vectors, norm(E, batch, WEIGHTS.layers["norm"]))
    old = WEIGHTS.stats
    assert_trees_close(trained.stats, old | {"embeddings": moved(old["embeddings"], batch)})
    expected = norm(E, old["embeddings"], WEIGHTS.layers["norm"])
    np.testing.assert_allclose(selector.pretrain(weights, lookup(E), None).vectors, expected)


def test_weights_are_those_of_the_kept_fields():
    scores = jnp.array([[0.0, 0.0, 2.0, 0.0], [0.0, 0.0, 0.0, 0.0], [1.0, 3.0, 0.0, 3.0]])
    kept = jnp.array([[1.0, 0, 1, 0], [0, 1, 0, 1], [0, 1, 0, 1]])
    a = 1 / (1 + np.exp(-2))
    expected = np.array([[1 - a, 0, a, 0], [0, 0.5, 0, 0.5], [0, 0.5, 0, 0.5]])
    found = field_weights(scores, AdaFSConfig(rescale=False), kept)
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    ones = field_weights(scores, AdaFSConfig(weighted=False), kept)
    np.testing.assert_array_equal(ones, kept)


def test_of_closed_fields_each_row_keeps_its_own_whatever_the_batch():
    """Where all scores are 0, every field is kept in half of the rows, and open ones always."""
    rows, rng = 4000, np.random.default_rng(5)
    selector = AdaFS(AdaFSConfig(), SPEC, fields=2)
    weights = jax.tree.map(jnp.asarray, WEIGHTS)
    shut = weights.gates | {"norm": {"scale": jnp.zeros(N), "bias": jnp.array([-1.0, -1, -1, -1])}}
    index, vectors = (
        rng.integers(0, 1000, (rows, N)).astype(np.int32),
        rng.normal(size=(rows, N, D)),
    )

    def kept(gates, part):
        lookup = Lookup(vectors[part], index[part])
        masks = selector.select(weights._replace(gates=gates), lookup).masks
        return np.asarray(masks)[:, ::D]

    found = kept(shut, slice(None))
    assert (found.sum(axis=1) == 2).all()
    assert np.abs(found.mean(axis=0) - 0.5).max() < 0.04
    np.testing.assert_array_equal(kept(shut, slice(1234, 1240)), found[1234:1240])
    one = shut | {"norm": shut["norm"] | {"bias": jnp.array([-1.0, -1, -1, 0.5])}}
    opened = kept(one, slice(None))
    assert (opened.sum(axis=1) == 2).all() and opened[:, 3].all()


def test_rescaled_weights_average_1_over_the_kept_fields():
    scores = jnp.asarray(np.random.default_rng(4).normal(size=(B, N)))
    soft = field_weights(scores, AdaFSConfig())
    np.testing.assert_allclose(soft.mean(axis=1), np.ones(B), rtol=1e-12)
    hard = np.asarray(field_weights(scores, AdaFSConfig(), top_fields(scores, 3)))
    np.testing.assert_allclose(hard.sum(axis=1) / (hard > 0).sum(axis=1), np.ones(B), rtol=1e-12)


@pytest.mark.parametrize("rate", [0.0, 0.25, 1.0])
def test_dropout_removes_scores_and_scales_the_rest(rate):
    x = np.ones((2000, N))
    found = np.asarray(row_dropout(KEY, jnp.asarray(x), rate))
    assert set(np.unique(found)) == ({0.0} if rate == 1 else {1.0} if rate == 0 else {0, 1 / 0.75})
    assert np.abs((found == 0).mean(axis=0) - rate).max() <= 4 * np.sqrt(rate * (1 - rate) / 2000)


def differences(f, x, step=1e-6):
    """The gradient of f at x by central differences."""
    gradient = np.zeros_like(x)
    for i in np.ndindex(x.shape):
        shift = np.zeros_like(x)
        shift[i] = step
        gradient[i] = (f(x + shift) - f(x - shift)) / (2 * step)
    return gradient


@pytest.mark.parametrize("selector", VARIANTS[:2])
def test_gradients_pass_through_the_controller_to_the_embeddings(selector):
    upstream = np.random.default_rng(3).normal(size=E.shape)
    factors = drawn(0.4)

    @jax.jit
    @partial(jax.grad, argnums=(0, 1))
    def gradient(embeddings, gates):
        weights = WEIGHTS._replace(gates=gates)
        return (upstream * selector.sample(weights, lookup(embeddings), KEY).vectors).sum()

    def total(embeddings=E, **gates):
        weights = WEIGHTS._replace(gates=WEIGHTS.gates | gates)
        return (upstream * reference(selector, weights, embeddings, factors)[0]).sum()

    to_embeddings, to_gates = gradient(E, WEIGHTS.gates)
    np.testing.assert_allclose(to_embeddings, differences(total, E), atol=1e-7)
    linear, affine = WEIGHTS.gates["linear"], WEIGHTS.gates["norm"]
    kernel = differences(lambda k: total(linear=linear | {"kernel": k}), linear["kernel"])
    np.testing.assert_allclose(to_gates["linear"]["kernel"], kernel, atol=1e-7)
    scale = differences(lambda s: total(norm=affine | {"scale": s}), affine["scale"])
    np.testing.assert_allclose(to_gates["norm"]["scale"], scale, atol=1e-7)
    assert np.abs(kernel).max() > 0.01 and np.abs(scale).max() > 0.01


def test_a_batch_split_across_devices_is_treated_as_a_whole():
    selector = VARIANTS[1].with_axis("devices")
    half = B // 2

    @jax.jit
    @partial(jax.vmap, axis_name="devices")
    def split(embeddings, first_row):
        return selector.sample(WEIGHTS, lookup(embeddings, first_row), KEY)

    sampled = split(E.reshape(2, half, N, D), jnp.array([0, half]))
    embeddings, _, stats = reference(selector, WEIGHTS, E, drawn(0.4))
    np.testing.assert_allclose(sampled.vectors.reshape(E.shape), embeddings, rtol=1e-10)
    for device in range(2):
        assert_trees_close(jax.tree.map(lambda leaf, i=device: leaf[i], sampled.stats), stats)


def test_fresh_weights_are_torchs():
    fields, dim = 3, 40
    config = AdaFSConfig(unit_products=False)
    fresh = jax.jit(AdaFS(config, EmbeddingSpec((2,) * fields, dim)).init)(KEY)
    linear = fresh.gates["linear"]
    assert linear["kernel"].shape == (fields * dim, fields) and linear["bias"].shape == (fields,)
    bound = (fields * dim) ** -0.5
    assert 0.98 * bound < np.abs(linear["kernel"]).max() <= bound
    assert 0 < np.abs(linear["bias"]).max() <= bound
    for affine, size in ((fresh.gates["norm"], fields), (fresh.layers["norm"], dim)):
        np.testing.assert_array_equal(affine["scale"], np.ones(size))
        np.testing.assert_array_equal(affine["bias"], np.zeros(size))
    for name, size in (("controller", fields), ("embeddings", dim)):
        np.testing.assert_array_equal(fresh.stats[name]["mean"], np.zeros(size))
        np.testing.assert_array_equal(fresh.stats[name]["var"], np.ones(size))
    # or the search would be compiled a second time
    assert not any(leaf.weak_type for leaf in jax.tree.leaves(fresh))


def test_inner_products_of_fresh_embeddings_add_up_to_a_variance_of_1():
    fields, dim = 5, 6
    fresh = AdaFS(AdaFSConfig(), EmbeddingSpec((2,) * fields, dim)).init(KEY)
    x = np.random.default_rng(0).normal(size=(20_000, fields, dim)) * fresh.layers["norm"]["scale"]
    sums = ((x.sum(axis=1) ** 2).sum(axis=1) - (x**2).sum(axis=(1, 2))) / 2
    assert sums.var() == pytest.approx(1, rel=0.05)
    assert unit_product_scale(1, 4) == 1
    np.testing.assert_array_equal(fresh.gates["norm"]["scale"], np.ones(fields))


def test_nothing_is_retrained_after_the_search():
    for selector in VARIANTS:
        assert selector.choose(SearchResult(None, None, None, None, KEY, 0)).experts == ()


def test_the_selectors_are_those_of_the_config(tiny):
    def build(builder, **options):
        config = tiny.config.having(AdaFSConfig(**options))
        return builder(config, tiny.model, 20)

    spec = tiny.model.embedding
    assert build(build_adafs_soft, fields=9) == AdaFS(AdaFSConfig(fields=9), spec)
    assert build(build_adafs_hard) == AdaFS(AdaFSConfig(), spec, fields=1)
    assert build(build_adafs_hard, fields=3).fields == 3
    assert build(build_adafs_soft).recipe == Recipe(gate_batches="validation")
    with pytest.raises(InputError, match=r"--adafs\.fields 4 .* 3\. Choose fewer"):
        build(build_adafs_hard, fields=4)

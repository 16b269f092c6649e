from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import expit, softmax

from ihas_jax.config.methods import AutoFieldConfig
from ihas_jax.errors import InputError
from ihas_jax.models.forward import Lookup
from ihas_jax.nn.embedding import EmbeddingSpec
from ihas_jax.selectors.autofield import AutoField, build_autofield
from ihas_jax.selectors.base import Recipe, Weights
from ihas_jax.selectors.fields import fields_to_keep, top_fields
from ihas_jax.selectors.relaxed import relaxed_choice, temperature

SIZES, N, D = (4, 2, 3, 5), 4, 2
SPEC = EmbeddingSpec(SIZES, D)
ALPHA = np.random.default_rng(0).normal(size=(N, 2))
E = np.random.default_rng(1).normal(size=(5, N, D))
LOOKUP = Lookup(E, np.zeros((5, N), np.int32))
KEY = jax.random.key(1)
pytestmark = pytest.mark.usefixtures("float64")


def make(fields=2, **options):
    return AutoField(AutoFieldConfig(**options), SPEC, fields)


def weights_after(steps, alpha=ALPHA):
    return Weights({"alpha": jnp.asarray(alpha)}, stats={"steps": jnp.asarray(steps, jnp.int32)})


def test_the_temperature_falls_evenly_from_1_to_a_hundredth():
    steps = jnp.asarray([0, 1, 10_000, 19_799, 19_800, 10**6])
    expected = [1, 0.99995, 0.5, 0.01005, 0.01, 0.01]
    np.testing.assert_allclose(temperature(steps, 5e-5), expected, rtol=1e-12)
    np.testing.assert_allclose(temperature(steps, 0.0), np.ones(6))


def test_a_relaxed_choice_is_the_softmax_of_perturbed_logits_over_the_temperature():
    noise = np.asarray(jax.random.gumbel(KEY, (N, 2)))
    assert noise.dtype == np.float64 and len(np.unique(noise)) == 2 * N
    found = relaxed_choice(jnp.asarray(ALPHA), 0.3, KEY)
    np.testing.assert_allclose(found, softmax((ALPHA + noise) / 0.3, axis=1), rtol=1e-12)
    without = relaxed_choice(jnp.asarray(ALPHA), 0.3)
    np.testing.assert_allclose(without, softmax(ALPHA / 0.3, axis=1), rtol=1e-12)


def test_options_have_the_largest_weight_as_often_as_the_softmax_of_their_logits_says():
    draws, logits = 4000, np.array([[0.0, 1.0, -1.0], [2.0, 2.0, 0.0]])
    choose = jax.jit(jax.vmap(lambda key: relaxed_choice(jnp.asarray(logits), 0.05, key)))
    largest = np.asarray(choose(jax.random.split(KEY, draws))).argmax(axis=2)
    found = (largest[..., None] == np.arange(3)).mean(axis=0)
    probs = softmax(logits, axis=1)
    assert (np.abs(found - probs) < 4 * np.sqrt(probs * (1 - probs) / draws)).all()


@pytest.mark.parametrize("steps", [0, 300])
@pytest.mark.parametrize("weights", ["softmax", "gumbel"])
def test_fields_are_multiplied_by_the_weight_of_keeping_them(weights, steps):
    selector, state = make(weights=weights, anneal=1e-3), weights_after(steps)
    sampled = jax.jit(selector.sample)(state, LOOKUP, KEY)
    selected = jax.jit(selector.select)(state, LOOKUP)
    margin = ALPHA[:, 1] - ALPHA[:, 0]  # a softmax of two is a sigmoid of their difference
    searched, evaluated = expit(margin), expit(margin)
    if weights == "gumbel":
        cooled = 1 - 1e-3 * steps
        noise = np.asarray(jax.random.gumbel(KEY, (N, 2)))
        searched = expit((margin + noise[:, 1] - noise[:, 0]) / cooled)
        evaluated = expit(margin / cooled)
    np.testing.assert_allclose(sampled.vectors, E * searched[:, None], rtol=1e-12)
    np.testing.assert_allclose(selected.vectors, E * evaluated[:, None], rtol=1e-12)
    assert sampled.penalty == 0
    assert sampled.stats["steps"] == steps + 1 and sampled.stats["steps"].dtype == jnp.int32
    np.testing.assert_array_equal(selected.masks, np.ones((5, N * D)))


def test_alpha_learns_from_all_rows_through_the_weight_of_its_field():
    selector, upstream = (
        make(weights="gumbel", anneal=1e-3),
        np.random.default_rng(2).normal(size=E.shape),
    )

    @jax.jit
    @jax.grad
    def gradient(gates):
        weights = weights_after(500)._replace(gates=gates)
        return (upstream * selector.sample(weights, LOOKUP, KEY).vectors).sum()

    noisy = ALPHA + np.asarray(jax.random.gumbel(KEY, (N, 2)))
    keep = expit((noisy[:, 1] - noisy[:, 0]) / 0.5)
    slope = (upstream * E).sum(axis=(0, 2)) * keep * (1 - keep) / 0.5
    found = gradient(weights_after(500).gates)["alpha"]
    np.testing.assert_allclose(found, np.stack([-slope, slope], axis=1), rtol=1e-11)


def test_fresh_fields_have_half_their_embeddings():
    fresh = jax.jit(make().init)(KEY)
    np.testing.assert_array_equal(fresh.gates["alpha"], np.full((N, 2), 0.5))
    assert fresh.stats["steps"] == 0 and not fresh.layers
    assert not fresh.gates["alpha"].weak_type  # or the search would be compiled a second time
    found = make().select(fresh, LOOKUP).vectors
    np.testing.assert_allclose(found, E / 2, rtol=1e-12)


@pytest.mark.parametrize(
    ("keep", "fields", "kept"),
    [
        ([0.1, 0.4, 0.3, -2.0], 2, [1, 2]),
        ([0.1, 0.4, 0.3, -2.0], 4, [0, 1, 2, 3]),
        ([0.2, 0.7, 0.2, 0.2], 3, [0, 1, 2]),
        ([0.5, 0.5, 0.5, 0.5], 1, [0]),
    ],
)
def test_the_fields_with_the_largest_alpha_of_keeping_are_kept_whole(choose, keep, fields, kept):
    alpha = np.stack([[9.0, -9.0, 0.0, -20.0], keep], axis=1)
    params = {"selector": {"alpha": jnp.asarray(alpha)}}
    selection = choose(make(fields), params)
    assert selection.kept == tuple((0, 1) if n in kept else () for n in range(N))
    assert selection.parameters(SPEC) == 2 * sum(SIZES[n] for n in kept)
    # the published ranking
    ranks = np.argsort(-softmax(alpha, axis=0)[:, 1], kind="stable")[:fields]
    assert sorted(ranks) == kept


def test_top_fields_are_those_of_each_row():
    scores = jnp.asarray([[0.0, 3.0, 1.0], [0.0, 0.0, -1.0]])
    np.testing.assert_array_equal(top_fields(scores, 1), [[0, 1, 0], [1, 0, 0]])
    np.testing.assert_array_equal(top_fields(scores, 2), [[0, 1, 1], [1, 1, 0]])


@pytest.mark.parametrize(("sizes", "fields"), [((2,), 1), ((2, 2, 2), 1), ((2,) * 22, 11)])
def test_half_of_the_fields_are_kept_by_default(sizes, fields):
    assert fields_to_keep("flag", None, EmbeddingSpec(sizes, D)) == fields


def test_the_selector_is_that_of_the_config(tiny):
    def build(**options):
        config = tiny.config.having(AutoFieldConfig(**options))
        return build_autofield(config, tiny.model, 20)

    assert build() == AutoField(AutoFieldConfig(), tiny.model.embedding, 1)
    assert build(fields=3).fields == 3
    assert build().recipe == Recipe(gate_batches="validation")
    with pytest.raises(InputError, match=r"--autofield\.fields 4 .* 3\. Choose fewer"):
        build(fields=4)

from __future__ import annotations

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ihas_jax.config.methods import SsedsConfig
from ihas_jax.data.dataset import Split
from ihas_jax.models.base import Variables
from ihas_jax.models.forward import Lookup, init_model
from ihas_jax.selectors.base import Recipe, Weights
from ihas_jax.selectors.selection import all_coordinates, kept_coordinates, mark_largest
from ihas_jax.selectors.sseds import Saliency, build_sseds, saliency

N, D, K, BATCH = 3, 2, 6, 4096
KEY = jax.random.key(1)
pytestmark = pytest.mark.usefixtures("float64")


@pytest.fixture(scope="module")
def trained(tiny):
    """A model with numbers of size one, rows for a batch and a part of one, and their saliency."""
    with jax.enable_x64(True):
        rng = np.random.default_rng(0)
        shapes = jax.eval_shape(lambda key: init_model(key, tiny.model), KEY).params
        params = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape), shapes)
        ids = np.stack([rng.integers(size, size=5000) for size in tiny.sizes], 1).astype(np.int32)
        clicks = np.where(np.arange(5000) < BATCH, 0.9, 0.1)
        split = Split(ids, rng.binomial(1, clicks).astype(np.uint8))
        scores = saliency(tiny.model, Variables(params), split)
        yield SimpleNamespace(params=params, split=split, saliency=scores)


def loss(params, alpha, ids, labels):
    """Mean cross-entropy of the model's formula with embeddings times alpha."""
    x = params["tables"]["embedding"]["width_2"][ids + np.array([0, 5, 8])] * alpha
    hidden, output = (params["network"]["mlp"][name] for name in ("hidden_0", "output"))
    x = np.maximum(x.reshape(len(ids), -1) @ hidden["kernel"] + hidden["bias"], 0)
    logits = (x @ output["kernel"] + output["bias"])[:, 0]
    return (np.logaddexp(0, logits) - labels * logits).mean()


def test_saliency_is_the_mean_over_batches_of_the_size_of_the_loss_derivative(trained):
    ids, labels = trained.split
    step, slopes = 1e-6, np.zeros((2, N, D))
    for i, part in enumerate((slice(BATCH), slice(BATCH, None))):
        for place in np.ndindex(N, D):
            alpha = np.zeros((N, D))
            alpha[place] = step
            ends = [loss(trained.params, 1 + s * alpha, ids[part], labels[part]) for s in (1, -1)]
            slopes[i][place] = (ends[0] - ends[1]) / (2 * step)
    np.testing.assert_allclose(trained.saliency, np.abs(slopes).mean(axis=0), rtol=1e-5)
    assert (np.sign(slopes[0]) != np.sign(slopes[1])).any()  # or it could be the size of the mean


def top(scores, count):
    """The coordinates of the largest scores `[N, D]`, by field."""
    flat = scores.ravel()
    return kept_coordinates(flat, mark_largest(flat, count), scores.shape[1])


def test_the_largest_scores_of_all_fields_are_kept_and_the_first_of_equal_ones():
    scores = np.array([[3.0, 1.0], [5.0, 1.0], [0.5, 1.0]])
    for count, kept in (
        (1, ((), (0,), ())),
        (2, ((0,), (0,), ())),
        (3, ((0, 1), (0,), ())),
        (5, ((0, 1), (0, 1), (1,))),
        (6, ((0, 1), (0, 1), (0, 1))),
    ):
        assert top(scores, count) == kept


@pytest.mark.parametrize(("share", "count"), [(0.0, 1), (0.1, 1), (0.4, 2), (0.6, 4), (1.0, 6)])
def test_a_share_of_the_most_salient_coordinates_is_chosen_but_at_least_one(
    choose, tiny, trained, share, count
):
    selector = Saliency(SsedsConfig(kept=share))
    selection = choose(selector, trained.params, tiny.model, trained.split)
    best = sorted(np.argsort(-trained.saliency.ravel())[:count])
    assert [n * D + j for n, field in enumerate(selection.kept) for j in field] == best
    assert selection.values is None and selection.mask is None


def test_embeddings_pass_through_unchanged_in_search_and_evaluation():
    selector = Saliency(SsedsConfig())
    lookup = Lookup(np.random.default_rng(1).normal(size=(4, N, D)), jnp.zeros((4, N), jnp.int32))
    weights = selector.init(KEY)
    assert weights == Weights({}, {}, {})
    sampled, selected = jax.jit(
        lambda lookup: (selector.sample(weights, lookup, KEY), selector.select(weights, lookup))
    )(lookup)
    np.testing.assert_array_equal(sampled.vectors, lookup.vectors)
    np.testing.assert_array_equal(selected.vectors, lookup.vectors)
    np.testing.assert_array_equal(selected.masks, np.ones((4, K)))
    assert sampled.penalty == 0 and sampled.stats == {}


def test_the_model_is_trained_without_gates_and_retrained_afresh(tiny):
    sseds = SsedsConfig(kept=0.3)
    selector = build_sseds(tiny.config.having(sseds), tiny.model, 20)
    assert selector == Saliency(sseds)
    assert selector.recipe == Recipe(gate_batches="never")
    assert all_coordinates(tiny.model.embedding) == top(np.zeros((N, D)), K)

"""The compiled router: sums of scores of values, and how they are learnt."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ihas_jax.config import ClusterConfig
from ihas_jax.data.dataset import Split
from ihas_jax.selectors import compiled
from ihas_jax.selectors.by_value import ScoreRouter
from ihas_jax.selectors.clusters import _best_sum, fit_clusters
from ihas_jax.selectors.compiled import compile_router
from ihas_jax.selectors.plan import SearchResult
from ihas_jax.selectors.routing import masked_embeddings
from ihas_jax.selectors.search import init_search

SIZES = (4, 3, 30)


def rows(number, seed=0, sizes=SIZES):
    rng = np.random.default_rng(seed)
    return np.stack([rng.integers(size, size=number) for size in sizes], axis=1).astype(np.int32)


def test_the_largest_sum_wins_and_the_first_of_equal_ones():
    router = ScoreRouter(
        np.array([-1, 0], np.int32),
        np.array([[1, 3, 0, 5], [0, 2, 0, -1]], np.int16),
        np.array([0, 2], np.int32),
    )
    # sums by cluster: (0, 0, 0), (0, 5, -1), (0, 2, 2), (0, 7, 1)
    found = router.assign(np.array([[0, 0], [0, 1], [1, 0], [1, 1]]))
    np.testing.assert_array_equal(found, [0, 1, 1, 1])
    assert found.dtype == np.int32
    assert (router.parameters, router.bytes) == (10, 2 * 8 + 4 * 2)
    assert router.assign(np.zeros((0, 2), np.int32)).shape == (0,)


def test_many_rows_are_sent_as_few_are():
    scores = np.random.default_rng(1).integers(-9, 9, (2, sum(SIZES))).astype(np.int16)
    router = ScoreRouter(np.array([2, -2], np.int32), scores, np.array([0, 4, 7], np.int32))
    ids = rows(5000)
    parts = [router.assign(ids[start : start + 7]) for start in range(0, len(ids), 7)]
    assert set(np.concatenate(parts)) == {0, 1, 2}
    np.testing.assert_array_equal(router.assign(ids), np.concatenate(parts))


@given(st.integers(1, 4), st.integers(0, 2**32 - 1), st.sampled_from([1, 7, 300]))
def test_the_device_and_the_host_send_rows_the_same_way(others, seed, number):
    rng = np.random.default_rng(seed)
    extremes = rng.choice([-32767, -1, 0, 1, 32767], size=(others, sum(SIZES))).astype(np.int16)
    router = ScoreRouter(
        rng.integers(-40000, 40000, others, np.int32), extremes, np.array([0, 4, 7], np.int32)
    )
    ids = rows(number, seed)
    by_hand = []
    for row in ids:
        sums = [0]
        for c in range(others):
            own = (int(extremes[c, router.first[n] + i]) for n, i in enumerate(row))
            sums.append(int(router.bias[c]) + sum(own))
        by_hand.append(sums.index(max(sums)))
    np.testing.assert_array_equal(router.assign(ids), by_hand)
    arrays = tuple(map(jnp.asarray, (router.bias, router.scores, router.first)))
    np.testing.assert_array_equal(_best_sum(arrays, jnp.zeros(0), jnp.asarray(ids))[0], by_hand)


@pytest.mark.parametrize("clusters", [2, 4])
@pytest.mark.parametrize("resident", [True, False])
def test_clusters_by_a_sum_of_scores_are_found_again(clusters, resident, monkeypatch):
    if not resident:
        monkeypatch.setattr(compiled, "_RESIDENT_BYTES", 0)
    rng = np.random.default_rng(1)
    scores = [rng.normal(size=(size, clusters)) for size in SIZES]

    def split(number, seed):
        ids = rows(number, seed)
        sums = sum(own[ids[:, n]] for n, own in enumerate(scores))
        return Split(ids, sums.argmax(axis=1).astype(np.int32))

    train, valid, test = split(40_000, 2), split(2000, 3), split(2000, 4)
    router, share = compile_router(SIZES, train, valid, clusters, 0)
    assert share == (router.assign(valid.ids) == valid.labels).mean() > 0.97
    assert (router.assign(test.ids) == test.labels).mean() > 0.97
    assert router.scores.shape == (clusters - 1, sum(SIZES))
    largest = max(np.abs(router.scores).max(), np.abs(router.bias).max())
    assert largest == np.iinfo(np.int16).max


def test_the_same_seed_learns_the_same_scores():
    train = Split(rows(3000), (rows(3000)[:, 1] > 0).astype(np.int32))
    first, again, other = (compile_router(SIZES, train, train, 2, seed)[0] for seed in (5, 5, 6))
    np.testing.assert_array_equal(first.scores, again.scores)
    assert (first.scores != other.scores).any()


@pytest.fixture(scope="module")
def clustered(tiny):
    """`clustered(**options)`: clusters and facts of an untrained search on 3,000 rows."""
    variables = init_search(tiny.key, tiny.config, tiny.model, tiny.selector).variables
    train, valid = (
        Split(rows(n, s, tiny.sizes), np.zeros(n, np.uint8)) for n, s in ((2500, 1), (500, 2))
    )
    found = SearchResult(tiny.model, variables, train, valid, tiny.key, 3)
    config = ClusterConfig(clusters=3, max_passes=3)

    def run(**options):
        return found, *fit_clusters(found, tiny.selector, dataclasses.replace(config, **options))

    return run


def test_all_rows_are_assigned_by_the_compiled_router(tiny, clustered):
    found, clusters, facts = clustered(router="compiled")
    assert facts["router"] == {"agreement": pytest.approx(1.0, abs=0.1), "kept": True}
    for name in ("train", "valid"):
        ids = getattr(found, name).ids
        np.testing.assert_array_equal(getattr(clusters, name), clusters.router.assign(ids))
    np.testing.assert_array_equal(clusters.counts, np.bincount(clusters.train, minlength=3))
    made = masked_embeddings(tiny.model, tiny.selector, found.variables, found.train.ids)
    for c in range(3):
        mean = np.asarray(made.masks)[clusters.train == c].mean(axis=0)
        np.testing.assert_allclose(clusters.mean_masks[c], mean, rtol=1e-5)
    exact = clustered()[1]
    agreed = (exact.valid == clusters.valid).mean()
    assert facts["router"]["agreement"] == agreed


def test_a_router_that_agrees_too_little_is_not_kept(clustered, monkeypatch, caplog):
    monkeypatch.setattr(compiled, "_EPOCHS", 1)
    with caplog.at_level("INFO", "ihas_jax"):
        _, clusters, facts = clustered(router="compiled", min_agreement=1.0)
    exact = clustered()[1]
    assert clusters.router is None and not facts["router"]["kept"]
    assert facts["router"]["agreement"] < 1
    for name in ("train", "valid", "mean_masks", "counts"):
        np.testing.assert_array_equal(getattr(clusters, name), getattr(exact, name))
    assert "which is too few, so the exact one is kept" in caplog.text


def test_one_cluster_needs_no_router(clustered):
    _, clusters, facts = clustered(router="compiled", clusters=1)
    assert clusters.router is None and "router" not in facts

from __future__ import annotations

import dataclasses
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.cluster import MiniBatchKMeans

from ihas_jax.config import ClusterConfig, Config, ModelConfig
from ihas_jax.data.dataset import Split
from ihas_jax.models import build_model
from ihas_jax.models.forward import init_model
from ihas_jax.nn.embedding import EmbeddingSpec
from ihas_jax.selectors import clusters as clustering
from ihas_jax.selectors.clusters import Clusters, fit_clusters
from ihas_jax.selectors.experts import majority_coordinates, plan_experts
from ihas_jax.selectors.kmeans import _start_kmeans
from ihas_jax.selectors.plan import SearchResult
from ihas_jax.selectors.routing import assign_clusters, masked_embeddings
from ihas_jax.selectors.search import init_search


def test_assignment_agrees_with_scikit_learn():
    rng = np.random.default_rng(0)
    points = rng.normal(size=(3000, 12)).astype(np.float32)
    kmeans = MiniBatchKMeans(5, random_state=0, n_init=1).fit(points)
    centroids = kmeans.cluster_centers_.astype(np.float32)
    found = assign_clusters(jnp.asarray(points), jnp.asarray(centroids))
    assert found.dtype == jnp.int32
    np.testing.assert_array_equal(found, kmeans.predict(points))
    assert len(np.unique(found)) == 5


def test_of_two_equally_near_centroids_the_first_is_taken():
    centroids = jnp.array([[1.0, 0], [-1.0, 0], [1.0, 0]])
    np.testing.assert_array_equal(assign_clusters(jnp.array([[0.0, 3], [2, 0]]), centroids), [0, 0])


@pytest.fixture(scope="module")
def searched(tiny):
    """Variables of a search with gates that differ between instances, and rows to cluster."""
    variables = jax.eval_shape(
        lambda: init_search(tiny.key, tiny.config, tiny.model, tiny.selector).variables
    )
    rng = np.random.default_rng(0)
    variables = jax.tree.map(lambda p: jnp.asarray(rng.normal(size=p.shape), p.dtype), variables)
    ids = np.stack([rng.integers(size, size=300) for size in tiny.sizes], axis=1).astype(np.int32)
    return variables, ids


@pytest.fixture(scope="module")
def cluster(tiny, searched):
    """Clusters training and validation ids by the searched model."""

    def run(train, valid, config, seed):
        train, valid = (Split(ids, np.zeros(len(ids), np.uint8)) for ids in (train, valid))
        found = SearchResult(tiny.model, searched[0], train, valid, tiny.key, seed)
        return fit_clusters(found, tiny.selector, config)

    return run


@pytest.fixture(scope="module")
def fitted(cluster, searched):
    ids = searched[1]
    return cluster(ids[:240], ids[240:], ClusterConfig(clusters=3, max_passes=6), 4)


def test_clusters_masks_and_counts_are_what_numpy_finds(tiny, searched, fitted):
    variables, ids = searched
    clusters, _ = fitted
    selected = masked_embeddings(tiny.model, tiny.selector, variables, ids)
    points = np.asarray(selected.vectors, np.float64).reshape(300, 6)
    masks = np.asarray(selected.masks)
    distances = ((points[:, None] - clusters.centroids[None]) ** 2).sum(axis=2)
    nearest = distances.argmin(axis=1)
    np.testing.assert_array_equal(clusters.train, nearest[:240])
    np.testing.assert_array_equal(clusters.valid, nearest[240:])
    np.testing.assert_array_equal(clusters.counts, np.bincount(nearest[:240], minlength=3))
    assert (clusters.counts > 0).all() and clusters.counts.sum() == 240
    for c in range(3):
        mean = masks[:240][nearest[:240] == c].mean(axis=0)
        np.testing.assert_allclose(clusters.mean_masks[c], mean, rtol=1e-6)
    assert 0 < masks.mean() < 1 and np.ptp(masks, axis=0).any()


def test_shares_and_counts_are_over_the_rows_of_each_cluster(tiny, searched, cluster, monkeypatch):
    variables, ids = searched
    made = jax.jit(lambda: masked_embeddings(tiny.model, tiny.selector, variables, ids))()
    points, masks = np.asarray(made.vectors).reshape(300, 6), np.asarray(made.masks)
    centroids = points[[0, 1, 2]]
    monkeypatch.setattr(clustering, "fit_centroids", lambda *given: (centroids, []))
    found, _ = cluster(ids[:240], ids[240:], ClusterConfig(clusters=3), 4)
    nearest = ((points[:, None] - centroids[None]) ** 2).sum(axis=2).argmin(axis=1)
    np.testing.assert_array_equal(np.append(found.train, found.valid), nearest)
    np.testing.assert_array_equal(found.counts, np.bincount(nearest[:240], minlength=3))
    means = [masks[:240][nearest[:240] == c].mean(axis=0) for c in range(3)]
    np.testing.assert_allclose(found.mean_masks, means, rtol=1e-6)


def test_points_are_the_masked_embeddings(tiny, searched):
    variables, ids = searched
    selected = masked_embeddings(tiny.model, tiny.selector, variables, ids)
    (table,) = variables.params["tables"]["embedding"].values()
    rows = np.asarray(table)[ids + np.array([0, 5, 8])]
    np.testing.assert_array_equal(
        selected.vectors, rows * np.asarray(selected.masks).reshape(300, 3, 2)
    )


def test_passes_stop_when_the_distance_stops_falling(cluster, searched):
    ids = searched[1]
    slow = ClusterConfig(clusters=3, starts=1, batch_rows=16, max_passes=6)  # and a poor start
    curve = cluster(ids[:240], ids[:5], slow, 9)[1]["kmeans"]
    assert [point["rows"] for point in curve] == [240 * (i + 1) for i in range(len(curve))]
    assert 2 < len(curve) < 6
    inertia = [point["inertia"] for point in curve]
    falls = [before - after for before, after in pairwise(inertia)]
    enough = [fall >= 1e-3 * before for fall, before in zip(falls, inertia, strict=False)]
    assert enough == [True] * (len(falls) - 1) + [False]
    once = dataclasses.replace(slow, tolerance=1.0)
    short = cluster(ids[:240], ids[:5], once, 9)[1]["kmeans"]
    assert len(short) == 2


def test_a_long_log_is_not_read_to_its_end(cluster, searched):
    ids = searched[1]
    config = ClusterConfig(clusters=2, batch_rows=16, segment_rows=40, tolerance=1.0)
    curve = cluster(ids, ids[:5], config, 4)[1]["kmeans"]
    assert [point["rows"] for point in curve] == [48, 96]  # whole mini-batches


def test_the_best_of_several_starts_goes_on():
    # four blobs, and two ways to split them in two: one of them is better
    rng = np.random.default_rng(0)
    corners = rng.choice([-1.0, 1.0], size=(400, 2)) * [1.2, 1.0]
    points = (corners + rng.normal(scale=0.05, size=(400, 2))).astype(np.float32)

    def distance(starts, seed):
        config = ClusterConfig(clusters=2, starts=starts)
        centroids = _start_kmeans(points, config, seed).init
        return ((points[:, None] - centroids) ** 2).sum(axis=2).min(axis=1).mean()

    assert max(distance(10, seed) for seed in range(4)) < 1.1
    assert max(distance(1, seed) for seed in range(10)) > 1.3


def test_the_same_seed_finds_the_same_clusters(cluster, searched, fitted):
    ids = searched[1]
    again, facts = cluster(ids[:240], ids[240:], ClusterConfig(clusters=3, max_passes=6), 4)
    np.testing.assert_array_equal(again.centroids, fitted[0].centroids)
    assert facts == fitted[1]


def test_a_coordinate_is_kept_by_the_majority_and_at_a_tie():
    mean_mask = np.array([0.5, 0.49999, 0.9, 0.1, 0.0, 0.51], np.float32)
    assert majority_coordinates(mean_mask, 2, 0.5) == ((0,), (0,), (1,))
    assert majority_coordinates(mean_mask, 3, 0.5) == ((0, 2), (2,))
    assert majority_coordinates(mean_mask, 2, 0.0) == ((0, 1), (0, 1), (0, 1))


def test_where_no_coordinate_has_a_majority_the_single_best_is_kept():
    assert majority_coordinates(np.array([0.1, 0.2, 0.4, 0.3]), 2, 0.5) == ((), (0,))


@given(
    mean_mask=st.lists(st.integers(0, 20), min_size=12, max_size=12),
    dim=st.sampled_from([1, 2, 3, 4, 6, 12]),
    majority=st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]),
)
def test_widths_count_the_coordinates_at_or_above_the_majority(mean_mask, dim, majority):
    shares = np.array(mean_mask) / 20
    kept = majority_coordinates(shares, dim, majority)
    expected = (shares >= majority).reshape(-1, dim).sum(axis=1)
    widths = np.array([len(field) for field in kept])
    assert len(kept) == 12 // dim
    if expected.any():
        np.testing.assert_array_equal(widths, expected)
    else:
        assert widths.sum() == 1
    chosen = [n * dim + j for n, field in enumerate(kept) for j in field]
    assert chosen == sorted(chosen)
    assert shares[chosen].min() >= max((s for s in shares if s < majority), default=0)


# which cluster gets a model of its own

MEAN_MASKS = np.array([[1, 0, 0, 1], [0, 1, 0, 0], [0.6, 0, 1, 0]], np.float32)
CONFIG = Config(model=ModelConfig(dim=2), options=(ClusterConfig(clusters=3, min_rows=4),))
TRAIN = np.array([0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1, 2])  # four rows each
VALID = np.array([0, 1, 2])
LABELS = np.array([0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1])
VALID_LABELS = np.array([0, 1, 1])


def plan(
    train=TRAIN,
    valid=VALID,
    labels=LABELS,
    config=CONFIG,
    sizes=(10, 10),
    budget=None,
    counts=None,
    masks=MEAN_MASKS,
):
    counts = np.bincount(train, minlength=3) if counts is None else counts
    clusters = Clusters(np.zeros((3, 4), np.float32), masks, counts, train, valid)
    model = build_model(config.model, sizes)
    rng = np.random.default_rng(0)
    ids = np.stack([rng.integers(size, size=12) for size in sizes], axis=1).astype(np.int32)
    found = SearchResult(
        model,
        init_model(jax.random.key(0), model),
        Split(ids, labels),
        Split(ids[:3], VALID_LABELS),
        jax.random.key(1),
        0,
        budget,
    )
    return plan_experts(found, clusters, config.of(ClusterConfig))


def test_a_gate_that_all_rows_open_is_open_in_the_mean_of_clusters():
    """The shares of these clusters add up to more than 1 in floating point."""
    counts = np.array([63860, 88130, 16440])
    open_ = np.ones((3, 4), np.float32)
    assert (counts / counts.sum() @ open_).max() > 1
    config = dataclasses.replace(CONFIG, options=(ClusterConfig(clusters=3, min_rows=100),))
    found = plan(config=config, counts=counts, masks=open_)
    assert [expert.selection.kept for expert in found.experts] == [((0, 1), (0, 1))]


def test_every_cluster_that_can_gets_a_model_of_its_own_rows_and_coordinates():
    found = plan()
    assert found.routes == (0, 1, 2)
    assert found.reasons == (None, None, None)
    assert [expert.name for expert in found.experts] == ["cluster_0", "cluster_1", "cluster_2"]
    kept = [((0,), (1,)), ((1,), ()), ((0,), (0,))]
    for c, expert in enumerate(found.experts):
        np.testing.assert_array_equal(expert.rows, np.flatnonzero(c == TRAIN))
        np.testing.assert_array_equal(expert.valid_rows, np.flatnonzero(c == VALID))
        assert expert.selection.kept == kept[c]
        assert expert.rows.dtype == np.int32


TINY = np.where(np.arange(12) == 1, 0, TRAIN)  # cluster 1 has three rows
EMPTY = np.where(TRAIN == 1, 0, TRAIN)
ONE_CLASS = np.where(TRAIN == 1, 1, LABELS)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"train": TINY}, "it has 3 training rows, fewer than cluster.min_rows = 4"),
        ({"train": EMPTY}, "it has 0 training rows, fewer than cluster.min_rows = 4"),
        ({"labels": ONE_CLASS}, "all of its 4 training rows have label 1"),
        ({"valid": np.array([0, 2, 2])}, "it has no validation rows"),
    ],
)
def test_a_cluster_that_cannot_carry_a_model_is_served_by_one_of_all_rows(options, reason):
    found = plan(**options)
    assert [expert.name for expert in found.experts] == ["cluster_0", "cluster_2", "all"]
    assert found.routes == (0, 2, 1)
    assert found.reasons == (None, reason, None)
    everything = found.experts[2]
    assert everything.rows is None and everything.valid_rows is None
    train = options.get("train", TRAIN)
    pooled = np.mean([MEAN_MASKS[c] for c in train], axis=0)
    assert everything.selection.kept == majority_coordinates(pooled, 2, 0.5)


@pytest.mark.parametrize("options", [{}, {"valid": np.array([0, 2, 2])}])
@pytest.mark.parametrize("cut", ["numbers", "axes"])
@pytest.mark.parametrize("axes", ["shared", "own"])
def test_the_experts_share_a_budget_in_equal_parts(options, cut, axes):
    """A field of five values and one of twenty; 25 numbers for each of three experts."""
    choices = ClusterConfig(clusters=3, min_rows=4, cut=cut, axes=axes)
    found = plan(**options, sizes=(5, 20), budget=75, config=CONFIG.having(choices))
    assert len(found.experts) == 3
    kept = [expert.selection.parameters(EmbeddingSpec((5, 20), 2)) for expert in found.experts]
    assert kept == [25, 25, 25]
    assert [expert.selection.mask is None for expert in found.experts] == [cut == "axes"] * 3
    assert [expert.axes is None for expert in found.experts] == [axes == "shared"] * 3
    if axes == "own":
        first, second = (expert.axes.forward for expert in found.experts[:2])
        assert not np.allclose(first, second)


def test_closed_coordinates_are_kept_last():
    """In the first cluster coordinates 0 and 3 are always open, 5 + 20 numbers."""
    choices = ClusterConfig(clusters=3, min_rows=4, cut="axes")
    found = plan(sizes=(5, 20), budget=75, config=CONFIG.having(choices))
    assert found.experts[0].selection.kept == ((0,), (1,))
    numbers = plan(sizes=(5, 20), budget=21).experts[0].selection.mask
    assert numbers.sum() == 7
    # a value that no row of the cluster has is worth nothing, and a closed coordinate neither
    assert not numbers[:5, 1].any() and not numbers[5:, 0].any()


def test_two_experts_of_three_clusters_share_the_whole_budget():
    found = plan(labels=np.where(TRAIN == 0, LABELS, 0), sizes=(5, 20), budget=100)
    kept = [expert.selection.parameters(EmbeddingSpec((5, 20), 2)) for expert in found.experts]
    assert kept == [50, 50]

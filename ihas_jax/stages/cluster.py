"""The clustering stage: mini-batch K-means on masked embeddings (paper section 3.5.2).

scikit-learn fits the centroids; assignment is one matrix product in JAX.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ihas_jax.config import ClusterConfig
from ihas_jax.data.checks import as_ids
from ihas_jax.errors import InputError
from ihas_jax.models.base import EMBEDDING, SELECTOR, Model, Params, lookup_rows
from ihas_jax.nn.embedding import Kept, positions
from ihas_jax.progress import log
from ihas_jax.selectors.base import Looked, Selected, Selector, Weights, looked_up
from ihas_jax.selectors.bernoulli import BernoulliGates
from ihas_jax.selectors.selection import coordinates
from ihas_jax.training.loop import Fitted
from ihas_jax.training.streaming import Streamed, Summed

_KEPT_BYTES = 1 << 29


@dataclass(frozen=True, eq=False)
class Clusters:
    """What the clustering stage found.

    Attributes:
      centroids: `[C, K]` float32.
      mean_masks: `[C, K]` share of each cluster's training rows that open a coordinate.
      counts: `[C]` training rows of each cluster.
      train: `[n_train]` cluster of each training row.
      valid: `[n_valid]` cluster of each validation row.
    """

    centroids: np.ndarray
    mean_masks: np.ndarray
    counts: np.ndarray
    train: np.ndarray
    valid: np.ndarray


@dataclass(frozen=True, eq=False)
class Searched:
    """What search and clustering leave: the gates' model, which routes, and its clusters.

    Attributes:
      model: the searched click model.
      selector: its gates.
      fitted: its training; `fitted.params` hold the selector's.
      clusters: the clusters of its masked embeddings.
    """

    model: Model
    selector: BernoulliGates
    fitted: Fitted
    clusters: Clusters


class Convergence(NamedTuple):
    """One point of the inertia curve.

    Attributes:
      rows: rows seen so far.
      inertia: mean squared distance to the nearest centroid, over rows since the point before.
    """

    rows: int
    inertia: float


def look_up(model: Model, params: Params, ids: Array) -> Looked:
    """The embedding table's rows for ids `[B, N]`, as a selector sees them."""
    numbers = {EMBEDDING: positions(model.embedding, ids)}
    return looked_up(lookup_rows(params["tables"], numbers), numbers)[1]


def masked_embeddings(model: Model, selector: Selector, params: Params, ids: Array) -> Selected:
    """The deterministic selection for ids `[B, N]`."""
    return selector.select(Weights(params[SELECTOR]), look_up(model, params, ids))


def assign_clusters(points: Array, centroids: Array) -> Array:
    """Index of the nearest centroid, `[B, K]` and `[C, K]` -> `[B]` int32.

    Squared Euclidean distance without the term that all centroids share; the first of equals.

    Raises:
      InputError: the shapes are others, or, outside of `jit`, a number is nan.
    """
    if np.ndim(points) != 2 or np.ndim(centroids) != 2 or points.shape[1] != centroids.shape[1]:
        raise InputError(
            f"Points {list(np.shape(points))} have no nearest of centroids "
            f"{list(np.shape(centroids))}; [B, K] and [C, K] are needed."
        )
    for what, numbers in (("point", points), ("centroid", centroids)):
        if not isinstance(numbers, jax.core.Tracer) and np.isnan(numbers).any():
            row = int(np.isnan(numbers).any(axis=1).argmax())
            raise InputError(f"The {what} in row {row} has a nan, so no centroid is its nearest.")
    distances = (centroids**2).sum(axis=1) - 2 * points @ centroids.T
    return jnp.argmin(distances, axis=1).astype(jnp.int32)


def fit_clusters(
    model: Model,
    selector: Selector,
    params: Params,
    train_ids: np.ndarray,
    valid_ids: np.ndarray,
    config: ClusterConfig,
    seed: int,
) -> tuple[Clusters, list[Convergence]]:
    """Fits centroids on training rows and assigns all training and validation rows.

    Mini-batches come in an order shuffled once; the best of `config.starts` fits to the first is
    where fitting starts. After every `config.segment_rows` rows, or every
    pass where there are fewer, the mean squared distance is compared with the one before, and
    fitting ends when it fell by less than `config.tolerance` of it: a log of tens of millions of
    rows is not read to the end. Assignment is one matrix product on the device.

    Args:
      model: the searched click model.
      selector: its selector.
      params: its parameters, with the selector's.
      train_ids: `[n, N]`.
      valid_ids: `[m, N]`.
      config: the stage's choices.
      seed: seed of the order and of k-means++.

    Returns:
      The clusters, and the curve of the mean squared distance.

    Raises:
      InputError: the ids are not integers `[n, N]`, one is none of its field, or there are fewer
        training rows in a mini-batch than clusters.
    """
    sizes = model.embedding.sizes
    train_ids = as_ids(train_ids, sizes, what="The training ids")
    valid_ids = as_ids(valid_ids, sizes, what="The validation ids")
    first = min(len(train_ids), config.batch_rows)
    if first < config.clusters:
        raise InputError(
            f"{config.clusters} clusters are more than the {first} rows of the first mini-batch of "
            "K-means."
        )
    points = _make_points(model, selector)
    order = np.random.Generator(np.random.Philox(seed)).permutation(len(train_ids))

    def read() -> Iterator[np.ndarray]:
        return (part for _, part in points.chunks(params, train_ids, order, config.batch_rows))

    if 4 * len(train_ids) * model.embedding.coordinates <= _KEPT_BYTES:
        kept = list(read())  # so that later passes need not compute them again
        centroids, curve = _fit_centroids(lambda: iter(kept), config, len(train_ids), seed)
    else:
        centroids, curve = _fit_centroids(read, config, len(train_ids), seed)
    weights = (params, jnp.asarray(centroids))
    train, sums = _make_assign_and_count(model, selector)(weights, train_ids)
    mean_masks = sums["open"] / np.maximum(sums["rows"], 1)[:, None]
    clusters = Clusters(
        centroids=centroids,
        mean_masks=mean_masks.astype(np.float32),
        counts=sums["rows"].astype(np.int64),
        train=train,
        valid=make_assign(model, selector)(weights, valid_ids),
    )
    return clusters, curve


def _make_points(model: Model, selector: Selector) -> Streamed:
    """What K-means clusters: masked embeddings `[n, K]`."""

    def points(params: Params, ids: Array) -> Array:
        embeddings = masked_embeddings(model, selector, params, ids).embeddings
        return embeddings.reshape(ids.shape[0], -1)

    return Streamed(points, "[cluster] K-means")


def make_assign(model: Model, selector: Selector) -> Streamed:
    """The router over any number of rows: `((params, centroids), ids) -> cluster [n]`."""

    def assign(weights: tuple[Params, Array], ids: Array) -> Array:
        return _assign(model, selector, weights, ids)[0]

    return Streamed(assign, "[cluster] assignment")


def _make_assign_and_count(model: Model, selector: Selector) -> Summed:
    """The same, with each cluster's number of `rows [C]` and of `open [C, K]` gates."""

    def assign(weights: tuple[Params, Array], ids: Array, valid: Array) -> tuple[Array, Any]:
        cluster, selected = _assign(model, selector, weights, ids)
        members = jax.nn.one_hot(cluster, len(weights[1])) * valid[:, None]
        return cluster, {"rows": members.sum(axis=0), "open": members.T @ selected.masks}

    return Summed(assign, "[cluster] assignment")


def _assign(
    model: Model, selector: Selector, weights: tuple[Params, Array], ids: Array
) -> tuple[Array, Selected]:
    params, centroids = weights
    selected = masked_embeddings(model, selector, params, ids)
    return assign_clusters(selected.embeddings.reshape(len(ids), -1), centroids), selected


def majority_coordinates(mean_mask: np.ndarray, dim: int, majority: float) -> Kept:
    """Coordinates that at least `majority` of the rows open, by field (section 3.5.3).

    Where none is, the single coordinate that most rows open is kept.

    Args:
      mean_mask: `[K]` share of rows that open each coordinate.
      dim: D.
      majority: share of rows, 0 to 1.

    Raises:
      InputError: there are not D shares for each field, or one is not within 0 and 1.
    """
    if mean_mask.ndim != 1 or mean_mask.size % dim or not mean_mask.size:
        raise InputError(
            f"The mean mask has the shape {list(mean_mask.shape)}; [K] is needed, {dim} shares for "
            "each field."
        )
    if not ((mean_mask >= 0) & (mean_mask <= 1)).all():
        raise InputError("The mean mask has numbers that are no shares, within 0 and 1.")
    return coordinates(mean_mask, mean_mask >= majority, dim)


def _fit_centroids(
    read: Callable[[], Iterator[np.ndarray]], config: ClusterConfig, rows: int, seed: int
) -> tuple[np.ndarray, list[Convergence]]:
    """Centroids `[C, K]`; `read` starts a pass over all rows in mini-batches."""
    segment = min(config.segment_rows, rows)
    curve: list[Convergence] = []
    seen = since = 0
    total = 0.0
    kmeans: Any = None
    for points in (points for _ in range(config.max_passes) for points in read()):
        kmeans = kmeans or _start_kmeans(points, config, seed)
        total += float(kmeans.partial_fit(points).inertia_)
        seen, since = seen + len(points), since + len(points)
        if since < segment:
            continue
        curve.append(Convergence(seen, total / since))
        since, total = 0, 0.0
        log(f"[cluster] {seen:,} rows - mean squared distance: {curve[-1].inertia:.6f}")
        if len(curve) > 1:
            before, now = curve[-2].inertia, curve[-1].inertia
            if before - now < config.tolerance * before:
                break
    return np.asarray(kmeans.cluster_centers_, np.float32), curve


def _start_kmeans(points: np.ndarray, config: ClusterConfig, seed: int) -> Any:
    """K-means that starts from the best of several fits to the first mini-batch.

    A single start often ends at a split whose distances are far from the least.
    """
    from sklearn.cluster import MiniBatchKMeans  # takes seconds to import

    seeds = np.random.Generator(np.random.Philox(seed)).integers(2**32, size=config.starts)
    tried = [
        MiniBatchKMeans(config.clusters, n_init=1, random_state=int(s)).fit(points) for s in seeds
    ]
    best = min(tried, key=lambda kmeans: float(kmeans.inertia_))
    return MiniBatchKMeans(
        config.clusters, init=best.cluster_centers_, n_init=1, random_state=seed % 2**32
    )

"""The clustering stage: mini-batch K-means on masked embeddings (paper section 3.5.2).

scikit-learn fits the centroids; assignment is one matrix product in JAX.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from ihas_jax.config import ClusterConfig
from ihas_jax.models.base import EMBEDDING, Model, Params, lookup_rows
from ihas_jax.nn.embedding import Kept
from ihas_jax.progress import log
from ihas_jax.selectors.base import Selected, Selector
from ihas_jax.training.streaming import Streamed


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


def masked_embeddings(model: Model, selector: Selector, params: Params, ids: Array) -> Selected:
    """The deterministic selection for ids `[B, N]`."""
    rows = lookup_rows(model, {EMBEDDING: params["tables"][EMBEDDING]}, ids)[EMBEDDING]
    (group,) = rows
    return selector.select(params["selector"], rows[group])


def assign_clusters(points: Array, centroids: Array) -> Array:
    """Index of the nearest centroid, `[B, K]` and `[C, K]` -> `[B]` int32.

    Squared Euclidean distance without the term that all centroids share; the first of equals.
    """
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
) -> tuple[Clusters, list[float]]:
    """Fits centroids on the training rows and assigns training and validation rows.

    Passes over the training rows, in an order shuffled once, go on until one of them lowers
    the mean squared distance by less than `config.tolerance` of it.

    Args:
      model: the searched click model.
      selector: its selector.
      params: its parameters, with the selector's.
      train_ids: `[n, N]`.
      valid_ids: `[m, N]`.
      config: the stage's choices.
      seed: seed of the order and of k-means++.

    Returns:
      The clusters, and the mean squared distance to the nearest centroid in each pass.
    """
    points = Streamed(
        lambda params, ids: masked_embeddings(model, selector, params, ids).embeddings.reshape(
            ids.shape[0], -1
        ),
        "[cluster] K-means",
    )
    order = np.random.Generator(np.random.Philox(seed)).permutation(len(train_ids))
    centroids, inertia = _fit_centroids(
        lambda: points.chunks(params, train_ids, order, config.batch_rows), config, seed
    )
    assign = make_assign(model, selector)
    weights = (params, jnp.asarray(centroids))
    counts = np.zeros(config.clusters, np.int64)
    open_counts = np.zeros(centroids.shape, np.float64)
    train = np.empty(len(train_ids), np.int32)
    for part, (cluster, masks) in assign.chunks(weights, train_ids):
        train[part] = cluster
        for c in range(config.clusters):
            members = masks[cluster == c]
            counts[c] += len(members)
            open_counts[c] += members.sum(axis=0, dtype=np.float64)
    valid = np.concatenate([c for _, (c, _) in assign.chunks(weights, valid_ids)])
    mean_masks = (open_counts / np.maximum(counts, 1)[:, None]).astype(np.float32)
    return Clusters(centroids, mean_masks, counts, train, valid), inertia


def make_assign(model: Model, selector: Selector) -> Streamed:
    """The router over any number of rows: `((params, centroids), ids) -> (cluster, masks)`."""

    def assign(weights: tuple[Params, Array], ids: Array) -> tuple[Array, Array]:
        params, centroids = weights
        selected = masked_embeddings(model, selector, params, ids)
        flat = selected.embeddings.reshape(ids.shape[0], -1)
        return assign_clusters(flat, centroids), selected.masks.astype(jnp.int8)

    return Streamed(assign, "[cluster] assignment")


def majority_coordinates(mean_mask: np.ndarray, dim: int, majority: float) -> Kept:
    """Coordinates that at least `majority` of the rows open, by field (section 3.5.3).

    Where none is, the single coordinate that most rows open is kept.

    Args:
      mean_mask: `[K]` share of rows that open each coordinate.
      dim: D.
      majority: share of rows, 0 to 1.
    """
    keep = mean_mask >= majority
    if not keep.any():
        keep = np.arange(len(mean_mask)) == np.argmax(mean_mask)
    return tuple(tuple(int(j) for j in np.flatnonzero(field)) for field in keep.reshape(-1, dim))


def _fit_centroids(
    passes: Callable[[], Any], config: ClusterConfig, seed: int
) -> tuple[np.ndarray, list[float]]:
    from sklearn.cluster import MiniBatchKMeans  # takes seconds to import

    kmeans = MiniBatchKMeans(config.clusters, random_state=seed % 2**32)
    inertia: list[float] = []
    for number in range(config.max_passes):
        total = rows = 0.0
        for _, points in passes():
            kmeans.partial_fit(points)
            total += -kmeans.score(points)
            rows += len(points)
        inertia.append(total / rows)
        log(f"[cluster] pass {number} - mean squared distance: {inertia[-1]:.6f}")
        if number and inertia[-2] - inertia[-1] < config.tolerance * inertia[-2]:
            break
    return np.asarray(kmeans.cluster_centers_, np.float32), inertia

"""Clusters of masked embeddings (paper section 3.5.2).

scikit-learn fits the centroids with mini-batch K-means; `ihas_jax.selectors.routing` assigns rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ihas_jax.config import ClusterConfig
from ihas_jax.data.checks import as_ids
from ihas_jax.errors import InputError
from ihas_jax.models.base import Model, Variables
from ihas_jax.selectors.base import Selector
from ihas_jax.selectors.kmeans import Convergence, fit_centroids
from ihas_jax.selectors.plan import SearchResult
from ihas_jax.selectors.routing import assign_clusters, masked_embeddings
from ihas_jax.training.streaming import Streamed, Summed

_KEPT_BYTES = 1 << 29


@dataclass(frozen=True, eq=False)
class Clusters:
    """The result of clustering.

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


def fit_clusters(
    found: SearchResult, selector: Selector, config: ClusterConfig
) -> tuple[Clusters, list[Convergence]]:
    """Fits centroids on training rows and assigns all training and validation rows.

    Mini-batches come in an order that is shuffled once. Fitting starts from the best of
    `config.starts` fits to the first mini-batch. After every `config.segment_rows` rows, or after
    every pass if that is shorter, the mean squared distance is compared with the previous one.
    Fitting ends when it fell by less than the share `config.tolerance`, so that a log of tens of
    millions of rows need not be read to its end. Assignment is one matrix product on the device.

    Args:
      found: the searched click model, the rows, and the seed of the order and of k-means++.
      selector: the selector of the search.
      config: the choices of clustering.

    Returns:
      The clusters, and the curve of the mean squared distance.

    Raises:
      InputError: the ids are not integers `[n, N]`, one is out of range for its field, or a
        mini-batch has fewer training rows than there are clusters.
    """
    model, variables, seed = found.model, found.variables, found.seed
    sizes = model.embedding.sizes
    train_ids = as_ids(found.train.ids, sizes, what="The training ids")
    valid_ids = as_ids(found.valid.ids, sizes, what="The validation ids")
    first = min(len(train_ids), config.batch_rows)
    if first < config.clusters:
        raise InputError(
            f"{config.clusters} clusters are more than the {first} rows of the first mini-batch of "
            "K-means."
        )
    points = _make_points(model, selector)
    order = np.random.Generator(np.random.Philox(seed)).permutation(len(train_ids))

    def read() -> Iterator[np.ndarray]:
        parts = points.chunks(
            variables, train_ids, title="[choose] K-means", rows=order, chunk_rows=config.batch_rows
        )
        return (part for _, part in parts)

    if 4 * len(train_ids) * model.embedding.coordinates <= _KEPT_BYTES:
        kept = list(read())  # later passes need not compute them again
        centroids, curve = fit_centroids(lambda: iter(kept), config, len(train_ids), seed)
    else:
        centroids, curve = fit_centroids(read, config, len(train_ids), seed)
    assign = _make_assign(model, selector)
    inputs = (variables, jnp.asarray(centroids))
    train, sums = assign(inputs, train_ids, title="[choose] assignment")
    valid, _ = assign(inputs, valid_ids, title="[choose] assignment")
    mean_masks = sums["open"] / np.maximum(sums["rows"], 1)[:, None]
    clusters = Clusters(
        centroids=centroids,
        mean_masks=mean_masks.astype(np.float32),
        counts=sums["rows"].astype(np.int64),
        train=train,
        valid=valid,
    )
    return clusters, curve


def check_clusters(flag: str, config: ClusterConfig, train_rows: int) -> None:
    """Checks that K-means can find as many clusters as a flag asks for.

    Raises:
      InputError: a mini-batch has fewer rows.
    """
    rows = min(train_rows, config.batch_rows)
    if config.clusters > rows:
        raise InputError(
            f"--{flag} {config.clusters} is more than the {rows} rows of the first mini-batch of "
            "K-means; choose fewer, or raise --cluster.batch-rows."
        )


def _make_points(model: Model, selector: Selector) -> Streamed:
    """A program from ids to the points that K-means clusters: masked embeddings `[n, K]`."""

    def points(variables: Variables, ids: Array) -> Array:
        return masked_embeddings(model, selector, variables, ids).vectors.reshape(len(ids), -1)

    return Streamed(points)


def _make_assign(model: Model, selector: Selector) -> Summed:
    """A program from `((variables, centroids), ids)` to the clusters `[n]`, and sums by cluster.

    The sums are the numbers of `rows [C]` and of `open [C, K]` gates.
    """

    def assign(inputs: tuple[Variables, Array], ids: Array, valid: Array) -> tuple[Array, Any]:
        variables, centroids = inputs
        selected = masked_embeddings(model, selector, variables, ids)
        cluster = assign_clusters(selected.vectors.reshape(len(ids), -1), centroids)
        assert selected.masks is not None
        members = jax.nn.one_hot(cluster, len(centroids)) * valid[:, None]
        return cluster, {"rows": members.sum(axis=0), "open": members.T @ selected.masks}

    return Summed(assign)

"""Clusters of masked embeddings (paper section 3.5.2).

scikit-learn fits the centroids with mini-batch K-means; `ihas_jax.selectors.routing` assigns rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ihas_jax.config import ClusterConfig
from ihas_jax.data.checks import as_ids
from ihas_jax.data.dataset import Split
from ihas_jax.errors import InputError
from ihas_jax.models.base import Model, Variables
from ihas_jax.models.streaming import Streamed, Summed
from ihas_jax.processes import agreed
from ihas_jax.progress import say
from ihas_jax.selectors.base import Selector
from ihas_jax.selectors.by_value import ScoreRouter
from ihas_jax.selectors.kmeans import fit_centroids
from ihas_jax.selectors.plan import SearchResult
from ihas_jax.selectors.routing import assign_clusters, masked_embeddings

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
      router: assigns rows in place of the centroids; None where the centroids do.
    """

    centroids: np.ndarray
    mean_masks: np.ndarray
    counts: np.ndarray
    train: np.ndarray
    valid: np.ndarray
    router: ScoreRouter | None = None


def fit_clusters(
    found: SearchResult, selector: Selector, config: ClusterConfig
) -> tuple[Clusters, dict[str, Any]]:
    """Fits centroids on training rows and assigns all training and validation rows.

    Mini-batches come in an order that is shuffled once. Fitting starts from the best of
    `config.starts` fits to the first mini-batch. After every `config.segment_rows` rows, or after
    every pass if that is shorter, the mean squared distance is compared with the previous one.
    Fitting ends when it fell by less than the share `config.tolerance`, so that a log of tens of
    millions of rows need not be read to its end. Assignment is one matrix product on the device.

    With `config.router` "compiled" scores of values are fitted to the clusters, and assign all rows
    anew, if they agree with the centroids on enough validation rows.

    Args:
      found: the searched click model, the rows, and the seed of the order and of k-means++.
      selector: the selector of the search.
      config: the choices of clustering.

    Returns:
      The clusters, and facts for reports: `kmeans`, the curve of the mean squared distance, and
      `router`, how well a compiled router agrees and whether it is `kept`.

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
        centroids, curve = agreed(
            lambda: fit_centroids(lambda: iter(kept), config, len(train_ids), seed)
        )
    else:
        centroids, curve = fit_centroids(read, config, len(train_ids), seed)
    centroids, curve = agreed(lambda: (centroids, curve))  # machines may differ in their last bits
    title, by_centroids = "[choose] assignment", jnp.asarray(centroids)
    assign = _make_assign(model, selector, _nearest)
    train, sums = assign((variables, by_centroids), train_ids, title=title)
    valid, _ = assign((variables, by_centroids), valid_ids, title=title)
    facts: dict[str, Any] = {"kmeans": [point._asdict() for point in curve]}
    router = None
    if config.router == "compiled" and config.clusters > 1:
        from ihas_jax.selectors.compiled import compile_router  # it brings in all of training

        router, share = agreed(
            lambda: compile_router(
                sizes, Split(train_ids, train), Split(valid_ids, valid), config.clusters, seed
            )
        )
        agrees = share >= config.min_agreement
        facts["router"] = {"agreement": share, "kept": agrees}
        say(
            f"[choose] the compiled router agrees with the exact one on {share:.2%} of the "
            f"validation rows{'' if agrees else ', which is too few, so the exact one is kept'}"
        )
        if agrees:
            summed = _make_assign(model, selector, _best_sum)
            train, sums = summed((variables, _arrays_of(router)), train_ids, title=title)
            valid = router.assign(valid_ids)
        else:
            router = None
    mean_masks = sums["open"] / np.maximum(sums["rows"], 1)[:, None]
    clusters = Clusters(
        centroids=centroids,
        mean_masks=mean_masks.astype(np.float32),
        counts=sums["rows"].astype(np.int64),
        train=train,
        valid=valid,
        router=router,
    )
    return clusters, facts


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


def idle_in_router(config: ClusterConfig, clusters: int) -> dict[str, str]:
    """The options of the router that would have no effect; see `Method.idle`."""
    if clusters == 1:
        why = "one cluster has no router. Choose two clusters or more"
        return {"cluster.router": why, "cluster.min_agreement": why}
    if config.router == "exact":
        why = "the exact router agrees with itself. Choose --cluster.router compiled"
        return {"cluster.min_agreement": why}
    return {}


def _make_points(model: Model, selector: Selector) -> Streamed:
    """A program from ids to the points that K-means clusters: masked embeddings `[n, K]`."""

    def points(variables: Variables, ids: Array) -> Array:
        found = masked_embeddings(model, selector, variables, ids, by_field=True)
        return found.vectors.reshape(len(ids), -1)

    return Streamed(points)


def _nearest(centroids: Array, points: Array, ids: Array) -> tuple[Array, int]:
    return assign_clusters(points, centroids), len(centroids)


def _best_sum(scores: tuple[Array, ...], points: Array, ids: Array) -> tuple[Array, int]:
    """As `ScoreRouter.assign`, on the device."""
    bias, of_value, first = scores
    sums = bias[:, None] + of_value[:, first + ids].sum(axis=2, dtype=jnp.int32)
    return jnp.argmax(jnp.pad(sums, ((1, 0), (0, 0))), axis=0).astype(jnp.int32), 1 + len(bias)


def _arrays_of(router: ScoreRouter) -> tuple[Array, ...]:
    return tuple(map(jnp.asarray, (router.bias, router.scores, router.first)))


def _make_assign(
    model: Model, selector: Selector, route: Callable[[Any, Array, Array], tuple[Array, int]]
) -> Summed:
    """A program from `((variables, by), ids)` to the clusters `[n]`, and sums by cluster.

    The sums are the numbers of `rows [C]` and of `open [C, K]` gates. What rows are routed by goes
    to `route(by, points, ids)`, which gives clusters and their number.
    """

    def assign(inputs: tuple[Variables, Any], ids: Array, valid: Array) -> tuple[Array, Any]:
        variables, by = inputs
        selected = masked_embeddings(model, selector, variables, ids)
        cluster, number = route(by, selected.vectors.reshape(len(ids), -1), ids)
        assert selected.masks is not None
        members = jax.nn.one_hot(cluster, number) * valid[:, None]
        return cluster, {"rows": members.sum(axis=0), "open": members.T @ selected.masks}

    return Summed(assign)

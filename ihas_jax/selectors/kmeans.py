"""Mini-batch K-means that stops when it has converged; scikit-learn makes the steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from ihas_jax.config import ClusterConfig
from ihas_jax.processes import agreed
from ihas_jax.progress import say


class Convergence(NamedTuple):
    """One point of the inertia curve.

    Attributes:
      rows: rows seen so far.
      inertia: mean squared distance to the nearest centroid, over rows since the previous point.
    """

    rows: int
    inertia: float


def fit_centroids(
    read: Callable[[], Iterator[np.ndarray]], config: ClusterConfig, rows: int, seed: int
) -> tuple[np.ndarray, list[Convergence]]:
    """Fits centroids `[C, K]`, and records the curve of the mean squared distance.

    Args:
      read: starts a pass over all rows, in mini-batches `[n, K]`.
      config: the choices of clustering.
      rows: number of rows in a pass.
      seed: seed of k-means++.
    """
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
        say(f"[choose] {seen:,} rows - mean squared distance: {curve[-1].inertia:.6f}")
        if len(curve) > 1:
            before, now = curve[-2].inertia, curve[-1].inertia
            # machines may differ in their last bits
            if agreed(lambda: before - now < config.tolerance * before):  # noqa: B023
                break
    return np.asarray(kmeans.cluster_centers_, np.float32), curve


def _start_kmeans(points: np.ndarray, config: ClusterConfig, seed: int) -> Any:
    """K-means that starts from the best of several fits to the first mini-batch.

    A single fit often ends far from the least possible distance.
    """
    from sklearn.cluster import MiniBatchKMeans  # takes seconds to import

    # KMeans(n_init=...) sums in the order in which threads end, so no run would be repeated exactly
    seeds = np.random.Generator(np.random.Philox(seed)).integers(2**32, size=config.starts)
    tried = [
        MiniBatchKMeans(config.clusters, n_init=1, random_state=int(s)).fit(points) for s in seeds
    ]
    best = min(tried, key=lambda kmeans: float(kmeans.inertia_))
    return MiniBatchKMeans(
        config.clusters, init=best.cluster_centers_, n_init=1, random_state=seed % 2**32
    )

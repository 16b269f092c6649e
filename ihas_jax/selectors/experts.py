"""The model that each cluster of rows gets (paper section 3.5.3)."""

from __future__ import annotations

import numpy as np

from ihas_jax.config import ClusterConfig
from ihas_jax.errors import InputError
from ihas_jax.nn.embedding import EmbeddingSpec, Kept
from ihas_jax.selectors.budget import fill
from ihas_jax.selectors.clusters import Clusters
from ihas_jax.selectors.plan import Expert, Plan
from ihas_jax.selectors.selection import Selection, kept_coordinates


def plan_experts(
    clusters: Clusters,
    train_labels: np.ndarray,
    valid_labels: np.ndarray,
    config: ClusterConfig,
    spec: EmbeddingSpec,
    budget: int | None = None,
) -> Plan:
    """One expert per cluster; clusters that can't carry one share a model of all rows.

    A cluster needs `min_rows` training rows with both classes, and validation rows that decide
    when to stop. The paper is silent on clusters without them.

    Args:
      clusters: the result of clustering.
      train_labels: `[n]`.
      valid_labels: `[m]`.
      config: the choices of clustering.
      spec: the searched table.
      budget: numbers of this table that all experts may keep together, in equal parts. They keep
        the coordinates that the largest shares of their rows open, instead of a majority. None
        for no budget.

    Raises:
      InputError: a part of the budget has no room for any coordinate.
    """
    number = len(clusters.counts)
    rows = [np.flatnonzero(clusters.train == c).astype(np.int32) for c in range(number)]
    valid_rows = [np.flatnonzero(clusters.valid == c).astype(np.int32) for c in range(number)]
    reasons = tuple(
        _unfit(*own, train_labels, config.min_rows) for own in zip(rows, valid_rows, strict=True)
    )
    models = reasons.count(None) + any(reasons)

    def selected(mean_mask: np.ndarray) -> Selection:
        if budget is None:
            return Selection(majority_coordinates(mean_mask, spec.dim, config.majority))
        gains = mean_mask.reshape(-1, spec.dim)
        return Selection(fill(gains, spec.sizes, budget // models))

    experts: list[Expert] = []
    routes: list[int] = []
    for c, reason in enumerate(reasons):
        routes.append(models - 1 if reason else len(experts))
        if reason is None:
            selection = selected(clusters.mean_masks[c])
            experts.append(Expert(selection, f"cluster_{c}", rows[c], valid_rows[c]))
    shares = clusters.counts / clusters.counts.sum()
    if any(reasons):
        experts.append(Expert(selected(shares @ clusters.mean_masks), "all"))
    return Plan(tuple(experts), tuple(routes), reasons, clusters.centroids, tuple(shares.tolist()))


def _unfit(
    rows: np.ndarray, valid_rows: np.ndarray, labels: np.ndarray, min_rows: int
) -> str | None:
    if len(rows) < max(min_rows, 1):
        return f"it has {len(rows)} training rows, fewer than cluster.min_rows = {min_rows}"
    if labels[rows].min() == labels[rows].max():
        return f"all of its {len(rows)} training rows have label {labels[rows[0]]}"
    return None if len(valid_rows) else "it has no validation rows"


def majority_coordinates(mean_mask: np.ndarray, dim: int, majority: float) -> Kept:
    """Coordinates that at least `majority` of the rows open, by field (section 3.5.3).

    If there is none, the single coordinate that most rows open is kept.

    Args:
      mean_mask: `[K]` share of rows that open each coordinate.
      dim: D.
      majority: share of rows, 0 to 1.

    Raises:
      InputError: there are not D shares per field, or a share is not between 0 and 1.
    """
    if mean_mask.ndim != 1 or mean_mask.size % dim or not mean_mask.size:
        raise InputError(
            f"The mean mask has the shape {list(mean_mask.shape)}; [K] is needed, {dim} shares per "
            "field."
        )
    if not ((mean_mask >= 0) & (mean_mask <= 1)).all():
        raise InputError("The mean mask must hold shares, between 0 and 1.")
    return kept_coordinates(mean_mask, mean_mask >= majority, dim)

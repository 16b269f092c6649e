"""The model that each cluster of rows gets (paper section 3.5.3)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ihas_jax.config import ClusterConfig
from ihas_jax.errors import InputError
from ihas_jax.nn.embedding import Kept
from ihas_jax.progress import say
from ihas_jax.selectors.axes import Measure
from ihas_jax.selectors.clusters import Clusters
from ihas_jax.selectors.plan import Expert, Plan, SearchResult
from ihas_jax.selectors.selection import Selection, kept_coordinates
from ihas_jax.selectors.worth import best_expert

BELOW_SIZE = "fewer than cluster.min_rows"
"""What the reason says why a cluster of few rows has no model of its own."""


def plan_experts(
    found: SearchResult, clusters: Clusters, config: ClusterConfig, by: Measure = "loss"
) -> Plan:
    """One expert per cluster; clusters that can't carry one share a model of all rows.

    A cluster needs `min_rows` training rows with both classes, and validation rows that decide
    when to stop. The paper is silent on clusters without them.

    Without a budget an expert keeps the coordinates that a majority of its rows opens. A budget is
    shared in equal parts, and each part filled by expected gain: what a number is worth in the rows
    of the cluster times the share of these rows that open its coordinate.

    With `found.shared` a model of all rows comes first and has the whole budget; the clusters keep
    what it keeps.

    Args:
      found: the searched model, its rows and the budget.
      clusters: the result of clustering.
      config: the choices of clustering.
      by: what worth is measured by; see `axes_by`.

    Raises:
      InputError: a part of the budget has no room for any coordinate.
    """
    number, train_labels = len(clusters.counts), found.train.labels
    rows = [np.flatnonzero(clusters.train == c).astype(np.int32) for c in range(number)]
    valid_rows = [np.flatnonzero(clusters.valid == c).astype(np.int32) for c in range(number)]
    reasons = tuple(
        _unfit(*own, train_labels, config.min_rows) for own in zip(rows, valid_rows, strict=True)
    )
    models = reasons.count(None) + any(reasons)

    def expert(
        name: str,
        mean_mask: np.ndarray,
        rows: np.ndarray | None = None,
        valid_rows: np.ndarray | None = None,
    ) -> Expert:
        if found.budget is None:
            kept = majority_coordinates(mean_mask, found.model.embedding.dim, config.majority)
            return Expert(Selection(kept), name, rows, valid_rows)
        part, own = found._replace(budget=found.budget // models), config.axes == "own"
        best = best_expert(part, config.cut, own=own, by=by, rows=rows, opened=mean_mask)
        say(f"[choose] what is kept has {best.share:.2%} of what all numbers are worth")
        return replace(best.expert, name=name, valid_rows=valid_rows)

    shares = clusters.counts / clusters.counts.sum()
    of_all = np.minimum(shares @ clusters.mean_masks, 1.0)  # rounding may lead above 1
    if found.shared:
        models = 1
        whole = expert("all", of_all)
        fit = [c for c, reason in enumerate(reasons) if reason is None]
        own = [
            replace(whole, name=f"cluster_{c}", rows=rows[c], valid_rows=valid_rows[c]) for c in fit
        ]
        routes = [0 if reason else 1 + fit.index(c) for c, reason in enumerate(reasons)]
        return Plan(
            (whole, *own),
            tuple(routes),
            reasons,
            clusters.centroids,
            tuple(shares.tolist()),
            shared=True,
            router=clusters.router,
        )
    experts: list[Expert] = []
    routes = []
    for c, reason in enumerate(reasons):
        routes.append(models - 1 if reason else len(experts))
        if reason is None:
            mean_mask = clusters.mean_masks[c]
            experts.append(expert(f"cluster_{c}", mean_mask, rows[c], valid_rows[c]))
    if any(reasons):
        experts.append(expert("all", of_all))
    return Plan(
        tuple(experts),
        tuple(routes),
        reasons,
        clusters.centroids,
        tuple(shares.tolist()),
        router=clusters.router,
    )


def _unfit(
    rows: np.ndarray, valid_rows: np.ndarray, labels: np.ndarray, min_rows: int
) -> str | None:
    if len(rows) < min_rows:
        return f"it has {len(rows)} training rows, {BELOW_SIZE} = {min_rows}"
    if not len(rows):
        return "it has no training rows"
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

"""The last stage: every test row through its cluster's model, beside base and searched model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jax import Array

from ihas_jax.config import Config
from ihas_jax.models.base import Model, count_parameters
from ihas_jax.selectors.base import Selector
from ihas_jax.stages.cluster import Clusters, make_assign
from ihas_jax.stages.pretrain import streamed_predict
from ihas_jax.stages.retrain import Plan, build_expert
from ihas_jax.stages.run import Run
from ihas_jax.stages.search import predict_selected
from ihas_jax.training.loop import Fitted
from ihas_jax.training.metrics import score
from ihas_jax.training.streaming import Streamed


class Evaluation(NamedTuple):
    """What evaluation found.

    Attributes:
      metrics: `base`, `search` and `ihas` with `auc`, `logloss`, `parameters`; `clusters`.
      sample: gate probabilities `[S, K]` and thresholds `[S]` of some test rows, for figures.
    """

    metrics: dict[str, Any]
    sample: dict[str, np.ndarray]


def predict_routed(
    experts: Sequence[tuple[Streamed, Any]],
    routes: tuple[int, ...],
    clusters: np.ndarray,
    ids: np.ndarray,
) -> np.ndarray:
    """Probabilities `[n]` of all rows in their order, each by the model of its cluster.

    Args:
      experts: predictors (`streamed_predict`) with their `(params, batch_stats)`.
      routes: index of the expert that serves each cluster.
      clusters: `[n]` cluster of each row.
      ids: `[n, N]`.
    """
    serving = np.array(routes)[clusters]
    probs = np.empty(len(ids), np.float32)
    for index, (predictor, weights) in enumerate(experts):
        rows = np.flatnonzero(serving == index)
        if len(rows):
            probs[rows] = predictor(weights, ids, rows)
    return probs


def evaluate(
    run: Run,
    model: Model,
    selector: Selector,
    base: Fitted,
    searched: Fitted,
    clusters: Clusters,
    plan: Plan,
    retrained: list[Fitted],
) -> Evaluation:
    """Scores base, searched and routed models on the test split, all rows pooled.

    `parameters` of `ihas` counts the compact models; what routing needs beside them (searched
    tables, gates, centroids) is `router_parameters`.
    """
    test = run.data.test
    base_probs = streamed_predict(model, "[evaluate] base")(
        (base.params, base.batch_stats), test.ids
    )

    def searched_batch(weights: Any, ids: Array) -> tuple[Array, Array]:
        probs, selected = predict_selected(model, selector, weights[0], weights[1], ids)
        return probs, selected.masks.mean(axis=1)

    search_probs, search_kept = Streamed(searched_batch, "[evaluate] search")(
        (searched.params, searched.batch_stats), test.ids
    )
    assigned = make_assign(model, selector)((searched.params, clusters.centroids), test.ids)
    experts = [
        (
            streamed_predict(build_expert(run, expert), "[evaluate] routed models"),
            (fitted.params, fitted.batch_stats),
        )
        for expert, fitted in zip(plan.experts, retrained, strict=True)
    ]
    routed = predict_routed(experts, plan.routes, assigned, test.ids)
    gates = count_parameters(searched.params["selector"])
    tables = count_parameters(searched.params["tables"])
    metrics = {
        "base": _scores(test.labels, base_probs, count_parameters(base.params)),
        "search": _scores(test.labels, search_probs, count_parameters(searched.params))
        | {"kept": float(search_kept.mean())},
        "ihas": _scores(
            test.labels, routed, sum(count_parameters(weights[0]) for _, weights in experts)
        )
        | {"router_parameters": tables + gates + clusters.centroids.size},
        "clusters": [
            _describe(run.config, run.data.schema.names, clusters, plan, c, assigned, routed, test)
            for c in range(len(plan.routes))
        ],
    }
    return Evaluation(metrics, _sample(model, selector, searched, test.ids))


def _scores(labels: np.ndarray, probs: np.ndarray, parameters: int) -> dict[str, Any]:
    scores = score(labels, probs)
    return {"auc": scores.auc, "logloss": scores.logloss, "parameters": parameters}


def _describe(
    config: Config,
    names: tuple[str, ...],
    clusters: Clusters,
    plan: Plan,
    c: int,
    assigned: np.ndarray,
    routed: np.ndarray,
    test: Any,
) -> dict[str, Any]:
    expert = plan.experts[plan.routes[c]]
    widths = [len(kept) for kept in expert.kept]
    rows = assigned == c
    scores = score(test.labels[rows], routed[rows]) if rows.any() else None
    return {
        "share": float(clusters.counts[c] / clusters.counts.sum()),
        "kept": sum(widths) / (len(names) * config.model.dim),
        "widths": dict(zip(names, widths, strict=True)),
        "model": expert.name,
        "fallback": plan.reasons[c],
        "test": None
        if scores is None
        else {"rows": int(rows.sum()), "auc": scores.auc, "logloss": scores.logloss},
    }


def _sample(
    model: Model, selector: Selector, searched: Fitted, ids: np.ndarray, rows: int = 1000
) -> dict[str, np.ndarray]:
    def batch(weights: Any, ids: Array) -> tuple[Array, Array]:
        _, selected = predict_selected(model, selector, weights[0], weights[1], ids)
        return selected.probs, selected.thresholds

    probs, thresholds = Streamed(batch, "[evaluate] sample")(
        (searched.params, searched.batch_stats), ids[:rows]
    )
    return {"probs": probs, "thresholds": thresholds}

"""The last stage: every test row through its cluster's model, beside base and searched model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jax import Array

from ihas_jax.errors import InputError
from ihas_jax.models.base import EMBEDDING, SELECTOR, Params, count_parameters
from ihas_jax.selectors.base import Weights
from ihas_jax.stages.cluster import Clusters, Searched, look_up, make_assign
from ihas_jax.stages.pretrain import streamed_predict
from ihas_jax.stages.retrain import Plan, build_expert
from ihas_jax.stages.run import Run
from ihas_jax.stages.search import streamed_selected
from ihas_jax.training.loop import Fitted
from ihas_jax.training.metrics import DivergedError, score
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
    base: Fitted,
    searched: Searched,
    plan: Plan,
    retrained: list[Fitted],
) -> Evaluation:
    """Scores base, searched and routed models on the test split, all rows pooled.

    `parameters` of `ihas` counts the compact models; what routing needs beside them (searched
    tables, gates, centroids) is `router_parameters`, 0 where a single model serves all rows.
    `bytes` are those of both.
    """
    test, model, selector = run.data.test, searched.model, searched.selector
    params, clusters = searched.fitted.params, searched.clusters
    base_probs = streamed_predict(run.model(), "[evaluate] base")(
        (base.params, base.batch_stats), test.ids
    )

    search_probs, search_kept = streamed_selected(model, selector, "[evaluate] search")(
        (params, searched.fitted.batch_stats), test.ids
    )
    assigned = make_assign(model, selector)((params, clusters.centroids), test.ids)
    experts = [
        (
            streamed_predict(build_expert(run, expert), "[evaluate] routed models"),
            (fitted.params, fitted.batch_stats),
        )
        for expert, fitted in zip(plan.experts, retrained, strict=True)
    ]
    routed = predict_routed(experts, plan.routes, assigned, test.ids)
    compact = sum(count_parameters(weights[0]) for _, weights in experts)
    routing = count_parameters((params[SELECTOR], params["tables"][EMBEDDING]))
    routing = routing + clusters.centroids.size if len(experts) > 1 else 0
    metrics = {
        "base": scores_of("base", test.labels, base_probs, count_parameters(base.params)),
        "search": scores_of("search", test.labels, search_probs, count_parameters(params))
        | {"kept": float(search_kept.mean())},
        "ihas": scores_of("ihas", test.labels, routed, compact)
        | {"router_parameters": routing, "bytes": 4 * (compact + routing)},
        "clusters": [
            _describe(run, clusters, plan, c, assigned, routed, test)
            for c in range(len(plan.routes))
        ],
    }
    return Evaluation(metrics, _sample(searched, test.ids))


def scores_of(name: str, labels: np.ndarray, probs: np.ndarray, parameters: int) -> dict[str, Any]:
    """AUC and logloss beside the size of a model, `bytes` for float32 parameters.

    Raises:
      InputError: a probability is not a number; names the model.
    """
    try:
        scores = score(labels, probs)
    except DivergedError as error:
        raise InputError(
            f"The test rows have no scores by '{name}'. {error} Try a smaller "
            "--optimizer.learning-rate, with a new --output."
        ) from None
    size = {"parameters": parameters, "bytes": 4 * parameters}
    return scores.facts | size


def _describe(
    run: Run,
    clusters: Clusters,
    plan: Plan,
    c: int,
    assigned: np.ndarray,
    routed: np.ndarray,
    test: Any,
) -> dict[str, Any]:
    expert = plan.experts[plan.routes[c]]
    widths = [len(kept) for kept in expert.selection.kept]
    rows = assigned == c
    scores = score(test.labels[rows], routed[rows]) if rows.any() else None
    return {
        "share": float(clusters.counts[c] / clusters.counts.sum()),
        "kept": sum(widths) / run.model().embedding.coordinates,
        "widths": dict(zip(run.data.schema.names, widths, strict=True)),
        "model": expert.name,
        "fallback": plan.reasons[c],
        "test": None if scores is None else {"rows": int(rows.sum()), **scores.facts},
    }


def _sample(searched: Searched, ids: np.ndarray, rows: int = 1000) -> dict[str, np.ndarray]:
    def batch(params: Params, ids: Array) -> tuple[Array, Array]:
        embeddings = look_up(searched.model, params, ids).embeddings
        gates = searched.selector.gates(Weights(params[SELECTOR]), embeddings)
        return gates.probs, gates.thresholds

    probs, thresholds = Streamed(batch, "[evaluate] sample")(searched.fitted.params, ids[:rows])
    return {"probs": probs, "thresholds": thresholds}

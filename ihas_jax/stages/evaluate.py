"""The last stage: base, searched and outcome models, scored on the test rows.

What is scored is what is served: `metrics.json` and the saved bundle come from the same objects.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jax import Array

from ihas_jax.errors import InputError
from ihas_jax.models.base import Variables
from ihas_jax.models.forward import embed
from ihas_jax.models.streaming import Streamed
from ihas_jax.selectors.base import Selecting
from ihas_jax.selectors.plan import Expert, Plan
from ihas_jax.serving.bundle import Bundle
from ihas_jax.stages.base import require_selector
from ihas_jax.stages.bundles import base_bundle, outcome_bundle, search_bundle, with_usage
from ihas_jax.stages.lessons import Taught
from ihas_jax.stages.retrain import carried
from ihas_jax.stages.routers import router_facts
from ihas_jax.stages.run import Run
from ihas_jax.stages.search import SearchRuns
from ihas_jax.training.metrics import DivergedError, score
from ihas_jax.training.task import Trained

_SHOWN_ROWS = 1000


class Evaluation(NamedTuple):
    """The result of evaluation.

    Attributes:
      metrics: `base`, `search` (if anything was trained before the choice) and the outcome of the
        method, each with `auc`, `logloss` and `parameters`; `clusters` or `selection`.
      bundle: the outcome, ready to be served.
      shown: arrays `[S, ...]` of some test rows for figures: gate probabilities and thresholds.
    """

    metrics: dict[str, Any]
    bundle: Bundle
    shown: dict[str, np.ndarray]


def evaluate_base(run: Run, base: Trained) -> Evaluation:
    """Scores the base model of a run without a method, and counts how its table is used."""
    return Evaluation(_score_base(run, base), with_usage(run, base_bundle(run, base)), {})


def evaluate_student(run: Run, base: Trained, student: Trained) -> Evaluation:
    """Scores the base model of a run without a method, and the model that teachers taught."""
    metrics, bundle = _score_base(run, base), base_bundle(run, student)
    metrics |= {"student": _score(run, "student", bundle).facts}
    return Evaluation(metrics, with_usage(run, bundle), {})


def score_teachers(run: Run, taught: Taught) -> dict[str, Any]:
    """Scores of the teachers' mean prediction of the test rows, and their size."""
    scores = score(run.data.test.labels, taught.test).facts
    size = {"parameters": taught.parameters, "bytes": 4 * taught.parameters}
    return {**scores, **size, "models": list(run.config.retrain.teachers)}


def evaluate(
    run: Run, base: Trained, search: SearchRuns, plan: Plan, retrained: Sequence[Trained]
) -> Evaluation:
    """Scores base, searched and outcome models on the test split, all rows pooled.

    `parameters` of the outcome counts the compact models, without what a mask removes and without
    the row that removed values share. `router_parameters` counts what routing needs in addition.
    `bytes` counts all of it, and the record of which numbers and values are kept. `table_share` is
    the numbers that all compact models keep of the full-size embedding table, divided by the
    numbers of that table.
    """
    method, metrics = run.config.method, _score_base(run, base)
    if not plan.experts:
        searched = search_bundle(run, search)
        scores = _score(run, "search", searched).facts
        return Evaluation(metrics | {method: scores}, searched, {})
    if plan.clustered or _was_trained(search):
        metrics |= {"search": _score(run, "search", search_bundle(run, search)).facts}
    bundle = outcome_bundle(run, search, plan, retrained)
    outcome = _score(run, method, bundle)
    experts = carried(run, plan)
    share = _share(run, experts[: len(plan.tables)])
    metrics |= {method: outcome.facts | {"table_share": share}, **plan.facts}
    if not plan.clustered:
        metrics["selection"] = _describe_selection(run, experts[0])
        return Evaluation(metrics, bundle, {})
    metrics[method] |= {"router_parameters": bundle.router_parameters}
    if more := router_facts(run, search, plan):
        metrics["router"] = plan.facts["router"] | more
    metrics["clusters"] = [
        _describe_cluster(run, plan, outcome, c) for c in range(len(plan.routes))
    ]
    shown = show_gates(run, search)
    return Evaluation(metrics | {"gates": bool(shown)}, bundle, shown)


def _score_base(run: Run, base: Trained) -> dict[str, Any]:
    return {"base": _score(run, "base", base_bundle(run, base)).facts}


def _was_trained(search: SearchRuns) -> bool:
    """Whether the searched model had an epoch of training."""
    return bool(search.pretrained.history or search.searched.history)


class _Scored(NamedTuple):
    """Scores and size of a bundle, and its predictions and clusters of the test rows."""

    facts: dict[str, Any]
    probs: np.ndarray
    clusters: np.ndarray


def _score(run: Run, name: str, bundle: Bundle) -> _Scored:
    """Scores a bundle on the test rows.

    Raises:
      InputError: a probability is not a number; the message names the model.
    """
    ids, labels = run.data.test
    title, more = f"[evaluate] {name}", {}
    clusters = bundle.assign_checked(ids, title)
    if bundle.models[0].transform is None:
        probs = bundle.predict_assigned(ids, clusters, title)
    else:
        probs, kept = bundle.models[0].predict(ids, title=title)
        more = {} if kept is None else {"kept": float(kept.mean())}
    try:
        scores = score(labels, probs)
    except DivergedError as error:
        raise InputError(
            f"The model '{name}' can't be scored on the test rows. {error} Try a smaller "
            "--optimizer.learning-rate, with a new --output."
        ) from None
    size = {"parameters": bundle.parameters, "bytes": bundle.bytes}
    return _Scored(scores.facts | size | more, probs, clusters)


def _describe_cluster(run: Run, plan: Plan, outcome: _Scored, c: int) -> dict[str, Any]:
    """Size, kept coordinates and test scores of a cluster."""
    expert = carried(run, plan)[plan.routes[c]]
    widths = _mean_widths(run, expert)
    rows = outcome.clusters == c
    scores = score(run.data.test.labels[rows], outcome.probs[rows]) if rows.any() else None
    return {
        "share": plan.shares[c],
        "kept": sum(widths) / run.model.embedding.coordinates,
        "widths": dict(zip(run.data.schema.names, widths, strict=True)),
        "model": expert.name,
        "fallback": plan.reasons[c],
        "test": None if scores is None else {"rows": int(rows.sum()), **scores.facts},
    }


def _share(run: Run, experts: Sequence[Expert]) -> float:
    """The numbers of the embedding table that experts keep together, over those of the table."""
    spec = run.model.embedding
    return sum(expert.selection.parameters(spec) for expert in experts) / spec.parameters


def _mean_widths(run: Run, expert: Expert) -> list[float]:
    """Kept coordinates of each field, mean over its values; an integer where it is one."""
    spec = run.model.embedding
    numbers = zip(expert.selection.parameters_by_field(spec), spec.sizes, strict=True)
    return [n // size if n % size == 0 else n / size for n, size in numbers]


def _describe_selection(run: Run, expert: Expert) -> dict[str, Any]:
    """Mean number of kept coordinates per value of each field, and the kept share of all."""
    widths = _mean_widths(run, expert)
    return {
        "widths": dict(zip(run.data.schema.names, widths, strict=True)),
        "kept": _share(run, [expert]),
    }


def show_gates(run: Run, search: SearchRuns) -> dict[str, np.ndarray]:
    """Gate probabilities and thresholds of the first test rows, at most 1000, for figures.

    Returns:
      `probs` `[S, K]` and `thresholds` `[S]`, or nothing where the selector has no gates per row.
    """
    model, transform = run.searched_model, Selecting(require_selector(run))

    def batch(variables: Variables, ids: Array) -> Any:
        made = embed(model, variables, ids, transform)[1]
        return {} if made is None else dict(made.shown)

    rows = run.data.test.ids[:_SHOWN_ROWS]
    return Streamed(batch)(search.variables, rows, title="[evaluate] sample")

"""The last stage: base, searched and outcome models, scored on the test rows.

What is scored is what is served: `metrics.json` and the saved bundle come from the same objects.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ihas_jax.errors import InputError
from ihas_jax.selectors.plan import Expert, Plan
from ihas_jax.serving.bundle import Bundle
from ihas_jax.stages.bundles import base_bundle, outcome_bundle, search_bundle, with_usage
from ihas_jax.stages.gates import gate_facts, show_gates
from ihas_jax.stages.lessons import Taught
from ihas_jax.stages.retrain import carried
from ihas_jax.stages.routers import router_facts
from ihas_jax.stages.run import Run
from ihas_jax.stages.search import SearchRuns
from ihas_jax.stages.speed import speed_beside
from ihas_jax.stages.verdict import gain
from ihas_jax.training.metrics import DivergedError, score
from ihas_jax.training.task import Trained


class Evaluation(NamedTuple):
    """The result of evaluation.

    Attributes:
      metrics: `base`, `search` (if anything was trained before the choice) and the outcome of the
        method, each with `auc`, `logloss` and `parameters`; `clusters` or `selection`; `gain` and
        `microseconds`, what the outcome gains and takes beside the base model.
      bundle: the outcome, ready to be served.
      shown: arrays `[S, ...]` of some test rows for figures: gate probabilities and thresholds.
    """

    metrics: dict[str, Any]
    bundle: Bundle
    shown: dict[str, np.ndarray]


def evaluate_base(run: Run, base: Trained) -> Evaluation:
    """Scores the base model of a run without a method, and counts how its table is used."""
    scored = _score(run, "base", base_bundle(run, base))
    return Evaluation({"base": scored.facts}, with_usage(run, scored.bundle), {})


def evaluate_student(run: Run, base: Trained, student: Trained) -> Evaluation:
    """Scores the base model of a run without a method, and the model that teachers taught."""
    scored = _score(run, "base", base_bundle(run, base))
    outcome = _score(run, "student", base_bundle(run, student))
    metrics = {"base": scored.facts, "student": outcome.facts}
    metrics |= _beside(run, scored, "student", outcome)
    return Evaluation(metrics, with_usage(run, outcome.bundle), {})


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
    method, scored = run.config.method, _score(run, "base", base_bundle(run, base))
    metrics: dict[str, Any] = {"base": scored.facts}
    if not plan.experts:
        outcome = _score(run, "search", search_bundle(run, search))
        metrics |= {method: outcome.facts | gate_facts(run, search, {})}
        return Evaluation(metrics | _beside(run, scored, method, outcome), outcome.bundle, {})
    shown = show_gates(run, search) if plan.clustered else {}
    if plan.clustered or _was_trained(search):
        searched = _score(run, "search", search_bundle(run, search)).facts
        metrics |= {"search": searched | gate_facts(run, search, shown)}
    bundle = outcome_bundle(run, search, plan, retrained)
    outcome = _score(run, method, bundle)
    experts = carried(run, plan)
    share = _share(run, experts[: len(plan.tables)])
    metrics |= {method: outcome.facts | {"table_share": share}, **plan.facts}
    metrics |= _beside(run, scored, method, outcome)
    if not plan.clustered:
        metrics["selection"] = _describe_selection(run, experts[0])
        return Evaluation(metrics, bundle, {})
    metrics[method] |= {"router_parameters": bundle.router_parameters}
    if more := router_facts(run, search, plan):
        metrics["router"] = plan.facts["router"] | more
    metrics["clusters"] = [
        _describe_cluster(run, plan, outcome, c) for c in range(len(plan.routes))
    ]
    return Evaluation(metrics | {"gates": bool(shown)}, bundle, shown)


def _beside(run: Run, base: _Scored, name: str, outcome: _Scored) -> dict[str, Any]:
    """The gain in AUC of a model over the base model, and the time of both for a row."""
    ids, labels = run.data.test
    predict = {"base": base.bundle.predict_ids, name: outcome.bundle.predict_ids}
    return {
        "gain": gain(labels, outcome.probs, base.probs),
        "microseconds": speed_beside(predict, ids),
    }


def _was_trained(search: SearchRuns) -> bool:
    """Whether the searched model had an epoch of training."""
    return bool(search.pretrained.history or search.searched.history)


class _Scored(NamedTuple):
    """A bundle, its scores and size, and its predictions and clusters of the test rows."""

    bundle: Bundle
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
    return _Scored(bundle, scores.facts | size | more, probs, clusters)


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

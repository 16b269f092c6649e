"""The retraining stage: one compact click model per cluster (Algorithm 1, lines 14 to 21)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from ihas_jax.config import ClusterConfig
from ihas_jax.data.dataset import Split
from ihas_jax.models.base import EMBEDDING, Model, Params
from ihas_jax.nn.compact import carry_kept, slice_table
from ihas_jax.nn.embedding import EmbeddingSpec
from ihas_jax.progress import log
from ihas_jax.selectors.selection import Selection
from ihas_jax.stages.cluster import Clusters, majority_coordinates
from ihas_jax.stages.pretrain import train_model
from ihas_jax.stages.run import Run
from ihas_jax.training.loop import Fitted
from ihas_jax.training.optimizers import make_table_optimizer
from ihas_jax.training.steps import TrainState


@dataclass(frozen=True, eq=False)
class Expert:
    """One model to retrain: the rows it sees and the coordinates it keeps.

    Attributes:
      name: 'cluster_0', 'cluster_1', ..., or 'all' for the model of all rows.
      rows: training rows, `[n]` int32.
      valid_rows: validation rows, `[m]` int32.
      selection: the coordinates it keeps.
    """

    name: str
    rows: np.ndarray
    valid_rows: np.ndarray
    selection: Selection


@dataclass(frozen=True)
class Plan:
    """The models to retrain, and for each cluster the index of the one that serves it."""

    experts: tuple[Expert, ...]
    routes: tuple[int, ...]
    reasons: tuple[str | None, ...]
    """Why a cluster is served by the model of all rows, or None."""


def plan_experts(
    clusters: Clusters,
    train_labels: np.ndarray,
    valid_labels: np.ndarray,
    config: ClusterConfig,
    searched: EmbeddingSpec,
    target: EmbeddingSpec,
) -> Plan:
    """One expert per cluster; clusters that can't carry one share a model of all rows.

    A cluster needs `min_rows` training rows, both classes among them, and validation rows to
    stop by. The paper does not say what to do without.

    Args:
      clusters: what the clustering stage found.
      train_labels: `[n]`.
      valid_labels: `[m]`.
      config: the clustering stage's choices.
      searched: table of the searched model, whose coordinates the gates open.
      target: full-size table of the model to retrain; the same, or see `carry_kept`.
    """

    def selected(mean_mask: np.ndarray) -> Selection:
        kept = majority_coordinates(mean_mask, searched.dim, config.majority)
        return Selection(carry_kept(kept, searched, target))

    experts: list[Expert] = []
    routes: list[int] = []
    reasons = []
    for c, mean_mask in enumerate(clusters.mean_masks):
        rows = np.flatnonzero(clusters.train == c).astype(np.int32)
        valid_rows = np.flatnonzero(clusters.valid == c).astype(np.int32)
        reasons.append(_unfit(rows, valid_rows, train_labels, config.min_rows))
        routes.append(-1 if reasons[-1] else len(experts))
        if reasons[-1] is None:
            experts.append(Expert(f"cluster_{c}", rows, valid_rows, selected(mean_mask)))
    if -1 in routes:
        weights = clusters.counts / clusters.counts.sum()
        rows, valid_rows = (
            np.arange(len(labels), dtype=np.int32) for labels in (train_labels, valid_labels)
        )
        every = weights @ clusters.mean_masks
        experts.append(Expert("all", rows, valid_rows, selected(every)))
    last = len(experts) - 1
    return Plan(tuple(experts), tuple(last if r < 0 else r for r in routes), tuple(reasons))


def build_expert(run: Run, expert: Expert) -> Model:
    """The compact click model of an expert."""
    return run.model(expert.selection.kept, expert.rows)


def retrain(run: Run, plan: Plan, searched: Model, params: Params) -> list[Fitted]:
    """Trains every expert of a plan on its own rows, with early stopping on its own rows.

    Fresh weights, or with `retrain.warm_start` the kept coordinates of the tables in the searched
    model's `params` that are shaped as the retrained model's own.
    """
    start = _warm_start(run, searched, params) if run.config.retrain.warm_start else _cold
    for c, reason in enumerate(plan.reasons):
        if reason:
            log(f"[retrain] cluster {c} is served by the model of all rows: {reason}")
            run.event("fallback", {"cluster": c, "reason": reason})
    fitted = []
    for expert in plan.experts:
        model, name = build_expert(run, expert), f"retrain/{expert.name}"
        valid = Split(*(part[expert.valid_rows] for part in run.data.valid))
        fitted.append(
            train_model(
                run, name, model, rows=expert.rows, valid=valid, start=partial(start, model)
            )
        )
    return fitted


def _unfit(
    rows: np.ndarray, valid_rows: np.ndarray, labels: np.ndarray, min_rows: int
) -> str | None:
    if len(rows) < max(min_rows, 1):
        return f"it has {len(rows)} training rows, fewer than cluster.min_rows = {min_rows}"
    if labels[rows].min() == labels[rows].max():
        return f"all of its {len(rows)} training rows have label {labels[rows[0]]}"
    return None if len(valid_rows) else "it has no validation rows"


def _cold(model: Model, state: TrainState) -> TrainState:
    return state


def _warm_start(
    run: Run, searched: Model, params: Params
) -> Callable[[Model, TrainState], TrainState]:
    full = run.model().tables
    if full[EMBEDDING].dim != searched.embedding.dim:
        log("[retrain] starts cold: the searched tables are of another shape")

    def start(model: Model, state: TrainState) -> TrainState:
        tables = dict(state.params["tables"])
        for name, spec in model.tables.items():
            source = searched.tables.get(name)
            if source and (source.sizes, source.dim) == (full[name].sizes, full[name].dim):
                tables[name] = slice_table(source, params["tables"][name], spec)
        optimizer = make_table_optimizer(run.config.optimizer)
        return dataclasses.replace(
            state, params=state.params | {"tables": tables}, table_optimizer=optimizer.init(tables)
        )

    return start

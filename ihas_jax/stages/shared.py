"""Clusters with one table: each goes on from the network of all rows, and keeps what is better."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np

from ihas_jax.config import Config, OptimizerConfig
from ihas_jax.data.dataset import Split
from ihas_jax.errors import InputError
from ihas_jax.models.base import NETWORK, Model
from ihas_jax.progress import say
from ihas_jax.selectors.plan import Expert, Plan
from ihas_jax.stages.base import model_task, require_selector, train_runs
from ihas_jax.stages.run import Run
from ihas_jax.stages.search import split_validation
from ihas_jax.training.loop import Trained
from ihas_jax.training.metrics import logloss
from ihas_jax.training.optimizers import l2_adam
from ihas_jax.training.predict import predictor
from ihas_jax.training.steps import TABLES, TRAINING, Round, make_round, make_step

_RATES = (0.2, 0.04)
"""Learning rates of a cluster's network, as multiples of that of the model of all rows."""
_WORSE = "its own network was no better on validation rows than that of all rows"


def check_shared(run: Run, clusters: int) -> None:
    """Checks that clusters can go on from one model.

    Args:
      run: the run.
      clusters: how many clusters its method makes.

    Raises:
      InputError: the method has no clusters, or all validation rows move gates.
    """
    config = run.config
    if not run.shared:
        return
    if clusters < 2:
        raise InputError(
            "--retrain.start shared needs two clusters or more, which go on from one model. Choose "
            "--method ihas --cluster.clusters 2, or --method spectral --spectral.clusters 2."
        )
    moves = require_selector(run).recipe.gate_batches == "validation"
    if moves and not config.search.stopping_share:
        raise InputError(
            "--retrain.start shared decides by validation rows that moved no gate, and all of them "
            "do. Choose --search.stopping-share 0.5."
        )


def train_network(run: Run, expert: Expert, whole: Expert, first: Trained) -> Trained:
    """The network of a cluster, which goes on from that of all rows over the same table.

    The table stays as it is. The network of all rows is a candidate of early stopping.

    Args:
      run: the run.
      expert: the expert of the cluster.
      whole: the expert of all rows.
      first: its training.

    Returns:
      The training of the cluster's own network, with the very arrays of the table; or `first` where
      the own one has no smaller logloss on the cluster's validation rows that moved no gate.
    """
    name, model = f"retrain/{expert.name}", run.expert_model(whole)
    rows = _deciding_rows(run, expert)
    if not len(rows):
        return first
    valid = Split(*(part[rows] for part in run.data.valid))
    rounds = [network_round(_slower(run.config, rate), model) for rate in _RATES]
    task = model_task(
        run, name, model, rows=expert.rows, valid=valid, round_=rounds[0], start_counts=True
    )
    task = replace(task, finish=tuple(rounds[1:]))
    # training takes the arrays of its start
    params, stats, constants = jax.tree.map(jnp.copy, tuple(first.variables))
    state = replace(
        first.state,
        step=jnp.zeros_like(first.state.step),
        keys={TRAINING: run.key(name)},
        params=params,
        stats=stats,
        constants=constants,
        optimizers={NETWORK: l2_adam(run.config.optimizer).init(params[NETWORK])},
    )
    (own,) = train_runs([run], [task], [state])
    losses = [
        logloss(valid.labels, predictor(model)(one.variables, valid.ids, title=f"[{name}]").probs)
        for one in (own, first)
    ]
    better = losses[0] < losses[1]
    run.event("shared", {"expert": expert.name, "own": losses[0], "all": losses[1]})
    kept = "keeps its own network" if better else "shares the network of all rows"
    say(f"[{name}] {kept}: logloss {losses[0]:.5f}, of all rows {losses[1]:.5f}")
    if not better:
        return first
    table = first.variables.params[TABLES]
    variables = own.variables._replace(params=own.variables.params | {TABLES: table})
    return replace(own, variables=variables)


def settle(plan: Plan, retrained: Sequence[Trained]) -> tuple[Plan, list[Trained]]:
    """A plan without the experts that share the model of all rows, and what is left of the models.

    Without any expert of its own the plan is that of one model.
    """
    if not plan.shared:
        return plan, list(retrained)
    kept = [i for i, one in enumerate(retrained) if i == 0 or one is not retrained[0]]
    routes = tuple(kept.index(i) if i in kept else 0 for i in plan.routes)
    reasons = tuple(
        _WORSE if reason is None and route == 0 else reason
        for reason, route in zip(plan.reasons, routes, strict=True)
    )
    experts = tuple(plan.experts[i] for i in kept)
    plan = replace(plan, experts=experts, routes=routes, reasons=reasons)
    return plan, [retrained[i] for i in kept]


def _deciding_rows(run: Run, expert: Expert) -> np.ndarray:
    """The validation rows of a cluster that moved no gate."""
    assert expert.valid_rows is not None
    moved = None
    if require_selector(run).recipe.gate_batches == "validation":
        moved, _ = split_validation(run)
    return expert.valid_rows if moved is None else np.setdiff1d(expert.valid_rows, moved)


def _slower(config: Config, rate: float) -> OptimizerConfig:
    return replace(config.optimizer, learning_rate=rate * config.optimizer.learning_rate)


@lru_cache(maxsize=16)
def network_round(config: OptimizerConfig, model: Model) -> Round:
    """A round of training steps of a click model's network alone."""
    return make_round(make_step(model, {NETWORK: l2_adam(config)}))

"""Clusters with one table: each goes on from the network of all rows, and keeps what is better."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

import jax.numpy as jnp
import numpy as np

from ihas_jax.config import OptimizerConfig
from ihas_jax.data.dataset import Split
from ihas_jax.errors import InputError
from ihas_jax.models.base import NETWORK, TABLES, Model
from ihas_jax.models.placing import copied
from ihas_jax.models.predict import predictor
from ihas_jax.processes import agreed
from ihas_jax.progress import say
from ihas_jax.selectors.plan import Expert, Plan
from ihas_jax.stages.base import model_task, require_selector, train_runs
from ihas_jax.stages.run import Run
from ihas_jax.stages.search import split_validation
from ihas_jax.training.metrics import logloss
from ihas_jax.training.optimizers import l2_adam
from ihas_jax.training.rounds import Round, make_round
from ihas_jax.training.steps import TRAINING, make_step
from ihas_jax.training.task import Trained

PACES = (0.2, 0.04)
"""Factors of the learning rates of a cluster's network, which goes on from that of all rows."""
_WORSE = "a network for it alone has no smaller logloss on validation rows"


def check_shared(run: Run, clusters: int) -> None:
    """Checks that clusters can go on from one model.

    Args:
      run: the run.
      clusters: how many clusters its method makes.

    Raises:
      InputError: there are no clusters, or two kinds of them; or all validation rows move gates.
    """
    config, names = run.config, run.data.schema.names
    field = config.retrain.group_by
    if not run.shared:
        if field is not None or config.retrain.groups is not None:
            raise InputError(
                "--retrain.group-by and --retrain.groups need models that go on from one. Choose "
                "--retrain.start shared, too."
            )
        return
    if field is None and config.retrain.groups is not None:
        raise InputError(
            "--retrain.groups is the number of clusters of --retrain.group-by. Name a field there, "
            "or leave --retrain.groups out."
        )
    if field is None and clusters < 2:
        raise InputError(
            "--retrain.start shared needs clusters that go on from one model. Name a field whose "
            "values are clustered, as --retrain.group-by, or choose --method ihas "
            "--cluster.clusters 2, or --method spectral --spectral.clusters 2."
        )
    if field is not None and clusters > 1:
        raise InputError(
            f"--retrain.group-by {field} clusters values, and --method {config.method} clusters "
            f"rows. Choose one of the two, such as 1 cluster of rows."
        )
    if field is not None and field not in names:
        raise InputError(
            f"--retrain.group-by {field} is no field of the log; its fields are {', '.join(names)}."
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
    rows = deciding_rows(run, expert.valid_rows)
    if not len(rows):
        return first
    valid = Split(*(part[rows] for part in run.data.valid))
    round_ = network_round(run.config.optimizer, model)
    task = model_task(
        run, name, model, rows=expert.rows, valid=valid, round_=round_, start_counts=True
    )
    task = replace(task, finish=PACES[1:])
    # training takes the arrays of its start
    params, stats, constants = copied(tuple(first.variables))
    state = replace(
        first.state,
        step=jnp.zeros_like(first.state.step),
        pace=jnp.full_like(first.state.pace, PACES[0]),
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
    better = agreed(lambda: losses[0] < losses[1])
    run.event("shared", {"expert": expert.name, "own": losses[0], "all": losses[1]})
    kept = "keeps its own network" if better else "shares the network of all rows"
    say(f"[{name}] {kept}: logloss {losses[0]:.5f}, of all rows {losses[1]:.5f}")
    if not better:
        return first
    table = first.variables.params[TABLES]
    variables = own.variables._replace(params=own.variables.params | {TABLES: table})
    return replace(own, variables=variables)


def settle(plan: Plan, retrained: Sequence[Trained]) -> tuple[Plan, list[Trained]]:
    """A plan without the experts that share the model of all rows, and the models that it needs."""
    if not plan.shared:
        return plan, list(retrained)
    first = retrained[0]
    routed = [0 if retrained[i] is first else i for i in plan.routes]
    kept = sorted({*routed})  # where no cluster shares it, the network of all rows is not needed
    routes = tuple(kept.index(i) for i in routed)
    reasons = tuple(
        _WORSE if reason is None and i == 0 else reason
        for reason, i in zip(plan.reasons, routed, strict=True)
    )
    experts = tuple(plan.experts[i] for i in kept)
    plan = replace(plan, experts=experts, routes=routes, reasons=reasons)
    return plan, [retrained[i] for i in kept]


def deciding_rows(run: Run, rows: np.ndarray | None = None) -> np.ndarray:
    """Those of some validation rows, or of all, that moved no gate."""
    rows = np.arange(len(run.data.valid.labels)) if rows is None else rows
    if require_selector(run).recipe.gate_batches != "validation":
        return rows
    moved, _ = split_validation(run)
    return rows if moved is None else np.setdiff1d(rows, moved)


@lru_cache(maxsize=16)
def network_round(config: OptimizerConfig, model: Model) -> Round:
    """A round of training steps of a click model's network alone."""
    return make_round(make_step(model, {NETWORK: l2_adam(config)}))

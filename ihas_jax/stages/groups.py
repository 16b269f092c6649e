"""Groups of a field's values: each has a network of its own over the table of one model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import jax
import numpy as np

from ihas_jax.data.dataset import Split
from ihas_jax.models.base import NETWORK, TABLES, Model, count_parameters
from ihas_jax.models.forward import init_model
from ihas_jax.models.grouped import network_of
from ihas_jax.models.predict import predictor
from ihas_jax.progress import say
from ihas_jax.selectors.by_value import ValueRouter
from ihas_jax.selectors.plan import Expert, Plan
from ihas_jax.stages.run import Run
from ihas_jax.stages.shared import deciding_rows, settle, train_network
from ihas_jax.stages.together import learn_together
from ihas_jax.training.metrics import row_losses, score
from ihas_jax.training.task import Trained

_MEMORY, _MOST = 0.25, 8
"""How much more memory the networks take by default, and how many they are at most."""


def train_groups(run: Run, plan: Plan, whole: Expert, first: Trained) -> tuple[Plan, list[Trained]]:
    """Clusters of `retrain.group_by`, whose networks go on from a model of all rows.

    First all learn together, tables and networks. Then the table stays, and the network of all rows
    learns to read it; a group keeps its network only where that has a smaller logloss on the
    group's validation rows that moved no gate. The groups are kept only if they have a smaller
    logloss on all of these rows than one model, which has as many epochs more as they have.

    Args:
      run: the run.
      plan: the plan of one model.
      whole: its expert.
      first: the training of that model.

    Returns:
      The plan of the groups and their models, or the plan of one model and the better training.
      The plan's facts have the test scores of that one model as `one`.
    """
    model, field = run.expert_model(whole), _field(run)
    number = _number(run, model, whole)
    if number < 2:
        say(
            "[retrain] one model serves all rows: two networks, and the group of each value, would "
            "take more than a quarter more memory"
        )
        return _beside(plan, _one(run, model, whole, first)), [first]
    rows = deciding_rows(run)
    valid = Split(*(part[rows] for part in run.data.valid))
    together, groups = learn_together(run, model, "groups", number, first, field)
    alone, _ = learn_together(run, model, "alone", 1, first, field)
    alone = replace(alone, variables=network_of(alone.variables, 0))
    one = min((first, alone), key=lambda trained: _losses(model, trained, valid).mean())
    table = together.variables.params[TABLES]
    params = first.variables.params | {TABLES: table}
    start = replace(first, variables=first.variables._replace(params=params))
    everyone = train_network(run, replace(whole, name="all"), whole, start)
    # a network that no value has chosen serves nobody
    used, of_value = np.unique(groups.of_value, return_inverse=True)
    groups, number = replace(groups, of_value=of_value.astype(np.uint8)), len(used)
    own = [replace(together, variables=network_of(together.variables, int(g))) for g in used]
    retrained, losses = _verdicts(model, valid, groups, everyone, own)
    before = _losses(model, one, valid)
    run.event("groups", {"one": float(before.mean()), "groups": float(losses.mean())})
    plan = _beside(plan, _one(run, model, whole, one))
    seconds = sum(trained.seconds for trained in (first, together, alone, everyone))
    if number < 2 or not losses.mean() < before.mean():
        say("[retrain] one model serves all rows: groups have no smaller validation logloss")
        return plan, [replace(one, seconds=seconds)]
    plan, models = settle(_plan_of(run, plan, whole, groups, number), retrained)
    # one training made them all, and counts once
    models = [replace(trained, history=[], seconds=0.0) for trained in models]
    models[0] = replace(models[0], history=together.history, seconds=seconds)
    return plan, models


def _plan_of(run: Run, plan: Plan, whole: Expert, groups: ValueRouter, number: int) -> Plan:
    """The plan of a model of all rows and one of each group."""
    members = groups.of_value[run.data.train.ids[:, groups.field]]
    shares = np.bincount(members, minlength=number) / len(members)
    names = ("all", *(f"group_{g}" for g in range(number)))
    return replace(
        plan,
        experts=tuple(replace(whole, name=name) for name in names),
        routes=tuple(range(1, 1 + number)),
        reasons=(None,) * number,
        shares=tuple(shares.tolist()),
        centroids=None,
        facts={name: fact for name, fact in plan.facts.items() if name != "kmeans"},
        shared=True,
        router=groups,
    )


def _beside(plan: Plan, one: dict[str, Any]) -> Plan:
    """A plan whose facts have the scores of one model for all rows."""
    return replace(plan, facts={**plan.facts, "one": one})


def _one(run: Run, model: Model, whole: Expert, trained: Trained) -> dict[str, Any]:
    """The test scores and the size of one model for all rows."""
    ids, labels = run.data.test
    probs = predictor(model)(trained.variables, ids, title="[retrain] test").probs
    parameters, size, _ = _size(run, model, whole)
    return {**score(labels, probs).facts, "parameters": parameters, "bytes": size}


def _size(run: Run, model: Model, whole: Expert) -> tuple[int, int, int]:
    """The parameters and bytes of one model for all rows, and the bytes of its network."""
    shapes = jax.eval_shape(lambda: init_model(jax.random.key(0), model))
    rest, spec = count_parameters(shapes.params) - model.embedding.parameters, run.model.embedding
    kept = whole.selection
    network = 4 * count_parameters(shapes.params[NETWORK])
    return rest + kept.parameters(spec), 4 * rest + kept.bytes(spec), network


def _number(run: Run, model: Model, whole: Expert) -> int:
    """How many groups there are."""
    if run.config.retrain.groups is not None:
        return run.config.retrain.groups
    _, one, network = _size(run, model, whole)
    values = run.data.schema.sizes[_field(run)]
    return min(_MOST, 1 + int((_MEMORY * one - values) // max(network, 1)))


def _field(run: Run) -> int:
    return run.data.schema.names.index(run.config.retrain.group_by or "")


def _verdicts(
    model: Model, valid: Split, groups: ValueRouter, everyone: Trained, own: Sequence[Trained]
) -> tuple[list[Trained], np.ndarray]:
    """The model of all rows and, for each group, its own or that; and the losses `[m]` of all."""
    losses = _losses(model, everyone, valid)
    member = groups.of_value[valid.ids[:, groups.field]]
    retrained = [everyone]
    for g, one in enumerate(own):
        rows, theirs = member == g, _losses(model, one, valid)
        better = rows.any() and theirs[rows].mean() < losses[rows].mean()
        retrained.append(one if better else everyone)
        losses = np.where(rows & better, theirs, losses)
    return retrained, losses


def _losses(model: Model, trained: Trained, valid: Split) -> np.ndarray:
    """The log loss `[m]` of each row."""
    probs = predictor(model)(trained.variables, valid.ids, title="[retrain] validation").probs
    return row_losses(valid.labels, probs)

"""Groups of a field's values: each has a network of its own over the table of one model.

Values and networks find each other in turns, as in hard expectation maximisation: the networks
learn from the rows of their values, and each value goes to the network that answers it best.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ihas_jax import checksums
from ihas_jax.data.dataset import Split
from ihas_jax.files import read_json, write_json
from ihas_jax.models.base import GROUPS, NETWORK, Model, Variables, count_parameters
from ihas_jax.models.forward import forward, init_model
from ihas_jax.models.grouped import grouped_model, network_of, stack_networks
from ihas_jax.progress import say
from ihas_jax.selectors.plan import Expert, Groups, Plan
from ihas_jax.stages.base import model_task, plain_round, train_runs
from ihas_jax.stages.run import Run
from ihas_jax.stages.shared import RATES, deciding_rows, settle, slower, train_network
from ihas_jax.training.loop import Trained
from ihas_jax.training.metrics import row_losses
from ihas_jax.training.predict import predictor
from ihas_jax.training.steps import TABLES, TRAINING, TrainState, model_optimizers
from ihas_jax.training.streaming import Streamed

_EPOCHS = 8
"""Epochs after each of which the values are grouped anew."""
_NOISE = 0.1
"""What sets the networks apart at first, as a multiple of the deviation of their weights."""
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
    """
    model = run.expert_model(whole)
    number = _number(run, model, whole)
    if number < 2:
        say("[retrain] one model serves all rows: networks of groups would take too much memory")
        return plan, [first]
    together, groups = _learn_together(run, model, "groups", number, first)
    alone, _ = _learn_together(run, model, "alone", 1, first)
    alone = replace(alone, variables=network_of(alone.variables, 0))
    one = min((first, alone), key=lambda trained: _losses(run, model, trained).mean())
    table = together.variables.params[TABLES]
    params = first.variables.params | {TABLES: table}
    start = replace(first, variables=first.variables._replace(params=params))
    everyone = train_network(run, replace(whole, name="all"), whole, start)
    # a network that no value has chosen serves nobody
    used, of_value = np.unique(groups.of_value, return_inverse=True)
    groups, number = groups._replace(of_value=of_value.astype(np.uint8)), len(used)
    own = [replace(together, variables=network_of(together.variables, int(g))) for g in used]
    retrained, losses = _verdicts(run, model, groups, everyone, own)
    before = _losses(run, model, one)
    run.event("groups", {"one": float(before.mean()), "groups": float(losses.mean())})
    if number < 2 or not losses.mean() < before.mean():
        say("[retrain] one model serves all rows: groups have no smaller validation logloss")
        return plan, [one]
    members = groups.of_value[run.data.train.ids[:, groups.field]]
    shares = np.bincount(members, minlength=number) / len(members)
    names = ("all", *(f"group_{g}" for g in range(number)))
    experts = tuple(replace(whole, name=name) for name in names)
    plan = replace(
        plan,
        experts=experts,
        routes=tuple(range(1, 1 + number)),
        reasons=(None,) * number,
        shares=tuple(shares.tolist()),
        centroids=None,
        facts={name: fact for name, fact in plan.facts.items() if name != "kmeans"},
        shared=True,
        groups=groups,
    )
    return settle(plan, retrained)


def _number(run: Run, model: Model, whole: Expert) -> int:
    """How many groups there are."""
    if run.config.retrain.groups is not None:
        return run.config.retrain.groups
    shapes = jax.eval_shape(lambda: init_model(jax.random.key(0), model))
    rest = count_parameters(shapes.params) - model.embedding.parameters
    one = 4 * rest + whole.selection.bytes(run.model.embedding)
    network = 4 * count_parameters(shapes.params[NETWORK])
    values = run.data.schema.sizes[_field(run)]
    return min(_MOST, 1 + int((_MEMORY * one - values) // max(network, 1)))


def _field(run: Run) -> int:
    return run.data.schema.names.index(run.config.retrain.group_by or "")


def _learn_together(
    run: Run, model: Model, name: str, number: int, first: Trained
) -> tuple[Trained, Groups]:
    """Trains table and networks in turns with the groups, then with smaller steps.

    With one network there is nothing to group, and nothing that sets it apart from the first one.
    """
    grouped, field, stage = grouped_model(model, number), _field(run), f"retrain/{name}"
    rng = np.random.Generator(np.random.Philox(run.seed(stage)))
    size = run.data.schema.sizes[field]
    groups = Groups(field, rng.integers(number, size=size).astype(np.uint8))
    noise = _NOISE if number > 1 else 0.0
    copies = stack_networks(first.variables, number, noise, run.key(f"{stage}/noise"))
    state = _fresh(run, stage, first.state, copies)
    for epoch in range(_EPOCHS):
        part = f"{stage}_{epoch}"
        round_ = plain_round(run.config.optimizer, grouped)
        task = model_task(run, part, grouped, epochs=1, round_=round_)
        (trained,) = train_runs([run], [task], [_with(state, groups)])
        state = trained.state
        if number > 1:
            groups = _regrouped(run, model, part, trained.variables, groups)
    rounds = [plain_round(slower(run.config, rate), grouped) for rate in RATES]
    task = model_task(run, stage, grouped, round_=rounds[0], start_counts=True)
    begun = _with(_fresh(run, task.name, state, state.variables), groups)
    (trained,) = train_runs([run], [replace(task, finish=tuple(rounds[1:]))], [begun])
    return trained, groups


def _fresh(run: Run, name: str, state: TrainState, variables: Variables) -> TrainState:
    """A state of some variables, in new arrays, as if no step had been taken."""
    params, stats, constants = jax.tree.map(jnp.copy, tuple(variables))
    optimizers = model_optimizers(run.config.optimizer)
    return replace(
        state,
        step=jnp.zeros_like(state.step),
        keys={TRAINING: run.key(name)},
        params=params,
        stats=stats,
        constants=constants,
        optimizers={part: one.init(params[part]) for part, one in optimizers.items()},
    )


def _with(state: TrainState, groups: Groups) -> TrainState:
    of_value = {"field": jnp.int32(groups.field), "of_value": jnp.asarray(groups.of_value)}
    return replace(state, constants=state.constants | {GROUPS: of_value})


def _regrouped(run: Run, model: Model, name: str, variables: Variables, groups: Groups) -> Groups:
    """Each value with the network that has the least loss on its training rows; kept in a file.

    A value without training rows, such as one that was never seen, goes to the network that has the
    least loss on all rows, of those that other values have chosen.
    """
    path = run.workdir / name / "groups.json"
    if path.exists():
        return Groups(groups.field, np.array(read_json(path)["of_value"], np.uint8))
    ids = run.data.train.ids
    labels = run.data.train.labels if run.taught is None else run.taught
    number = jax.tree.leaves(variables.params[NETWORK])[0].shape[0]
    sums = np.zeros((len(groups.of_value), number))
    for part, logits in _every_network(model).chunks(variables, ids, title=f"[{name}] groups"):
        values, wanted = ids[part, groups.field], labels[part, None].astype(np.float64)
        losses = np.logaddexp(0.0, logits.astype(np.float64)) - wanted * logits
        for g in range(number):
            sums[:, g] += np.bincount(values, losses[:, g], minlength=len(sums))
    seen = sums.any(axis=1)
    chosen = np.unique(sums[seen].argmin(axis=1))
    others = chosen[sums.sum(axis=0)[chosen].argmin()]
    of_value = np.where(seen, sums.argmin(axis=1), others).astype(np.uint8)
    moved = float((of_value != groups.of_value)[ids[:, groups.field]].mean())
    say(f"[{name}] {moved:.1%} of the training rows go to another network")
    checksums.start(path.parent)
    write_json(path, {"of_value": of_value.tolist()})
    return Groups(groups.field, of_value)


@lru_cache(maxsize=8)
def _every_network(model: Model) -> Streamed:
    """A program from the variables of a grouped model and ids to logits `[n, C]`."""

    def batch(variables: Variables, ids: Array) -> Array:
        number = jax.tree.leaves(variables.params[NETWORK])[0].shape[0]

        def answer(group: Array) -> Array:
            return forward(model, network_of(variables, group), ids).logits

        return jax.vmap(answer)(jnp.arange(number)).T

    return Streamed(batch)


def _verdicts(
    run: Run, model: Model, groups: Groups, everyone: Trained, own: Sequence[Trained]
) -> tuple[list[Trained], np.ndarray]:
    """The model of all rows and, for each group, its own or that; and the losses `[m]` of all."""
    losses = _losses(run, model, everyone)
    member = groups.of_value[_valid(run).ids[:, groups.field]]
    retrained = [everyone]
    for g, one in enumerate(own):
        rows, theirs = member == g, _losses(run, model, one)
        better = rows.any() and theirs[rows].mean() < losses[rows].mean()
        retrained.append(one if better else everyone)
        losses = np.where(rows & better, theirs, losses)
    return retrained, losses


def _losses(run: Run, model: Model, trained: Trained) -> np.ndarray:
    """The log loss `[m]` of each validation row that moved no gate."""
    ids, labels = _valid(run)
    probs = predictor(model)(trained.variables, ids, title="[retrain] validation").probs
    return row_losses(labels, probs)


def _valid(run: Run) -> Split:
    rows = deciding_rows(run)
    return Split(*(part[rows] for part in run.data.valid))

"""The retraining stage: the compact models of a plan (Algorithm 1, lines 14 to 21)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from ihas_jax.data.dataset import Split
from ihas_jax.models.base import EMBEDDING, TABLES, Model, Variables
from ihas_jax.models.cut import cut_variables
from ihas_jax.nn.compact import slice_table
from ihas_jax.progress import say
from ihas_jax.selectors.plan import Expert, Plan
from ihas_jax.selectors.turning import turn
from ihas_jax.stages.base import fresh_state, model_task, require_selector, train_runs
from ihas_jax.stages.groups import train_groups
from ihas_jax.stages.run import Run
from ihas_jax.stages.search import SearchRuns, pretrain_state
from ihas_jax.stages.shared import settle, train_network
from ihas_jax.training.steps import TrainState
from ihas_jax.training.task import Trained

Start = Callable[[Model, Expert, TrainState], TrainState]
"""Makes the state that a training starts from: `start(compact model, expert, fresh state)`."""


def carried(run: Run, plan: Plan) -> tuple[Expert, ...]:
    """The experts of a plan, with selections of the run's own embedding table.

    The selections differ from those of the plan where another click model was searched.
    """
    source, target = run.searched_model.embedding, run.model.embedding
    return tuple(
        replace(expert, selection=expert.selection.carried(source, target))
        for expert in plan.experts
    )


def retrain(run: Run, plan: Plan, search: SearchRuns) -> tuple[Plan, list[Trained]]:
    """Trains every expert of a plan on its training rows, with early stopping on its valid rows.

    `retrain.start` or else the recipe of the method names the initial weights: fresh ones, or the
    kept part of the searched model, of its tables, or of initial or rewound weights of the search.
    Early stopping may keep the kept part of the searched model as it is, but no other start.

    With `retrain.start` shared, only the model of all rows is trained that way, and clusters go on
    from it; see `ihas_jax.stages.shared` and `ihas_jax.stages.groups`.

    Returns:
      The plan of the models that are worth it, and their trainings.
    """
    start, experts = _start(run, search), carried(run, plan)
    if run.config.retrain.group_by is not None:
        (whole,) = experts
        return train_groups(run, plan, whole, _train(run, whole, start))
    if not plan.shared:
        return plan, [_train(run, expert, start) for expert in experts]
    whole, *others = experts
    first = _train(run, whole, start)
    return settle(plan, [first, *(train_network(run, own, whole, first) for own in others)])


def train_student(run: Run) -> Trained:
    """Trains the click model with all coordinates on what teachers say, with early stopping."""
    task = model_task(run, "retrain", run.model)
    return train_runs([run], [task], [fresh_state(run, task.name, run.model)])[0]


def _train(run: Run, expert: Expert, start: Start) -> Trained:
    name = f"retrain/{expert.name}" if expert.name else "retrain"
    model, selection = run.expert_model(expert), expert.selection
    state = start(model, expert, fresh_state(run, name, model))
    state = replace(state, constants=state.constants | selection.constants(model.embedding))
    task = model_task(
        run,
        name,
        model,
        rows=expert.rows,
        valid=_stopping(run, expert),
        start_counts=run.start == "searched",
    )
    return train_runs([run], [task], [state])[0]


def _stopping(run: Run, expert: Expert) -> Split:
    """The rows that decide when the training of an expert stops."""
    recipe, data, rows = require_selector(run).recipe, run.data, expert.valid_rows
    if rows is not None:
        return Split(*(part[rows] for part in data.valid))
    return data.test if recipe.stopping_split == "test" else data.valid


def _start(run: Run, search: SearchRuns) -> Start:
    """The start of each expert."""
    start = run.start
    if start == "fresh":
        return lambda model, expert, state: state
    if start == "tables":
        return partial(_from_tables, run, search.variables)
    if start == "searched":
        return partial(_inherit, run, search.variables, tables_alone=False)
    if start == "rewound" and search.rewound is not None:
        return partial(_inherit, run, search.rewound.variables, tables_alone=False)
    source = pretrain_state(run).variables
    return partial(_inherit, run, source, tables_alone=start == "initial_embeddings")


def _turned(run: Run, source: Variables, expert: Expert) -> Variables:
    """The searched model on the axes that an expert was selected from."""
    return source if expert.axes is None else turn(run.searched_model, source, expert.axes)


def _from_tables(
    run: Run, source: Variables, model: Model, expert: Expert, state: TrainState
) -> TrainState:
    """A state with the kept part of those searched tables that have the shape of the model's."""
    source = _turned(run, source, expert)
    full, searched = run.model.tables, run.searched_model.tables
    if full[EMBEDDING].dim != searched[EMBEDDING].dim:
        say("[retrain] starts from fresh weights: the searched tables have another shape")
    tables = dict(state.params[TABLES])
    for name, spec in model.tables.items():
        theirs = searched.get(name)
        if theirs and (theirs.sizes, theirs.dim) == (full[name].sizes, full[name].dim):
            values = expert.selection.values if name == EMBEDDING else None
            tables[name] = slice_table(theirs, source.params[TABLES][name], spec, values)
    return replace(state, params=state.params | {TABLES: tables})


def _inherit(
    run: Run,
    source: Variables,
    model: Model,
    expert: Expert,
    state: TrainState,
    *,
    tables_alone: bool,
) -> TrainState:
    """A state with the kept part of a full-size model, or of its embedding table alone."""
    source = _turned(run, source, expert)
    if tables_alone:
        tables = dict(state.params[TABLES])
        table = source.params[TABLES][EMBEDDING]
        specs = run.model.embedding, model.embedding
        tables[EMBEDDING] = slice_table(specs[0], table, specs[1], expert.selection.values)
        return replace(state, params=state.params | {TABLES: tables})
    own = cut_variables(run.model, model, source, state.variables, expert.selection.values)
    # training takes the arrays of its start, which other experts start from, too
    return replace(state, params=own.params, stats=own.stats)

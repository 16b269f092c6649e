"""A searched model, narrowed to one share of its table after the other, and trained at each."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from ihas_jax.errors import InputError
from ihas_jax.models.base import FACTORS, Variables, fold_factors
from ihas_jax.models.placing import copied
from ihas_jax.processes import agreed
from ihas_jax.selectors.budget import numbers_of
from ihas_jax.selectors.plan import Expert, Plan, SearchResult
from ihas_jax.selectors.selection import Selection
from ihas_jax.selectors.turning import turn
from ihas_jax.stages.base import fresh_state, model_task, require_selector, train_runs
from ihas_jax.stages.plans import load_plan, save_plan
from ihas_jax.stages.run import Run
from ihas_jax.training.steps import TrainState
from ihas_jax.training.task import Task, Trained


class Step(NamedTuple):
    """A step of `Recipe.cuts`.

    Attributes:
      share: the share of the table that may be kept.
      selection: what is kept.
      trained: the model of full size, with zeros at the numbers that are cut.
    """

    share: float
    selection: Selection
    trained: Trained


def found_by(run: Run, variables: Variables, share: float | None) -> SearchResult:
    """What a method chooses by.

    Args:
      run: the run.
      variables: the searched model.
      share: the share of its table that may be kept; None where the options of the method decide.
    """
    spec = run.searched_model.embedding
    return SearchResult(
        model=run.searched_model,
        variables=variables,
        train=run.data.train,
        valid=run.data.valid,
        key=run.key("choose"),
        seed=run.seed("cluster"),
        budget=None if share is None else numbers_of(share, spec),
        shared=run.shared and run.config.retrain.group_by is None,
    )


def cut_in_steps(runs: Sequence[Run], searched: Sequence[Trained]) -> list[tuple[Step, ...]]:
    """The steps of `Recipe.cuts`, for each run.

    The weights of a selector stay as the search left them.
    """
    cuts, models = require_selector(runs[0]).recipe.cuts, [one.variables for one in searched]
    steps: list[tuple[Step, ...]] = [() for _ in runs]
    for i, share in enumerate(cuts):
        pairs = list(zip(runs, models, strict=True))
        experts = [_kept(run, i, found_by(run, model, share)) for run, model in pairs]
        begun = [
            _begin(run, f"search/cut_{i}", model, expert)
            for (run, model), expert in zip(pairs, experts, strict=True)
        ]
        trained = train_runs(runs, [task for task, _ in begun], [state for _, state in begun])
        trained = [
            replace(one, variables=_merged(model, fold_factors(one.variables)))
            for one, model in zip(trained, models, strict=True)
        ]
        models = [one.variables for one in trained]
        steps = [
            (*before, Step(share, expert.selection, one))
            for before, expert, one in zip(steps, experts, trained, strict=True)
        ]
    return steps


def _kept(run: Run, i: int, found: SearchResult) -> Expert:
    """What step i keeps, which is chosen once and kept in a folder.

    Raises:
      InputError: it is more than the share of the step.
    """
    folder = run.workdir / "search" / f"plan_{i}"
    if (finished := load_plan(folder)) is not None:
        (expert,) = finished[0].experts
        return expert
    start = time.monotonic()
    expert = require_selector(run).narrow(found)
    expert = agreed(lambda: expert)  # machines may differ in their last bits
    kept = expert.selection.parameters(found.model.embedding)
    if found.budget is not None and kept > found.budget:
        raise InputError(
            f"A step of --method {run.config.method} keeps {kept:,} numbers of the embedding "
            f"table, more than the {found.budget:,} of its share: narrow() must keep no more than "
            "found.budget."
        )
    save_plan(folder, Plan((expert,)), time.monotonic() - start)
    return expert


def _begin(run: Run, name: str, variables: Variables, expert: Expert) -> tuple[Task, TrainState]:
    """The training of what an expert keeps, and its start, with factors 0 at what is cut."""
    model = run.searched_model
    if expert.axes is not None:
        variables = turn(model, variables, expert.axes)
    state = fresh_state(run, name, model)
    params = {part: variables.params[part] for part in state.params}
    stats = {part: variables.stats[part] for part in state.stats}
    # training takes the arrays of its start
    params, stats = copied((params, stats))
    (group,) = model.embedding.groups
    factors = {group.name: expert.selection.factors(model.embedding)}
    constants = variables.constants | {FACTORS: factors}
    task = model_task(run, name, model, start_counts=True)
    return task, replace(state, params=params, stats=stats, constants=constants)


def _merged(before: Variables, after: Variables) -> Variables:
    """New variables of the click model, with those of the selector of before."""
    return Variables(before.params | after.params, before.stats | after.stats, after.constants)

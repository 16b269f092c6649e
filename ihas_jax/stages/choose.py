"""The choosing stage: the method's plan of models to retrain, saved in the folder of the run."""

from __future__ import annotations

import time

from ihas_jax.errors import InputError
from ihas_jax.processes import agreed
from ihas_jax.progress import say
from ihas_jax.selectors.plan import Plan
from ihas_jax.stages.base import require_selector
from ihas_jax.stages.narrow import found_by
from ihas_jax.stages.plans import load_plan, save_plan
from ihas_jax.stages.run import Run
from ihas_jax.stages.search import SearchRuns


def choose(run: Run, search: SearchRuns) -> tuple[Plan, float]:
    """The plan of the method for a searched model, and the seconds that choosing took.

    A finished plan is read back.

    Raises:
      InputError: the plan keeps more than the budget, or a fact has the name of the method.
    """
    folder = run.workdir / "choose"
    if (finished := load_plan(folder)) is not None:
        return finished
    start = time.monotonic()
    found = found_by(run, search.variables, run.config.budget)
    plan = require_selector(run).choose(found)
    _require_kept(run, plan, found.budget)
    if run.config.method in plan.facts:
        raise InputError(
            f"Plan.facts can't have the entry {run.config.method!r}, which is that of the method's "
            "scores in metrics.json; choose another name."
        )
    plan, seconds = agreed(lambda: (plan, time.monotonic() - start))
    save_plan(folder, plan, seconds)
    _report(run, plan)
    return plan, seconds


def _require_kept(run: Run, plan: Plan, budget: int | None) -> None:
    """Raises: InputError: a plan keeps more than the budget, or serves the searched model."""
    spec = run.searched_model.embedding
    if budget is None:
        return
    kept = plan.parameters(spec) if plan.experts else spec.parameters
    if kept > budget:
        raise InputError(
            f"--method {run.config.method} keeps {kept:,} numbers of the embedding table, more "
            f"than the {budget:,} of --budget {run.config.budget}. Its choose() must keep no more "
            "than found.budget, as ihas_jax.selectors.fill does; or leave --budget out."
        )


def _report(run: Run, plan: Plan) -> None:
    spec = run.searched_model.embedding
    for c, reason in enumerate(plan.reasons):
        if reason:
            say(f"[choose] cluster {c} is served by the model of all rows: {reason}")
    for expert in plan.experts:
        share = expert.selection.parameters(spec) / spec.parameters
        name = f" for {expert.name}" if expert.name else ""
        say(f"[choose] keeps {share:.1%} of the embedding table{name}{_of_budget(run, plan)}")
    run.event(
        "plan",
        {
            "experts": [expert.name for expert in plan.experts],
            "kept": [expert.selection.kept for expert in plan.experts],
            "routes": plan.routes,
            "reasons": plan.reasons,
            "shares": plan.shares,
            **plan.facts,
        },
    )


def _of_budget(run: Run, plan: Plan) -> str:
    """What a line about the choice says of the budget."""
    if run.config.budget is None:
        return ""
    together = " for all models" if len(plan.experts) > 1 else ""
    return f" (the budget is {run.config.budget:.1%}{together})"

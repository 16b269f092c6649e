"""The choosing stage: the method's plan of models to retrain, saved in the folder of the run."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ihas_jax import checksums
from ihas_jax.errors import InputError
from ihas_jax.files import read_json, write_json
from ihas_jax.nn.axes import Axes
from ihas_jax.progress import say
from ihas_jax.selectors.plan import Expert, Plan
from ihas_jax.selectors.selection import Selection
from ihas_jax.stages.base import require_selector
from ihas_jax.stages.narrow import found_by
from ihas_jax.stages.run import Run
from ihas_jax.stages.search import SearchRuns
from ihas_jax.training.checkpoint import Checkpoints

_PLAN = "plan.json"


def choose(run: Run, search: SearchRuns) -> tuple[Plan, float]:
    """The plan of the method for a searched model, and the seconds that choosing took.

    A finished plan is read back.

    Raises:
      InputError: the plan keeps more than the budget.
    """
    folder = run.workdir / "choose"
    if (folder / _PLAN).exists() and (finished := _load(folder)) is not None:
        return finished
    start = time.monotonic()
    found = found_by(run, search.variables, run.config.budget)
    plan = require_selector(run).choose(found)
    _require_kept(run, plan, found.budget)
    seconds = time.monotonic() - start
    _save(folder, plan, seconds)
    _report(run, plan)
    return plan, seconds


def retrains(workdir: Path) -> bool:
    """Whether the finished plan in the folder of a run has models to retrain.

    Raises:
      InputError: the plan can't be read.
    """
    return bool(read_json(workdir / "choose" / _PLAN)["experts"])


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


def _save(folder: Path, plan: Plan, seconds: float) -> None:
    """Writes the arrays of a plan as a checkpoint, then the rest as JSON."""
    arrays = {f"expert_{i}": _arrays(expert) for i, expert in enumerate(plan.experts)}
    arrays = {name: tree for name, tree in arrays.items() if tree}
    if plan.centroids is not None:
        arrays["router"] = {"centroids": plan.centroids}
    folder.mkdir(parents=True, exist_ok=True)
    checksums.start(folder)
    if arrays:
        with Checkpoints(folder / "arrays", keep=1) as checkpoints:
            checkpoints.save({"plan": arrays}, {})
    content = {
        "experts": [
            {
                "name": expert.name,
                "kept": expert.selection.kept,
                "scale": expert.selection.scale,
            }
            for expert in plan.experts
        ],
        "routes": plan.routes,
        "reasons": plan.reasons,
        "shares": plan.shares,
        "facts": plan.facts,
        "arrays": jax.tree.map(lambda leaf: [str(leaf.dtype), *leaf.shape], arrays),
        "seconds": seconds,
    }
    write_json(folder / _PLAN, content)


def _arrays(expert: Expert) -> dict[str, np.ndarray]:
    arrays = {
        "values": expert.selection.values,
        "mask": expert.selection.mask,
        "rows": expert.rows,
        "valid_rows": expert.valid_rows,
        **({} if expert.axes is None else expert.axes._asdict()),
    }
    return {name: array for name, array in arrays.items() if array is not None}


def _load(folder: Path) -> tuple[Plan, float] | None:
    """The plan and the seconds in a folder; None where its arrays are damaged."""
    content = read_json(folder / _PLAN)
    arrays: dict[str, dict[str, np.ndarray]] = {}
    if content["arrays"]:
        like = {
            name: {n: jax.ShapeDtypeStruct(shape, kind) for n, (kind, *shape) in tree.items()}
            for name, tree in content["arrays"].items()
        }
        with Checkpoints(folder / "arrays", keep=1) as checkpoints:
            found = checkpoints.restore({"plan": like})
        if found is None:
            return None
        arrays = jax.tree.map(np.asarray, found[0]["plan"])
    experts = (
        _expert(about, arrays.get(f"expert_{i}", {})) for i, about in enumerate(content["experts"])
    )
    plan = Plan(
        tuple(experts),
        tuple(content["routes"]),
        tuple(content["reasons"]),
        arrays.get("router", {}).get("centroids"),
        tuple(content["shares"]),
        content["facts"],
    )
    return plan, content["seconds"]


def _expert(about: dict[str, Any], arrays: dict[str, np.ndarray]) -> Expert:
    kept = tuple(tuple(field) for field in about["kept"])
    selection = Selection(kept, arrays.get("values"), arrays.get("mask"), about["scale"])
    axes = Axes(*(arrays[name] for name in Axes._fields)) if "forward" in arrays else None
    rows, valid_rows = arrays.get("rows"), arrays.get("valid_rows")
    return Expert(selection, about["name"], rows, valid_rows, axes)

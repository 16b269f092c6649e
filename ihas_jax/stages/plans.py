"""Plans as files: the arrays as a checkpoint, the rest as JSON."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ihas_jax import checksums
from ihas_jax.files import read_json, write_json
from ihas_jax.nn.axes import Axes
from ihas_jax.processes import by_first
from ihas_jax.selectors.by_value import ScoreRouter
from ihas_jax.selectors.plan import Expert, Plan
from ihas_jax.selectors.selection import Selection
from ihas_jax.training.checkpoint import Checkpoints

_PLAN = "plan.json"


@by_first
def retrains(workdir: Path) -> bool:
    """Whether the finished plan in the folder of a run has models to retrain.

    Raises:
      InputError: the plan can't be read.
    """
    return bool(read_json(workdir / "choose" / _PLAN)["experts"])


@by_first
def save_plan(folder: Path, plan: Plan, seconds: float) -> None:
    """Writes the arrays of a plan as a checkpoint, then the rest as JSON."""
    arrays = {f"expert_{i}": _arrays(expert) for i, expert in enumerate(plan.experts)}
    arrays = {name: tree for name, tree in arrays.items() if tree}
    if plan.centroids is not None:
        arrays["router"] = {"centroids": plan.centroids}
    if isinstance(plan.router, ScoreRouter):
        arrays["scores"] = dataclasses.asdict(plan.router)
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
        "shared": plan.shared,
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


@by_first
def load_plan(folder: Path) -> tuple[Plan, float] | None:
    """The plan and the seconds in a folder; None without one, or where its arrays are damaged.

    Raises:
      InputError: the plan can't be read.
    """
    if not (folder / _PLAN).exists():
        return None
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
        content.get("shared", False),
        ScoreRouter(**arrays["scores"]) if "scores" in arrays else None,
    )
    return plan, content["seconds"]


def _expert(about: dict[str, Any], arrays: dict[str, np.ndarray]) -> Expert:
    kept = tuple(tuple(field) for field in about["kept"])
    selection = Selection(kept, arrays.get("values"), arrays.get("mask"), about["scale"])
    axes = Axes(*(arrays[name] for name in Axes._fields)) if "forward" in arrays else None
    rows, valid_rows = arrays.get("rows"), arrays.get("valid_rows")
    return Expert(selection, about["name"], rows, valid_rows, axes)

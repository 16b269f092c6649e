"""Students of a compression: click models with all of their coordinates, and cuts of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import jax

from ihas_jax.config import Config, ModelConfig
from ihas_jax.config.compress import CompressConfig
from ihas_jax.errors import InputError
from ihas_jax.models import build_model
from ihas_jax.models.base import NETWORK, TABLES, Model, Variables
from ihas_jax.models.cut import cut_network
from ihas_jax.models.forward import init_model
from ihas_jax.presets import search_of
from ihas_jax.selectors.budget import require_room
from ihas_jax.selectors.selection import all_coordinates
from ihas_jax.serving.bundle import Bundle
from ihas_jax.stages.bundles import base_bundle, outcome_bundle
from ihas_jax.stages.candidates import Candidate, measure
from ihas_jax.stages.choose import choose
from ihas_jax.stages.retrain import retrain
from ihas_jax.stages.run import Run
from ihas_jax.stages.search import SearchRuns, search

FOLDER = "students"
"""The folder of all students of a compression."""
_WHOLE = "spectral"
"""The selection whose search trains a student with all of its coordinates."""


@dataclass(frozen=True)
class Student:
    """A trained student with all of its coordinates, from which sizes are cut.

    Attributes:
      run: the run of the compression, with what teachers say.
      model: the click model.
      found: its training.
      whole: its scores and size.
    """

    run: Run
    model: ModelConfig
    found: SearchRuns
    whole: Candidate


def student_models(config: Config, choices: CompressConfig) -> tuple[ModelConfig, ...]:
    """The click models whose sizes are tried, the base model first."""
    dim, rank = min(choices.student_dim, config.model.dim), choices.student_rank
    others = [
        replace(config.model, name=name, dim=dim, cross_rank=rank)
        for name in choices.students
        if name != config.model.name
    ]
    return config.model, *others


def student_title(model: ModelConfig) -> str:
    """What a student with all of its coordinates is called."""
    return f"{model.name}, D = {model.dim}{', batch norm' if model.batch_norm else ''}"


def train_whole(run: Run, model: ModelConfig) -> Student:
    """Trains a student with all of its coordinates."""
    own = _run_of(run, model, _WHOLE)
    found = searched(own)
    whole = measure(student_title(model), whole_bundle(own, found), 1.0, run.data)
    return Student(run, model, found, whole)


def whole_bundle(run: Run, found: SearchRuns) -> Bundle:
    """The searched click model of a method that selects nothing in its search."""
    trained = found.searched
    params = {part: trained.variables.params[part] for part in (TABLES, NETWORK)}
    stats = {part: tree for part, tree in trained.variables.stats.items() if part == NETWORK}
    plain = Variables(params, stats, trained.variables.constants)
    return base_bundle(run, replace(trained, variables=plain))


def search_for(student: Student, selection: str) -> SearchRuns:
    """The training from which a selection cuts a student."""
    if selection == _WHOLE:
        return student.found
    return searched(_run_of(student.run, student.model, selection))


def cut_student(title: str, student: Student, selection: str, budget: float) -> Candidate:
    """What a selection makes of a student within a share of the base model's table, retrained.

    The training of the student is that of `search_for`.
    """
    run, model, found = student.run, student.model, student.found
    own = _run_of(run, model, selection, share_of(run, model, budget))
    own.workdir.mkdir(parents=True, exist_ok=True)
    plan, _ = choose(own, found)
    bundle = outcome_bundle(own, found, *retrain(own, plan, found))
    return measure(title, bundle, budget, run.data)


def share_of(run: Run, model: ModelConfig, budget: float) -> float:
    """The share of a student's table that has as many numbers as one of the base model's."""
    return budget * (run.model.embedding.parameters / run.build(model).embedding.parameters)


def check_room(run: Run, model: ModelConfig, budget: float) -> None:
    """Raises: InputError: a budget has no room for a coordinate of a student."""
    unit = share_of(run, model, 1.0)
    require_room("budget", min(1.0, budget * unit), run.build(model).embedding, unit=unit)


def check_cut(run: Run, model: ModelConfig) -> None:
    """Raises: InputError: the network of a student, such as one from a plug-in, can't be cut."""
    full = run.build(model)
    if full.embedding.dim < 2:
        return
    *others, last = all_coordinates(full.embedding)
    compact = build_model(model, full.embedding.sizes, kept=(*others, last[:-1]))

    def network(model: Model) -> Any:
        return init_model(jax.random.key(0), model).params[NETWORK]

    try:
        jax.eval_shape(lambda: cut_network(full, compact, network(full), network(compact)))
    except InputError:
        raise InputError(
            f"The network of {model.name} can't be cut to fewer coordinates, since its axes do not "
            "hold them one after the other. Choose --selections uniform, or another click model."
        ) from None


def lacks_room(run: Run, model: ModelConfig, budget: float) -> str:
    """Why a budget is not one for a student; empty where it is."""
    share = share_of(run, model, budget)
    if share > 1:
        return f"with D = {model.dim} the whole table is smaller."
    try:
        check_room(run, model, budget)
    except InputError as error:
        return str(error)
    return ""


def searched(run: Run) -> SearchRuns:
    """The search of a run."""
    run.workdir.mkdir(parents=True, exist_ok=True)
    (found,) = search([run])
    return found


def _run_of(run: Run, model: ModelConfig, selection: str, share: float | None = None) -> Run:
    """The run of a student that keeps a share of its table; a search without serves all shares."""
    config = replace(
        run.config,
        method=selection,
        budget=share,
        model=model,
        search=search_of(selection, "small"),
    )
    norm = "_norm" if model.batch_norm else ""
    student = f"{model.name}_{model.dim}_{model.cross_rank}{norm}"
    size = "search" if share is None else repr(share)
    folder = run.workdir / FOLDER / student / f"{selection}_{size}"
    return replace(run, config=config, workdir=folder)

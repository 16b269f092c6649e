"""The stages of a method: base, teach, search, choose, retrain, evaluate."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from ihas_jax.pipeline.chain import Stage, add_compiling, read_seconds, timed
from ihas_jax.pipeline.publish import publish
from ihas_jax.programs import Compiling, compiling
from ihas_jax.reporting.figures import History
from ihas_jax.selectors.by_value import ValueRouter
from ihas_jax.selectors.plan import Plan
from ihas_jax.serving.storage import save_bundle
from ihas_jax.stages.base import train_base
from ihas_jax.stages.choose import choose
from ihas_jax.stages.evaluate import (
    evaluate,
    evaluate_base,
    evaluate_student,
    score_teachers,
)
from ihas_jax.stages.lessons import Speaker, Taught
from ihas_jax.stages.retrain import retrain, train_student
from ihas_jax.stages.run import Run
from ihas_jax.stages.search import SearchRuns, search, searched_transform
from ihas_jax.stages.teach import teach
from ihas_jax.stages.teachers import BASE, SEARCH, teach_after_search
from ihas_jax.training.task import Trained


class Stages:
    """The results so far of the stages of runs that differ in their seed alone.

    The stages base and search train all runs side by side. Plans and compact models differ in
    shape between seeds, so later stages take one run after the other.
    """

    def __init__(self, runs: Sequence[Run]) -> None:
        """Takes the method from the first run."""
        self.runs = runs
        self.base: list[Trained] = []
        self.taught: list[Taught] = []
        self.search: list[SearchRuns] = []
        self.plans: list[Plan] = []
        self.retrained: list[list[Trained]] = []

    @property
    def stages(self) -> dict[str, Stage]:
        """The stages by name, in their order; each needs those before it but the base model.

        A run without a method has neither search nor choice, and retrains only if it has teachers.
        """
        run = self.runs[0]
        work = {"search": self._search, "choose": self._choose} if run.selector else {}
        if run.config.retrain.teachers:
            teach = {"teach": self._teach}
            work = {**work, **teach} if teach_after_search(run.config) else {**teach, **work}
        if work:
            work["retrain"] = self._retrain
        base_teaches = BASE in run.config.retrain.teachers
        stages = {"base": Stage(self._base)}
        before: tuple[str, ...] = ()
        for name, do in work.items():
            before = ("base", *before) if name == "teach" and base_teaches else before
            stages[name] = Stage(do, before)
            before = (*before, name)
        return stages | {"evaluate": Stage(self._evaluate, tuple(stages))}

    def _base(self) -> list[float]:
        self.base, longest = timed(
            lambda: train_base(self.runs), lambda base: max(one.seconds for one in base)
        )
        return [longest] * len(self.runs)

    def _teach(self) -> list[float]:
        own: dict[str, list[Speaker]] = {}
        names = self.runs[0].config.retrain.teachers
        if BASE in names:
            found = zip(self.runs, self.base, strict=True)
            own[BASE] = [Speaker(run.model, base.variables) for run, base in found]
        if SEARCH in names:
            own[SEARCH] = [
                Speaker(run.searched_model, found.variables, searched_transform(run))
                for run, found in zip(self.runs, self.search, strict=True)
            ]
        self.taught = teach(self.runs, own)
        pairs = zip(self.runs, self.taught, strict=True)
        self.runs = [replace(run, taught=taught.labels) for run, taught in pairs]
        return [taught.seconds for taught in self.taught]

    def _search(self) -> list[float]:
        self.search, longest = timed(
            lambda: search(self.runs), lambda found: max(one.seconds for one in found)
        )
        return [longest] * len(self.runs)

    def _choose(self) -> list[float]:
        found = zip(self.runs, self.search, strict=True)
        chosen = [choose(run, searched) for run, searched in found]
        self.plans = [plan for plan, _ in chosen]
        return [seconds for _, seconds in chosen]

    def _retrain(self) -> list[float]:
        work: list[Callable[[], tuple[Plan | None, list[Trained]]]]
        if self.runs[0].selector is None:
            work = [partial(lambda run: (None, [train_student(run)]), run) for run in self.runs]
        else:
            parts = zip(self.runs, self.plans, self.search, strict=True)
            work = [partial(retrain, *found) for found in parts]
        done = [timed(one, lambda pair: sum(m.seconds for m in pair[1])) for one in work]
        self.plans = [plan for (plan, _), _ in done if plan is not None]
        self.retrained = [models for (_, models), _ in done]
        return [seconds for _, seconds in done]

    def _evaluate(self) -> list[float]:
        taken = []
        for i in range(len(self.runs)):
            with compiling() as compiled:
                taken.append(self._evaluate_one(i, compiled))
        return taken

    def _evaluate_one(self, i: int, compiled: Compiling) -> float:
        start = time.monotonic()
        run, base = self.runs[i], self.base[i]
        histories = {"base": base.history}
        if run.selector is None and not self.taught:
            evaluation = evaluate_base(run, base)
        elif run.selector is None:
            (student,) = self.retrained[i]
            evaluation = evaluate_student(run, base, student)
            histories["student"] = student.history
        else:
            found, plan, retrained = self.search[i], self.plans[i], self.retrained[i]
            evaluation = evaluate(run, base, found, plan, retrained)
            histories |= _histories(found, plan, retrained)
        save_bundle(evaluation.bundle, run.workdir / "bundle", replace=True)
        seconds = time.monotonic() - start
        before = read_seconds(run)
        taken = before | {"evaluate": round(seconds, 3)}
        # an evaluation that is made again was counted
        add_compiling(taken, 0.0 if "evaluate" in before else compiled.seconds)
        teachers = {}
        if self.taught:
            teachers = {"teacher": score_teachers(run, self.taught[i])}
            named = self.taught[i].histories.items()
            histories |= {f"teacher {name}": history for name, history in named}
        metrics = (
            evaluation.metrics
            | teachers
            | {
                "method": run.config.method,
                "models": _models(run, evaluation.metrics),
                "seconds": taken,
            }
        )
        publish(run, metrics, histories, evaluation.shown)
        return seconds


def _models(run: Run, metrics: Mapping[str, Any]) -> dict[str, str]:
    """The name of the click model of each entry of the metrics that has scores."""
    own = run.config.model.name
    searched = run.searched_by.name if run.searched_by else own
    names = {"base": own, "search": searched, "student": own, "one": own, run.config.method: own}
    return {name: model for name, model in names.items() if name in metrics}


def _histories(found: SearchRuns, plan: Plan, retrained: Sequence[Trained]) -> dict[str, History]:
    """The epochs of each training of a method, by the name that reports give it."""
    histories = {}
    if found.rewound is not None:
        histories["search, first epochs"] = found.rewound.history
    histories["search"] = found.searched.history
    for share, _, trained in found.steps:
        histories[f"search, cut to {100 * share:g} %"] = trained.history
    if isinstance(plan.router, ValueRouter):
        return histories | {"retrain groups": retrained[0].history}
    for expert, trained in zip(plan.experts, retrained, strict=True):
        histories[f"retrain {expert.name}".strip()] = trained.history
    return histories

"""The stages of a method: base, search, choose, retrain, evaluate."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from ihas_jax.pipeline.chain import Stage, read_seconds, timed
from ihas_jax.pipeline.publish import publish
from ihas_jax.reporting.figures import History
from ihas_jax.selectors.plan import Plan
from ihas_jax.serving.storage import save_bundle
from ihas_jax.stages.base import train_base
from ihas_jax.stages.choose import choose
from ihas_jax.stages.evaluate import evaluate, evaluate_base
from ihas_jax.stages.retrain import retrain
from ihas_jax.stages.run import Run
from ihas_jax.stages.search import SearchRuns, search
from ihas_jax.training.loop import Trained


class Stages:
    """The results so far of the stages of runs that differ in their seed alone.

    The stages base and search train all runs side by side. Plans and compact models differ in
    shape between seeds, so later stages take one run after the other.
    """

    def __init__(self, runs: Sequence[Run]) -> None:
        """Takes the method from the first run."""
        self.runs = runs
        self.base: list[Trained] = []
        self.search: list[SearchRuns] = []
        self.plans: list[Plan] = []
        self.retrained: list[list[Trained]] = []

    @property
    def stages(self) -> dict[str, Stage]:
        """The stages by name, in their order; a run without a method has two of them."""
        base = {"base": Stage(self._base)}
        if self.runs[0].selector is None:
            return base | {"evaluate": Stage(self._evaluate, ("base",))}
        return base | {
            "search": Stage(self._search),
            "choose": Stage(self._choose, ("search",)),
            "retrain": Stage(self._retrain, ("search", "choose")),
            "evaluate": Stage(self._evaluate, ("base", "search", "choose", "retrain")),
        }

    def _base(self) -> list[float]:
        self.base, longest = timed(
            lambda: train_base(self.runs), lambda base: max(one.seconds for one in base)
        )
        return [longest] * len(self.runs)

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
        done = [
            timed(partial(retrain, *parts), lambda models: sum(one.seconds for one in models))
            for parts in zip(self.runs, self.plans, self.search, strict=True)
        ]
        self.retrained = [models for models, _ in done]
        return [seconds for _, seconds in done]

    def _evaluate(self) -> list[float]:
        return [self._evaluate_one(i) for i in range(len(self.runs))]

    def _evaluate_one(self, i: int) -> float:
        start = time.monotonic()
        run, base = self.runs[i], self.base[i]
        histories = {"base": base.history}
        if run.selector is None:
            evaluation = evaluate_base(run, base)
        else:
            found, plan, retrained = self.search[i], self.plans[i], self.retrained[i]
            evaluation = evaluate(run, base, found, plan, retrained)
            histories |= _histories(found, plan, retrained)
        save_bundle(evaluation.bundle, run.workdir / "bundle")
        seconds = time.monotonic() - start
        metrics = evaluation.metrics | {
            "method": run.config.method,
            "models": _models(run, evaluation.metrics),
            "seconds": read_seconds(run) | {"evaluate": round(seconds, 3)},
        }
        publish(run, metrics, histories, evaluation.shown)
        return seconds


def _models(run: Run, metrics: Mapping[str, Any]) -> dict[str, str]:
    """The name of the click model of each entry of the metrics that has scores."""
    own = run.config.model.name
    searched = run.searched_by.name if run.searched_by else own
    names = {"base": own, "search": searched, run.config.method: own}
    return {name: model for name, model in names.items() if name in metrics}


def _histories(found: SearchRuns, plan: Plan, retrained: Sequence[Trained]) -> dict[str, History]:
    """The epochs of each training of a method, by the name that reports give it."""
    histories = {}
    if found.rewound is not None:
        histories["search, first epochs"] = found.rewound.history
    histories["search"] = found.searched.history
    for expert, trained in zip(plan.experts, retrained, strict=True):
        histories[f"retrain {expert.name}".strip()] = trained.history
    return histories

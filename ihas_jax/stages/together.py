"""Runs of several seeds: the stages whose shapes no seed changes train all seeds side by side."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path

from ihas_jax.config import Config
from ihas_jax.data.dataset import Dataset
from ihas_jax.errors import InputError
from ihas_jax.progress import log
from ihas_jax.selectors.bernoulli import BernoulliGates
from ihas_jax.stages.pipeline import Result, check_rows, fit
from ihas_jax.stages.pretrain import base_task, fresh_state, pretrain_task
from ihas_jax.stages.run import Run
from ihas_jax.stages.search import init_search, search_task
from ihas_jax.stages.workdir import open_workdir
from ihas_jax.training.loop import Fitted, Task
from ihas_jax.training.seeds import fit_seeds
from ihas_jax.training.steps import TrainState


def fit_together(config: Config, data: Dataset, workdirs: Mapping[int, str | Path]) -> list[Result]:
    """`fit` of several seeds on the same data, with one base, pretraining and search for all.

    Clusters and compact models differ in shape between seeds, so from there on the seeds run one
    after the other. Each folder ends as that of a run of its seed alone, with the same numbers
    up to float rounding, and either goes on with what the other left.

    Args:
      config: every choice of the runs but the seed.
      data: an opened store or a synthetic log.
      workdirs: the folder of each seed.

    Returns:
      The result of each seed, in the order of `workdirs`.

    Raises:
      InputError: as `fit`; the rows don't stay on the device, or the method is not ihas.
    """
    check_rows(config, data)
    if config.method != "ihas":
        raise InputError(
            f"Seeds of the method {config.method} can't train side by side, those of ihas can. "
            "Leave --together out."
        )
    if not workdirs:
        return []
    with ExitStack() as stack:
        runs = []
        for seed, workdir in workdirs.items():
            own = dataclasses.replace(config, seed=seed)
            runs.append(Run(own, data, stack.enter_context(open_workdir(own, data, workdir))))
        _train(runs)
    results = []
    for run in runs:
        log(f"[Seed {run.config.seed}]")
        results.append(fit(run.config, data, run.workdir))
    return results


def _train(runs: list[Run]) -> None:
    """Leaves the finished checkpoints of base, pretraining and search in every folder."""
    config, model = runs[0].config, runs[0].model()
    selector = BernoulliGates(config.gates, model.embedding.coordinates)

    def train(task: Callable[[Run], Task], states: list[TrainState]) -> list[Fitted]:
        tasks = [task(run) for run in runs]
        # what a task computes is the same for all seeds, and compiled once where it is shared
        shared = [
            dataclasses.replace(own, evaluate=tasks[0].evaluate, label=f"seed {run.config.seed}")
            for run, own in zip(runs, tasks, strict=True)
        ]
        return fit_seeds(shared, states, [run.event for run in runs])

    train(lambda run: base_task(run, model), [fresh_state(run, "base", model) for run in runs])
    pretrained = train(
        lambda run: pretrain_task(run, model, selector),
        [fresh_state(run, "search/pretrain", model) for run in runs],
    )
    starts: list[TrainState] = [
        init_search(run.key("search"), run.config, model, selector, start.state)
        for run, start in zip(runs, pretrained, strict=True)
    ]
    train(lambda run: search_task(run, model, selector), starts)

"""Fits a run, or the runs of several seeds, from the first stage to the last."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ihas_jax import checksums
from ihas_jax.config import Config, ModelConfig
from ihas_jax.data.dataset import Dataset
from ihas_jax.data.split import SPLITS
from ihas_jax.errors import InputError, require_type
from ihas_jax.pipeline.chain import Chain, read_seconds, require_stage
from ihas_jax.pipeline.idle import check_flags
from ihas_jax.pipeline.publish import present, read_published
from ihas_jax.pipeline.reuse import copy_search, require_search
from ihas_jax.pipeline.stages import Stages
from ihas_jax.pipeline.workdir import open_run
from ihas_jax.processes import by_first, odd_one
from ihas_jax.progress import say, track
from ihas_jax.stages.rotate import check_rotation
from ihas_jax.stages.run import Run
from ihas_jax.stages.shared import check_shared
from ihas_jax.stages.teach import check_teachers

StageName = Literal["all", "base", "teach", "search", "choose", "cluster", "retrain", "evaluate"]


@dataclass(frozen=True)
class Result:
    """The result of a run.

    Attributes:
      metrics: the content of `metrics.json`; empty until the evaluate stage is done.
      workdir: the folder of the run, with `metrics.json`, `report.md`, `figures/` and `bundle/`.
      missing: parts of report, figures and closing table that could not be made; the log says
        why, and the same call makes them without training or evaluating again.
    """

    metrics: dict[str, Any]
    workdir: Path
    missing: tuple[str, ...] = ()


def fit(
    config: Config,
    data: Dataset,
    workdir: str | Path,
    stage: StageName = "all",
    *,
    searched_by: str | Path | None = None,
) -> Result:
    """Runs the base model and the method of the config: search, choice, retraining, evaluation.

    Stages that are finished in `workdir` are not run again. A stage that was cut short resumes
    from its newest checkpoint, and ends with the same numbers as an uninterrupted one.

    Args:
      config: every choice of the run.
      data: an opened store or a synthetic log.
      workdir: the folder of the run: a new one, or one with the same config and data.
      stage: one stage, whose predecessors must be finished, or 'all' for every missing stage.
        'cluster' is another name of 'choose'.
      searched_by: the folder of a run of another click model whose search and choice serve this run
        (the paper's Table 3). They are copied; that folder does not change.

    Raises:
      InputError: the folder holds something else, an earlier stage is missing, the loss became
        NaN, an id or a label is out of range, or the search of the other run can't be used.
    """
    _require_same_call(stage, searched_by)
    searched = None if searched_by is None else require_search(config, data, searched_by)
    check_rows(config, data, searched)
    planned = Run(config, data, Path(), searched)
    require_stage(planned, Stages([planned]).stages, stage)
    with open_run(config, data, workdir, searched) as run:
        say(f"[Data] {_describe(data)}")
        if searched_by is not None:
            copy_search(run, searched_by)
        if run.searched_by is not None:
            say(f"[Search] The search is that of a run of {run.searched_by.name}.")
        return _fit([run], stage)[0]


def _require_same_call(stage: str, searched_by: str | Path | None) -> None:
    """Raises: InputError: processes of a job were asked for something else."""
    if found := odd_one((stage, str(searched_by))):
        number, first, other = found
        raise InputError(
            f"Process {number} has another --stage or --searched-by than process 0: "
            f"{' and '.join(other)}, not {' and '.join(first)}. Start all processes by the same "
            "command."
        )


def fit_seeds(config: Config, data: Dataset, workdirs: Mapping[int, str | Path]) -> list[Result]:
    """Fits several seeds on the same data; base, pretraining and search train side by side.

    Plans and compact models differ in shape between seeds, so from there on the seeds run one
    after the other. Each folder ends as after `fit` of that seed, with the same numbers up to
    float rounding; `fit` and `fit_seeds` resume each other's folders.

    Args:
      config: every choice of the runs except the seed.
      data: an opened store or a synthetic log.
      workdirs: the folder of each seed.

    Returns:
      The result of each seed, in the order of `workdirs`.

    Raises:
      InputError: as `fit`; or the rows don't stay on the device.
    """
    if not workdirs:
        return []
    check_rows(config, data)
    with ExitStack() as stack:
        runs = []
        for seed, workdir in workdirs.items():
            own = dataclasses.replace(config, seed=seed)
            runs.append(stack.enter_context(open_run(own, data, workdir)))
        say(f"[Data] {_describe(data)}")
        return _fit(runs, "all")


def _fit(runs: Sequence[Run], stage: StageName) -> list[Result]:
    """Runs the missing stages of runs that differ in their seed alone, and shows the results."""
    ends = stage in ("all", "evaluate")
    published = [_published(run) if ends else None for run in runs]
    if left := [run for run, metrics in zip(runs, published, strict=True) if metrics is None]:
        Chain(left, Stages(left).stages).advance(stage)
    results = []
    for run, before in zip(runs, published, strict=True):
        if len(runs) > 1:
            say(f"[Seed {run.config.seed}]")
        metrics = before or _published(run)
        missing = present(run, metrics) if ends and metrics is not None else ()
        if before:  # after missing files were made again
            _name_changed(run.workdir)
        results.append(Result(metrics or {}, run.workdir, missing))
    return results


def _published(run: Run) -> dict[str, Any] | None:
    """The metrics of a finished run."""
    return read_published(run) if "evaluate" in read_seconds(run) else None


@by_first
def _name_changed(workdir: Path) -> None:
    """Says which files of a finished run have changed since the run wrote them."""
    for name in checksums.damaged(workdir) or ():
        say(
            f"[Files] {workdir / name} has been changed or damaged since the run wrote it. If "
            "that was not you, delete report.md: the same command makes report and figures again."
        )


def check_rows(config: Config, data: Dataset, searched_by: ModelConfig | None = None) -> None:
    """Checks all rows once, before the run starts.

    Args:
      config: every choice of the run.
      data: its data.
      searched_by: the click model that was searched, where another run did it.

    Raises:
      InputError: the data have too few rows for the config, an id or a label is out of range, the
        model can't carry the method, the method can't keep to the budget, or a flag would have no
        effect.
    """
    check_choices(config, data, searched_by)
    _check_values(data)


@by_first
def _check_values(data: Dataset) -> None:
    with track("[Data] check", sum(len(getattr(data, name).labels) for name in SPLITS)) as bar:
        data.check(bar.advance)


def require_rows(data: Dataset) -> None:
    """Raises: InputError: the data are something else, or a split of them has no rows."""
    require_type("data", data, Dataset, "Open a store with ihas.open_store, or use ihas.synthetic.")
    for name in SPLITS:
        if not len(getattr(data, name).labels):
            raise InputError(
                f"The data hold no {name} rows, so there is nothing to run on; prepare a longer "
                "log and pass its folder as --data."
            )


def check_choices(config: Config, data: Dataset, searched_by: ModelConfig | None = None) -> None:
    """Checks the config of a run on some data, as `check_rows` does, without reading the rows."""
    require_type("config", config, Config, "Make one with ihas.preset or ihas.Config.")
    require_rows(data)
    check_flags(config)
    run = Run(config, data, Path(), searched_by)
    check_teachers(run)
    if selector := run.selector:
        selector.check(len(data.train.labels))
        check_rotation(run)
        check_shared(run, selector.clusters)


def _describe(data: Dataset) -> str:
    rows = [len(split.labels) for split in (data.train, data.valid, data.test)]
    return (
        f"{sum(rows):,} rows ({rows[0]:,} train, {rows[1]:,} valid, {rows[2]:,} test), "
        f"{len(data.schema.sizes)} fields, {sum(data.schema.sizes):,} values"
    )

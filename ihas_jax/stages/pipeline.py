"""A run from its first stage to its last, in a folder that it goes on from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ihas_jax import checksums
from ihas_jax.config import Config
from ihas_jax.data.dataset import Dataset
from ihas_jax.data.split import SPLITS
from ihas_jax.errors import InputError
from ihas_jax.progress import log, track
from ihas_jax.stages.chain import Chain
from ihas_jax.stages.ihas import IhasStages
from ihas_jax.stages.methods import MethodStages
from ihas_jax.stages.publish import present, read_published
from ihas_jax.stages.run import Run
from ihas_jax.stages.transfer import require_clusters, searched_config
from ihas_jax.stages.workdir import open_workdir

StageName = Literal["all", "base", "search", "cluster", "choose", "retrain", "evaluate"]


@dataclass(frozen=True)
class Result:
    """What a finished run leaves.

    Attributes:
      metrics: the content of `metrics.json`; empty until the evaluate stage is done.
      workdir: the run's folder, with `metrics.json`, `report.md`, `figures/` and `bundle/`.
      missing: parts of report, figures and closing table that could not be made; the log says
        why, and the same call makes them without training or evaluating anew.
    """

    metrics: dict[str, Any]
    workdir: Path
    missing: tuple[str, ...] = ()


def fit(config: Config, data: Dataset, workdir: str | Path, stage: StageName = "all") -> Result:
    """Runs the base model and the method of the config: search, selection, retraining, evaluation.

    Whatever is already in `workdir` is not done again, and a stage that was cut short goes on
    from its newest checkpoint, with the same numbers as if it had never stopped.

    Args:
      config: every choice of the run.
      data: an opened store or a synthetic log.
      workdir: the run's folder; new, or one of the same config and data.
      stage: one stage alone, whose predecessors must be finished; 'all' for what is missing.

    Raises:
      InputError: the folder belongs to something else, an earlier stage is missing, the loss
        became NaN, or the data hold an id or a label that is none.
    """
    check_rows(config, data)
    with open_workdir(config, data, workdir) as path:
        run = Run(config, data, path)
        return _run(run, run, stage)


def transfer(
    config: Config, data: Dataset, workdir: str | Path, stage: StageName = "all"
) -> Result:
    """Trains a click model as it is, and compactly by the gates and clusters of another (Table 3).

    Gates, base tables and clusters are those of the run in `workdir`, which is left alone; results
    go to the folder `transfer/NAME` in it, NAME being the model's. Where `workdir` holds no run
    of a model of another name, or the method is not iHAS, this is `fit`.

    Args:
      config: as of that run, but for the model.
      data: the data of that run.
      workdir: the folder of a run that has come to its clusters.
      stage: 'base', 'retrain' or 'evaluate' alone; 'all' for what is missing.

    Raises:
      InputError: as `fit`; or that run has no clusters yet, or they don't fit the model, or
        `stage` is one of those that are that run's.
    """
    searched = config if config.method != "ihas" else searched_config(config, workdir)
    if searched == config:
        return fit(config, data, workdir, stage)
    if stage in ("search", "cluster"):
        raise InputError(
            f"{workdir} holds a run of the model {searched.model.name}, whose gates and clusters "
            f"serve {config.model.name} too: there is no --stage {stage}. For gates of its own "
            "choose another --output."
        )
    check_rows(config, data)
    with open_workdir(searched, data, workdir) as path:
        source = Run(searched, data, path)
        require_clusters(source, config)
        folder = path / "transfer" / config.model.name
        with open_workdir(config, data, folder, searched=searched.model) as own:
            return _run(Run(config, data, own), source, stage)


def _run(run: Run, source: Run, stage: StageName) -> Result:
    log(f"[Data] {_describe(run.data)}")
    if run is not source:
        log(
            f"[Transfer] {run.config.model.name} with the gates and clusters of {source.workdir}; "
            f"results go to {run.workdir}"
        )
    stages = IhasStages(run, source) if run.config.method == "ihas" else MethodStages(run)
    chain = Chain(run, stages.stages, stages.shared)
    ends = stage in ("all", "evaluate")
    metrics = read_published(run) if ends and "evaluate" in chain.seconds else None
    before = metrics is not None
    if not before:
        chain.advance(stage)
        metrics = read_published(run) if "evaluate" in chain.seconds else None
    missing = present(run, metrics) if ends and metrics is not None else ()
    if before:  # what was missing has been made by now
        _name_changed(run.workdir)
    return Result(metrics or {}, run.workdir, missing)


def _name_changed(workdir: Path) -> None:
    """Says which files of a finished run are not as it left them."""
    for name in checksums.damaged(workdir) or ():
        log(
            f"[Files] {workdir / name} has been changed or damaged since the run wrote it. Where "
            "that was not you, delete report.md: the same command makes report and figures again."
        )


def check_rows(config: Config, data: Dataset) -> None:
    """Reads all rows once, before anything is made of them.

    Raises:
      InputError: the data have too few rows for the config, or hold an id or a label that is none.
    """
    for name in SPLITS:
        if not len(getattr(data, name).labels):
            raise InputError(
                f"The data hold no {name} rows, so there is nothing to run on; prepare a longer "
                "log and pass its folder as --data."
            )
    rows = min(len(data.train.labels), config.cluster.batch_rows)
    if config.method == "ihas" and config.cluster.clusters > rows:
        raise InputError(
            f"--cluster.clusters {config.cluster.clusters} is more than the {rows} rows of the "
            "first mini-batch of K-means; choose fewer, or raise --cluster.batch-rows."
        )
    with track("[Data] check", sum(len(getattr(data, name).labels) for name in SPLITS)) as bar:
        data.check(bar.advance)


def _describe(data: Dataset) -> str:
    rows = [len(split.labels) for split in (data.train, data.valid, data.test)]
    return (
        f"{sum(rows):,} rows ({rows[0]:,} train, {rows[1]:,} valid, {rows[2]:,} test), "
        f"{len(data.schema.sizes)} fields, {sum(data.schema.sizes):,} values"
    )

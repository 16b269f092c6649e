"""Chains the stages of a run; each one goes on from what is already in the folder."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ihas_jax.config import Config
from ihas_jax.data.split import SPLITS
from ihas_jax.data.store import Dataset
from ihas_jax.errors import InputError
from ihas_jax.progress import log
from ihas_jax.reporting.figures import draw_figures
from ihas_jax.reporting.report import closing_table, write_report
from ihas_jax.selectors.bernoulli import BernoulliGates
from ihas_jax.serving.bundle import Bundle, save_bundle
from ihas_jax.stages.cluster import Clusters, fit_clusters
from ihas_jax.stages.evaluate import evaluate
from ihas_jax.stages.pretrain import train_base
from ihas_jax.stages.retrain import Plan, plan_experts, retrain
from ihas_jax.stages.run import Run, write_json
from ihas_jax.stages.search import search
from ihas_jax.stages.workdir import open_workdir
from ihas_jax.training.checkpoint import Checkpoints
from ihas_jax.training.loop import Fitted

Stage = Literal["all", "base", "search", "cluster", "retrain", "evaluate"]
STAGES = ("base", "search", "cluster", "retrain", "evaluate")


@dataclass(frozen=True)
class Result:
    """What a finished run leaves.

    Attributes:
      metrics: the content of `metrics.json`; empty until the evaluate stage is done.
      workdir: the run's folder, with `metrics.json`, `report.md`, `figures/` and `bundle/`.
    """

    metrics: dict[str, Any]
    workdir: Path


def fit(config: Config, data: Dataset, workdir: str | Path, stage: Stage = "all") -> Result:
    """Runs iHAS: base model, search, clusters, retraining, evaluation.

    Whatever is already in `workdir` is not done again, and a stage that was cut short goes on
    from its newest checkpoint, with the same numbers as if it had never stopped.

    Args:
      config: every choice of the run.
      data: an opened store or a synthetic log.
      workdir: the run's folder; new, or one of the same config and data.
      stage: one stage alone, whose predecessors must be finished; 'all' for what is missing.

    Raises:
      InputError: the folder belongs to something else, an earlier stage is missing, or the
        loss became NaN.
    """
    check_rows(config, data)
    with open_workdir(config, data, workdir) as path:
        return _run(Run(config, data, path), stage)


def _run(run: Run, stage: Stage) -> Result:
    log(f"[Data] {_describe(run.data)}")
    pipeline = _Pipeline(run)
    if stage in ("all", "evaluate") and pipeline.read_metrics():
        return Result(pipeline.metrics, run.workdir)
    wanted = STAGES if stage == "all" else (stage,)
    for name in STAGES[: STAGES.index(wanted[-1]) + 1]:
        if name not in wanted and name not in pipeline.seconds:
            raise InputError(
                f"--stage {stage} needs the stage '{name}', which {run.workdir} does not hold "
                f"yet. Run --stage {name} first, or leave --stage out to run all of them."
            )
        pipeline.run_stage(name)
    return Result(pipeline.metrics, run.workdir)


class _Pipeline:
    """The results of the stages so far; a finished stage is read back instead of run."""

    def __init__(self, run: Run) -> None:
        config = run.config
        self.run = run
        self.model = run.model()
        coordinates = len(run.data.schema.sizes) * config.model.dim
        self.selector = BernoulliGates(config.gates, coordinates)
        self._finished = run.workdir / "stages.json"
        self.seconds: dict[str, float] = (
            _read_json(self._finished) if self._finished.exists() else {}
        )
        self.metrics: dict[str, Any] = {}
        self.base: Fitted
        self.searched: Fitted
        self.clusters: Clusters
        self.curve: list[dict[str, float]]
        self.plan: Plan
        self.retrained: list[Fitted]

    def read_metrics(self) -> bool:
        """Whether the run is finished; if so, shows what it left and changes nothing."""
        files = [
            self.run.workdir / name for name in ("metrics.json", "report.md", "bundle/bundle.json")
        ]
        if "evaluate" not in self.seconds or not all(path.exists() for path in files):
            return False
        self.metrics = _read_json(files[0])
        for model in ("base", "search", "ihas"):
            if self.metrics[model]["auc"] is None:  # of a test split with one class
                self.metrics[model]["auc"] = float("nan")
        closing_table(self.metrics)
        log(f"Report: {files[1]}")
        return True

    def run_stage(self, name: str) -> None:
        """Runs a stage or reads its result back, and records that it is finished."""
        fresh = name not in self.seconds
        if fresh:
            log(f"[{name}] starts")
            self.run.event("stage", {"stage": name, "state": "starts"})
        stages = {
            "base": self._base,
            "search": self._search,
            "cluster": self._cluster,
            "retrain": self._retrain,
            "evaluate": self._evaluate,
        }
        start = time.monotonic()
        trained = stages[name]()
        # a stage that was cut short took longer than this process knows
        seconds = max(trained, time.monotonic() - start)
        if fresh:
            self.seconds[name] = round(seconds, 3)
            write_json(self._finished, self.seconds)
            self.run.event("stage", {"stage": name, "state": "done", "seconds": seconds})

    def _base(self) -> float:
        self.base = train_base(self.run)
        return self.base.seconds

    def _search(self) -> float:
        pretrained, self.searched = search(self.run, self.selector)
        return pretrained.seconds + self.searched.seconds

    def _cluster(self) -> float:
        start = time.monotonic()
        run, config = self.run, self.run.config
        n_train, n_valid = len(run.data.train.labels), len(run.data.valid.labels)
        coordinates = self.selector.coordinates
        shape = (config.cluster.clusters, coordinates)
        target = Clusters(
            centroids=np.zeros(shape, np.float32),
            mean_masks=np.zeros(shape, np.float32),
            counts=np.zeros(shape[:1], np.int64),
            train=np.zeros(n_train, np.int32),
            valid=np.zeros(n_valid, np.int32),
        )
        with Checkpoints(run.workdir / "cluster") as checkpoints:
            found = checkpoints.restore({"clusters": vars(target)})
            if found is not None:
                items, facts = found
                arrays = {name: np.asarray(leaf) for name, leaf in items["clusters"].items()}
                self.clusters = Clusters(**arrays)
                self.curve = facts["curve"]
                return float(facts["seconds"])
            self.clusters, curve = fit_clusters(
                self.model,
                self.selector,
                self.searched.params,
                run.data.train.ids,
                run.data.valid.ids,
                config.cluster,
                run.seed("cluster"),
            )
            seconds = time.monotonic() - start
            self.curve = [point._asdict() for point in curve]
            facts = {"seconds": seconds, "curve": self.curve}
            checkpoints.save({"clusters": vars(self.clusters)}, facts)
        run.event("clusters", {"counts": self.clusters.counts.tolist(), "curve": self.curve})
        return seconds

    def _retrain(self) -> float:
        labels = (self.run.data.train.labels, self.run.data.valid.labels)
        self.plan = plan_experts(self.clusters, *labels, self.run.config)
        self.retrained = retrain(self.run, self.plan, self.searched.params)
        return sum(fitted.seconds for fitted in self.retrained)

    def _evaluate(self) -> float:
        start = time.monotonic()
        run = self.run
        evaluation = evaluate(
            run,
            self.model,
            self.selector,
            self.base,
            self.searched,
            self.clusters,
            self.plan,
            self.retrained,
        )
        bundle = Bundle(
            config=run.config,
            schema=run.data.schema,
            kept=tuple(expert.kept for expert in self.plan.experts),
            routes=self.plan.routes,
            router={"params": self.searched.params, "centroids": self.clusters.centroids},
            weights=tuple((fitted.params, fitted.batch_stats) for fitted in self.retrained),
        )
        save_bundle(bundle, run.workdir / "bundle")
        seconds = time.monotonic() - start
        self.metrics = evaluation.metrics | {
            "kmeans": self.curve,
            "seconds": self.seconds | {"evaluate": round(seconds, 3)},
        }
        histories = {"base": self.base.history, "search": self.searched.history} | {
            f"retrain {expert.name}": fitted.history
            for expert, fitted in zip(self.plan.experts, self.retrained, strict=True)
        }
        draw_figures(run.workdir / "figures", self.metrics, histories, evaluation.sample)
        write_report(run.workdir, run.config, self.metrics, histories)
        write_json(run.workdir / "metrics.json", self.metrics)
        run.event("metrics", self.metrics)
        closing_table(self.metrics)
        log(f"Report: {run.workdir / 'report.md'}")
        return seconds


def check_rows(config: Config, data: Dataset) -> None:
    """Raises: InputError: the data have too few rows for the config."""
    for name in SPLITS:
        if not len(getattr(data, name).labels):
            raise InputError(
                f"The data hold no {name} rows, so there is nothing to run on; prepare a longer "
                "log and pass its folder as --data."
            )
    rows = min(len(data.train.labels), config.cluster.batch_rows)
    if config.cluster.clusters > rows:
        raise InputError(
            f"--cluster.clusters {config.cluster.clusters} is more than the {rows} rows of the "
            "first mini-batch of K-means; choose fewer, or raise --cluster.batch-rows."
        )


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path} can't be read ({error}). Delete it: the same command makes it again from "
            "the checkpoints."
        ) from None


def _describe(data: Dataset) -> str:
    rows = [len(split.labels) for split in (data.train, data.valid, data.test)]
    return (
        f"{sum(rows):,} rows ({rows[0]:,} train, {rows[1]:,} valid, {rows[2]:,} test), "
        f"{len(data.schema.sizes)} fields, {sum(data.schema.sizes):,} values"
    )

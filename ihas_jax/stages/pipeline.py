"""Chains the stages of a run; each one goes on from what is already in the folder."""

from __future__ import annotations

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
from ihas_jax.stages.cluster import Clusters, Searched, fit_clusters
from ihas_jax.stages.evaluate import evaluate
from ihas_jax.stages.pretrain import train_base
from ihas_jax.stages.retrain import Plan, plan_experts, retrain
from ihas_jax.stages.run import Run, read_json, read_seconds, write_json, write_seconds
from ihas_jax.stages.search import search
from ihas_jax.stages.transfer import require_clusters, searched_config
from ihas_jax.stages.workdir import open_workdir
from ihas_jax.training.checkpoint import Checkpoints
from ihas_jax.training.loop import Fitted

Stage = Literal["all", "base", "search", "cluster", "retrain", "evaluate"]
STAGES = ("base", "search", "cluster", "retrain", "evaluate")
_NEEDS: dict[str, tuple[str, ...]] = {
    "base": (),
    "search": (),
    "cluster": ("search",),
    "retrain": ("search", "cluster"),
    "evaluate": ("base", "search", "cluster", "retrain"),
}


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
        run = Run(config, data, path)
        return _run(run, run, stage)


def transfer(config: Config, data: Dataset, workdir: str | Path, stage: Stage = "all") -> Result:
    """Trains a click model as it is, and compactly by the gates and clusters of another (Table 3).

    Gates, base tables and clusters are those of the run in `workdir`, which is left alone; results
    go to the folder `transfer/NAME` in it, NAME being the model's. Where `workdir` holds no run
    of a model of another name, this is `fit`.

    Args:
      config: as of that run, but for the model.
      data: the data of that run.
      workdir: the folder of a run that has come to its clusters.
      stage: 'base', 'retrain' or 'evaluate' alone; 'all' for what is missing.

    Raises:
      InputError: as `fit`; or that run has no clusters yet, or they don't fit the model, or
        `stage` is one of those that are that run's.
    """
    searched = searched_config(config, workdir)
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


def _run(run: Run, source: Run, stage: Stage) -> Result:
    log(f"[Data] {_describe(run.data)}")
    if run is not source:
        log(
            f"[Transfer] {run.config.model.name} with the gates and clusters of {source.workdir}; "
            f"results go to {run.workdir}"
        )
    pipeline = _Pipeline(run, source)
    if stage in ("all", "evaluate") and pipeline.read_metrics():
        return Result(pipeline.metrics, run.workdir)
    if stage not in ("all", "evaluate") and stage in pipeline.seconds:
        log(f"[{stage}] is finished already")
        return Result(pipeline.metrics, run.workdir)
    for name in STAGES if stage == "all" else (*_NEEDS[stage], stage):
        if name not in (stage, *pipeline.seconds) and stage != "all":
            raise InputError(
                f"--stage {stage} needs the stage '{name}', which {run.workdir} does not hold "
                f"yet. Run --stage {name} first, or leave --stage out to run all of them."
            )
        pipeline.run_stage(name)
    return Result(pipeline.metrics, run.workdir)


class _Pipeline:
    """The results of the stages so far; a finished stage is read back instead of run."""

    def __init__(self, run: Run, source: Run) -> None:
        """`source` is the run whose folder holds search and clusters, most often the same."""
        self.run, self.source = run, source
        self.model = source.model()
        self.selector = BernoulliGates(run.config.gates, self.model.embedding.coordinates)
        self._own = read_seconds(run)
        shared = read_seconds(source) if source is not run else {}
        self._shared = {name: shared[name] for name in ("search", "cluster") if name in shared}
        self.metrics: dict[str, Any] = {}
        self.base: Fitted
        self.fitted: Fitted
        self.searched: Searched
        self.curve: list[dict[str, float]]
        self.plan: Plan
        self.retrained: list[Fitted]

    @property
    def seconds(self) -> dict[str, float]:
        """Seconds of each finished stage, those that are another run's included."""
        return self._shared | self._own

    def read_metrics(self) -> bool:
        """Whether the run is finished; if so, shows what it left and changes nothing."""
        files = [
            self.run.workdir / name for name in ("metrics.json", "report.md", "bundle/bundle.json")
        ]
        if "evaluate" not in self.seconds or not all(path.exists() for path in files):
            return False
        self.metrics = read_json(files[0])
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
            self._own[name] = round(seconds, 3)
            write_seconds(self.run, self._own)
            self.run.event("stage", {"stage": name, "state": "done", "seconds": seconds})

    def _base(self) -> float:
        self.base = train_base(self.run)
        return self.base.seconds

    def _search(self) -> float:
        searches = search(self.source, self.selector)
        self.fitted = searches.fitted
        return searches.seconds

    def _cluster(self) -> float:
        start = time.monotonic()
        run, config = self.source, self.source.config
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
                self._set_clusters(Clusters(**arrays), facts["curve"])
                return float(facts["seconds"])
            clusters, curve = fit_clusters(
                self.model,
                self.selector,
                self.fitted.params,
                run.data.train.ids,
                run.data.valid.ids,
                config.cluster,
                run.seed("cluster"),
            )
            seconds = time.monotonic() - start
            self._set_clusters(clusters, [point._asdict() for point in curve])
            facts = {"seconds": seconds, "curve": self.curve}
            checkpoints.save({"clusters": vars(clusters)}, facts)
        run.event("clusters", {"counts": clusters.counts.tolist(), "curve": self.curve})
        return seconds

    def _set_clusters(self, clusters: Clusters, curve: list[dict[str, float]]) -> None:
        self.searched = Searched(self.model, self.selector, self.fitted, clusters)
        self.curve = curve

    def _retrain(self) -> float:
        run, data = self.run, self.run.data
        self.plan = plan_experts(
            self.searched.clusters, data.train.labels, data.valid.labels, run.config.cluster,
            self.model.embedding, run.model().embedding,
        )  # fmt: skip
        self.retrained = retrain(run, self.plan, self.model, self.fitted.params)
        return sum(fitted.seconds for fitted in self.retrained)

    def _evaluate(self) -> float:
        start = time.monotonic()
        run = self.run
        evaluation = evaluate(run, self.base, self.searched, self.plan, self.retrained)
        bundle = Bundle(
            config=run.config,
            searched=self.source.config.model,
            schema=run.data.schema,
            kept=tuple(expert.kept for expert in self.plan.experts),
            routes=self.plan.routes,
            router={"params": self.fitted.params, "centroids": self.searched.clusters.centroids},
            weights=tuple((fitted.params, fitted.batch_stats) for fitted in self.retrained),
        )
        save_bundle(bundle, run.workdir / "bundle")
        seconds = time.monotonic() - start
        names = {"base": run.config.model.name, "search": self.source.config.model.name}
        self.metrics = evaluation.metrics | {
            "models": names | {"ihas": run.config.model.name},
            "kmeans": self.curve,
            "seconds": self.seconds | {"evaluate": round(seconds, 3)},
        }
        histories = {"base": self.base.history, "search": self.fitted.history} | {
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


def _describe(data: Dataset) -> str:
    rows = [len(split.labels) for split in (data.train, data.valid, data.test)]
    return (
        f"{sum(rows):,} rows ({rows[0]:,} train, {rows[1]:,} valid, {rows[2]:,} test), "
        f"{len(data.schema.sizes)} fields, {sum(data.schema.sizes):,} values"
    )
